"""One frame of a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

#: Larger stills are refused before memory is spent on them (8192 x 8192).
MAX_PIXELS = 8192 * 8192
#: Larger frames of films are refused: several are held at once (8192 x 4096, 8K and a bit).
MAX_FRAME_PIXELS = 8192 * 4096
#: No limit may be set higher: libraries count the bytes of a picture in 32 bits.
MOST_PIXELS = 2**29
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


def check_size(name: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> str | None:
    """Returns why a picture of this size is refused, or None.

    The text names the source: it is the message for the user.
    """
    if min(width, height) >= MIN_SIDE and width * height <= max_pixels:
        return None
    if min(width, height) < MIN_SIDE:
        return f"{name}: too small, {width}x{height}: both sides need {MIN_SIDE} pixels or more"
    mend = "; --max-pixels raises that" if max_pixels < MOST_PIXELS else ""
    return f"{name}: too large, {width}x{height}: at most {max_pixels:,} pixels are read{mend}"
