"""Plain metadata of pictures: EXIF, XMP, text and comments in JPEG, PNG, WebP, GIF, TIFF and HEIF.

Files are walked by the lengths in them, and only what is text is read. No picture is decoded.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from dfd_edge.provenance.metadata.statements import Exhausted, Statement, TextReader, decoded
from dfd_edge.provenance.metadata.xmp import read_xmp
from dfd_edge.sources.headers import jpeg_segments, mp4_boxes, png_chunks, riff_chunks

#: Metadata stand before the pixels in a JPEG or GIF file.
_HEAD_BYTES = 16 << 20
_MOST_PARTS = 1 << 18

_APP1, _APP15, _COMMENT = 0xE1, 0xEF, 0xFE
_EXIF_START, _XMP_START = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
#: Words of the dictionary that DeepFaceLab pickles into its face crops; it is never unpickled.
_PICKLED = re.compile(rb"face_type|source_filename|source_rect|source_landmarks|xseg_mask")

_EXIF_IFD, _XMP_TAG, _USER_COMMENT = 0x8769, 0x02BC, 0x9286
_EXIF_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    _USER_COMMENT: "UserComment",
}
_ASCII, _BYTES, _UNDEFINED, _UTF8 = 2, 1, 7, 129
_MOST_ENTRIES, _MOST_DIRECTORIES = 512, 4
#: Extents of all items of a HEIF file together; each text item usually has one.
_MOST_EXTENTS = 1 << 14


def picture_statements(file: BinaryIO, kind: str) -> Iterator[Statement]:
    """Yields the statements of a picture's metadata, up to the first damage.

    Args:
        file: The picture.
        kind: Its format as `image_format` names it, or "gif".
    """
    if kind in _READERS:
        try:
            yield from _READERS[kind](TextReader(file))
        except (struct.error, IndexError, OverflowError, Exhausted):
            return


def _jpeg(texts: TextReader) -> Iterator[Statement]:
    texts.file.seek(0)
    head = texts.file.read(_HEAD_BYTES)
    for marker, at in islice(jpeg_segments(head), _MOST_PARTS):
        if marker not in (_APP1, _APP15, _COMMENT):
            continue
        (length,) = struct.unpack_from(">H", head, at + 2)
        segment = texts.read(at + 4, length - 2)
        if marker == _COMMENT:
            yield Statement("jpeg.comment", decoded(segment))
        elif marker == _APP15:
            words = dict.fromkeys(word.decode() for word in _PICKLED.findall(segment))
            yield Statement("jpeg.APP15", ", ".join(words))
        elif segment.startswith(_EXIF_START):
            yield from _tiff(texts.within(segment[len(_EXIF_START) :]))
        elif segment.startswith(_XMP_START):
            yield from read_xmp(segment[len(_XMP_START) :])


def _png(texts: TextReader) -> Iterator[Statement]:
    for name, at, length in islice(png_chunks(texts.file), _MOST_PARTS):
        if name == b"IEND":
            return
        if name not in _PNG_TEXTS:
            continue
        chunk = texts.read(at, length)
        if name == b"eXIf":
            yield from _tiff(texts.within(chunk.removeprefix(_EXIF_START)))
            continue
        keyword, _, text = chunk.partition(b"\0")
        if name == b"zTXt":
            text = texts.inflated(text[1:])
        elif name == b"iTXt":
            compressed = text[:1] == b"\1"
            text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
            text = texts.inflated(text) if compressed else text
        if keyword == b"XML:com.adobe.xmp":
            yield from read_xmp(text)
        else:
            yield Statement(f"png.{decoded(keyword[:79])}", decoded(text))


#: Those of the specification, and the one in which ComfyUI writes into animations.
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf")


def _webp(texts: TextReader) -> Iterator[Statement]:
    for name, at, length in islice(riff_chunks(texts.file), _MOST_PARTS):
        if name == b"EXIF":
            chunk = texts.read(at, length)
            yield from _tiff(texts.within(chunk.removeprefix(_EXIF_START)))
        elif name == b"XMP ":
            yield from read_xmp(texts.read(at, length))


def _gif(texts: TextReader) -> Iterator[Statement]:
    """Reads comments and XMP (GIF89a specification; XMP part 3, 1.1.2)."""
    texts.file.seek(0)
    data = texts.file.read(_HEAD_BYTES)
    at = 13 + _colours(data[10])
    for _ in range(_MOST_PARTS):
        label = None
        if data[at] == 0x21:
            label, at = data[at + 1], at + 2
        elif data[at] == 0x2C:
            at += 10 + _colours(data[at + 9]) + 1
        else:
            return
        if label == 0xFF and data[at + 1 : at + 12] == b"XMP DataXMP":
            # The packet lies there as it is; a trailer leads readers of blocks to its end.
            packet = texts.read(at + 12, len(data))
            yield from read_xmp(packet.partition(b"\x01\xff\xfe\xfd")[0])
        text = bytearray()
        while length := data[at]:
            text += data[at + 1 : at + 1 + length]
            at += 1 + length
        at += 1
        if label == 0xFE:
            yield Statement("gif.comment", decoded(bytes(text)))


def _colours(packed: int) -> int:
    """Returns the bytes of a colour table by the field that announces it."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _tiff(texts: TextReader) -> Iterator[Statement]:
    """Reads the first directory of a TIFF file, which EXIF is too, and EXIF's own."""
    head = texts.read(0, 8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or struct.unpack_from(order + "H", head, 2)[0] != 42:
        return
    places = list(struct.unpack_from(order + "I", head, 4))
    for _ in range(_MOST_DIRECTORIES):
        if not places:
            return
        place = places.pop()
        (count,) = struct.unpack(order + "H", texts.read(place, 2))
        entries = texts.read(place + 2, 12 * min(count, _MOST_ENTRIES))
        for at in range(0, len(entries) - 11, 12):
            tag, kind, length, value = struct.unpack_from(order + "HHI4s", entries, at)
            if tag == _EXIF_IFD:
                places.extend(struct.unpack(order + "I", value))
            if kind not in (_ASCII, _BYTES, _UNDEFINED, _UTF8):
                continue
            if tag != _XMP_TAG and tag not in _EXIF_TAGS:
                continue
            text = value[:length]
            if length > 4:
                text = texts.read(struct.unpack(order + "I", value)[0], length)
            yield from _tag_statements(tag, text, order)


def _tag_statements(tag: int, text: bytes, order: str) -> Iterator[Statement]:
    if tag == _XMP_TAG:
        yield from read_xmp(text)
    elif tag == _USER_COMMENT:
        yield Statement("exif.UserComment", _user_comment(text, order))
    else:
        yield Statement(f"exif.{_EXIF_TAGS[tag]}", decoded(text))


def _user_comment(data: bytes, order: str) -> str:
    """Returns a comment, whose first eight bytes name its encoding (EXIF 2.32, 4.6.5).

    Writers of UTF-16 differ on the order of bytes whatever that of the file is: half of Latin
    text's bytes are zero, on one side or the other.
    """
    if data[:8] not in (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", bytes(8)):
        return decoded(data)
    text = data[8:]
    if not data.startswith(b"UNICODE"):
        return decoded(text)
    first, second = text[0::2].count(0), text[1::2].count(0)
    big = first > second if first != second else order == ">"
    return text.decode("utf-16-be" if big else "utf-16-le", errors="replace").strip("\ufeff\0")


def _heif(texts: TextReader) -> Iterator[Statement]:
    """Reads the EXIF and XMP items of HEIC and AVIF (ISO/IEC 14496-12, 8.11; 23008-12, annex A)."""
    size = texts.file.seek(0, io.SEEK_END)
    boxes = islice(mp4_boxes(texts.file, 0, size), _MOST_PARTS)
    start, end = next(((at, end) for name, at, end in boxes if name == b"meta"), (0, 0))
    meta = texts.read(start + 4, end - start - 4)
    kinds: dict[int, bytes] = {}
    places: dict[int, list[_Extent]] = {}
    own = len(meta)
    for name, at, end in islice(mp4_boxes(io.BytesIO(meta), 0, len(meta)), _MOST_PARTS):
        if name == b"iinf":
            kinds = dict(_text_items(meta, at, end))
        elif name == b"iloc":
            places = _locations(io.BytesIO(meta[at:end]))
        elif name == b"idat":
            own = at
    inner = texts.within(meta[own:])
    for number, kind in kinds.items():
        data = b"".join(
            (inner if in_own else texts).read(begin, length)
            for in_own, begin, length in places.get(number, ())
        )
        if kind == b"Exif":
            (skipped,) = struct.unpack_from(">I", data)
            yield from _tiff(texts.within(data[4 + skipped :].removeprefix(_EXIF_START)))
        else:
            yield from read_xmp(data)


def _text_items(meta: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yields number and kind of each item with EXIF or XMP (8.11.6)."""
    entries = mp4_boxes(io.BytesIO(meta), at + (6 if meta[at] == 0 else 8), end)
    for _, entry, stop in islice(entries, _MOST_PARTS):
        number_bytes = 2 if meta[entry] < 3 else 4
        number = int.from_bytes(meta[entry + 4 : entry + 4 + number_bytes], "big")
        kind = meta[entry + 6 + number_bytes :][:4]
        is_xmp = kind == b"mime" and b"\0application/rdf+xml" in meta[entry:stop]
        if kind == b"Exif" or is_xmp:
            yield number, kind


#: Whether it lies in the box `idat` instead of the file, its offset, and its length.
_Extent = tuple[bool, int, int]


def _locations(box: BinaryIO) -> dict[int, list[_Extent]]:
    """Returns the extents of each item (8.11.3)."""

    def number(count: int) -> int:
        data = box.read(count)
        if len(data) < count:
            raise struct.error("the box is cut off")
        return int.from_bytes(data, "big")

    version = number(4) >> 24
    sizes = number(2)
    offset, length, base, index = (sizes >> shift & 0xF for shift in (12, 8, 4, 0))
    places: dict[int, list[_Extent]] = {}
    extents = 0
    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        in_own = bool(version and number(2) & 0xF == 1)
        number(2)
        start = number(base)
        places[item] = []
        for _ in range(number(2)):
            extents += 1
            if extents > _MOST_EXTENTS:
                raise Exhausted
            number(index if version else 0)
            begin = start + number(offset)
            places[item].append((in_own, begin, number(length)))
    return places


_READERS = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "tiff": _tiff,
    "heif": _heif,
    "avif": _heif,
}
