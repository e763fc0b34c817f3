"""Interlaced video to whole pictures, through FFmpeg's own filter."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av.error
from av.filter import Graph

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

#: One picture a frame; frames that are not flagged as interlaced pass as they are.
_FILTER = "bwdif"
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"
#: For frames without times.
_ANY_TIME_BASE = Fraction(1, 90_000)


class Deinterlacer:
    """Passes frames on, and weaves none of the two fields of an interlaced one into the other.

    An interlaced frame is held back until the next one came, from which the filter takes what
    moved. Nothing is held back, and nothing is spent, before the first interlaced frame.

    Args:
        threads: Threads that the filter may use.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def feed(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Takes the next frame and yields those that are ready, in order."""
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and shape != self._shape:
            yield from self.flush()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._graph = self._build(frame)
            self._shape = shape
        self._graph.vpush(frame)
        yield from self._ready(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        """Yields what is still held back."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.vpush(None)
            yield from self._ready(graph)

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base or _ANY_TIME_BASE,
            ),
            # The filter's own option: PyAV sets the graph's only from version 18 on.
            graph.add(_FILTER, f"{_OPTIONS}:threads={self._threads}"),
            graph.add("buffersink"),
        ).configure()
        return graph

    @staticmethod
    def _ready(graph: Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
