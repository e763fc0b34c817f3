"""Tracks people: detections of successive frames are joined by place, motion and appearance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.crop import crop_region, cut
from dfd_edge.faces.detector import Face, box_overlap
from dfd_edge.sources.frames import Pixels


def assign(costs: NDArray[np.float64], *, unpaired: float) -> list[tuple[int, int]]:
    """Minimum-cost assignment of rows to columns (Hungarian algorithm).

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant, 1987), O(n^3): meant
    for the faces of a frame. A pair that costs `unpaired` or more is not made.

    Args:
        costs: [rows, columns]; infinite where a pair is impossible.
        unpaired: Cost of a row without a partner.

    Returns:
        The pairs of row and column, by row.
    """
    rows, columns = costs.shape
    if not rows or not columns:
        return []
    # Each row may also go to a column of its own, which stands for no partner.
    alone = np.full((rows, rows), np.inf)
    np.fill_diagonal(alone, unpaired)
    usable = np.where(costs < unpaired, costs, np.inf)
    everything = np.hstack([usable, alone])
    width = columns + rows
    row_price = np.zeros(rows + 1)
    column_price = np.zeros(width + 1)
    row_of = np.full(width + 1, rows)  # the last column is where each search starts
    for row in range(rows):
        row_of[width] = row
        column = width
        shortest = np.full(width, np.inf)
        before = np.full(width, width)
        done = np.zeros(width + 1, bool)
        while row_of[column] != rows:
            done[column] = True
            here = row_of[column]
            reduced = everything[here] - row_price[here] - column_price[:width]
            better = ~done[:width] & (reduced < shortest)
            shortest[better] = reduced[better]
            before[better] = column
            column = int(np.argmin(np.where(done[:width], np.inf, shortest)))
            step = shortest[column]
            row_price[row_of[done]] += step
            column_price[done] -= step
            shortest[~done[:width]] -= step
        while column != width:
            row_of[column] = row_of[before[column]]
            column = int(before[column])
    return sorted((int(row_of[j]), j) for j in range(columns) if row_of[j] != rows)


#: Side of the measured square over the size of the face box: it includes hair and collar.
_SCALE = 1.5
_SIDE = 24
_PATTERN_SIDE = 12
#: Standard deviation in grey levels below which a pattern is more noise than face.
_FLAT = 4.0
_BINS = 8
_CHROMA = (104, 151)
_LEVELS = np.arange(256, dtype=np.uint8)
_WITHIN = np.stack([_LEVELS, np.clip(_LEVELS, *_CHROMA), np.clip(_LEVELS, *_CHROMA)], axis=1)[None]
#: Changes of colour and pattern that, together, one person does not show in 0.2 s. Of 4,135 steps
#: in 212 clips one went beyond either pair (on to a false detection); of 6,174 pairs of people from
#: different clips 5,930 did. Light that is switched changes the colours and not the pattern.
OTHER_PERSON = ((0.2, 0.5), (0.3, 0.35))


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """Appearance of a face: colours, and the pattern of light and dark.

    It shows when a track went on to another person. The cues fail at different times: the colours
    of face, hair and collar stay when a head turns, the pattern when the light changes. Neither
    recognises a person again.

    Attributes:
        colours: float32 [512], square roots of the shares of 8x8x8 colours (Lab).
        pattern: float32 [144], grey at 12x12, without its mean, of length 1 (less where flat).
    """

    colours: NDArray[np.float32]
    pattern: NDArray[np.float32]

    @classmethod
    def of(cls, frame: Pixels, box: NDArray[np.float32]) -> Appearance:
        """Measures a face.

        Args:
            frame: uint8 [height, width, 3], BGR, or a picture, of which the face is converted.
            box: float32 [4], x0, y0, x1, y1 in pixels.
        """
        # Every n-th pixel first, which costs the same however large the face is.
        square = cv2.resize(
            cut(frame, crop_region(box, _SCALE)),
            (2 * _SIDE, 2 * _SIDE),
            interpolation=cv2.INTER_NEAREST,
        )
        small = cv2.resize(square, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2Lab), np.uint8)
        size = (_PATTERN_SIDE, _PATTERN_SIDE)
        light = cv2.resize(lab[:, :, 0], size, interpolation=cv2.INTER_AREA)
        pattern = light.ravel().astype(np.float32)
        pattern -= pattern.mean()
        pattern /= math.sqrt(float(pattern @ pattern)) + _FLAT * _PATTERN_SIDE
        return cls(colours=_colours(lab), pattern=pattern)

    def colour_change(self, other: Appearance) -> float:
        """Returns the squared Hellinger distance of the colours, in [0, 1]; 0 where equal."""
        return max(0.0, 1.0 - float(self.colours @ other.colours))

    def pattern_change(self, other: Appearance) -> float:
        """Returns one minus the correlation of the patterns, in [0, 2]; about 1 if unrelated."""
        return max(0.0, 1.0 - float(self.pattern @ other.pattern))

    def is_other(self, other: Appearance) -> bool:
        """Returns whether this can hardly be the same person a moment later."""
        colours, pattern = self.colour_change(other), self.pattern_change(other)
        return any(colours > c and pattern > p for c, p in OTHER_PERSON)


def _colours(lab: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the square roots of the colours' shares: float32 [512], of length 1."""
    within = cv2.LUT(lab, _WITHIN)  # no colour falls beside the bins
    chroma = (_CHROMA[0], _CHROMA[1] + 1)
    counts = cv2.calcHist([within], [0, 1, 2], None, [_BINS] * 3, [0, 256, *chroma, *chroma])
    # Light that changes a little moves colours over the bounds of the bins.
    smooth = cv2.GaussianBlur(
        counts.reshape(_BINS, -1), (1, 3), 0, borderType=cv2.BORDER_REFLECT
    ).ravel()
    shares: NDArray[np.float32] = np.sqrt(smooth * np.float32(1.0 / _SIDE**2))
    return shares


MAX_GAP_S = 2.0
MAX_SHIFT = 0.8
MAX_GROWTH = 1.8
STILL_WEIGHT = 0.5
MOTION_GAIN = 3.0
#: Time constant, in seconds, in which the velocity of an unseen face fades.
COAST_S = 1.0
#: Share of the newest motion in a track's velocity.
VELOCITY_WEIGHT = 0.6
#: Costs of a change of colours, and of pattern up to 1, relative to a shift by one face size.
COLOUR_COST = 1.5
PATTERN_COST = 0.75
#: Cost of another place in the picture, for a person who was not seen for long.
PLACE_COST = 0.5
#: The same for moments seconds apart, and where a frame has one face and there was one person only.
#: None of 678 pairs of moments, 1 to 8 s apart in 64 clips, went beyond either; of 47,400 pairs of
#: people from different clips 91 % and 73 % did.
OTHER_APART = ((0.4, 0.4),)
OTHER_LONE = ((0.5, 0.5),)
#: Above the cost of any pair of one person, so that fast motion ends no track.
UNPAIRED_COST = 2.5
#: Faces that overlap by more show parts of each other: their appearance is neither stored nor
#: compared.
MAX_SHARED_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A detection that belongs to a person.

    Attributes:
        track: Number of the person, from 1, unique within the tracker's life.
        face: The detection, its box smoothed over time within this track only.
    """

    track: int
    face: Face


@dataclass(slots=True, eq=False)
class _Track:
    number: int
    box: NDArray[np.float32]
    centre: NDArray[np.float32]
    time_s: float
    look: Appearance | None
    velocity: NDArray[np.float32] | None = None

    def expected(self, time_s: float) -> NDArray[np.float32]:
        """Returns the box at constant velocity, which fades over `COAST_S`."""
        if self.velocity is None:
            return self.box
        coasted_s = COAST_S * (1.0 - math.exp(-(time_s - self.time_s) / COAST_S))
        moved: NDArray[np.float32] = self.box + np.tile(self.velocity * coasted_s, 2)
        return moved.astype(np.float32)

    def looks_other(self, look: Appearance | None) -> bool:
        """Returns whether a face of this appearance can hardly be this person."""
        return look is not None and self.look is not None and look.is_other(self.look)


class Tracker:
    """Joins detections into tracks; one instance a stream, not to be shared.

    Faces and tracks are paired at minimum total cost: distance from the predicted place in face
    sizes, growth, overlap, and change of appearance. A face can join a track whose last or
    predicted place is less than `MAX_SHIFT` sizes away and whose size is within `MAX_GROWTH`,
    unless it looks like another person: so a track ends at a cut to another person. Tracks unseen
    for `max_gap_s` end, and a person who returns later gets a new number.

    Args:
        max_gap_s: Seconds after which an unseen track ends.
        apart: Whether the frames lie any time apart, as moments of a film do. Then no track ends:
            after `max_gap_s` a person is recognised by looks and size of picture, wherever the
            face is.
    """

    def __init__(self, *, max_gap_s: float = MAX_GAP_S, apart: bool = False) -> None:
        self._max_gap_s = max_gap_s
        self._apart = apart
        self._tracks: list[_Track] = []
        self._last_number = 0

    def update(
        self, faces: list[Face], time_s: float, frame: Pixels | None = None
    ) -> list[TrackedFace]:
        """Assigns each face of one frame to a track.

        Args:
            faces: The detections of the frame.
            time_s: The frame's time in seconds; a step back ends all tracks.
            frame: As of `Appearance.of`, for what the faces look like; without it they are
                distinguished by place and motion alone.

        Returns:
            The tracked faces, in the order of `faces`.
        """
        if not self._apart:
            self._tracks = [track for track in self._tracks if self._is_recent(track, time_s)]
        looks = [None if frame is None else Appearance.of(frame, face.box) for face in faces]
        alone = [
            all(
                other is face or box_overlap(face.box, other.box) <= MAX_SHARED_LOOK
                for other in faces
            )
            for face in faces
        ]
        costs = np.full((len(faces), len(self._tracks)), np.inf)
        for column, track in enumerate(self._tracks):
            if not self._is_recent(track, time_s):
                lone = len(faces) == len(self._tracks) == 1
                costs[:, column] = [
                    _cost_apart(track, face, look, lone=lone)
                    for face, look in zip(faces, looks, strict=True)
                ]
                continue
            expected = track.expected(time_s)
            for row, face in enumerate(faces):
                look = looks[row]
                if not (alone[row] and track.looks_other(look)):
                    costs[row, column] = _cost(track, expected, face, look)
        pairs = dict(assign(costs, unpaired=UNPAIRED_COST))
        known = list(self._tracks)
        tracked = []
        for row, (face, look) in enumerate(zip(faces, looks, strict=True)):
            column_of = pairs.get(row)
            track_of = None if column_of is None else known[column_of]
            tracked.append(self._follow(track_of, face, look, time_s, alone=alone[row]))
        return tracked

    def _is_recent(self, track: _Track, time_s: float) -> bool:
        return 0.0 <= time_s - track.time_s <= self._max_gap_s

    def _follow(
        self,
        track: _Track | None,
        face: Face,
        look: Appearance | None,
        time_s: float,
        *,
        alone: bool,
    ) -> TrackedFace:
        centre = _centre(face.box)
        if track is None:
            self._last_number += 1
            track = _Track(self._last_number, face.box, centre, time_s, look)
            self._tracks.append(track)
            return TrackedFace(track=track.number, face=face)
        passed_s = time_s - track.time_s
        if not self._is_recent(track, time_s):
            track.box, track.velocity = face.box, None
        elif passed_s > 0.0:
            velocity = (centre - track.centre) / passed_s
            if track.velocity is not None:
                velocity = track.velocity + VELOCITY_WEIGHT * (velocity - track.velocity)
            track.velocity = np.asarray(velocity, np.float32)
        track.box = _smoothed(track.box, face.box)
        track.centre = centre
        track.time_s = time_s
        if look is not None and (alone or track.look is None):
            track.look = look
        smooth = Face(box=track.box, keypoints=face.keypoints, score=face.score)
        return TrackedFace(track=track.number, face=smooth)


def _size(box: NDArray[np.float32]) -> float:
    return max(float(box[2] - box[0]), float(box[3] - box[1]), 1e-6)


def _centre(box: NDArray[np.float32]) -> NDArray[np.float32]:
    centre: NDArray[np.float32] = (box[:2] + box[2:]) / np.float32(2.0)
    return centre


def _distance(box: NDArray[np.float32], face: Face) -> float:
    """Returns the distance between the centres, in sizes of the larger face."""
    shift = np.hypot(*(_centre(face.box) - _centre(box)))
    return float(shift) / max(face.size, _size(box))


def _cost(
    track: _Track, expected: NDArray[np.float32], face: Face, look: Appearance | None
) -> float:
    """Returns the cost of assigning a face to a track; infinite where it cannot be it."""
    growth = face.size / _size(track.box)
    if not 1.0 / MAX_GROWTH <= growth <= MAX_GROWTH:
        return math.inf
    distance = _distance(expected, face)
    if min(distance, _distance(track.box, face)) > MAX_SHIFT:
        return math.inf
    cost = min(distance, 1.0) + abs(math.log(growth)) - box_overlap(expected, face.box)
    if look is None or track.look is None:
        return cost
    colours, pattern = look.colour_change(track.look), look.pattern_change(track.look)
    # Below the cost of being left alone, whatever the light does.
    return min(
        cost + COLOUR_COST * colours + PATTERN_COST * min(pattern, 1.0), 0.99 * UNPAIRED_COST
    )


def _cost_apart(track: _Track, face: Face, look: Appearance | None, *, lone: bool) -> float:
    """Returns the cost of assigning a face to a track that was not seen for long.

    Args:
        track: The track.
        face: The face.
        look: What it looks like, if that was measured.
        lone: Whether there is no other face and no other track.
    """
    # People keep their places in a picture more often than they change them.
    cost = PLACE_COST * min(_distance(track.box, face), 1.0)
    if look is None or track.look is None:
        return cost
    colours, pattern = look.colour_change(track.look), look.pattern_change(track.look)
    limits = OTHER_LONE if lone else OTHER_APART
    if any(colours > c and pattern > p for c, p in limits):
        return math.inf
    return cost + COLOUR_COST * colours + PATTERN_COST * min(pattern, 1.0)


def _smoothed(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """Averages a still face's box against detector jitter, and follows a moving one at once."""
    motion = float(np.abs(new - old).max()) / max(_size(old), _size(new))
    weight = min(1.0, STILL_WEIGHT + MOTION_GAIN * motion)
    blended: NDArray[np.float32] = ((1.0 - weight) * old + weight * new).astype(np.float32)
    return blended
