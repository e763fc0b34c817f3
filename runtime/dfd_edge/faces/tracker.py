"""One track per person: detections of successive frames are joined by place and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.detector import Face, box_overlap

MAX_GAP_S = 2.0
MAX_SHIFT = 0.8
MAX_GROWTH = 1.8
STILL_WEIGHT = 0.5
MOTION_GAIN = 3.0


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A detection that belongs to a person.

    Attributes:
        track: number of the person, from 1, unique within the tracker's life.
        face: the detection, its box smoothed over time within this track only.
    """

    track: int
    face: Face


@dataclass(slots=True)
class _Track:
    number: int
    box: NDArray[np.float32]
    time_s: float


class Tracker:
    """Joins detections into tracks; one instance a stream, not to be shared.

    A detection joins the track whose last box is nearest, measured in face sizes, if it moved by
    less than `MAX_SHIFT` sizes and grew or shrank by less than `MAX_GROWTH`. Tracks unseen for
    `max_gap_s` end, and a person who returns later gets a new number.
    """

    def __init__(self, *, max_gap_s: float = MAX_GAP_S) -> None:
        self._max_gap_s = max_gap_s
        self._tracks: list[_Track] = []
        self._last_number = 0

    def update(self, faces: list[Face], time_s: float) -> list[TrackedFace]:
        """Assign each face of one frame to a track.

        Args:
            faces: the detections of the frame.
            time_s: the frame's time in seconds; a step back ends all tracks.

        Returns:
            The tracked faces, in the order of `faces`.
        """
        self._tracks = [
            track for track in self._tracks if 0.0 <= time_s - track.time_s <= self._max_gap_s
        ]
        pairs = sorted(
            (cost, index, track.number)
            for index, face in enumerate(faces)
            for track in self._tracks
            if (cost := _cost(track.box, face)) is not None
        )
        by_face: dict[int, _Track] = {}
        free = {track.number: track for track in self._tracks}
        for _, index, number in pairs:
            if index not in by_face and number in free:
                by_face[index] = free.pop(number)
        return [self._follow(by_face.get(index), face, time_s) for index, face in enumerate(faces)]

    def _follow(self, track: _Track | None, face: Face, time_s: float) -> TrackedFace:
        if track is None:
            self._last_number += 1
            track = _Track(number=self._last_number, box=face.box, time_s=time_s)
            self._tracks.append(track)
            return TrackedFace(track=track.number, face=face)
        track.box = _smoothed(track.box, face.box)
        track.time_s = time_s
        smooth = Face(box=track.box, keypoints=face.keypoints, score=face.score)
        return TrackedFace(track=track.number, face=smooth)


def _size(box: NDArray[np.float32]) -> float:
    return max(float(box[2] - box[0]), float(box[3] - box[1]), 1e-6)


def _cost(box: NDArray[np.float32], face: Face) -> float | None:
    """How badly a face fits a track's last box, lower is better; None where it cannot be it."""
    growth = face.size / _size(box)
    if not 1.0 / MAX_GROWTH <= growth <= MAX_GROWTH:
        return None
    shift = np.hypot(*((face.box[:2] + face.box[2:] - box[:2] - box[2:]) / 2.0))
    relative = float(shift) / max(face.size, _size(box))
    if relative > MAX_SHIFT:
        return None
    return relative + abs(float(np.log(growth))) - box_overlap(box, face.box)


def _smoothed(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average a still face's box against detector jitter, and follow a moving one at once."""
    motion = float(np.abs(new - old).max()) / max(_size(old), _size(new))
    weight = min(1.0, STILL_WEIGHT + MOTION_GAIN * motion)
    blended: NDArray[np.float32] = ((1.0 - weight) * old + weight * new).astype(np.float32)
    return blended
