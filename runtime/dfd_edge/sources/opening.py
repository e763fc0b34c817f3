"""Opens a source as its kind and its options say."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from dfd_edge.errors import SourceError
from dfd_edge.sources.expand import SourceItem, SourceKind
from dfd_edge.sources.pipe import open_standard_input
from dfd_edge.sources.raw import RawVideo
from dfd_edge.sources.video import VideoFile

if TYPE_CHECKING:
    from dfd_edge.sources.live import FrameSource


def open_file(item: SourceItem, stop: threading.Event, *, threads: int) -> VideoFile | RawVideo:
    """Opens a video file, or what comes on standard input.

    Args:
        item: The source.
        stop: Ends the wait for more of a pipe.
        threads: Threads that FFmpeg may use.

    Raises:
        SourceError: It cannot be read.
    """
    if item.kind is not SourceKind.STANDARD_INPUT:
        return _video(item, threads)
    pipe = open_standard_input(stop)
    if item.options.raw is not None:
        return RawVideo(pipe, item.options.raw, name=item.name)
    return VideoFile(pipe, threads=threads, name=item.name, stream=item.options.stream)


def open_live(item: SourceItem, *, threads: int) -> FrameSource:
    """Opens a camera, an address, or a file that is to be watched.

    Raises:
        SourceError: It cannot be opened, or is none of these.
    """
    from dfd_edge.sources.camera import Camera  # noqa: PLC0415
    from dfd_edge.sources.network import NetworkStream  # noqa: PLC0415

    if item.kind is SourceKind.CAMERA:
        return Camera(item.location, item.options.camera)
    if item.kind is SourceKind.ADDRESS:
        return NetworkStream(
            str(item.location),
            threads=threads,
            rtsp_transport=item.options.rtsp_transport,
            stream=item.options.stream,
        )
    if item.kind is SourceKind.VIDEO:
        return _video(item, threads)
    raise SourceError(f"{item.name}: cannot be watched; use `analyze`")


def _video(item: SourceItem, threads: int) -> VideoFile:
    return VideoFile(
        str(item.location), threads=threads, name=item.name, stream=item.options.stream
    )


def connector(
    item: SourceItem, connect: Callable[[SourceItem], FrameSource]
) -> Callable[[], FrameSource]:
    """What a reader calls in its own thread, first and after each loss, to open the source.

    Raises:
        SourceError: A camera on macOS cannot be opened.
    """
    if item.kind is not SourceKind.CAMERA or platform.system() != "Darwin":
        return lambda: connect(item)
    # macOS asks for permission to use the camera in the main thread only.
    opened = [connect(item)]
    return lambda: opened.pop() if opened else connect(item)
