"""The compared face detectors behind one interface.

Haar cascades: Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features",
2001, as OpenCV ships them. dlib: histograms of oriented gradients under a linear classifier (Dalal
and Triggs, 2005), as dlib trained it; its package is optional. BlazeFace: the runtime's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np

from dfd_edge.errors import UsageError
from dfd_edge.faces import FaceDetector
from dfd_edge.sources import Image
from dfd_training.data.croppers import (
    LEAST_PX,
    dlib_faces,
    dlib_is_there,
    least_face_px,
    open_cascade,
    open_dlib,
    shrunk,
)

DLIB_MISSING = "dlib is not installed, so it is left out: pip install 'dfd-edge[dlib]'"

#: Longer side of the searched frames in pixels.
SEARCHED_PX = 640

#: Smiles are accepted at this multiple of the neighbours that faces need.
_SMILE_FACTOR = 4
#: Two boxes that overlap by more than this intersection over union are one face.
SAME_FACE = 0.3
#: Eyes lie in this share of a face from its top; a smile below it.
_EYES_SHARE = 0.6

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares of the frame's width and height."""


class Pass(StrEnum):
    """One search of a frame."""

    FRONTAL = "Haar frontal"
    PROFILE = "Haar profile"
    EYES = "Haar eyes"
    SMILE = "Haar smile"
    BLAZEFACE = "BlazeFace"
    DLIB = "dlib HOG"


@dataclass(frozen=True, slots=True)
class HaarOptions:
    """Parameters of the Haar cascades, OpenCV's `detectMultiScale`.

    Attributes:
        scale: Factor between two sizes of the search window (`scaleFactor`).
        neighbours: Overlapping windows that make a face or an eye (`minNeighbors`).
        least_px: Smallest face in pixels of the searched frame (`minSize`); None for a twelfth of
            its shorter side, but at least 20.

    Raises:
        UsageError: A value is out of range.
    """

    scale: float = 1.2
    neighbours: int = 5
    least_px: int | None = None

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float | None, float, float]] = {
            "--haar-scale": (self.scale, 1.01, 3.0),
            "--haar-neighbours": (self.neighbours, 1, 100),
            "--haar-size": (self.least_px, LEAST_PX, SEARCHED_PX),
        }
        for option, (value, least, most) in ranges.items():
            if value is not None and not least <= value <= most:
                raise UsageError(f"{option} {value:g}: give a number from {least:g} to {most:g}")


DETECTORS: dict[str, tuple[Pass, ...]] = {
    "Haar cascades": (Pass.FRONTAL, Pass.PROFILE),
    "BlazeFace (this project)": (Pass.BLAZEFACE,),
    "dlib HOG": (Pass.DLIB,),
}
"""The compared detectors, and the passes whose boxes are their faces."""


@dataclass(frozen=True, slots=True)
class PassResult:
    """Detections of one pass in a frame.

    Attributes:
        boxes: Boxes of the faces, eyes or smiles; they may reach a little beyond 0 and 1.
        cpu_ms: CPU time of the thread in milliseconds, without waiting for a busy core.
    """

    boxes: tuple[Box, ...]
    cpu_ms: float


class DetectorSet:
    """All installed detectors, opened once.

    Args:
        with_smile: Search for smiles too; the cascade mistakes many folds and shadows for one.
        haar: Parameters of the cascades.

    Attributes:
        passes: The passes that run on each frame.

    Raises:
        UsageError: OpenCV was installed without its cascades.
    """

    def __init__(self, *, with_smile: bool = False, haar: HaarOptions | None = None) -> None:
        self._haar = haar or HaarOptions()
        self._frontal = open_cascade("frontalface_default")
        self._profile = open_cascade("profileface")
        self._eye = open_cascade("eye")
        self._smile = open_cascade("smile") if with_smile else None
        self._blazeface = FaceDetector(threads=1)
        self._dlib = open_dlib() if dlib_is_there() else None
        optional = {Pass.SMILE: self._smile, Pass.DLIB: self._dlib}
        self.passes = tuple(item for item in Pass if optional.get(item, item) is not None)

    def search(self, image: Image) -> dict[Pass, PassResult]:
        """Runs every pass over a frame, scaled down to `SEARCHED_PX` where it is larger.

        Args:
            image: uint8 [height, width, 3], BGR.
        """
        small = shrunk(image, SEARCHED_PX)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
        frontal = _timed(lambda: self._faces(self._frontal, grey), grey)
        profile = _timed(lambda: self._profiles(grey), grey)
        faces = [*frontal.boxes, *(box for box in profile.boxes if not _any_same(box, frontal))]
        results = {
            Pass.FRONTAL: frontal,
            Pass.PROFILE: PassResult(tuple(faces[len(frontal.boxes) :]), profile.cpu_ms),
            Pass.EYES: _timed(lambda: self._eyes(grey, faces), grey),
        }
        if self._smile is not None:
            results[Pass.SMILE] = _timed(lambda: self._smiles(grey, faces), grey)
        results[Pass.BLAZEFACE] = _timed(lambda: self._blazeface_faces(small), grey)
        if self._dlib is not None:
            results[Pass.DLIB] = _timed(lambda: self._dlib_faces(small), grey)
        return results

    def blazeface(self, image: Image) -> PassResult:
        """Runs the runtime's detector alone over a frame, as `search` does."""
        small = shrunk(image, SEARCHED_PX)
        return _timed(lambda: self._blazeface_faces(small), small[:, :, 0])

    def _faces(self, cascade: cv2.CascadeClassifier, grey: Image) -> list[Box]:
        least = self._haar.least_px or least_face_px(grey)
        found = cascade.detectMultiScale(
            grey, self._haar.scale, self._haar.neighbours, minSize=(least, least)
        )
        return _corners(found)

    def _profiles(self, grey: Image) -> list[Box]:
        """Finds faces in profile, to one side directly and to the other by mirroring."""
        width = grey.shape[1]
        boxes = self._faces(self._profile, grey)
        mirrored = self._faces(self._profile, np.ascontiguousarray(grey[:, ::-1]))
        for x0, y0, x1, y1 in mirrored:
            box = (width - x1, y0, width - x0, y1)
            if all(overlap(box, other) <= SAME_FACE for other in boxes):
                boxes.append(box)
        return boxes

    def _eyes(self, grey: Image, faces: list[Box]) -> list[Box]:
        return self._inside(self._eye, grey, faces, (0.0, _EYES_SHARE), self._haar.neighbours)

    def _smiles(self, grey: Image, faces: list[Box]) -> list[Box]:
        assert self._smile is not None
        neighbours = _SMILE_FACTOR * self._haar.neighbours
        return self._inside(self._smile, grey, faces, (_EYES_SHARE, 1.0), neighbours)

    def _inside(
        self,
        cascade: cv2.CascadeClassifier,
        grey: Image,
        faces: list[Box],
        rows: tuple[float, float],
        neighbours: int,
    ) -> list[Box]:
        """Runs a cascade on a horizontal band of each face."""
        height, width = grey.shape
        # Eyes are small: windows between those of faces are searched too.
        scale = 1 + (self._haar.scale - 1) / 2
        boxes: list[Box] = []
        for fx0, fy0, fx1, fy1 in faces:
            x0, x1 = round(max(0.0, fx0) * width), round(min(1.0, fx1) * width)
            tall = fy1 - fy0
            y0 = round(max(0.0, fy0 + rows[0] * tall) * height)
            y1 = round(min(1.0, fy0 + rows[1] * tall) * height)
            band = np.ascontiguousarray(grey[y0:y1, x0:x1])
            if min(band.shape, default=0) < LEAST_PX:
                continue
            found = cascade.detectMultiScale(band, scale, neighbours)
            boxes += [_box(x0 + a, y0 + b, x0 + c, y0 + d) for a, b, c, d in _corners(found)]
        return boxes

    def _blazeface_faces(self, small: Image) -> list[Box]:
        return [_box(*(float(side) for side in f.box)) for f in self._blazeface.detect(small)]

    def _dlib_faces(self, small: Image) -> list[Box]:
        return [_box(*(float(side) for side in box)) for box in dlib_faces(self._dlib, small)]


def faces_of(found: dict[Pass, PassResult], detector: str) -> list[Box] | None:
    """Returns the faces that a detector found in a frame; None where it did not run."""
    passes = DETECTORS[detector]
    if passes[0] not in found:
        return None
    return [box for item in passes for box in found[item].boxes]


def overlap(first: Box, second: Box) -> float:
    """Returns intersection over union of two boxes, in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def _any_same(box: Box, found: PassResult) -> bool:
    return any(overlap(box, other) > SAME_FACE for other in found.boxes)


def _timed(search: Callable[[], list[Box]], grey: Image) -> PassResult:
    """Runs a search that returns pixels, and converts them to shares of the frame."""
    height, width = grey.shape
    start_s = time.thread_time()
    boxes = search()
    cpu_ms = (time.thread_time() - start_s) * 1e3
    shares = (_box(x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in boxes)
    return PassResult(tuple(shares), cpu_ms)


def _box(x0: float, y0: float, x1: float, y1: float) -> Box:
    return (x0, y0, x1, y1)


def _corners(found: Any) -> list[Box]:  # noqa: ANN401 - an empty tuple or an array [n, 4]
    return [_box(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in found]
