"""Statements that a file's plain metadata make: how much of them is read."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, NamedTuple

#: Bytes of one value that are read: prompts of node editors take some hundred kilobytes.
MOST_VALUE_BYTES = 1 << 20
#: Bytes of all values of one file together.
MOST_BYTES = 16 << 20


class Statement(NamedTuple):
    """A value as a file carries it.

    Attributes:
        field: Where it was found: kind of metadata and name, such as `exif.Make`.
        value: The value, at most `MOST_VALUE_BYTES` long.
    """

    field: str
    value: str


def decoded(data: bytes) -> str:
    """Returns a text value that ends at its first zero byte: UTF-8, or else Latin-1."""
    data = data[:MOST_VALUE_BYTES].partition(b"\0")[0]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class Exhausted(ValueError):
    """The metadata of a file are longer than what is read of one."""


class TextReader:
    """Reads the values in a file, until they are too many in all.

    Lengths and places come from the file: they may overlap, lead to its end or repeat for ever.

    Args:
        file: The file, or a part of it in memory.
        whole: The reader of the file that it is a part of, whose allowance it shares.
    """

    def __init__(self, file: BinaryIO, whole: TextReader | None = None) -> None:
        self.file = file
        self._whole = whole
        self._left = MOST_BYTES

    def within(self, part: bytes) -> TextReader:
        """Returns a reader of a part, where places are counted from its start."""
        return TextReader(io.BytesIO(part), self._whole or self)

    def read(self, at: int, length: int) -> bytes:
        """Returns at most `MOST_VALUE_BYTES` of a value.

        Raises:
            Exhausted: The values before it were too many.
        """
        self.file.seek(at)
        return self._counted(self.file.read(max(0, min(length, MOST_VALUE_BYTES))))

    def inflated(self, data: bytes) -> bytes:
        """Returns at most `MOST_VALUE_BYTES` of what a compressed value holds; damaged, none.

        Raises:
            Exhausted: The values before it were too many.
        """
        try:
            return self._counted(zlib.decompressobj().decompress(data, MOST_VALUE_BYTES))
        except zlib.error:
            return b""

    def _counted(self, data: bytes) -> bytes:
        counter = self._whole or self
        counter._left -= len(data)
        if counter._left < 0:
            raise Exhausted
        return data
