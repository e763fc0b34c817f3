"""Video files through PyAV."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeGuard

import av.error

from dfd_edge.closing import Closing
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources.decoding import DecodedSource, cause_of
from dfd_edge.sources.formats import (
    FORMAT_WHITELIST,
    image_format,
    is_mp4,
    is_playlist,
    open_container,
)
from dfd_edge.sources.frame import MAX_FRAME_PIXELS, check_size
from dfd_edge.sources.headers import HeaderError, check_fragments
from dfd_edge.sources.pipe import PipeReader

if TYPE_CHECKING:
    from av.container import InputContainer

_HEAD_BYTES = 64
#: An MP4 file with its index at the end cannot be read from a pipe.
_PIPE_MEND = "give the file itself, or pipe Matroska or MPEG-TS"


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class VideoFile(DecodedSource, Closing):
    """A video file, decoded once from start to end. Use as a context manager.

    Args:
        path: The file, an open binary file, which is read from its start, or a stream such as
            standard input.
        threads: Threads that FFmpeg may use.
        name: What messages call the source; the path by default.
        max_pixels: Larger frames are refused before they are decoded.
        stream: Number of the stream in the file; by default the film that players show.

    Raises:
        SourceError: The file is missing, a folder, unreadable, empty, a playlist, sound only,
            too large or too small, or no video.
    """

    def __init__(
        self,
        path: str | Path | Readable,
        *,
        threads: int = 1,
        name: str | None = None,
        max_pixels: int = MAX_FRAME_PIXELS,
        stream: int | None = None,
    ) -> None:
        whole = isinstance(path, str | Path) or is_file_object(path)
        name = name or (str(path) if isinstance(path, str | Path) else "standard input")
        super().__init__(
            _open(path, name, max_pixels),
            name,
            finite=True,
            threads=threads,
            mend="damaged or cut off"
            if whole
            else "give the file itself, or pipe Matroska or MPEG-TS",
            skim=whole,
            max_pixels=max_pixels,
            stream=stream,
        )


def _open(path: str | Path | Readable, name: str, max_pixels: int) -> InputContainer:
    options = {"format_whitelist": FORMAT_WHITELIST, "protocol_whitelist": "file,pipe"}
    location: str | Readable = path if not isinstance(path, str | Path) else ""
    head = b""
    if isinstance(path, str | Path):
        head = read_head(Path(path))
        # The prefix keeps FFmpeg from reading a protocol into the file's name.
        location = f"file:{Path(path).absolute()}"
        with Path(path).open("rb") as file:
            _check_fragments(file, name)
    elif is_file_object(path):
        head = head_of(path, name)
        _check_fragments(path, name)
    if is_playlist(head):
        raise SourceError(f"{name}: a playlist, which names other files; give those themselves")
    refusal = None
    if head.startswith(b"GIF8") or image_format(head) == "png":
        # FFmpeg learns the size of these from their first frame only.
        layout, at = ("<HH", 6) if head.startswith(b"GIF8") else (">II", 16)
        width, height = struct.unpack_from(layout, head.ljust(24, b"\0"), at)
        refusal = check_size(name, width, height, max_pixels)
    if refusal:
        raise SourceError(refusal)
    # FFmpeg takes pictures one after the other for a folder's worth of stills, unless it is told.
    form = "mjpeg" if image_format(head) == "jpeg" else None
    try:
        return open_container(location, options, form=form, max_pixels=max_pixels)
    except av.error.FFmpegError as error:
        if is_mp4(head):
            raise SourceError(
                f"{name}: the MP4 index is missing or damaged ({cause_of(error)}); "
                "the file was cut off or never finished"
            ) from error
        if isinstance(path, PipeReader) and path.empty:
            raise SourceError(f"{name}: it is empty") from error
        raise SourceError(f"{name}: not a video ({cause_of(error)})") from error


def _check_fragments(file: BinaryIO, name: str) -> None:
    try:
        check_fragments(file)
    except (HeaderError, OSError) as error:
        raise SourceError(f"{name}: cannot be read ({error})") from error


def is_file_object(source: object) -> TypeGuard[BinaryIO]:
    """Whether a source is an open file, or something like it, that can be read from its start."""
    if not hasattr(source, "read") or not hasattr(source, "seek"):
        return False
    try:
        return bool(source.seekable()) if hasattr(source, "seekable") else True
    except ValueError:  # it is closed, which reading it will say
        return True


def head_of(file: BinaryIO, name: str) -> bytes:
    """Returns the first bytes of an open file, and goes back to its start.

    Raises:
        SourceError: It cannot be read, or is empty.
        UsageError: It was opened as text.
    """
    try:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except (OSError, ValueError) as error:  # closed, or no place can be sought in it
        raise SourceError(f"{name}: the file object cannot be read ({error})") from error
    if not isinstance(head, bytes):
        raise UsageError(
            f"{name}: the file object gives {type(head).__name__}, not bytes: "
            'open it with mode "rb"'
        )
    if not head:
        raise SourceError(f"{name}: the file is empty (0 bytes)")
    return head


def read_head(path: Path) -> bytes:
    """Returns the first bytes of a file.

    Raises:
        SourceError: The path is missing, a folder, unreadable, not a plain file, or empty.
    """
    try:
        if path.is_dir():
            raise SourceError(f"{path}: a folder, not a file")
        if path.exists() and not path.is_file():
            raise SourceError(f"{path}: neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"{path}: {_os_cause(error)}") from error
    if not head:
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    return head


def _os_cause(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file or folder"
    if error.errno == errno.EACCES:
        return "no permission to read it"
    return error.strerror or type(error).__name__
