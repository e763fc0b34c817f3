"""Files that are sent: streamed to disk under random names, hashed on the way."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Self

from dfd_edge.serve.judging.store import Upload
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.text import printable

if TYPE_CHECKING:
    from starlette.requests import Request

_BLOCK_BYTES = 1 << 20
_MAX_NAME = 200
_MAX_HEADER = 8192
_UNNAMED = "upload"
#: Type of files that are offered for saving, and never shown.
UNKNOWN_TYPE = "application/octet-stream"
#: Pictures that browsers show. SVG is none: it holds scripts, and is no media that is judged.
_PICTURES = {
    **{"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "bmp": "image/bmp"},
    **{"avif": "image/avif", "heif": "image/heic"},
}
_STARTS = ((b"GIF8", "image/gif"), (b"\x1aE\xdf\xa3", "video/webm"), (b"OggS", "video/ogg"))
HEAD_BYTES = 64


def plain_name(name: str | None) -> str:
    """Returns the last part of a name that a sender gave, printable and of bounded length."""
    last = PureWindowsPath(PurePosixPath(name or "").name).name.strip()
    return printable(last)[:_MAX_NAME] or _UNNAMED


def check_free_name() -> str:
    """Returns a new random name for an original."""
    return secrets.token_hex(16)


def media_type(head: bytes) -> str:
    """Returns the type that the first bytes (64 or more) of a file prove, as browsers know it.

    A file that a browser took for a page would run its scripts with the rights of whoever looks at
    the judgement; so names prove nothing.
    """
    # Loads FFmpeg's libraries, which nothing else of the service's own process needs.
    from dfd_edge.sources.containers import image_format  # noqa: PLC0415

    picture = image_format(head)
    if picture is not None:
        return _PICTURES.get(picture, UNKNOWN_TYPE)
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        return "video/mp4"  # QuickTime's too: browsers play it, and refuse its own type
    return "video/x-msvideo" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else UNKNOWN_TYPE


class Incoming:
    """A file that is being received. Use as an asynchronous context manager.

    It is removed when the block is left unless it was finished.

    Args:
        folder: Folder of the originals.
        max_bytes: Larger files are refused.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.media = check_free_name()
        self.path = folder / self.media
        self.size = 0
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._kept = False

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(self.path.open, "xb")
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._file.close()
        if not self._kept:
            self.path.unlink(missing_ok=True)

    async def write(self, data: bytes) -> None:
        """Adds bytes.

        Raises:
            Problem: They are too many, or the disk takes no more.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._waiting += data
        if len(self._waiting) >= _BLOCK_BYTES:
            await self._flush()

    async def finish(self, name: str | None) -> Upload:
        """Writes what is left and returns the file, which then stays.

        Raises:
            Problem: It is empty.
        """
        await self._flush()
        await asyncio.to_thread(self._file.close)
        if not self.size:
            raise Problem("invalid", "the file is empty: send one with a film or a picture")
        self._kept = True
        return Upload(plain_name(name), self.media, self._digest.hexdigest(), self.size)

    async def _flush(self) -> None:
        block, self._waiting = bytes(self._waiting), bytearray()
        try:
            await asyncio.to_thread(self._put, block)
        except OSError as error:
            raise Problem("fault", f"the file cannot be stored ({error.strerror})") from error

    def _put(self, block: bytes) -> None:
        self._digest.update(block)
        self._file.write(block)


def too_large(max_bytes: int) -> Problem:
    """Returns the problem of a file that is too large."""
    return Problem(
        "too-large",
        f"at most {max_bytes / 2**20:.0f} MB are taken: send a shorter or smaller file",
    )


async def receive_raw(request: Request, incoming: Incoming, name: str | None) -> Upload:
    """Receives a file that is the whole body.

    Raises:
        Problem: It is too large or empty.
    """
    async for chunk in request.stream():
        await incoming.write(chunk)
    return await incoming.finish(name)


async def receive_multipart(request: Request, incoming: Incoming) -> Upload:
    """Receives the one file of a form; other fields are passed over.

    Raises:
        Problem: The form is malformed, or has no file or several.
    """
    from python_multipart.exceptions import FormParserError  # noqa: PLC0415 - extra `serve`

    parts = _Parts(request)
    try:
        async for data in parts.file(request.stream()):
            await incoming.write(data)
    except FormParserError as error:
        raise Problem("bad-request", f"the form cannot be read ({error})") from error
    return await incoming.finish(parts.name)


class _Parts:
    """Parses a form and gives the bytes of its file.

    Args:
        request: Its `Content-Type` names the boundary.

    Attributes:
        name: Name of the file, once it has begun.
    """

    def __init__(self, request: Request) -> None:
        from python_multipart.multipart import (  # noqa: PLC0415
            MultipartParser,
            parse_options_header,
        )

        self.name: str | None = None
        self._parse_header = parse_options_header
        _, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if not boundary:
            raise Problem("bad-request", "the form names no boundary in its Content-Type")
        self._data: list[bytes] = []
        self._field, self._value = b"", b""
        self._in_file = False
        self._files = 0
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_end": self._finish,
            },
        )

    async def file(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields the bytes of the file.

        Raises:
            Problem: There is no file, or more than one, or the form is cut off.
        """
        async for chunk in body:
            if chunk:
                self._parser.write(chunk)
            for data in self._data:
                yield data
            self._data.clear()
        if not self._ended:
            raise Problem("bad-request", "the form is cut off")
        if self._files != 1:
            raise Problem(
                "bad-request",
                f"{self._files} files in the form: send one a request, as the part `file`",
            )

    def _begin(self) -> None:
        self._in_file = False

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._in_file and self._files == 1:
            self._data.append(data[start:end])

    def _end(self) -> None:
        self._in_file = False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field = self._bounded(self._field + data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = self._parse_header(self._value)
            if b"filename" in options or options.get(b"name") == b"file":
                self._in_file = True
                self._files += 1
                if self._files == 1:
                    self.name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._field, self._value = b"", b""

    def _finish(self) -> None:
        self._ended = True

    @staticmethod
    def _bounded(header: bytes) -> bytes:
        if len(header) > _MAX_HEADER:
            raise Problem("bad-request", f"a header in the form has more than {_MAX_HEADER} bytes")
        return header
