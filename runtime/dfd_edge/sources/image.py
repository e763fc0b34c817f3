"""Still pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.sources.formats import image_format
from dfd_edge.sources.frame import Image, check_size
from dfd_edge.sources.quiet import quiet_opencv
from dfd_edge.sources.video import read_head

_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
#: Markers without a length behind them: TEM, restarts, start and end of the picture.
_JPEG_BARE_MARKERS = frozenset([0x01, *range(0xD0, 0xDA)])


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
    if not _has_end(data, kind):
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


def _has_end(data: bytes, kind: str) -> bool:
    """Whether the end marker is there; anything may follow it, such as the clip of a motion photo.

    A JPEG's is looked for from the start of its scan, since the thumbnail before that has its own.
    """
    if kind == "jpeg":
        scan = next((at for marker, at in _jpeg_segments(data) if marker == _JPEG_SCAN), None)
        return scan is not None and data.find(b"\xff\xd9", scan) >= 0
    return kind != "png" or b"IEND" in data


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, at in _jpeg_segments(data):
        if marker in _JPEG_SIZE_MARKERS and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment up to the scan; what lies between them is passed over."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker in (0x00, 0xFF):
            at += 1
            continue
        yield marker, at
        if marker == _JPEG_SCAN:
            return
        at += 2
        if marker not in _JPEG_BARE_MARKERS:
            at += int.from_bytes(data[at : at + 2], "big")
