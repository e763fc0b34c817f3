"""One frame of a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

#: Larger pictures are refused before memory is spent on them (8192 x 8192).
MAX_PIXELS = 8192 * 8192
#: A picture with a shorter side than this holds no face.
MIN_SIDE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded frame, upright.

    Attributes:
        image: uint8 [height, width, 3], BGR.
        time_s: Seconds since the start of the source.
        index: Number of the frame among the decoded frames of the source, from 0.
    """

    image: Image
    time_s: float
    index: int


def check_size(name: str, width: int, height: int) -> str | None:
    """Returns why a picture of this size is refused, or None.

    The text names the source: it is the message for the user.
    """
    if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
        return (
            f"{name}: absurd dimensions {width}x{height} "
            f"(allowed: sides from {MIN_SIDE} px, at most {MAX_PIXELS // 2**20} megapixels)"
        )
    return None
