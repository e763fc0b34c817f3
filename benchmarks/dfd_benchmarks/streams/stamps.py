"""Frame numbers written into pictures, to be read again behind an encoder and a network.

A strip of black and white blocks in the bottom left corner holds the number and a check sum. A
block covers whole macroblocks of H.264 or a quarter of one, and only its middle is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError

#: Numbers are written modulo this.
NUMBERS = 1 << 16
_NUMBER_BITS = 16
_CHECK_BITS = 8
_BITS = _NUMBER_BITS + _CHECK_BITS
#: Sides of a block in pixels, in pictures less wide than `_WIDE` and others.
_SMALL, _LARGE, _WIDE = 8, 16, 640
#: Black and white of a block lie at least so far from the middle, of 255.
_CONTRAST = 40.0
_CHECK_POLYNOMIAL = 0x07


def write_stamp(image: NDArray[np.uint8], number: int) -> None:
    """Writes a number into a picture, in place.

    Args:
        image: uint8 [height, width, 3] or [height, width].
        number: 0 or more; written modulo `NUMBERS`.

    Raises:
        UsageError: The picture is too small.
    """
    side = _block_side(image)
    number %= NUMBERS
    word = number << _CHECK_BITS | _check(number)
    top = image.shape[0] - side
    for place in range(_BITS):
        white = word >> (_BITS - 1 - place) & 1
        image[top:, place * side : (place + 1) * side] = 255 * white


def read_stamp(image: NDArray[np.uint8]) -> int | None:
    """Reads the number of a picture; None where there is none or it is damaged.

    Args:
        image: uint8 [height, width, 3] or [height, width].

    Raises:
        UsageError: The picture is too small to hold one.
    """
    side = _block_side(image)
    margin = side // 4
    strip = image[image.shape[0] - side + margin : image.shape[0] - margin, : _BITS * side]
    blocks = strip.reshape(strip.shape[0], _BITS, side, -1)[:, :, margin : side - margin]
    levels = blocks.mean(axis=(0, 2, 3))
    if np.abs(levels - 127.5).min() < _CONTRAST:
        return None
    word = 0
    for level in levels:
        word = word << 1 | int(level > 127.5)
    number = word >> _CHECK_BITS
    return number if _check(number) == word & (1 << _CHECK_BITS) - 1 else None


def _block_side(image: NDArray[np.uint8]) -> int:
    height, width = image.shape[:2]
    side = _LARGE if width >= _WIDE else _SMALL
    if width < _BITS * side or height < 2 * side:
        raise UsageError(
            f"pictures of {width}x{height} cannot be stamped; give {_BITS * _SMALL}x{2 * _SMALL} "
            "or more"
        )
    return side


def _check(number: int) -> int:
    """CRC-8 of a number's two bytes; never that of an all-black or all-white strip."""
    check = 0xA5
    for byte in number.to_bytes(_NUMBER_BITS // 8, "big"):
        check ^= byte
        for _ in range(8):
            check = (check << 1 ^ (_CHECK_POLYNOMIAL if check & 0x80 else 0)) & 0xFF
    return check
