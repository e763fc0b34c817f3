"""Video files, standard input and raw frames."""

from __future__ import annotations

import os
import select
import stat
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from dfd_edge.closing import Closing
from dfd_edge.errors import NotMediaError, SourceError, UnsupportedError
from dfd_edge.sources.bursts import Plane, RecentFrames, shrunk_luma
from dfd_edge.sources.containers import (
    FORMAT_WHITELIST,
    head_of,
    image_format,
    is_file_object,
    is_mp4,
    is_playlist,
    open_container,
    read_head,
)
from dfd_edge.sources.decoder import ON_CPU, DecoderReport, open_on
from dfd_edge.sources.decoding import DecodedSource, cause_of
from dfd_edge.sources.frames import MAX_FRAME_PIXELS, DueFrames, Frame, Image, check_size
from dfd_edge.sources.headers import HeaderError, check_fragments

if TYPE_CHECKING:
    from av.container import InputContainer

    from dfd_edge.sources.options import RawFormat


_POLL_S = 0.05
#: Due frames that are decoded while the models are loaded, and the most bytes of them as BGR.
_MOST_AHEAD = 16
_AHEAD_BYTES = 128 * 2**20


class PipeReader:
    """Reader of standard input for PyAV, with waits that can be ended.

    A plain read of a silent pipe holds until its sender moves. This one looks for `stop` while it
    waits, and takes that for the end of the input.

    Args:
        stop: Ends the reading.

    Attributes:
        empty: Whether nothing has come yet.

    Raises:
        SourceError: Standard input is closed.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.empty = True
        try:
            self._descriptor = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise SourceError("standard input", "it is closed") from error

    @property
    def mode(self) -> int:
        """Kind of the open file, as `os.fstat` gives it."""
        return os.fstat(self._descriptor).st_mode

    def read(self, size: int) -> bytes:
        """Returns up to `size` bytes, none at the end or once stopped."""
        # Windows can wait for sockets only.
        while os.name != "nt" and not select.select([self._descriptor], [], [], _POLL_S)[0]:
            if self._stop.is_set():
                return b""
        data = b"" if self._stop.is_set() else os.read(self._descriptor, size)
        self.empty = self.empty and not data
        return data


class RedirectedFile(PipeReader):
    """Reader of a file that standard input was redirected from: seekable.

    MP4 files that were never prepared for streaming keep their index at the end.
    """

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(stop)
        self._start = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position, and returns it in bytes from the start of what was given."""
        if whence == os.SEEK_SET:
            offset += self._start
        return os.lseek(self._descriptor, offset, whence) - self._start

    def tell(self) -> int:
        """Returns the position in bytes from the start of what was given."""
        return self.seek(0, os.SEEK_CUR)


def open_standard_input(stop: threading.Event) -> PipeReader:
    """Opens standard input as a pipe or as a file.

    Raises:
        SourceError: Standard input is closed.
    """
    pipe = PipeReader(stop)
    return RedirectedFile(stop) if stat.S_ISREG(pipe.mode) else pipe


#: An MP4 file with its index at the end cannot be read from a pipe.
_PIPE_MEND = "give the file itself, or pipe Matroska or MPEG-TS"


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, none at the end."""


class VideoFile(DecodedSource, Closing):
    """A video file, decoded once from start to end. Use as a context manager.

    Args:
        path: The file, an open binary file, which is read from its start, or a stream such as
            standard input.
        threads: Threads that FFmpeg may use.
        name: What messages call the source; the path by default.
        max_pixels: Larger frames are refused before they are decoded.
        stream: Number of the stream in the file; by default the film that players show.
        decoder: What decodes it.

    Attributes:
        ahead_s: Seconds that `read_ahead` took.

    Raises:
        SourceError: The file is missing, a folder, unreadable, empty, a playlist, sound only,
            too large or too small, or no video.
        ProviderError: It is to be decoded on a device, which cannot.
    """

    def __init__(
        self,
        path: str | Path | Readable,
        *,
        threads: int = 1,
        name: str | None = None,
        max_pixels: int = MAX_FRAME_PIXELS,
        stream: int | None = None,
        decoder: DecoderReport = ON_CPU,
    ) -> None:
        whole = isinstance(path, str | Path) or is_file_object(path)
        name = name or (str(path) if isinstance(path, str | Path) else "standard input")
        container, decoder = open_on(
            decoder, lambda hwaccel: _open(path, name, max_pixels, hwaccel)
        )
        super().__init__(
            container,
            name,
            finite=True,
            threads=threads,
            mend="damaged or cut off" if whole else _PIPE_MEND,
            skim=whole,
            max_pixels=max_pixels,
            stream=stream,
            decoder=decoder,
        )
        self.ahead_s = 0.0
        self._ahead: deque[Frame] = deque()
        self._rest: Iterator[Frame] | None = None
        self._fault: Exception | None = None

    def read_ahead(self, sampler: DueFrames, *, bursts: bool, enough: threading.Event) -> None:
        """Decodes the first due frames, which `frames` then yields before the others.

        Ends after `_MOST_AHEAD` frames, fewer of large ones, or with the next one once `enough` is
        set. An error is kept for `frames`.

        Args:
            sampler: Says which frames are due, here and in `frames`.
            bursts: Whether they carry their `Burst`.
            enough: Ends it.
        """
        started_s = time.perf_counter()
        frame_bytes = 3 * max(1, self.width * self.height)
        most = max(1, min(_MOST_AHEAD, _AHEAD_BYTES // frame_bytes))
        self._rest = super().frames(sampler, bursts=bursts)
        try:
            for frame in self._rest:
                self._ahead.append(frame)
                if enough.is_set() or len(self._ahead) >= most:
                    break
        except Exception as error:
            self._fault = error
        self.ahead_s = time.perf_counter() - started_s

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """As in `DecodedSource`; after `read_ahead` those that it began, and no others."""
        if self._rest is None:
            return super().frames(sampler, every=every, bursts=bursts)
        return self._begun(self._rest)

    def _begun(self, rest: Iterator[Frame]) -> Iterator[Frame]:
        while self._ahead:
            yield self._ahead.popleft()
        if self._fault is not None:
            raise self._fault
        yield from rest


def _open(
    path: str | Path | Readable,
    name: str,
    max_pixels: int,
    hwaccel: Any,  # noqa: ANN401 - PyAV's settings
) -> InputContainer:
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
        raise UnsupportedError(name, "a playlist, which names other files", "give those themselves")
    if head.startswith(b"GIF8") or image_format(head) == "png":
        # FFmpeg learns the size of these from their first frame only.
        layout, at = ("<HH", 6) if head.startswith(b"GIF8") else (">II", 16)
        width, height = struct.unpack_from(layout, head.ljust(24, b"\0"), at)
        check_size(name, width, height, max_pixels)
    # By default FFmpeg takes pictures one after the other for numbered stills.
    form = "mjpeg" if image_format(head) == "jpeg" else None
    try:
        return open_container(location, options, form=form, max_pixels=max_pixels, hwaccel=hwaccel)
    except av.error.FFmpegError as error:
        if is_mp4(head):
            raise NotMediaError(
                name,
                f"the MP4 index is missing or damaged ({cause_of(error)}); "
                "the file was cut off or never finished",
            ) from error
        if isinstance(path, PipeReader) and path.empty:
            raise NotMediaError(name, "it is empty") from error
        raise NotMediaError(name, f"not a video ({cause_of(error)})") from error


def _check_fragments(file: BinaryIO, name: str) -> None:
    try:
        check_fragments(file)
    except (HeaderError, OSError) as error:
        raise NotMediaError(name, f"cannot be read ({error})") from error


#: OpenCV's conversions of each format to BGR; bgr24 is BGR already.
_CONVERSIONS = {
    "rgb24": cv2.COLOR_RGB2BGR,
    "gray": cv2.COLOR_GRAY2BGR,
    "yuv420p": cv2.COLOR_YUV2BGR_I420,
    "nv12": cv2.COLOR_YUV2BGR_NV12,
}


class RawVideo(Closing):
    """Raw frames without container or codec, timed by counting. Use as a context manager.

    They are read once from start to end.

    Args:
        stream: Gives the bytes; left open.
        raw: What they are.
        name: What messages call the source.

    Attributes:
        width, height: Size of the frames in pixels.
        duration_s: None: a pipe does not say how long it will be.
        frame_rate: Frames per second.
        complete: False once the last frame turned out to be cut off.
        reason: Why `complete` is False, else None.
        end_s: Time at which the last whole frame ends, in seconds.
        notes: None: there is a single stream.
    """

    finite = True
    notes: tuple[str, ...] = ()
    duration_s: float | None = None

    def __init__(self, stream: Readable, raw: RawFormat, *, name: str = "standard input") -> None:
        self.name = name
        self.width, self.height = raw.width, raw.height
        self.frame_rate = raw.fps
        self.complete = True
        self.reason: str | None = None
        self.end_s = 0.0
        self._stream = stream
        self._raw = raw

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """Yields the due frames in order; others are not converted.

        Args:
            sampler: Says which frames are due.
            every: Whether the other frames are yielded too, for display.
            bursts: Whether due frames carry their `Burst`.

        Raises:
            SourceError: There was not one whole frame.
        """
        recent = RecentFrames(self._luma) if bursts else None
        index = 0
        while True:
            data = self._read_frame()
            if len(data) < self._raw.frame_bytes:
                break
            time_s = index / self.frame_rate
            self.end_s = (index + 1) / self.frame_rate
            if recent is not None:
                recent.add(data, time_s)
            due = sampler.is_due(time_s)
            if due or every:
                burst = recent.burst() if due and recent is not None else None
                yield Frame(self._convert(data), time_s, index, due, burst)
            index += 1
        if data:
            self.complete = False
            self.reason = (
                f"the last frame is cut off: {len(data)} of {self._raw.frame_bytes} bytes; "
                f"is it {self._raw}?"
            )
        if not index:
            raise NotMediaError(self.name, self.reason or "no frame came")

    def close(self) -> None:
        """Does nothing: the stream stays open."""

    def _read_frame(self) -> bytearray:
        """Returns the bytes of the next frame; fewer at the end."""
        wanted = self._raw.frame_bytes
        data = bytearray()
        while len(data) < wanted:
            more = self._stream.read(wanted - len(data))
            if not more:
                break
            data += more
        return data

    def _convert(self, data: bytearray) -> Image:
        stored = self._stored(data)
        conversion = _CONVERSIONS.get(self._raw.pixel_format)
        if conversion is None:
            return stored
        return np.asarray(cv2.cvtColor(stored, conversion), dtype=np.uint8)

    def _luma(self, data: bytearray) -> Plane:
        frame = VideoFrame.from_ndarray(self._stored(data), format=self._raw.pixel_format)
        return shrunk_luma(frame, self.width, self.height)

    def _stored(self, data: bytearray) -> NDArray[np.uint8]:
        raw = self._raw
        packed = raw.pixel_format in ("bgr24", "rgb24")
        shape = (raw.height, raw.width, 3) if packed else (-1, raw.width)
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
