"""Still pictures."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.sources.formats import image_format
from dfd_edge.sources.frame import Image, check_size
from dfd_edge.sources.quiet import quiet_opencv
from dfd_edge.sources.video import read_head

_END_MARKERS = {"jpeg": b"\xff\xd9", "png": b"IEND"}
#: Some programs add data of their own after the picture.
_TAIL_BYTES = 65536
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_image(path: str | Path) -> Image:
    """Reads a JPEG, PNG, WebP, BMP or TIFF picture, upright by its EXIF orientation.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        SourceError: The file is missing, a folder, unreadable, empty, no picture, cut off or of
            absurd dimensions.
    """
    path = Path(path)
    kind = image_format(read_head(path))
    if kind is None:
        raise SourceError(f"{path}: not a picture (JPEG, PNG, WebP, BMP and TIFF are read)")
    data = path.read_bytes()
    size = _stated_size(data, kind)
    if size is not None:
        _refuse_absurd(path, *size)
    if kind in _END_MARKERS and _END_MARKERS[kind] not in data[-_TAIL_BYTES:]:
        raise SourceError(f"{path}: the picture is cut off (no end marker)")
    try:
        with quiet_opencv():
            decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{path}: the picture cannot be decoded ({error.err})") from error
    if decoded is None:
        raise SourceError(f"{path}: the picture cannot be decoded; damaged or cut off")
    image = np.asarray(decoded, dtype=np.uint8)
    _refuse_absurd(path, image.shape[1], image.shape[0])
    return image


def _refuse_absurd(path: Path, width: int, height: int) -> None:
    refusal = check_size(str(path), width, height)
    if refusal:
        raise SourceError(refusal)


def _stated_size(data: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height by the header, before memory is spent; None where it is not found."""
    if kind == "png" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if kind == "bmp" and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    if kind == "jpeg":
        return _jpeg_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
