"""Opens sources by their kind and options."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_edge.closing import Closing, native_calls
from dfd_edge.errors import UnsupportedError, UsageError
from dfd_edge.sources.containers import head_of, image_format, is_file_object, read_head
from dfd_edge.sources.decoder import choose_decoder
from dfd_edge.sources.expand import SourceItem, SourceKind
from dfd_edge.sources.image import read_image
from dfd_edge.sources.video import RawVideo, VideoFile, open_standard_input

if TYPE_CHECKING:
    from dfd_edge.sandbox.source import SandboxedSource
    from dfd_edge.sources.frames import DueFrames, Image
    from dfd_edge.sources.image import AnimatedWebP
    from dfd_edge.sources.live import FrameSource

logger = logging.getLogger(__name__)


def open_file(
    item: SourceItem, stop: threading.Event, *, threads: int
) -> VideoFile | RawVideo | AnimatedWebP | SandboxedSource:
    """Opens a video file, an animation, or what comes on standard input.

    Args:
        item: The source.
        stop: Ends the wait for more of a pipe.
        threads: Threads that FFmpeg may use.

    Raises:
        SourceError: It cannot be read.
    """
    if _is_sandboxed(item):
        from dfd_edge.sandbox.source import SandboxedSource  # noqa: PLC0415

        return SandboxedSource(item, live=False, threads=threads, stop=stop)
    if item.kind is not SourceKind.STANDARD_INPUT:
        return _open_recording(item, threads)
    pipe = open_standard_input(stop)
    if item.options.raw is not None:
        return RawVideo(pipe, item.options.raw, name=item.name)
    return VideoFile(
        pipe,
        threads=threads,
        name=item.name,
        max_pixels=item.options.frame_pixels,
        stream=item.options.stream,
        decoder=choose_decoder(item.options.decoder, item.options.decoder_device),
    )


def _open_recording(item: SourceItem, threads: int) -> VideoFile | AnimatedWebP:
    location = item.location if is_file_object(item.location) else Path(str(item.location))
    max_pixels = item.options.frame_pixels
    head = read_head(location) if isinstance(location, Path) else head_of(location, item.name)
    if image_format(head) == "webp":
        from dfd_edge.sources.image import AnimatedWebP  # noqa: PLC0415

        return AnimatedWebP(location, name=item.name, max_pixels=max_pixels)
    return VideoFile(
        location,
        threads=threads,
        name=item.name,
        max_pixels=max_pixels,
        stream=item.options.stream,
        decoder=choose_decoder(item.options.decoder, item.options.decoder_device),
    )


class ReadAhead(Closing):
    """A video file that is opened, and its first due frames decoded, while models are loaded.

    Args:
        item: The file.
        sampler: Says which frames are due.
        bursts: Whether due frames carry their `Burst`.
        threads: Threads that FFmpeg may use.
    """

    def __init__(self, item: SourceItem, sampler: DueFrames, *, bursts: bool, threads: int) -> None:
        self._enough = threading.Event()
        self._video: VideoFile | RawVideo | AnimatedWebP | SandboxedSource | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(
            target=self._read,
            args=(item, sampler, bursts, threads),
            name="dfd-edge reading ahead",
            daemon=True,
        )
        self._thread.start()

    def take(self) -> VideoFile | RawVideo | AnimatedWebP | SandboxedSource:
        """Ends the reading ahead and returns the file: to be read on, and closed, by the caller.

        Raises:
            SourceError: It cannot be opened.
        """
        self._enough.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._video is not None  # the thread has ended without an error
        return self._video

    def close(self) -> None:
        """Ends the reading ahead and closes the file. Safe to call twice."""
        self._enough.set()
        self._thread.join()
        if self._video is not None:
            self._video.close()

    def _read(self, item: SourceItem, sampler: DueFrames, bursts: bool, threads: int) -> None:
        try:
            with native_calls():
                self._video = open_file(item, self._enough, threads=threads)
                if isinstance(self._video, VideoFile):
                    self._video.read_ahead(sampler, bursts=bursts, enough=self._enough)
        except Exception as error:  # raised again where the file is taken
            self._error = error


def read_still(item: SourceItem) -> Image:
    """Reads a still picture, upright.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        SourceError: It cannot be read.
    """
    if _is_sandboxed(item):
        from dfd_edge.sandbox.source import sandboxed_still  # noqa: PLC0415

        return sandboxed_still(item)
    location = item.location if is_file_object(item.location) else str(item.location)
    return read_image(location, name=item.name, max_pixels=item.options.still_pixels)


def open_live(
    item: SourceItem, *, threads: int, stop: threading.Event | None = None
) -> FrameSource:
    """Opens a camera, an address, or a file that is to be watched.

    Args:
        item: The source.
        threads: Threads that FFmpeg may use.
        stop: Ends the waits for a sandbox.

    Raises:
        SourceError: It cannot be opened, or is none of these.
    """
    if _is_sandboxed(item):
        from dfd_edge.sandbox.source import SandboxedSource  # noqa: PLC0415

        return SandboxedSource(item, live=True, threads=threads, stop=stop)
    from dfd_edge.sources.camera import Camera  # noqa: PLC0415
    from dfd_edge.sources.network import NetworkStream  # noqa: PLC0415

    if item.kind is SourceKind.CAMERA:
        device = item.location if isinstance(item.location, int) else str(item.location)
        return Camera(device, item.options.camera)
    if item.kind is SourceKind.ADDRESS:
        return NetworkStream(
            str(item.location),
            threads=threads,
            rtsp_transport=item.options.rtsp_transport,
            max_pixels=item.options.frame_pixels,
            stream=item.options.stream,
            decoder=choose_decoder(item.options.decoder, item.options.decoder_device),
        )
    if item.kind is SourceKind.VIDEO:
        return _open_recording(item, threads)
    raise UnsupportedError(item.name, "cannot be watched", "use `analyze`")


def connector(
    item: SourceItem, connect: Callable[[SourceItem, threading.Event], FrameSource]
) -> Callable[[threading.Event], FrameSource]:
    """Returns what a reader calls in its own thread, first and after each loss, to open the source.

    Args:
        item: The source.
        connect: Opens it; the event ends its waits, where they can be ended.

    Raises:
        SourceError: A camera on macOS cannot be opened.
    """
    if item.kind is not SourceKind.CAMERA or platform.system() != "Darwin":
        return lambda stop: connect(item, stop)
    # macOS asks for permission to use the camera in the main thread only.
    opened = [connect(item, threading.Event())]
    return lambda stop: opened.pop() if opened else connect(item, stop)


def _is_sandboxed(item: SourceItem) -> bool:
    """Returns whether a child process decodes the source: as asked, else for addresses.

    Raises:
        UsageError: It was asked for and cannot be.
    """
    wanted = item.options.sandbox
    if item.kind is SourceKind.CAMERA or wanted is False:
        return False
    if wanted is None and item.kind is not SourceKind.ADDRESS:
        return False
    if item.options.decoder == "cuda":
        raise UsageError(
            "decoder cuda: addresses are decoded in a sandbox, which opens no device; give "
            "--no-sandbox too, or --decoder cpu",
            source=item.name,
        )
    from dfd_edge.sandbox.process import unavailable  # noqa: PLC0415

    why_not = unavailable()
    if why_not is not None and wanted:
        raise UsageError(f"{why_not}; leave --sandbox out, or use --no-sandbox", source=item.name)
    if why_not is not None:
        logger.info("%s: %s; it is decoded in this process", item.name, why_not)
    return why_not is None
