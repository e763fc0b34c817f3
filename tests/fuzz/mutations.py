"""Damage to media files: blind to what they hold, or by their own parts and lengths."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: Numbers that programs trip over, as bytes in either order.
_NUMBERS = (0, 1, 2, 15, 16, 127, 128, 255, 256, 8191, 32767, 32768, 65535, 65536)
_NUMBERS += (1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
#: Files grow no further than this.
MAX_BYTES = 1 << 20
#: Boxes of MP4 and HEIF that hold boxes, and what lies before these.
_BOXES = {
    **dict.fromkeys(
        (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex"), 0
    ),
    **dict.fromkeys((b"dinf", b"udta", b"iprp", b"ipco"), 0),
    **{b"meta": 4, b"stsd": 8, b"dref": 8},
    **dict.fromkeys((b"avc1", b"hvc1", b"av01", b"mp4v"), 78),
}
#: Elements of Matroska that hold elements.
_ELEMENTS = frozenset(
    [0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675, 0xA0, 0x114D9B74, 0x4DBB]
    + [0x1C53BB6B, 0xBB, 0xB7, 0x1A45DFA3]
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file that states its own length.

    Attributes:
        start, end: Where it lies.
        body: Where what it holds begins.
        size_at, size_bytes: Where its length is stated; 0 bytes where it is not.
        order: Of the bytes of numbers in it: "big" or "little".
    """

    start: int
    end: int
    body: int
    size_at: int
    size_bytes: int
    order: str = "big"


def mutate(data: bytes, other: bytes, random_: random.Random) -> bytes:
    """Damages a file in one to four ways.

    Args:
        data: The file.
        other: Another file, for splices.
        random_: Chooses everything: the same state gives the same result.
    """
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 2, 3, 4))):
        parts = list(_parts(bytes(changed))) if random_.random() < 0.6 else []
        if parts:
            random_.choice(_BY_PART)(changed, random_.choice(parts), random_)
        elif random_.random() < 0.05:
            at = random_.randrange(len(changed) + 1)
            changed[at:] = other[random_.randrange(len(other) + 1) :]
        else:
            random_.choice(_BLIND)(changed, random_)
        del changed[MAX_BYTES:]
        if not changed:
            break
    if data.startswith(b"\x89PNG") and random_.random() < 0.8:
        _repair_png(changed)
    return bytes(changed)


def _place(data: bytearray, random_: random.Random) -> int:
    """Anywhere; half the time among the first bytes, where the lengths and sizes are."""
    length = len(data)
    return random_.randrange(min(length, 512) if random_.random() < 0.5 else length)


def _span(data: bytearray, random_: random.Random) -> slice:
    start = _place(data, random_)
    return slice(start, start + random_.choice((1, 4, 16, 64, 256, 1024, 8192)))


def _flip_bits(data: bytearray, random_: random.Random) -> None:
    for _ in range(random_.choice((1, 1, 2, 8, 32, 256))):
        data[_place(data, random_)] ^= 1 << random_.randrange(8)


def _set_byte(data: bytearray, random_: random.Random) -> None:
    data[_place(data, random_)] = random_.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))


def _set_number(data: bytearray, random_: random.Random) -> None:
    _put_number(data, _place(data, random_), random_)


def _cut(data: bytearray, random_: random.Random) -> None:
    del data[_place(data, random_) :]


def _remove(data: bytearray, random_: random.Random) -> None:
    del data[_span(data, random_)]


def _repeat(data: bytearray, random_: random.Random) -> None:
    span = _span(data, random_)
    at = _place(data, random_)
    data[at:at] = data[span] * random_.choice((1, 1, 2, 50))


def _blank(data: bytearray, random_: random.Random) -> None:
    span = _span(data, random_)
    data[span] = random_.choice((b"\0", b"\xff")) * len(data[span])


def _scramble(data: bytearray, random_: random.Random) -> None:
    span = _span(data, random_)
    data[span] = random_.randbytes(len(data[span]))


_BLIND: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip_bits, _flip_bits, _set_byte, _set_number, _set_number),
    *(_cut, _remove, _repeat, _blank, _scramble),
)


def _put_number(data: bytearray, at: int, random_: random.Random, order: str = "") -> None:
    width = random_.choice((1, 2, 4, 4, 8))
    number = random_.choice(_NUMBERS) & ((1 << 8 * width) - 1)
    order = order or random_.choice(("big", "little"))
    data[at : at + width] = number.to_bytes(width, "big" if order == "big" else "little")


def _state_length(data: bytearray, part: Part, random_: random.Random) -> None:
    if not part.size_bytes:
        _change_body(data, part, random_)
        return
    place = slice(part.size_at, part.size_at + part.size_bytes)
    order = "big" if part.order == "big" else "little"
    true = int.from_bytes(data[place], order)
    stated = random_.choice((true - 1, true + 1, true * 2, true // 2, 0, 1, *_NUMBERS))
    data[place] = (stated & ((1 << 8 * part.size_bytes) - 1)).to_bytes(part.size_bytes, order)


def _change_body(data: bytearray, part: Part, random_: random.Random) -> None:
    length = min(part.end - part.body, 256)
    if length > 0:
        _put_number(data, part.body + random_.randrange(length), random_, part.order)


def _change_head(data: bytearray, part: Part, random_: random.Random) -> None:
    if part.body > part.start:
        data[random_.randrange(part.start, part.body)] = random_.randrange(256)


def _drop_part(data: bytearray, part: Part, random_: random.Random) -> None:
    del data[part.start : part.end]


def _repeat_part(data: bytearray, part: Part, random_: random.Random) -> None:
    copies = bytes(data[part.start : part.end]) * random_.choice((1, 1, 3, 100))
    data[part.end : part.end] = copies[:MAX_BYTES]


def _nest_part(data: bytearray, part: Part, random_: random.Random) -> None:
    data[part.body : part.body] = data[part.start : part.end]


def _move_part(data: bytearray, part: Part, random_: random.Random) -> None:
    moved = bytes(data[part.start : part.end])
    del data[part.start : part.end]
    at = random_.randrange(len(data) + 1)
    data[at:at] = moved


def _cut_in_part(data: bytearray, part: Part, random_: random.Random) -> None:
    del data[random_.randrange(part.start, part.end + 1) :]


_BY_PART: tuple[Callable[[bytearray, Part, random.Random], None], ...] = (
    *(_state_length, _state_length, _change_body, _change_body, _change_body, _change_head),
    *(_drop_part, _repeat_part, _nest_part, _move_part, _cut_in_part),
)


def _parts(data: bytes) -> Iterator[Part]:
    """The parts of a file of a known kind."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        yield from _boxes(data, 0, len(data))
    elif data.startswith(b"\x1a\x45\xdf\xa3"):
        yield from _elements(data, 0, len(data))
    elif data.startswith(b"\x89PNG"):
        yield from _png_chunks(data)
    elif data.startswith(b"RIFF"):
        yield from _riff_chunks(data, 0, len(data))
    elif data.startswith(b"\xff\xd8"):
        yield from _jpeg_segments(data)
    elif data.startswith((b"II*\0", b"MM\0*")):
        yield from _tiff_entries(data)
    elif data.startswith(b"GIF8"):
        yield from _gif_blocks(data)
    elif data.startswith(b"\0\0\1\xba"):
        yield from _start_codes(data)
    elif data.startswith(b"G") and data[188:189] == b"G":
        yield from (Part(at, at + 188, at + 4, at + 1, 2) for at in range(0, len(data) - 187, 188))


def _boxes(data: bytes, at: int, end: int) -> Iterator[Part]:
    while at + 8 <= end:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        stop = at + size if 8 <= size <= end - at else end
        yield Part(at, stop, at + 8, at, 4)
        if kind in _BOXES:
            yield from _boxes(data, at + 8 + _BOXES[kind], stop)
        at = stop


def _elements(data: bytes, at: int, end: int) -> Iterator[Part]:
    while at + 2 <= end and data[at]:
        id_bytes = 9 - data[at].bit_length()
        size_at = at + id_bytes
        if size_at >= end or not data[size_at]:
            return
        size_bytes = 9 - data[size_at].bit_length()
        body = size_at + size_bytes
        size = int.from_bytes(data[size_at:body], "big") & ((1 << 7 * size_bytes) - 1)
        stop = body + size if size <= end - body else end
        yield Part(at, stop, body, size_at, size_bytes)
        if int.from_bytes(data[at:size_at], "big") in _ELEMENTS:
            yield from _elements(data, body, stop)
        at = stop


def _png_chunks(data: bytes) -> Iterator[Part]:
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        stop = min(at + 12 + size, len(data))
        yield Part(at, stop, at + 8, at, 4)
        at = stop


def _repair_png(data: bytearray) -> None:
    """Makes the checksums right, so that what is in the chunks is looked at."""
    for part in _png_chunks(bytes(data)):
        if part.end - part.start >= 12:
            checksum = zlib.crc32(data[part.start + 4 : part.end - 4])
            data[part.end - 4 : part.end] = struct.pack(">I", checksum)


def _riff_chunks(data: bytes, at: int, end: int) -> Iterator[Part]:
    while at + 8 <= end:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        stop = min(at + 8 + size + size % 2, end)
        yield Part(at, stop, at + 8, at + 4, 4, "little")
        if kind in (b"RIFF", b"LIST"):
            yield from _riff_chunks(data, at + 12, stop)
        elif kind == b"ANMF":
            yield from _riff_chunks(data, at + 24, stop)
        at = stop


def _jpeg_segments(data: bytes) -> Iterator[Part]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        stop = min(at + 2 + size, len(data))
        yield Part(at, stop, at + 4, at + 2, 2)
        at = stop


def _tiff_entries(data: bytes) -> Iterator[Part]:
    order = "little" if data.startswith(b"II") else "big"
    at = int.from_bytes(data[4:8], "little" if order == "little" else "big")
    count = int.from_bytes(data[at : at + 2], "little" if order == "little" else "big")
    for entry in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        # The count stands for the length: tag, type, count, value.
        yield Part(entry, entry + 12, entry + 8, entry + 4, 4, order)


def _gif_blocks(data: bytes) -> Iterator[Part]:
    yield Part(0, min(13, len(data)), 6, 6, 2, "little")  # size of the screen
    for mark in (b"\x2c", b"\x21\xf9", b"\x21\xff"):
        at = data.find(mark, 13)
        while 0 <= at < len(data) - 10:
            yield Part(at, at + 10, at + 1, at + 5, 2, "little")
            at = data.find(mark, at + 10)


def _start_codes(data: bytes) -> Iterator[Part]:
    starts = []
    at = data.find(b"\0\0\1")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\0\0\1", at + 3)
    for start, stop in zip(starts, [*starts[1:], len(data)], strict=True):
        yield Part(start, stop, min(start + 4, stop), start + 4, 2)
