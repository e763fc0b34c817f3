"""Crop geometry and crop quality, shared by training and inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces.detector import Face
from dfd_edge.inference.names import Resize
from dfd_edge.sources.frames import Pixels

CROP_SCALE = 1.5
"""Default side of the model's crop over the size of the face box: the whole head and its border.

`dfd-train prepare` records the scale that it cuts at; the runtime takes that of the bundle.
"""


_INTERPOLATIONS = {
    Resize.AREA: cv2.INTER_AREA,
    Resize.BILINEAR: cv2.INTER_LINEAR,
    # INTER_NEAREST takes the pixel to the upper left; PIL and TensorFlow the one at the centre.
    Resize.NEAREST: cv2.INTER_NEAREST_EXACT,
}


@dataclass(frozen=True, slots=True)
class CropRegion:
    """A square of whole pixels in a frame; it may reach beyond the frame's edges.

    Attributes:
        x0: Left edge in pixels.
        y0: Upper edge in pixels.
        side: Side in pixels.
    """

    x0: int
    y0: int
    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UsageError(f"a crop of side {self.side} px is empty")


def crop_region(box: NDArray[np.float32], scale: float) -> CropRegion:
    """Returns the square around a face box.

    Whole pixels keep the frame's own pixel grid: a crop at native size is a copy, not a
    resampling, whose blur would hide what forgeries leave behind.

    Args:
        box: [4], x0, y0, x1, y1 in pixels.
        scale: Side of the square over the longer side of the box.
    """
    side = max(1, round(float(max(box[2] - box[0], box[3] - box[1])) * scale))
    x0 = round(float(box[0] + box[2]) / 2.0 - side / 2.0)
    y0 = round(float(box[1] + box[3]) / 2.0 - side / 2.0)
    return CropRegion(x0=x0, y0=y0, side=side)


def middle_square(frame: Pixels) -> CropRegion:
    """Returns the largest centred square of a frame, for models that judge whole frames.

    Args:
        frame: uint8 [height, width, 3], or a picture.
    """
    height, width = frame.shape[:2]
    side = min(height, width)
    # Halves are rounded as `crop_center_square` of Keras' CNN-RNN example rounds them.
    return CropRegion(x0=width // 2 - side // 2, y0=height // 2 - side // 2, side=side)


def extract_crop(
    frame: Pixels, region: CropRegion, size: int, resize: Resize = Resize.AREA
) -> NDArray[np.uint8]:
    """Cuts a square out of a frame and resizes it for the model.

    What lies beyond the frame repeats its border.

    Args:
        frame: uint8 [height, width, 3], BGR, or a picture, of which the square is converted alone.
        region: The square to cut.
        size: Side of the result in pixels.
        resize: How it is resized; a bundle's manifest says how its model's pictures were.

    Returns:
        uint8 [size, size, 3], **RGB**, contiguous.
    """
    square = cut(frame, region)
    if region.side != size:
        method = _INTERPOLATIONS[resize]
        if resize is Resize.AREA and region.side < size:
            method = cv2.INTER_LINEAR
        square = np.asarray(cv2.resize(square, (size, size), interpolation=method), np.uint8)
    return np.ascontiguousarray(square[:, :, ::-1])


def cut(frame: Pixels, region: CropRegion) -> NDArray[np.uint8]:
    """Cuts a square at native size, in the frame's colour order, borders repeated."""
    height, width = frame.shape[:2]
    x1, y1 = region.x0 + region.side, region.y0 + region.side
    inside = frame[
        min(max(region.y0, 0), height - 1) : max(min(y1, height), 1),
        min(max(region.x0, 0), width - 1) : max(min(x1, width), 1),
    ]
    left = region.side - inside.shape[1] if region.x0 < 0 else 0
    top = region.side - inside.shape[0] if region.y0 < 0 else 0
    left, top = min(left, max(0, -region.x0)), min(top, max(0, -region.y0))
    right = region.side - inside.shape[1] - left
    bottom = region.side - inside.shape[0] - top
    if not (left or top or right or bottom):
        return inside
    padded = cv2.copyMakeBorder(
        np.ascontiguousarray(inside), top, bottom, left, right, cv2.BORDER_REPLICATE
    )
    return np.asarray(padded, dtype=np.uint8)


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
        detail: As `detail` measures it; infinite where nothing was measured.
    """

    judged: bool
    reason: str | None = None
    detail: float = math.inf


def assess(face: Face, crop: NDArray[np.uint8]) -> Quality:
    """Decides whether a face can be judged.

    Args:
        face: The detection, in pixels of the frame.
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
    """Returns the distance between the eyes over the face's size: about 0.4 from the front."""
    gap = face.keypoints[0] - face.keypoints[1]
    return float(np.hypot(gap[0], gap[1])) / max(face.size, 1e-6)


def detail(luma: NDArray[np.uint8]) -> float:
    """Returns the variance of the Laplacian of a crop's inner half: low where it is blurred."""
    quarter = luma.shape[0] // 4
    inner = luma[quarter : luma.shape[0] - quarter, quarter : luma.shape[1] - quarter]
    return float(cv2.Laplacian(inner, cv2.CV_32F).var())


def crop_detail(crop: NDArray[np.uint8]) -> float:
    """Returns the `detail` of a crop, uint8 [size, size, 3], RGB."""
    return detail(np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8))
