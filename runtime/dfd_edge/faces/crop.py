"""The one crop geometry: training and inference both cut faces here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError

CROP_SCALE = 1.5
"""Default side of the model's crop over the size of the face box: the whole head and its border.

`dfd-train prepare` records the scale that it cuts at; the runtime takes that of the bundle.
"""


@dataclass(frozen=True, slots=True)
class CropRegion:
    """A square of whole pixels in a frame; it may reach beyond the frame's edges.

    Attributes:
        x0: left edge in pixels.
        y0: upper edge in pixels.
        side: side in pixels.
    """

    x0: int
    y0: int
    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UsageError(f"a crop of side {self.side} px is empty")


def crop_region(box: NDArray[np.float32], scale: float) -> CropRegion:
    """Return the square round a face box.

    Whole pixels keep the frame's own pixel grid: a crop at native size is a copy, not a
    resampling, whose blur would hide what forgeries leave behind.

    Args:
        box: [4], x0, y0, x1, y1 in pixels.
        scale: side of the square over the longer side of the box.
    """
    side = max(1, round(float(max(box[2] - box[0], box[3] - box[1])) * scale))
    x0 = round(float(box[0] + box[2]) / 2.0 - side / 2.0)
    y0 = round(float(box[1] + box[3]) / 2.0 - side / 2.0)
    return CropRegion(x0=x0, y0=y0, side=side)


def middle_square(frame: NDArray[np.uint8]) -> CropRegion:
    """Return the largest square in the middle of a frame, for models that judge whole frames.

    Args:
        frame: uint8 [height, width, 3].
    """
    height, width = frame.shape[:2]
    side = min(height, width)
    return CropRegion(x0=(width - side) // 2, y0=(height - side) // 2, side=side)


def extract_crop(frame: NDArray[np.uint8], region: CropRegion, size: int) -> NDArray[np.uint8]:
    """Cut a square out of a frame and bring it to the model's size.

    What lies beyond the frame repeats its border. Shrinking averages areas, enlarging
    interpolates linearly.

    Args:
        frame: uint8 [height, width, 3], BGR.
        region: the square to cut.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3], **RGB**, contiguous.
    """
    square = cut(frame, region)
    if region.side != size:
        method = cv2.INTER_AREA if region.side > size else cv2.INTER_LINEAR
        square = np.asarray(cv2.resize(square, (size, size), interpolation=method), np.uint8)
    return np.ascontiguousarray(square[:, :, ::-1])


def cut(frame: NDArray[np.uint8], region: CropRegion) -> NDArray[np.uint8]:
    """Cut a square at native size, in the frame's colour order, borders repeated."""
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
