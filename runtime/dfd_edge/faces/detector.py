"""Face detection with BlazeFace, full-range model.

BlazeFace: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs",
2019. The full-range model takes 192x192 px RGB in [-1, 1] and gives, for each cell of a 48x48
grid, a box and six key points relative to the cell's centre, and a score.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces.onnx_model import face_model_sha256, open_face_model, run_face_model
from dfd_edge.sources.frames import Image, Picture, Pixels, resized, whole

DETECTOR_NAME = "blazeface_full_range"
DETECTOR_FILE = f"{DETECTOR_NAME}.onnx"

#: The same weights for inputs of any size whose sides are multiples of `WINDOW_STEP`.
WINDOWS_FILE = f"{DETECTOR_NAME}_windows.onnx"

#: Side of the model's input in pixels.
INPUT_SIZE = 192
#: The model halves its input so often: shifted by multiples of this, a picture has the same cells.
WINDOW_STEP = 32
_CELL = 4
#: Input values by grey level.
_TO_INPUT = np.arange(256, dtype=np.float32) * np.float32(1.0 / 127.5) - np.float32(1.0)
#: Rounding of a score's logit: what comes so near the least one is looked at exactly.
_LOGIT_SLACK = 1e-3
_SCORE_LOGIT_LIMIT = 100.0
#: Share of the model's input that a frame with a border takes up.
_BORDERED_SHARE = 0.5
_TILE_SHARE = 0.6
_TILE_STEP = 0.75
#: Small tiles would cover a very long frame in thousands; these cover it in larger ones.
_MAX_TILES = 12
#: The model finds faces from about 1/14 of a frame's longer side. A still is searched for smaller
#: ones if its largest is small, less thoroughly if it is medium; a film's frame, if it shows
#: several small ones.
_LARGE_SHARE = 0.25
_SMALL_SHARE = 0.125
_CROWD = 3
#: Side of the smallest tiles for small faces: those of 32 px, the smallest judged, are just found.
_FINE_TILE = 480
#: A tile takes 7 ms on one thread: these are about a second, and a sixth of one.
_MAX_FINE_TILES = 160
_MAX_CROWD_TILES = 24
#: Most faces found in a frame, the largest first: each takes the frame model some 10 ms.
MAX_FACES = 1000
#: Two detections are one face where they share this much of the smaller one.
_SAME_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face, in pixels of the frame.

    Attributes:
        box: float32 [4], x0, y0, x1, y1; from the brows to the chin, may reach beyond the frame.
        keypoints: float32 [6, 2], x and y of the subject's right eye, left eye, nose tip, mouth
            centre, right ear and left ear.
        score: The detector's confidence in [0, 1].
    """

    box: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    score: float

    @property
    def size(self) -> float:
        """The longer side of the box in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """A frame at the size at which it is searched.

    Attributes:
        square: uint8 [192, 192, 3], BGR; the frame in the middle of a black square.
        scale: Pixels of the square per pixel of the frame.
        left, top: Where the frame begins in the square.
    """

    square: NDArray[np.uint8]
    scale: float
    left: int
    top: int


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The faces of a frame.

    Attributes:
        faces: The largest first.
        at_once: Whether a single look at the whole frame found them all.
    """

    faces: list[Face]
    at_once: bool


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """Options of the detector that a bundle was trained with.

    Attributes:
        min_score: Detections below this confidence are dropped.
        max_overlap: Detections that overlap by more than this intersection over union are
            merged into one, weighted by score.
        tile_min_side: Frames whose longer side has at least this many pixels are searched again
            in overlapping square tiles when the whole frame shows no face.
    """

    min_score: float = 0.5
    max_overlap: float = 0.3
    tile_min_side: float = 400.0

    def __post_init__(self) -> None:
        for name in ("min_score", "max_overlap"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise UsageError(f"detector option {name} is {value}: it must lie between 0 and 1")
        if not self.tile_min_side >= 1.0:
            side = self.tile_min_side
            raise UsageError(f"detector option tile_min_side is {side}: give 1 or more")

    def to_dict(self) -> dict[str, float]:
        """Returns the options as plain numbers, for the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> DetectorOptions:
        """Builds the options from a manifest.

        Raises:
            UsageError: For an option that this version does not know, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown detector options {unknown}; known are {sorted(known)}")
        return cls(**values)


class FaceFinder(Protocol):
    """Finds the faces of frames."""

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Returns the faces of a frame, as of `FaceDetector.detect`, the largest first."""


class FaceDetector:
    """Finds faces in a frame; may be shared between threads.

    Attributes:
        followed: Whether streams may search less than whole frames (`FaceFollower`).
    """

    name = DETECTOR_NAME
    followed = True

    def __init__(self, *, options: DetectorOptions | None = None, threads: int = 1) -> None:
        """Opens the model.

        Args:
            options: Thresholds; the defaults are those of the shipped bundle.
            threads: Threads that onnxruntime may use inside one operator.

        Raises:
            ProviderError: When onnxruntime is not installed.
            BundleError: When the model file is missing or unreadable.
        """
        self.options = options or DetectorOptions()
        self._threads = threads
        self._session: Any = open_face_model(DETECTOR_FILE, threads=threads)
        self._input = self._session.get_inputs()[0].name
        self._least_logit = math.log(self.options.min_score / (1.0 - self.options.min_score))
        self._windows: Any = None
        self._lock = threading.Lock()

    @property
    def sha256(self) -> str:
        """Hash of the model file, hexadecimal."""
        return face_model_sha256(DETECTOR_FILE)

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Finds the faces of a frame, the largest first, at most `MAX_FACES`.

        The whole frame is searched at 192 px. When that shows nothing, the frame is searched
        again with a border round it, since the model misses most faces that fill a picture;
        and when it is large, in overlapping square tiles, so that small faces are seen. Where
        many small faces hide each other from the model, it is searched in tiles of several sizes.

        Args:
            frame: uint8 [height, width, 3], BGR, or a picture, which is converted to BGR only where
                it is searched in tiles.
            thorough: Whether to search as long as a still is worth: up to a second.
        """
        return self.search(frame, self.shrunk(frame), thorough=thorough).faces

    def search(self, frame: Pixels, shrunk: Shrunk, *, thorough: bool = False) -> Search:
        """Searches a frame, as `detect` does.

        Args:
            frame: As of `detect`.
            shrunk: The same frame.
            thorough: As of `detect`.
        """
        faces = self.search_shrunk(shrunk)
        at_once = bool(faces)
        faces = faces or self.search_shrunk(self.shrunk(frame, share=_BORDERED_SHARE))
        if not faces and max(frame.shape[:2]) >= self.options.tile_min_side:
            found: list[Face] = []
            image = whole(frame)
            for x0, y0, side in _tiles(frame.shape[1], frame.shape[0]):
                found += self._search_tile(image, x0, y0, side)
            faces = _merge(found, self.options.max_overlap)
        longer = max(frame.shape[:2])
        share = max((face.size for face in faces), default=0.0) / longer
        small = share < _SMALL_SHARE
        crowd = small and len(faces) >= _CROWD
        if longer > _FINE_TILE and (crowd or (thorough and share < _LARGE_SHARE)):
            most = _MAX_FINE_TILES if thorough and small else _MAX_CROWD_TILES
            faces = self._detect_small(whole(frame), faces, most)
            at_once = False
        faces = sorted(faces, key=lambda face: face.size, reverse=True)[:MAX_FACES]
        return Search(faces, at_once)

    def shrunk(self, frame: Pixels, *, share: float = 1.0) -> Shrunk:
        """Returns a frame whose longer side takes up this share of the model's input."""
        height, width = frame.shape[:2]
        scale = share * INPUT_SIZE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = frame.shrunk(size) if isinstance(frame, Picture) else resized(frame, size)
        left, top = (INPUT_SIZE - size[0]) // 2, (INPUT_SIZE - size[1]) // 2
        square = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
        square[top : top + size[1], left : left + size[0]] = small
        return Shrunk(square, scale, left, top)

    def search_shrunk(self, shrunk: Shrunk) -> list[Face]:
        """Runs the model on a whole frame, and returns the faces in pixels of the frame."""
        return self._run(self._session, shrunk, (0, 0), INPUT_SIZE)

    def search_window(self, shrunk: Shrunk, corner: tuple[int, int], side: int) -> list[Face]:
        """Runs the model on a square of the shrunken frame alone.

        Args:
            shrunk: The frame.
            corner: x and y of the square in it, multiples of `WINDOW_STEP`.
            side: Side of the square, a multiple of `WINDOW_STEP`.

        Returns:
            The faces in pixels of the frame.

        Raises:
            BundleError: When the model file is missing or unreadable.
        """
        with self._lock:
            if self._windows is None:
                self._windows = open_face_model(WINDOWS_FILE, threads=self._threads)
        return self._run(self._windows, shrunk, corner, side)

    def _search_tile(self, frame: Image, x0: int, y0: int, side: int) -> list[Face]:
        tile = np.ascontiguousarray(frame[y0 : y0 + side, x0 : x0 + side])
        return [_shifted(face, x0, y0) for face in self.search_shrunk(self.shrunk(tile))]

    def _detect_small(self, frame: Image, known: list[Face], most_tiles: int) -> list[Face]:
        """Adds the faces that are found in tiles, without those that a tile's edge may cut."""
        height, width = frame.shape[:2]
        found = list(known)
        for x0, y0, side in _fine_tiles(width, height, most_tiles):
            for shifted in self._search_tile(frame, x0, y0, side):
                if not _is_cut(shifted.box, (x0, y0, x0 + side, y0 + side), (width, height)):
                    found.append(shifted)
        return _without_doubles(found)

    def _run(
        self,
        session: Any,  # noqa: ANN401 - onnxruntime has no types
        shrunk: Shrunk,
        corner: tuple[int, int],
        side: int,
    ) -> list[Face]:
        x, y = corner
        part = shrunk.square[y : y + side, x : x + side]
        rgb = cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
        image = np.asarray(cv2.LUT(rgb, _TO_INPUT), np.float32)[None]
        raw, logits = run_face_model(session, self._input, image)
        likely = np.flatnonzero(logits[0, :, 0] >= self._least_logit - _LOGIT_SLACK)
        if not likely.size:
            return []
        limited = np.clip(logits[0, likely, 0], -_SCORE_LOGIT_LIMIT, _SCORE_LOGIT_LIMIT)
        scores = 1.0 / (1.0 + np.exp(-limited))
        kept = likely[scores >= self.options.min_score]
        scores = scores[scores >= self.options.min_score]
        if not kept.size:
            return []
        anchors = _anchors(side)[kept] + np.array(corner, np.float32)
        points = raw[0, kept].reshape(-1, 8, 2).astype(np.float32)
        points[:, 0] += anchors
        points[:, 2:] += anchors[:, None]
        offset = np.array([shrunk.left, shrunk.top], np.float32)
        centre = (points[:, 0] - offset) / shrunk.scale
        half = points[:, 1] / (2.0 * shrunk.scale)
        keypoints = (points[:, 2:] - offset) / shrunk.scale
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        faces = [
            Face(box=box, keypoints=keys, score=float(score))
            for box, keys, score in zip(boxes, keypoints, scores, strict=True)
        ]
        return _merge(faces, self.options.max_overlap)


@functools.cache
def _anchors(side: int) -> NDArray[np.float32]:
    """Returns x and y of the centres of the cells of an input, row by row."""
    centres = (np.arange(side // _CELL, dtype=np.float32) + 0.5) * _CELL
    grid_y, grid_x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)


def _tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """Returns square tiles (x0, y0, side) that cover a frame with overlap.

    The side is 0.6 of the frame's short side, and more where that would give too many; a tile
    may then reach beyond the frame.
    """
    side = max(1, int(min(width, height) * _TILE_SHARE))
    while len(columns := _starts(width, side)) * len(rows := _starts(height, side)) > _MAX_TILES:
        side = int(np.ceil(side * 1.1))
    return [(x0, y0, side) for y0 in rows for x0 in columns]


def _fine_tiles(width: int, height: int, most: int) -> list[tuple[int, int, int]]:
    """Returns square tiles (x0, y0, side) of several sizes, each half the one before.

    A face is smaller than the overlap of the tiles of some size, so one of them holds it whole.
    """
    smallest = float(_FINE_TILE)
    while True:
        sides = [int(smallest)]
        while 2 * sides[-1] < max(width, height):
            sides.append(2 * sides[-1])
        tiles = [
            (x0, y0, side)
            for side in reversed(sides)
            for y0 in _starts(height, side)
            for x0 in _starts(width, side)
        ]
        if len(tiles) <= most:
            return tiles
        smallest *= 1.1


def _is_cut(
    box: NDArray[np.float32], tile: tuple[int, int, int, int], frame: tuple[int, int]
) -> bool:
    """Returns whether a face reaches an edge of its tile that is not the frame's own."""
    x0, y0, x1, y1 = tile
    return bool(
        (x0 > 0 and box[0] < x0)
        or (y0 > 0 and box[1] < y0)
        or (x1 < frame[0] and box[2] > x1)
        or (y1 < frame[1] and box[3] > y1)
    )


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Returns the faces without duplicates at other scales."""
    kept: list[Face] = []
    boxes = np.empty((0, 4), np.float32)
    for face in sorted(faces, key=lambda face: face.score, reverse=True):
        if not kept or _shared(face.box, boxes).max() < _SAME_SHARE:
            kept.append(face)
            boxes = np.vstack([boxes, face.box])
    return kept


def _shared(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the intersection of a box with each other, over the area of the smaller one."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    inner = np.prod(np.maximum(high - low, 0.0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    smaller = np.minimum(areas, np.prod(box[2:] - box[:2]))
    return np.asarray(inner / np.maximum(smaller, 1e-6), np.float32)


def _starts(length: int, side: int) -> list[int]:
    if side >= length:
        return [0]
    count = max(2, int(np.ceil((length - side) / (side * _TILE_STEP))) + 1)
    return [int(start) for start in np.linspace(0, length - side, count)]


def _shifted(face: Face, x: int, y: int) -> Face:
    offset = np.array([x, y], np.float32)
    return Face(
        box=face.box + np.tile(offset, 2), keypoints=face.keypoints + offset, score=face.score
    )


def _merge(faces: list[Face], max_overlap: float) -> list[Face]:
    """Merges overlapping detections into score-weighted means (BlazeFace, section 3.4)."""
    left = sorted(faces, key=lambda face: face.score, reverse=True)
    merged: list[Face] = []
    while left:
        best = left[0]
        overlaps = _overlaps(best.box, np.stack([face.box for face in left]))
        cluster = [face for face, iou in zip(left, overlaps, strict=True) if iou > max_overlap]
        cluster = cluster or [best]
        left = [
            face for face, iou in zip(left[1:], overlaps[1:], strict=True) if iou <= max_overlap
        ]
        weights = np.array([face.score for face in cluster], np.float32)
        weights /= weights.sum()
        box = np.einsum("n,nc->c", weights, np.stack([face.box for face in cluster]))
        keypoints = np.einsum("n,nkc->kc", weights, np.stack([face.keypoints for face in cluster]))
        merged.append(
            Face(
                box=box.astype(np.float32),
                keypoints=keypoints.astype(np.float32),
                score=best.score,
            )
        )
    return merged


def _overlaps(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> list[float]:
    """Returns the `box_overlap` of a box with each of others, float32 [n, 4]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=1).astype(np.float64)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float64)
    total = float((box[2] - box[0]) * (box[3] - box[1])) + areas - shared
    overlaps: list[float] = np.divide(shared, total, out=shared, where=shared > 0.0).tolist()
    return overlaps


def box_overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Returns the intersection over union of two boxes (x0, y0, x1, y1), in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second)]
    return shared / (sum(areas) - shared)


MESH_FILE = "face_mesh_468.onnx"
LANDMARKS = 468

_REGION_SCALE = 1.5
_MIN_PRESENCE_LOGIT = 0.0


class FaceMesh:
    """The 468-point face mesh of a detected face: brows, eyes, lips, jaw.

    Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
    Training needs it to synthesise fakes; judging a frame does not. May be shared between threads.
    """

    def __init__(self, *, threads: int = 1) -> None:
        """Opens the model.

        Args:
            threads: Threads that onnxruntime may use inside one operator.

        Raises:
            ProviderError: When onnxruntime is not installed.
            BundleError: When the model file is missing or unreadable.
        """
        self._session: Any = open_face_model(MESH_FILE, threads=threads)
        self._input = self._session.get_inputs()[0].name

    def landmarks(self, frame: NDArray[np.uint8], face: Face) -> NDArray[np.float32] | None:
        """Returns float32 [468, 2], pixels of the frame, or None where the model sees no face.

        Args:
            frame: uint8 [height, width, 3], BGR.
            face: A detection in that frame.
        """
        right_eye, left_eye = face.keypoints[0], face.keypoints[1]
        angle = np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
        centre = (face.box[:2] + face.box[2:]) / 2.0
        scale = INPUT_SIZE / (face.size * _REGION_SCALE)
        cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
        to_input = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0]], np.float64)
        to_input[:, 2] = INPUT_SIZE / 2.0 - to_input[:, :2] @ centre
        region = cv2.warpAffine(frame, to_input, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR)
        image = region[None, :, :, ::-1].astype(np.float32) / 255.0
        raw, presence = run_face_model(self._session, self._input, image)
        if float(np.ravel(presence)[0]) < _MIN_PRESENCE_LOGIT:
            return None
        points = raw.reshape(LANDMARKS, 3)[:, :2].astype(np.float64)
        back = cv2.invertAffineTransform(to_input)
        mapped: NDArray[np.float32] = (points @ back[:, :2].T + back[:, 2]).astype(np.float32)
        return mapped
