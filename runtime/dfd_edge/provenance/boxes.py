"""Sizes of manifest stores, from the boxes around them: no byte of a store is parsed.

A C2PA manifest store lies in `uuid` boxes of BMFF (mp4, mov, heic, avif), in APP11 segments of
JPEG, in a `caBX` chunk of PNG, or in a `C2PA` chunk of RIFF (WebP, AVI, WAV): C2PA specification
2.2, annex A. Walks are bounded in steps and read some bytes of each box.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: Largest manifest store that is parsed; thumbnails of ingredients take some hundred kilobytes.
MOST_STORE_BYTES = 32 << 20
#: Boxes, chunks or segments at the top level of a file: hours of film in fragments.
_MOST_BOXES = 1 << 18
_UUID_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_PNG = b"\x89PNG\r\n\x1a\n"
_TO_THE_END, _LONG = 0, 1
_APP11 = 0xEB
_ALONE = (0x01, *range(0xD0, 0xD8))  # JPEG markers without a length: TEM and RST0 to RST7
_IMAGE_BEGINS, _IMAGE_ENDS, _SCAN_BEGINS = 0xD8, 0xD9, 0xDA
#: First boxes of a BMFF file.
_BMFF = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"pnot")


class BoxError(ValueError):
    """Lengths in a file contradict each other or exceed a limit; the text is for users."""


@dataclass(frozen=True, slots=True)
class _Box:
    """A box, chunk or segment.

    Attributes:
        name: Its four letters.
        start, end: Of its contents; offsets in bytes.
    """

    name: bytes
    start: int
    end: int


def check_store(path: Path) -> None:
    """Checks the lengths around the manifest store in a file.

    Files of other formats pass unseen, and so do files that are cut off outside the store.

    Args:
        path: The file.

    Raises:
        BoxError: The store is larger than `MOST_STORE_BYTES`, reaches beyond the end of the file,
            or lengths of boxes are impossible.
        OSError: The file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        store_bytes = 0
        for box in _stores(file, size):
            if box.end > size:
                raise BoxError(
                    f"a part of its manifest says that it is {box.end - box.start:,} bytes long, "
                    f"but {max(size - box.start, 0):,} are left in the file"
                )
            store_bytes += box.end - box.start
            if store_bytes > MOST_STORE_BYTES:
                raise BoxError(
                    f"its manifest is larger than the {MOST_STORE_BYTES >> 20} MB that are read"
                )


def _stores(file: BinaryIO, size: int) -> Iterator[_Box]:
    """Yields the boxes that hold the manifest store, or parts of it."""
    # It brings all decoders, which the process that asks for provenance does without.
    from dfd_edge.sources.headers import png_chunks, riff_chunks  # noqa: PLC0415

    head = _at(file, 0, 12)
    if head.startswith(b"\xff\xd8"):
        yield from _jpeg_segments(file, size)
    elif head.startswith(_PNG):
        yield from _named(b"caBX", png_chunks(file), last=b"IEND")
    elif head.startswith(b"RIFF"):
        yield from _named(b"C2PA", riff_chunks(file))
    elif head[4:8] in _BMFF:
        for box in _bmff_boxes(file, size):
            if box.name == b"uuid" and _at(file, box.start, 16) == _UUID_C2PA:
                yield box


def _at(file: BinaryIO, at: int, count: int) -> bytes:
    """Returns bytes of a file, fewer at its end."""
    file.seek(at)  # `os.pread` is not there on Windows
    return file.read(count)


def _named(
    wanted: bytes, chunks: Iterable[tuple[bytes, int, int]], last: bytes | None = None
) -> Iterator[_Box]:
    """Yields the chunks of a name, up to the one that is the last."""
    for number, (name, at, length) in enumerate(chunks):
        if number >= _MOST_BOXES:
            raise BoxError(f"it has more than {_MOST_BOXES:,} chunks")
        if name == wanted:
            yield _Box(name, at, at + length)
        if name == last:
            return


def _bmff_boxes(file: BinaryIO, size: int) -> Iterator[_Box]:
    """Yields the top-level boxes (ISO/IEC 14496-12, 4.2)."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at >= size or len(head := _at(file, at, 16)) < 8:
            return
        length, name, head_bytes = *struct.unpack(">I4s", head[:8]), 8
        if length == _LONG and len(head) == 16:
            length, head_bytes = struct.unpack(">Q", head[8:])[0], 16
        elif length == _TO_THE_END:
            length = size - at
        if length < head_bytes:
            raise BoxError(f"one of its boxes says that it is {length} bytes long, at byte {at:,}")
        yield _Box(name, at + head_bytes, at + length)
        at += length
    raise BoxError(f"it has more than {_MOST_BOXES:,} boxes")


def _jpeg_segments(file: BinaryIO, size: int) -> Iterator[_Box]:
    """Yields the APP11 segments with JUMBF (ISO/IEC 19566-5) before the picture begins."""
    at = 2
    for _ in range(_MOST_BOXES):
        head = _at(file, at, 6)
        if len(head) < 2 or head[0] != 0xFF:
            return
        marker = head[1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _ALONE or marker == _IMAGE_BEGINS:
            at += 2
            continue
        if marker in (_IMAGE_ENDS, _SCAN_BEGINS) or len(head) < 4:
            return
        (length,) = struct.unpack(">H", head[2:4])
        if length < 2:
            raise BoxError(
                f"one of its segments says that it is {length} bytes long, at byte {at:,}"
            )
        if marker == _APP11 and head[4:6] == b"JP":
            yield _Box(b"JP", at + 4, at + 2 + length)
            whole = _whole_box(file, at + 6)
            if whole is not None and whole.end > size:
                yield whole
        at += 2 + length
    raise BoxError(f"it has more than {_MOST_BOXES:,} segments")


def _whole_box(file: BinaryIO, at: int) -> _Box | None:
    """Returns the box whose first segment this is; None for one that goes on.

    It may be longer than a segment: only the file bounds its length.
    """
    head = _at(file, at, 22)
    if len(head) < 22:
        return None
    _, number, length, name, long_length = struct.unpack(">HII4sQ", head)
    if number != 1:
        return None
    return _Box(name, at + 6, at + 6 + (long_length if length == _LONG else length))
