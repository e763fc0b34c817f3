"""Whether a face can be judged at all: what is too small, dark, blurred or turned away is not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.detector import Face

MIN_FACE_PX = 32.0
MIN_LUMA = 20.0
MIN_DETAIL = 5.0
MIN_EYE_DISTANCE = 0.18


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a face votes, and if not, why.

    Attributes:
        judged: True when the face can be judged.
        reason: None, or one of "too small", "dark", "blurred", "turned away".
        detail: as `detail` measures it; infinite where nothing was measured.
    """

    judged: bool
    reason: str | None = None
    detail: float = math.inf


def assess(face: Face, crop: NDArray[np.uint8]) -> Quality:
    """Decide whether a face can be judged.

    Args:
        face: the detection, in pixels of the frame.
        crop: uint8 [size, size, 3], RGB, the crop that the model would see.
    """
    if face.size < MIN_FACE_PX:
        return Quality(False, "too small")
    luma = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
    if float(luma.mean()) < MIN_LUMA:
        return Quality(False, "dark")
    if eye_distance(face) < MIN_EYE_DISTANCE:
        return Quality(False, "turned away")
    sharpness = detail(luma)
    if sharpness < MIN_DETAIL:
        return Quality(False, "blurred", sharpness)
    return Quality(True, detail=sharpness)


def eye_distance(face: Face) -> float:
    """Distance between the eyes over the size of the face: about 0.4 from the front."""
    gap = face.keypoints[0] - face.keypoints[1]
    return float(np.hypot(gap[0], gap[1])) / max(face.size, 1e-6)


def detail(luma: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the inner half of a crop: low where focus is lost."""
    quarter = luma.shape[0] // 4
    inner = luma[quarter : luma.shape[0] - quarter, quarter : luma.shape[1] - quarter]
    return float(cv2.Laplacian(inner, cv2.CV_32F).var())


def crop_detail(crop: NDArray[np.uint8]) -> float:
    """The `detail` of a crop, uint8 [size, size, 3], RGB."""
    return detail(np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8))
