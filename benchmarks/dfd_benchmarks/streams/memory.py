"""Memory of one stream over hours of video, decoded and judged as fast as the machine can."""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dfd_benchmarks.results.machine import resident_mb
from dfd_benchmarks.results.schema import RunInfo
from dfd_benchmarks.streams.footage import make_footage
from dfd_edge import Detector
from dfd_edge.errors import UsageError
from dfd_edge.judging.stream import Stream
from dfd_edge.sources.frames import Frame
from dfd_edge.sources.video import VideoFile

#: Of one running stream, in megabytes, and of the last minute over the first.
MAX_MB, MAX_GROWTH = 300.0, 0.01
#: Resident memory is looked at so often in a minute of video; the minute's figure is the largest.
_LOOKS = 12
_FPS = 30


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Resident memory of the process, with everything that it loaded.

    Attributes:
        clip: The clip that was judged, over and over.
        width, height: Size of the pictures in pixels.
        ran: The bundle, provider and precision that ran.
        judged: Frames judged in all.
        loaded_mb: Before the first frame, in megabytes.
        minutes_mb: The largest in each minute of video, in megabytes.
    """

    clip: str
    width: int
    height: int
    ran: RunInfo
    judged: int
    loaded_mb: float
    minutes_mb: tuple[float, ...]

    @property
    def growth(self) -> float:
        """The last minute over the first, less 1."""
        return self.minutes_mb[-1] / self.minutes_mb[0] - 1.0


def measure_memory(
    clip: Path | None,
    *,
    size: tuple[int, int] = (1280, 720),
    minutes: int = 60,
    model: Path | None = None,
    precision: str = "auto",
    on_minute: Callable[[], object] = lambda: None,
) -> MemoryReport:
    """Judges a number of minutes of video in one stream.

    Args:
        clip: A video with one face in it; the sample where None.
        size: Width and height of the pictures in pixels.
        minutes: Minutes of video, 2 or more.
        model: A bundle; the shipped one by default.
        precision: A variant of the frame graph.
        on_minute: Called after each minute of video.

    Raises:
        UsageError: A value out of range, or a system that does not tell a process's memory.
        SourceError: The clip cannot be read.
    """
    if minutes < 2:
        raise UsageError(f"minutes is {minutes}; give 2 or more")
    detector = Detector.load(model, precision=precision)
    with tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        path = Path(folder) / "footage.ts"
        # Apart, so that the pictures of the footage leave no trace in this process.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            footage = apart.submit(make_footage, clip, path, size=size, fps=_FPS).result()
        loaded_mb = resident_mb()
        with detector.stream() as stream:
            frames = _decoded(footage.path, stream)
            minutes_mb = []
            for minute in range(minutes):
                minutes_mb.append(_largest_mb(frames, stream, 60.0 * (minute + 1)))
                on_minute()
            judged = stream.verdict().frames
    return MemoryReport(
        clip=footage.clip,
        width=footage.width,
        height=footage.height,
        ran=RunInfo.of(detector, precision=precision),
        judged=judged,
        loaded_mb=loaded_mb,
        minutes_mb=tuple(minutes_mb),
    )


class _Shifted:
    """Samples one turn of the footage by the times of the whole stream."""

    def __init__(self, stream: Stream, offset_s: float) -> None:
        self._stream = stream
        self._offset_s = offset_s

    def is_due(self, time_s: float) -> bool:
        return self._stream.is_due(self._offset_s + time_s)


def _decoded(path: Path, stream: Stream) -> Iterator[Frame]:
    """The due frames of a footage that is repeated without end; each turn opens it anew."""
    for offset_s in itertools.accumulate(itertools.repeat(_length_s(path)), initial=0.0):
        with VideoFile(str(path)) as video:
            for frame in video.frames(_Shifted(stream, offset_s)):
                yield Frame(frame.image, offset_s + frame.time_s, frame.index)


def _length_s(path: Path) -> float:
    with VideoFile(str(path)) as video:
        return sum(1 for _ in video.frames(_All())) / video.frame_rate


class _All:
    def is_due(self, time_s: float) -> bool:
        return True


def _largest_mb(frames: Iterator[Frame], stream: Stream, until_s: float) -> float:
    """Judges frames up to a time and returns the largest resident memory meanwhile."""
    largest_mb = 0.0
    look_s = until_s - 60.0
    for frame in frames:
        stream.score([stream.observe(frame.pixels, frame.time_s)])
        if frame.time_s >= look_s:
            largest_mb = max(largest_mb, resident_mb())
            look_s += 60.0 / _LOOKS
        if frame.time_s + stream.sampler.period_s >= until_s:
            break
    return largest_mb
