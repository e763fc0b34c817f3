"""Plain metadata of films: tags of the container, XMP in MP4, and text in the video stream."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av

from dfd_edge.provenance.metadata.statements import (
    MOST_VALUE_BYTES,
    Exhausted,
    Statement,
    TextReader,
    decoded,
)
from dfd_edge.provenance.metadata.xmp import read_xmp
from dfd_edge.sources.containers import (
    FORMAT_WHITELIST,
    is_mp4,
    is_playlist,
    open_container,
)
from dfd_edge.sources.frames import MAX_FRAME_PIXELS
from dfd_edge.sources.headers import HeaderError, check_fragments, mp4_boxes

if TYPE_CHECKING:
    from av.container import InputContainer

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP part 3, 1.2.7
_MOST_BOXES = 1 << 20

#: Packets that are read until the first of a video stream comes.
_MOST_PACKETS = 64
_SEI_UNREGISTERED = 5
_UUID_BYTES = 16
#: NAL units of supplemental information by codec, with the bytes of their header.
_SEI_UNITS = {"h264": ((6,), 1), "hevc": ((39, 40), 2)}
_MOST_UNITS = 1_000


def film_statements(path: Path, head: bytes) -> Iterator[Statement]:
    """Yields the statements of a film's metadata; those that cannot be read are left out.

    Args:
        path: The film.
        head: Its first bytes.
    """
    if is_playlist(head):
        return
    with path.open("rb") as file:
        try:
            check_fragments(file)
        except HeaderError:
            return
        if is_mp4(head):
            yield from _mp4_xmp(file)
    yield from _tags(path)


def _mp4_xmp(file: BinaryIO) -> Iterator[Statement]:
    """Reads XMP from a box of its own, or from QuickTime's user data."""
    texts = TextReader(file)
    size = file.seek(0, io.SEEK_END)
    with contextlib.suppress(Exhausted):
        for name, at, end in islice(mp4_boxes(file, 0, size), _MOST_BOXES):
            if name == b"XMP_":
                yield from read_xmp(texts.read(at, end - at))
            elif name == b"uuid" and texts.read(at, _UUID_BYTES) == _XMP_UUID:
                yield from read_xmp(texts.read(at + _UUID_BYTES, end - at - _UUID_BYTES))


def _tags(path: Path) -> Iterator[Statement]:
    options = {"format_whitelist": FORMAT_WHITELIST, "protocol_whitelist": "file"}
    try:
        with open_container(
            f"file:{path.absolute()}", options, max_pixels=MAX_FRAME_PIXELS
        ) as container:
            for kind, holders in (("container", [container]), ("stream", container.streams)):
                for holder in holders:
                    for key, value in holder.metadata.items():
                        yield Statement(f"{kind}.{key[:79].lower()}", value[:MOST_VALUE_BYTES])
            yield from _user_data(container)
    except (av.error.FFmpegError, OSError, ValueError, struct.error, IndexError):
        return


def _user_data(container: InputContainer) -> Iterator[Statement]:
    """Reads text that an encoder or generator put beside the first frame's data.

    It survives what rewrites the container without encoding again. The messages are those of
    type "user data unregistered" (ITU-T H.264, D.1.7; H.265, D.2.7).
    """
    for packet in islice(container.demux(), _MOST_PACKETS):
        if packet.stream.type != "video":
            continue
        context = packet.stream.codec_context
        kinds, header_bytes = _SEI_UNITS.get(context.name if context else "", ((), 0))
        if not kinds:
            return
        extra = context.extradata or b""
        data = bytes(memoryview(packet)[:MOST_VALUE_BYTES])
        units = chain(_stored_units(extra, context.name), _units(data, extra, context.name))
        for unit in islice(units, _MOST_UNITS):
            kind = unit[0] & 0x1F if header_bytes == 1 else unit[0] >> 1 & 0x3F
            if kind in kinds:
                yield from _messages(unit[header_bytes:])
        return


def _stored_units(extra: bytes, codec: str) -> Iterator[bytes]:
    """Yields the NAL units in the configuration record of HEVC (ISO/IEC 14496-15, 8.3.3.1)."""
    if codec != "hevc" or extra[:1] != b"\1":
        return
    at = 23
    for _ in range(extra[22]):
        count = int.from_bytes(extra[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(extra[at : at + 2], "big")
            if length:
                yield extra[at + 2 : at + 2 + length]
            at += 2 + length


def _units(data: bytes, extra: bytes, codec: str) -> Iterator[bytes]:
    """Yields the NAL units of a packet, each after its length or after a start code."""
    at = 0
    if extra[:1] != b"\1":  # no configuration record: start codes
        for unit in data.split(b"\0\0\1"):
            if unit:
                yield unit
        return
    length_bytes = (extra[4 if codec == "h264" else 21] & 3) + 1
    while at + length_bytes < len(data):
        length = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        if length:
            yield data[at : at + length]
        at += length


def _messages(unit: bytes) -> Iterator[Statement]:
    """Yields the texts in a unit of supplemental information (ITU-T H.264, 7.3.2.3)."""
    unit = unit.replace(b"\0\0\3", b"\0\0")  # bytes that prevent start codes
    at = 0
    while at + 2 < len(unit):
        kind, at = _long_number(unit, at)
        length, at = _long_number(unit, at)
        if kind == _SEI_UNREGISTERED:
            yield Statement("stream.user_data", decoded(unit[at + _UUID_BYTES : at + length]))
        at += length


def _long_number(unit: bytes, at: int) -> tuple[int, int]:
    number = 0
    while unit[at] == 0xFF:
        number, at = number + 0xFF, at + 1
    return number + unit[at], at + 1
