"""Options for opening a source."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from dfd_edge.arguments import check_kind, check_number, check_one_of, check_whole
from dfd_edge.errors import UsageError
from dfd_edge.sources.decoder import DECODERS, DecoderName
from dfd_edge.sources.frames import (
    MAX_FRAME_PIXELS,
    MAX_PIXELS,
    MIN_SIDE,
    MOST_PIXELS,
    check_asked_size,
)

RtspTransport = Literal["tcp", "udp"]
RawPixels = Literal["bgr24", "rgb24", "gray", "yuv420p", "nv12"]

RTSP_TRANSPORTS: tuple[RtspTransport, ...] = get_args(RtspTransport)
RAW_PIXELS: tuple[RawPixels, ...] = get_args(RawPixels)

MAX_RATE_HZ = 1000.0
#: Memory of a process that decodes in a sandbox, in mebibytes: enough for 8K films.
SANDBOX_MEMORY_MB = 2048
_MOST_STREAMS = 65_535
_MOST_DEVICES = 63
_MOST_SANDBOX_MEMORY_MB = 1 << 20
LEAST_SANDBOX_MEMORY_MB = 256
_BYTES_PER_PIXEL = {"bgr24": 3.0, "rgb24": 3.0, "gray": 1.0, "yuv420p": 1.5, "nv12": 1.5}
_SIZE = re.compile(r"(\d{1,5})[x*](\d{1,5})", re.IGNORECASE)
_RAW = re.compile(r"(\d{1,5})x(\d{1,5}):(\w+)@(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Settings asked of a camera, which may choose others; None leaves the choice to it.

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
        for side in (self.width, self.height):
            if side is not None:
                check_whole("camera size", side, least=1, most=10**9)
        if self.fps is not None:
            check_number("camera fps", self.fps, above=0.0, most=MAX_RATE_HZ)
        check_kind("camera format", self.pixel_format, str, "four letters, such as MJPG or YUYV")
        if (self.width is None) != (self.height is None):
            raise UsageError(
                f"camera size {self.width}x{self.height}: give both sides, such as 1280x720"
            )
        if self.width is not None and self.height is not None:
            check_asked_size("camera size", self.width, self.height)
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
    """Format of raw frames without a container.

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
        check_one_of("raw pixel format", self.pixel_format, RAW_PIXELS)
        for side in (self.width, self.height):
            check_whole("raw frames' side", side, least=1, most=10**9)
        check_number("raw frames per second", self.fps, above=0.0, most=MAX_RATE_HZ)
        check_asked_size("raw frames", self.width, self.height)
        if self.pixel_format in ("yuv420p", "nv12") and (self.width % 2 or self.height % 2):
            raise UsageError(
                f"raw frames: {self.pixel_format} needs even sides, not {self.width}x{self.height}"
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
    """Options for opening sources; each kind of source takes what concerns it.

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
        decoder: What decodes films: "cpu"; "cuda", an NVIDIA device, which never falls back; or
            "auto", the device where it decodes the film. A sandbox opens no device.
        decoder_device: Number of the device.

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
    decoder: DecoderName = "cpu"
    decoder_device: int = 0

    def __post_init__(self) -> None:
        check_kind("camera", self.camera, CameraOptions, "CameraOptions")
        check_one_of("RTSP transport", self.rtsp_transport, RTSP_TRANSPORTS)
        check_kind("raw", self.raw, RawFormat, "a RawFormat")
        if self.reconnect_s is not None:
            check_number("reconnect", self.reconnect_s)
        if self.max_pixels is not None:
            check_whole("max_pixels", self.max_pixels, least=MIN_SIDE**2, most=MOST_PIXELS)
        if self.stream is not None:
            check_whole("stream", self.stream, least=0, most=_MOST_STREAMS)
            if self.raw is not None:
                raise UsageError(
                    f"stream {self.stream}: raw frames are a single stream; leave it out"
                )
        check_kind("sandbox", self.sandbox, bool, "True, False or None")
        check_whole(
            "sandbox memory in MB",
            self.sandbox_memory_mb,
            least=LEAST_SANDBOX_MEMORY_MB,
            most=_MOST_SANDBOX_MEMORY_MB,
        )
        check_one_of("decoder", self.decoder, DECODERS)
        check_whole("decoder_device", self.decoder_device, least=0, most=_MOST_DEVICES)
        if self.decoder == "cuda" and self.sandbox:
            raise UsageError("decoder cuda: a sandbox opens no device; leave one of them out")

    @property
    def still_pixels(self) -> int:
        """The most pixels of a still."""
        return self.max_pixels or MAX_PIXELS

    @property
    def frame_pixels(self) -> int:
        """The most pixels of a film's frame."""
        return self.max_pixels or MAX_FRAME_PIXELS
