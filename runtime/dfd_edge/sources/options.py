"""How a source is to be opened: what cannot be read from its name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from dfd_edge.errors import UsageError
from dfd_edge.sources.frame import (
    MAX_FRAME_PIXELS,
    MAX_PIXELS,
    MIN_SIDE,
    MOST_PIXELS,
    check_size,
)

RtspTransport = Literal["tcp", "udp"]
RawPixels = Literal["bgr24", "rgb24", "gray", "yuv420p", "nv12"]

RTSP_TRANSPORTS: tuple[RtspTransport, ...] = get_args(RtspTransport)
RAW_PIXELS: tuple[RawPixels, ...] = get_args(RawPixels)

MAX_RATE_HZ = 1000.0
#: Memory of a process that decodes in a sandbox, in mebibytes: enough for 8K films.
SANDBOX_MEMORY_MB = 2048
LEAST_SANDBOX_MEMORY_MB = 256
_BYTES_PER_PIXEL = {"bgr24": 3.0, "rgb24": 3.0, "gray": 1.0, "yuv420p": 1.5, "nv12": 1.5}
_SIZE = re.compile(r"(\d{1,5})[x*](\d{1,5})", re.IGNORECASE)
_RAW = re.compile(r"(\d{1,5})x(\d{1,5}):(\w+)@(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """What is asked of a camera; it may give something else, and what is None it chooses itself.

    Attributes:
        width, height: Size of its pictures in pixels; both or neither.
        fps: Pictures per second.
        pixel_format: Four letters as the camera names it, such as MJPG or YUYV.

    Raises:
        UsageError: A value that no camera has.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    pixel_format: str | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise UsageError(
                f"camera size {self.width}x{self.height}: give both sides, such as 1280x720"
            )
        if self.width is not None and self.height is not None:
            refusal = check_size("camera size", self.width, self.height)
            if refusal:
                raise UsageError(refusal)
        if self.fps is not None and not 0.0 < self.fps <= MAX_RATE_HZ:
            raise UsageError(f"camera fps {self.fps:g}: give a number above 0, such as 30")
        four = self.pixel_format
        if four is not None and not (len(four) == 4 and four.isascii() and four.isprintable()):
            raise UsageError(f"camera format {four!r}: give four letters, such as MJPG or YUYV")

    @staticmethod
    def size(text: str) -> tuple[int, int]:
        """Reads `1280x720`.

        Raises:
            UsageError: It is something else.
        """
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"camera size {text!r}: give WIDTHxHEIGHT, such as 1280x720")
        return int(match.group(1)), int(match.group(2))


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Frames without any container, one after the other.

    Attributes:
        width, height: Size in pixels; even for yuv420p and nv12.
        pixel_format: One of `RAW_PIXELS`, named as in FFmpeg.
        fps: Frames per second; the only thing that says when a frame was taken.

    Raises:
        UsageError: A value out of range.
    """

    width: int
    height: int
    pixel_format: RawPixels
    fps: float

    def __post_init__(self) -> None:
        if self.pixel_format not in RAW_PIXELS:
            raise UsageError(
                f"raw pixel format {self.pixel_format!r}: give one of {', '.join(RAW_PIXELS)}"
            )
        refusal = check_size("raw frames", self.width, self.height)
        if refusal:
            raise UsageError(refusal)
        if self.pixel_format in ("yuv420p", "nv12") and (self.width % 2 or self.height % 2):
            raise UsageError(
                f"raw frames: {self.pixel_format} needs even sides, not {self.width}x{self.height}"
            )
        if not 0.0 < self.fps <= MAX_RATE_HZ:
            raise UsageError(
                f"raw frames: {self.fps:g} frames per second; give a number from above 0 to "
                f"{MAX_RATE_HZ:g}"
            )

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Reads `1280x720:bgr24@30`.

        Raises:
            UsageError: It is something else, or a value is out of range.
        """
        match = _RAW.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"raw format {text!r}: give WIDTHxHEIGHT:PIXELS@FPS, such as 1280x720:bgr24@30; "
                f"PIXELS is one of {', '.join(RAW_PIXELS)}"
            )
        width, height, pixels, fps = match.groups()
        return cls(int(width), int(height), pixels.lower(), float(fps))  # type: ignore[arg-type]

    @property
    def frame_bytes(self) -> int:
        """Size of a frame in bytes."""
        return round(self.width * self.height * _BYTES_PER_PIXEL[self.pixel_format])

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.pixel_format}@{self.fps:g}"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How sources are opened; each kind of source takes what concerns it.

    Attributes:
        camera: What is asked of cameras.
        rtsp_transport: How RTSP carries its packets. `udp` loses some where `tcp` waits.
        raw: What frames on standard input are, where they are raw.
        reconnect_s: Seconds after which a lost live source is given up; 0 never opens it again,
            None tries for ever.
        max_pixels: Larger pictures and frames are refused before they are decoded; by default
            8192 x 8192 for a still and 8192 x 4096 for a film.
        stream: Number of the stream in files and network streams that have several, as FFmpeg
            counts them from 0; by default the film that players show.
        sandbox: Whether a child process decodes, which is limited; by default for addresses only.
            Cameras are read in this process.
        sandbox_memory_mb: Memory that the child may allocate.

    Raises:
        UsageError: A value out of range.
    """

    camera: CameraOptions = field(default_factory=CameraOptions)
    rtsp_transport: RtspTransport = "tcp"
    raw: RawFormat | None = None
    reconnect_s: float | None = None
    max_pixels: int | None = None
    stream: int | None = None
    sandbox: bool | None = None
    sandbox_memory_mb: int = SANDBOX_MEMORY_MB

    def __post_init__(self) -> None:
        number = self.stream
        if number is not None and (isinstance(number, bool) or not number >= 0):
            raise UsageError(f"stream {number!r}: give the number of a video stream, from 0")
        if number is not None and self.raw is not None:
            raise UsageError(f"stream {number}: raw frames are a single stream; leave it out")
        if self.rtsp_transport not in RTSP_TRANSPORTS:
            raise UsageError(
                f"RTSP transport {self.rtsp_transport!r}: give one of {', '.join(RTSP_TRANSPORTS)}"
            )
        if self.reconnect_s is not None and not self.reconnect_s >= 0.0:
            raise UsageError(f"reconnect {self.reconnect_s:g} s: give 0 or more")
        if self.max_pixels is not None and not MIN_SIDE**2 <= self.max_pixels <= MOST_PIXELS:
            raise UsageError(
                f"max_pixels {self.max_pixels}: give a number of pixels from {MIN_SIDE**2} to "
                f"{MOST_PIXELS:,}"
            )
        if self.sandbox_memory_mb < LEAST_SANDBOX_MEMORY_MB:
            raise UsageError(
                f"sandbox memory {self.sandbox_memory_mb} MB: give {LEAST_SANDBOX_MEMORY_MB} or "
                "more, which the libraries alone take"
            )

    @property
    def still_pixels(self) -> int:
        """The most pixels of a still."""
        return self.max_pixels or MAX_PIXELS

    @property
    def frame_pixels(self) -> int:
        """The most pixels of a film's frame."""
        return self.max_pixels or MAX_FRAME_PIXELS
