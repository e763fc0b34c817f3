"""A still of an annotated frame, as a PNG file."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import cv2

from dfd_edge.sources.frames import Image

_OTHERS = re.compile(r"[^\w.-]+")
_MOST_CHARACTERS = 48
_COMPRESSION = (cv2.IMWRITE_PNG_COMPRESSION, 3)


def save_still(image: Image, source: str, time_s: float, folder: Path) -> Path:
    """Writes a still; its name is made of the source and the time, and none is overwritten.

    Args:
        image: uint8 [height, width, 3], BGR.
        source: Name of the source: a path, a camera, an address.
        time_s: Time of the frame in seconds since the start of the source.
        folder: Where to put it.

    Returns:
        Where it lies.

    Raises:
        OSError: It cannot be written; nothing half-written stays.
    """
    png = cv2.imencode(".png", image, _COMPRESSION)[1].tobytes()
    stem = f"{_stem(source)}_{time_s:.2f}s"
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                file.write(png)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path
    raise AssertionError  # the numbers do not end


def _stem(source: str) -> str:
    """What of a source's name can be part of a file's name anywhere."""
    _, scheme, rest = source.partition("://")
    name = rest.partition("?")[0] if scheme else Path(source).stem
    return _OTHERS.sub("-", name)[:_MOST_CHARACTERS].strip("-._") or "still"
