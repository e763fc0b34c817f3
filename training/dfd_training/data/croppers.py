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
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from dfd_edge.errors import UsageError
from dfd_edge.faces import DETECTOR_NAME, Face, FaceDetector, FaceFinder
from dfd_edge.faces.cropped import frontal_face
from dfd_edge.sources.frames import Image, Pixels, whole
from dfd_training.data.names import CropperName

#: Longer side of the searched frames in pixels: dlib finds faces from 80 px on.
SEARCHED_PX = 1280

_SCALE_STEP = 1.2
_NEIGHBOURS = 5
#: The smallest face that a cascade searches for, over the frame's shorter side, and the side of the
#: windows that the face cascades were trained on, in pixels.
_LEAST_SHARE = 1 / 12
LEAST_PX = 20

Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the searched picture."""


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
        name = "frontalface_default"
        self._cascade = open_cascade(name)
        self.sha256 = hashlib.sha256(_cascade_file(name).read_bytes()).hexdigest()
        self.settings: dict[str, float] = {
            "scale_step": _SCALE_STEP,
            "neighbours": _NEIGHBOURS,
            "least_share": _LEAST_SHARE,
            "searched_px": SEARCHED_PX,
        }

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Returns the faces of a frame, uint8 [height, width, 3], BGR, the largest first."""
        image = whole(frame)
        grey = np.asarray(cv2.cvtColor(shrunk(image, SEARCHED_PX), cv2.COLOR_BGR2GRAY), np.uint8)
        least = least_face_px(grey)
        found = self._cascade.detectMultiScale(
            grey, _SCALE_STEP, _NEIGHBOURS, minSize=(least, least)
        )
        return _faces([(x, y, x + w, y + h) for x, y, w, h in found], image)


class DlibCropper:
    """dlib's detector for faces seen from the front.

    Raises:
        UsageError: dlib is not installed.
    """

    name = "dlib_hog"

    def __init__(self) -> None:
        self._detector = open_dlib()
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
        image = whole(frame)
        return _faces(dlib_faces(self._detector, shrunk(image, SEARCHED_PX)), image)


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


def open_dlib() -> Any:  # noqa: ANN401 - dlib is optional and untyped
    """Opens dlib's detector for faces seen from the front.

    Raises:
        UsageError: dlib is not installed.
    """
    if not dlib_is_there():
        raise UsageError("detector dlib: dlib is not installed: pip install 'dfd-edge[dlib]'")
    import dlib  # noqa: PLC0415 - optional

    return dlib.get_frontal_face_detector()


def dlib_faces(detector: Any, image: Image) -> list[Corners]:  # noqa: ANN401 - as of `open_dlib`
    """Returns the boxes that dlib's detector finds in a picture, uint8 BGR."""
    found = detector(np.ascontiguousarray(image[:, :, ::-1]), 0)
    return [(f.left(), f.top(), f.right() + 1, f.bottom() + 1) for f in found]


def open_cascade(name: str) -> cv2.CascadeClassifier:
    """Opens one of OpenCV's cascades.

    Raises:
        UsageError: OpenCV was installed without it.
    """
    return cv2.CascadeClassifier(str(_cascade_file(name)))


def least_face_px(grey: Image) -> int:
    """Returns the smallest face that a cascade searches for in a picture by default, in pixels."""
    side: int = min(grey.shape)
    return max(LEAST_PX, round(side * _LEAST_SHARE))


def shrunk(image: Image, longest: int) -> Image:
    """Returns the picture scaled down to a longer side of at most `longest` pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cascade_file(name: str) -> Path:
    path = Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml"
    if not path.is_file():
        raise UsageError(
            f"{path.name} is not among OpenCV {cv2.__version__}'s files: "
            "pip install 'opencv-python<5'"
        )
    return path


def _faces(corners: list[Corners], image: Image) -> list[Face]:
    """Returns faces in pixels of the original frame, the largest first; score 1."""
    scale = np.float32(min(1.0, SEARCHED_PX / max(image.shape[:2])))
    boxes = [np.array(box, np.float32) / scale for box in corners]
    faces = [frontal_face(box, 1.0) for box in boxes]
    return sorted(faces, key=lambda face: face.size, reverse=True)
