"""Video files through PyAV: exact timestamps, upright frames, and a word on what is missing."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol

import av
import av.error
import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.sources.formats import FORMAT_WHITELIST, is_mp4, is_playlist
from dfd_edge.sources.frame import MAX_PIXELS, Frame, Image, check_size
from dfd_edge.sources.orientation import Orientation
from dfd_edge.sources.timeline import Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

_FALLBACK_RATE = 25.0
_MAX_RATE = 1000.0
_HEAD_BYTES = 64
#: A file is taken for cut off when its end is missing by more than this (seconds, and share).
_MISSING_S = 0.5
_MISSING_SHARE = 0.02
#: Undecodable packets in a row after which a file is given up.
_MAX_BAD_PACKETS = 500


class DueFrames(Protocol):
    """Says which frames are wanted; `dfd_edge.sampling.Sampler` is one."""

    def is_due(self, time_s: float) -> bool:
        """Whether the frame at this time is converted and handed out."""
        ...


class VideoFile:
    """A video file, decoded once from start to end. Use as a context manager.

    Frames come upright (display matrix applied) and with square pixels. Only frames that are due
    are converted to BGR. What cannot be decoded is left out, never made up.

    Args:
        path: The file, or an open binary stream such as standard input.
        threads: Threads that FFmpeg may use.
        name: What messages call the source; the path by default.

    Attributes:
        width, height: Size of the upright frames in pixels.
        duration_s: Length that the container states, in seconds, or None.
        frame_rate: Nominal frames per second.
        complete: False once something of the file turned out to be missing or undecodable.
        reason: Why `complete` is False, else None.
        end_s: Time at which the last decoded frame ends, in seconds.

    Raises:
        SourceError: The file is missing, a folder, unreadable, empty, a playlist, sound only,
            absurdly large or small, or no video.
    """

    finite = True

    def __init__(
        self, path: str | Path | BinaryIO, *, threads: int = 1, name: str | None = None
    ) -> None:
        self.name = name or (str(path) if isinstance(path, str | Path) else "standard input")
        self._is_file = isinstance(path, str | Path)
        self._container = _open(path, self.name)
        try:
            self._stream = pick_stream(self._container, self.name)
            self._configure(threads)
        except BaseException:
            self._container.close()
            raise
        self.complete = True
        self.reason: str | None = None
        self.end_s = 0.0
        self._consumed = False

    def _configure(self, threads: int) -> None:
        stream = self._stream
        context = stream.codec_context
        if context is None:
            raise SourceError(f"{self.name}: no decoder for this video codec; re-encode as H.264")
        context.thread_count = threads
        context.thread_type = "AUTO" if threads > 1 else "NONE"
        context.options = {"max_pixels": str(MAX_PIXELS)}
        width, height = context.width, context.height
        if (width, height) != (0, 0):
            refusal = check_size(self.name, width, height)
            if refusal:
                raise SourceError(refusal)
        self.frame_rate = frame_rate_of(stream)
        self.duration_s = _duration_s(self._container, stream)
        self._aspect = _pixel_aspect(stream)
        self._orientation = Orientation()
        self.width, self.height = round(width * self._aspect), height

    def frames(self, sampler: DueFrames) -> Iterator[Frame]:
        """Decodes the file and yields the frames that `sampler` asks for, in order.

        Raises:
            SourceError: Nothing could be decoded, or a second pass was asked for.
        """
        if self._consumed:
            raise SourceError(f"{self.name}: already read; open it again for a second pass")
        self._consumed = True
        timeline = Timeline(self.frame_rate, _start_s(self._stream))
        index = -1
        for index, decoded in enumerate(self._decode()):
            time_s = timeline.place(pts_seconds(decoded))
            self.end_s = time_s + 1.0 / self.frame_rate
            if sampler.is_due(time_s):
                image = self._convert(decoded, first=index == 0)
                if image is not None:
                    yield Frame(image, time_s, index)
        if index < 0:
            cause = f" ({self.reason})" if self.reason else ""
            mend = "damaged or cut off" if self._is_file else "pipe Matroska or MPEG-TS instead"
            raise SourceError(f"{self.name}: no frame could be decoded{cause}; {mend}")
        self._check_end(index + 1)

    def close(self) -> None:
        """Closes the file. Safe to call twice."""
        self._container.close()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _decode(self) -> Iterator[VideoFrame]:
        bad_packets = bad_in_a_row = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._missing(f"reading broke off: {cause_of(error)}")
                return
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                bad_packets += 1
                bad_in_a_row += 1
                self._missing(f"{bad_packets} packets could not be decoded: {cause_of(error)}")
                if bad_in_a_row >= _MAX_BAD_PACKETS:
                    return
                continue
            if decoded:
                bad_in_a_row = 0
            yield from decoded

    def _convert(self, decoded: VideoFrame, *, first: bool) -> Image | None:
        width, height = decoded.width, decoded.height
        refusal = check_size(self.name, width, height)
        if refusal:
            if first:
                raise SourceError(refusal)
            self._missing(refusal)
            return None
        orientation = _orientation(decoded)
        # Resizing is done by the same pass that converts the colours; it is off for square pixels.
        image = np.asarray(
            decoded.to_ndarray(
                format="bgr24", width=round(width * self._aspect), height=height, threads=1
            ),
            dtype=np.uint8,
        )
        image = orientation.apply(image)
        if first:
            self.height, self.width = image.shape[:2]
        return image

    def _check_end(self, decoded_frames: int) -> None:
        stated = self._stream.frames
        if stated > 0:
            missing_s = (stated - decoded_frames) / self.frame_rate
            whole_s = stated / self.frame_rate
        elif self.duration_s is not None:
            whole_s = self.duration_s
            missing_s = whole_s - self.end_s
        else:
            return
        if missing_s > max(_MISSING_S, _MISSING_SHARE * whole_s):
            self._missing(f"cut off: {self.end_s:.1f} s of {whole_s:.1f} s could be decoded")

    def _missing(self, reason: str) -> None:
        if self.complete:
            logger.info("%s: %s", self.name, reason)
        self.complete = False
        self.reason = reason


def _open(path: str | Path | BinaryIO, name: str) -> InputContainer:
    options = {"format_whitelist": FORMAT_WHITELIST, "protocol_whitelist": "file,pipe"}
    if isinstance(path, str | Path):
        head = read_head(Path(path))
        if is_playlist(head):
            raise SourceError(f"{name}: a playlist, which names other files; give those themselves")
        # The prefix keeps FFmpeg from reading a protocol into the file's name.
        location: str | BinaryIO = f"file:{Path(path).absolute()}"
    else:
        head = b""
        location = path
    try:
        return av.open(location, mode="r", options=options, metadata_errors="replace")
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


def pick_stream(container: InputContainer, name: str) -> VideoStream:
    """The largest video stream that is no cover picture.

    Raises:
        SourceError: There is none.
    """
    videos = [s for s in container.streams.video if not _is_cover(s)]
    if not videos:
        if container.streams.audio:
            raise SourceError(f"{name}: sound only, no video in it")
        raise SourceError(f"{name}: no video in it; damaged or cut off, or no video at all")
    return max(videos, key=lambda s: s.width * s.height if s.codec_context else -1)


def pts_seconds(decoded: VideoFrame) -> float | None:
    """Presentation time of a frame in seconds of its stream's own clock; None if it has none."""
    if decoded.pts is None or not decoded.time_base:
        return None
    return float(decoded.pts * decoded.time_base)


def _is_cover(stream: VideoStream) -> bool:
    """Whether the stream is the cover picture of a sound file."""
    return "attached_pic" in (stream.disposition.name or "")


def frame_rate_of(stream: VideoStream) -> float:
    """Nominal frames per second; 25 where nothing sensible is stated."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0.0 < float(rate) <= _MAX_RATE:
            return float(rate)
    return _FALLBACK_RATE


def _start_s(stream: VideoStream) -> float | None:
    if stream.start_time is None or not stream.time_base:
        return None
    return float(stream.start_time * stream.time_base)


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tagged = _clock_s(stream.metadata.get("DURATION", ""))
    if tagged:
        return tagged
    if container.duration and container.duration > 0:
        return container.duration / av.time_base
    return None


def _clock_s(text: str) -> float | None:
    """Reads Matroska's `00:00:10.010000000`."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _pixel_aspect(stream: VideoStream) -> float:
    """Width of a pixel over its height; 1 where nothing sensible is stated."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return float(aspect) if Fraction(1, 4) <= aspect <= 4 else 1.0


def _orientation(decoded: VideoFrame) -> Orientation:
    try:
        data = bytes(decoded.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
    except KeyError:
        return Orientation()
    if len(data) < 36:
        return Orientation()
    return Orientation.from_matrix(np.frombuffer(data, dtype=np.int32, count=9))


def cause_of(error: av.error.FFmpegError) -> str:
    """FFmpeg's own words for an error, without numbers and file names."""
    return (error.strerror or type(error).__name__).lower()
