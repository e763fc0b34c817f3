"""Video files through PyAV."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import av.error

from dfd_edge.closing import Closing
from dfd_edge.errors import SourceError
from dfd_edge.sources.decoding import DecodedSource, cause_of
from dfd_edge.sources.formats import FORMAT_WHITELIST, is_mp4, is_playlist, open_container

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
        path: The file, or an open binary stream such as standard input.
        threads: Threads that FFmpeg may use.
        name: What messages call the source; the path by default.
        stream: Number of the stream in the file; by default the film that players show.

    Raises:
        SourceError: The file is missing, a folder, unreadable, empty, a playlist, sound only,
            absurdly large or small, or no video.
    """

    def __init__(
        self,
        path: str | Path | Readable,
        *,
        threads: int = 1,
        name: str | None = None,
        stream: int | None = None,
    ) -> None:
        is_file = isinstance(path, str | Path)
        name = name or (str(path) if is_file else "standard input")
        super().__init__(
            _open(path, name),
            name,
            finite=True,
            threads=threads,
            mend="damaged or cut off"
            if is_file
            else "give the file itself, or pipe Matroska or MPEG-TS",
            skim=is_file,
            stream=stream,
        )


def _open(path: str | Path | Readable, name: str) -> InputContainer:
    options = {"format_whitelist": FORMAT_WHITELIST, "protocol_whitelist": "file,pipe"}
    if isinstance(path, str | Path):
        head = read_head(Path(path))
        if is_playlist(head):
            raise SourceError(f"{name}: a playlist, which names other files; give those themselves")
        # The prefix keeps FFmpeg from reading a protocol into the file's name.
        location: str | Readable = f"file:{Path(path).absolute()}"
    else:
        head = b""
        location = path
    try:
        return open_container(location, options)
    except av.error.FFmpegError as error:
        if is_mp4(head):
            raise SourceError(
                f"{name}: the MP4 index is missing or damaged ({cause_of(error)}); "
                "the file was cut off or never finished"
            ) from error
        raise SourceError(f"{name}: not a video ({cause_of(error)})") from error


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
