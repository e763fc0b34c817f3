"""Sizes and page counts that a picture's header states, read before anything is decoded.

Libraries allocate by what a header says: a file of 60 bytes may ask for gigabytes. So each format's
header is read here first, and each length in it is held against the bytes that are there.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

#: Markers of a JPEG's frame header, which states the size.
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
#: Markers without a length behind them: TEM, restarts, start and end of the picture.
_JPEG_BARE_MARKERS = frozenset([0x01, *range(0xD0, 0xDA)])

_PNM_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})(?=\s|#)")

#: TIFF tags, and the bytes of a value by its type.
_SUBFILE, _WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _SAMPLES = 254, 256, 257, 258, 262, 277
_TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 322, 323, 50706
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_CAMERA_RAW = (32803, 34892)
_MAX_TIFF_PAGES = 1000
_MAX_SAMPLES = 8
#: A decoder of JPEG 2000 holds some 15 kB for each tile.
_MAX_JP2_TILES = 8192


#: Boxes of an MP4 file that hold boxes which FFmpeg reads, and how deep it follows them.
_MP4_OUTER = frozenset(
    [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"mvex", b"moof", b"traf"]
    + [b"udta", b"sinf", b"schi", b"tref", b"wave", b"mfra"]
)
_MP4_DEPTH = 10
#: Hours of fragments of a frame each have more boxes, but larger ones.
_MP4_BOXES, _MP4_BOX_BYTES = 1_000_000, 64
_MP4_STARTS = _MP4_OUTER | {b"ftyp", b"mdat", b"wide", b"free", b"skip", b"styp", b"sidx", b"pnot"}
#: Flags of a fragment's run of samples, for each of which a sample has a number of its own.
_RUN_FIELDS = (0x100, 0x200, 0x400, 0x800)


class HeaderError(ValueError):
    """A header that cannot be true; the text says why."""


@dataclass(frozen=True, slots=True)
class Stated:
    """Size and page count that a picture's header states.

    Attributes:
        width, height: Pixels; those of the largest part that a decoder would allocate.
        pages: Pictures in the file that are meant to be seen.
    """

    width: int
    height: int
    pages: int = 1


def stated(data: bytes, kind: str) -> Stated:
    """Reads the header of a picture.

    Args:
        data: The whole file.
        kind: Its format, as `image_format` names it; not "heif" and "avif", which their own
            library opens without decoding.

    Raises:
        HeaderError: The size is not there, the file is cut off, or a length in it leads beyond its
            end.
    """
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise HeaderError("the picture is cut off (its header is incomplete)") from error


def is_animation(file: BinaryIO, kind: str) -> bool:
    """Returns whether a PNG or WebP file holds several frames.

    Args:
        file: The file, at its start.
        kind: Its format, as `image_format` names it.
    """
    if kind == "webp":
        frames = (chunk for chunk in riff_chunks(file) if chunk[0] == b"ANMF")
        return next(frames, None) is not None and next(frames, None) is not None
    if kind == "png":
        for name, at, _ in png_chunks(file):
            if name == b"IDAT":
                return False
            if name == b"acTL":
                file.seek(at)
                return int.from_bytes(file.read(4), "big") > 1
    return False


def check_fragments(file: BinaryIO) -> None:
    """Checks that the fragments of an MP4 file state no more samples than it can hold.

    FFmpeg makes room for as many as are stated, up to gigabytes. All other counts of an MP4 file it
    holds against what is there. Files of other kinds are passed over.

    Args:
        file: The file, left at its start.

    Raises:
        HeaderError: They do, or it consists of very many tiny boxes.
    """
    if file.read(8)[4:] in _MP4_STARTS:
        size = file.seek(0, io.SEEK_END)
        needed = 0
        for number, (name, at, _) in enumerate(mp4_boxes(file, 0, size)):
            if name == b"trun":
                file.seek(at)
                flags, count = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
                fields = sum(bool(flags & field) for field in _RUN_FIELDS)
                needed += count * max(1, 4 * fields)
            if needed > size or (number > _MP4_BOXES and size < _MP4_BOX_BYTES * number):
                raise HeaderError("its fragments state more than there is room for")
    file.seek(0)


def mp4_boxes(
    file: BinaryIO, at: int, end: int, depth: int = 0
) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, start and end of each box and those inside it; odd lengths as FFmpeg does."""
    while at + 8 <= end:
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return
        length, name = struct.unpack(">I4s", header[:8])
        body = at + 8
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
            body = at + 16
        stop = end if length == 0 else min(end, at + length)
        yield name, body, stop
        if name in _MP4_OUTER and depth < _MP4_DEPTH:
            yield from mp4_boxes(file, body, stop, depth + 1)
        at = max(stop, body)


def riff_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, place and length of each chunk of a WebP file, also if cut off."""
    at = 12
    while True:
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return
        name, length = struct.unpack("<4sI", header)
        yield name, at + 8, length
        at += 8 + length + length % 2


def webp_size(data: bytes) -> tuple[int, int]:
    """Returns width and height by the first chunk of a WebP file: VP8X, VP8L or VP8.

    Raises:
        HeaderError: It is another chunk.
        struct.error: It is cut off.
    """
    name = data[12:16]
    if name == b"VP8X":
        packed = struct.unpack("<HBHB", data[24:30])
        return 1 + packed[0] + (packed[1] << 16), 1 + packed[2] + (packed[3] << 16)
    if name == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if name == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise HeaderError("the picture states no size")


def _png(data: bytes) -> Stated:
    width, height = struct.unpack(">II", data[16:24])
    for name, at, length in png_chunks(io.BytesIO(data)):
        if at + length + 4 > len(data):
            raise HeaderError(
                f"the picture is cut off (a part of {length:,} bytes, {len(data) - at:,} are left)"
            )
        if name == b"IEND":
            return Stated(width, height)
    raise HeaderError("the picture is cut off (no end marker)")


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, place and length of each chunk, also if cut off."""
    at = 8
    while True:
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return
        length, name = struct.unpack(">I4s", header)
        yield name, at + 8, length
        at += 12 + length


def _jpeg(data: bytes) -> Stated:
    """Reads the header of a JPEG; what follows its end, as in motion photos, is ignored.

    It is looked for from the start of the scan, since the thumbnail before that has its own.
    """
    size = None
    for marker, at in jpeg_segments(data):
        if size is None and marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            size = Stated(width, height)
        if marker == _JPEG_SCAN and data.find(b"\xff\xd9", at) >= 0:
            if size is None:
                raise HeaderError("the picture states no size")
            return size
    raise HeaderError("the picture is cut off (no end marker)")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields marker and place of each segment up to the scan; gaps are skipped."""
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


def _webp(data: bytes) -> Stated:
    """Returns the size of the canvas, or of a frame that is larger."""
    width, height = webp_size(data)
    for name, at, length in riff_chunks(io.BytesIO(data)):
        if at + length > len(data):
            raise HeaderError(
                f"the picture is cut off (a part of {length:,} bytes, {len(data) - at:,} are left)"
            )
        if name in (b"VP8 ", b"VP8L"):
            inner = webp_size(bytes(12) + data[at - 8 : at + 10])
            width, height = max(width, inner[0]), max(height, inner[1])
    return Stated(width, height)


def _bmp(data: bytes) -> Stated:
    (header_bytes,) = struct.unpack("<I", data[14:18])
    if header_bytes == 12:
        return Stated(*struct.unpack("<HH", data[18:22]))
    width, height = struct.unpack("<ii", data[18:26])
    return Stated(abs(width), abs(height))


def _pnm(data: bytes) -> Stated:
    sizes = []
    at = 2
    for _ in range(2):
        match = _PNM_NUMBER.match(data, at, at + 4096)
        if match is None:
            raise HeaderError("the picture states no size")
        sizes.append(int(match.group(1)))
        at = match.end()
    return Stated(*sizes)


def _jp2(data: bytes) -> Stated:
    """Returns the size in the codestream, which its decoder uses."""
    at = 0 if data.startswith(b"\xff\x4f") else None
    box = 0
    while at is None:
        length, name = struct.unpack(">I4s", data[box : box + 8])
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", data[box + 8 : box + 16])
            header = 16
        if name == b"jp2c":
            at = box + header
        elif length < header:
            raise HeaderError("the picture states no size")
        box += length
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise HeaderError("the picture states no size")
    right, bottom, left, top, *tile = struct.unpack(">IIIIII", data[at + 8 : at + 32])
    (components,) = struct.unpack(">H", data[at + 40 : at + 42])
    if components > _MAX_SAMPLES:
        raise HeaderError(f"{components} samples a pixel (at most {_MAX_SAMPLES})")
    tiles = -(-right // max(1, tile[0])) * -(-bottom // max(1, tile[1]))
    if tiles > _MAX_JP2_TILES:
        raise HeaderError(f"{tiles:,} tiles (at most {_MAX_JP2_TILES:,})")
    return Stated(max(0, right - left), max(0, bottom - top))


def _tiff(data: bytes) -> Stated:
    """Returns the size of the first page, and the count of pages without thumbnails and masks."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    (at,) = struct.unpack(order + ("Q" if big else "I"), data[8:16] if big else data[4:8])
    first: dict[int, int] | None = None
    seen: set[int] = set()
    pages = 0
    while at and at not in seen and len(seen) < _MAX_TIFF_PAGES:
        seen.add(at)
        try:
            tags, at = _tiff_page(data, at, order, big=big)
        except struct.error:
            if first is None:
                raise
            break
        first = tags if first is None else first
        pages += not tags.get(_SUBFILE, 0) & 0b101
    if first is None or _WIDTH not in first or _LENGTH not in first:
        raise HeaderError("the picture states no size")
    if _DNG_VERSION in first or first.get(_PHOTOMETRIC) in _CAMERA_RAW:
        raise HeaderError("a camera's raw file; export it as JPEG, PNG or TIFF")
    if first.get(_SUBFILE, 0) & 1:
        raise HeaderError("its first page is a thumbnail; export the picture by itself")
    if first.get(_SAMPLES, 1) > _MAX_SAMPLES or first.get(_BITS, 1) > 64:
        raise HeaderError(
            f"{first.get(_SAMPLES, 1)} samples of {first.get(_BITS, 1)} bits a pixel "
            f"(at most {_MAX_SAMPLES} of 64)"
        )
    width, height = first[_WIDTH], first[_LENGTH]
    tile = first.get(_TILE_WIDTH, 0), first.get(_TILE_LENGTH, 0)
    if tile[0] * tile[1] > width * height and max(tile) > 4096:
        width, height = tile
    return Stated(width, height, max(1, pages))


def _tiff_page(data: bytes, at: int, order: str, *, big: bool) -> tuple[dict[int, int], int]:
    """Returns the first value of each integer tag of a page, and the place of the next page."""
    count_type, entry_bytes, place_type = ("Q", 20, "Q") if big else ("H", 12, "I")
    count_bytes = struct.calcsize(order + count_type)
    if at + count_bytes > len(data):
        raise struct.error("a page lies beyond the end of the file")
    (count,) = struct.unpack_from(order + count_type, data, at)
    at += count_bytes
    if at + count * entry_bytes > len(data):
        raise struct.error("a page leads beyond the end of the file")
    tags = {}
    value_at = 12 if big else 8
    for entry in range(at, at + count * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        (values,) = struct.unpack_from(order + place_type, data, entry + 4)
        letter = _TIFF_TYPES.get(kind)
        if letter is None or not values:
            continue
        size = struct.calcsize(letter)
        place = entry + value_at
        if values * size > struct.calcsize(order + place_type):
            (place,) = struct.unpack_from(order + place_type, data, place)
            if place + size > len(data):
                continue
        (tags[tag],) = struct.unpack_from(order + letter, data, place)
    (following,) = struct.unpack_from(order + place_type, data, at + count * entry_bytes)
    return tags, following


_READERS = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": _tiff,
    "pnm": _pnm,
    "jp2": _jp2,
}
