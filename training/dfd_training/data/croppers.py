"""Detectors that `prepare` cuts faces by: the runtime's own, or one of the published notebooks'.

Haar cascades: Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features",
2001, as OpenCV ships them. dlib: histograms of oriented gradients under a linear classifier (Dalal
and Triggs, 2005), as dlib trained it; its package is optional. The runtime has neither: their crops
are for comparing models, and what is fitted on them is not exported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces import DETECTOR_NAME, Face, FaceDetector, FaceFinder
from dfd_edge.faces.cropped import frontal_face
from dfd_edge.sources.frames import Pixels, whole

#: Longer side of the searched frames in pixels: dlib finds faces from 80 px on.
SEARCHED_PX = 1280

_SCALE_STEP = 1.2
_NEIGHBOURS = 5
#: The smallest face that the cascade searches for, over the frame's shorter side.
_LEAST_SHARE = 1 / 12


class CropperName(StrEnum):
    """Detectors by their names on the command line."""

    BLAZEFACE = "blazeface"
    HAAR = "haar"
    DLIB = "dlib"


class Cropper(FaceFinder, Protocol):
    """A detector that a store of crops records."""

    @property
    def name(self) -> str:
        """Its name in store, model and bundle."""

    @property
    def sha256(self) -> str:
        """Hash of its trained parameters, hexadecimal."""

    @property
    def settings(self) -> dict[str, float]:
        """Its options."""


class BlazeFaceCropper:
    """The runtime's own detector."""

    name = DETECTOR_NAME

    def __init__(self) -> None:
        self._detector = FaceDetector(threads=1)

    @property
    def sha256(self) -> str:
        """Hash of the model file, hexadecimal."""
        return self._detector.sha256

    @property
    def settings(self) -> dict[str, float]:
        """Its options."""
        return self._detector.options.to_dict()

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Returns the faces of a frame, uint8 [height, width, 3], BGR, the largest first."""
        return self._detector.detect(frame, thorough=thorough)


class HaarCropper:
    """OpenCV's cascade for faces seen from the front.

    Raises:
        UsageError: OpenCV was installed without its cascades.
    """

    name = "haar_frontalface_default"

    def __init__(self) -> None:
        path = cascade_file("frontalface_default")
        self._cascade = cv2.CascadeClassifier(str(path))
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.settings: dict[str, float] = {
            "scale_step": _SCALE_STEP,
            "neighbours": _NEIGHBOURS,
            "least_share": _LEAST_SHARE,
            "searched_px": SEARCHED_PX,
        }

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Returns the faces of a frame, uint8 [height, width, 3], BGR, the largest first."""
        small, scale = _searched(whole(frame))
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        least = max(20, round(min(grey.shape) * _LEAST_SHARE))
        found = self._cascade.detectMultiScale(
            grey, _SCALE_STEP, _NEIGHBOURS, minSize=(least, least)
        )
        return _faces([(x, y, x + w, y + h) for x, y, w, h in found], scale)


class DlibCropper:
    """dlib's detector for faces seen from the front.

    Raises:
        UsageError: dlib is not installed.
    """

    name = "dlib_hog"

    def __init__(self) -> None:
        if not dlib_is_there():
            raise UsageError("detector dlib: dlib is not installed: pip install 'dfd-edge[dlib]'")
        import dlib  # noqa: PLC0415 - optional

        self._detector: Any = dlib.get_frontal_face_detector()
        self.settings: dict[str, float] = {"searched_px": SEARCHED_PX}

    @property
    def sha256(self) -> str:
        """Hash of its filters as dlib writes them, hexadecimal."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "detector.svm"
            self._detector.save(str(path))
            return hashlib.sha256(path.read_bytes()).hexdigest()

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Returns the faces of a frame, uint8 [height, width, 3], BGR, the largest first."""
        small, scale = _searched(whole(frame))
        found = self._detector(np.ascontiguousarray(small[:, :, ::-1]), 0)
        return _faces([(f.left(), f.top(), f.right() + 1, f.bottom() + 1) for f in found], scale)


_CROPPERS: dict[CropperName, type[Cropper]] = {
    CropperName.BLAZEFACE: BlazeFaceCropper,
    CropperName.HAAR: HaarCropper,
    CropperName.DLIB: DlibCropper,
}


def open_cropper(name: CropperName) -> Cropper:
    """Opens a detector.

    Raises:
        UsageError: It is not installed.
    """
    return _CROPPERS[name]()


def check_exportable(detector: str | None, source: object) -> None:
    """Refuses crops that were cut by a detector that the runtime does not have.

    Args:
        detector: Its name as a model or a store carries it; None where it carries none.
        source: The model or store, for the message.

    Raises:
        UsageError: The detector is not the runtime's.
    """
    if detector not in (None, DETECTOR_NAME):
        raise UsageError(
            f"{source}: its crops were cut by {detector}, the runtime cuts faces by "
            f"{DETECTOR_NAME} alone: prepare a store with --detector {CropperName.BLAZEFACE}, fit "
            "on it and export that"
        )


def dlib_is_there() -> bool:
    """Returns whether dlib can be imported."""
    return importlib.util.find_spec("dlib") is not None


def cascade_file(name: str) -> Path:
    """Returns the file of one of OpenCV's cascades.

    Raises:
        UsageError: OpenCV was installed without it.
    """
    path = Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml"
    if not path.is_file():
        raise UsageError(
            f"{path.name} is not among OpenCV {cv2.__version__}'s files: "
            "pip install 'opencv-python<5'"
        )
    return path


def _searched(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Returns a frame no larger than `SEARCHED_PX`, and its size over the original one."""
    scale = min(1.0, SEARCHED_PX / max(frame.shape[:2]))
    if scale == 1.0:
        return frame, scale
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _faces(corners: list[tuple[int, int, int, int]], scale: float) -> list[Face]:
    """Returns faces in pixels of the original frame, the largest first; score 1."""
    boxes = [np.array(box, np.float32) / np.float32(scale) for box in corners]
    faces = [frontal_face(box, 1.0) for box in boxes]
    return sorted(faces, key=lambda face: face.size, reverse=True)
