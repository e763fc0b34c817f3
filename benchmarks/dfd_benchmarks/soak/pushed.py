"""One stream for as long as it takes: does anything grow, leak or slow down?

A soak is cut into windows. Each has the most that the process held and the time that results took.
The first tenth of them warms up; the second tenth is compared with the last.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfd_benchmarks.results.machine import ProcessUsage, tree_cpu_s
from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_benchmarks.streams.footage import clip_or_sample, fitted_pictures
from dfd_edge import Detector
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources.frames import Image

#: What the last tenth may be over the second: of memory, and of CPU time a judged frame.
MAX_GROWTH, MAX_SLOWER = 0.01, 0.10
#: A first one to warm up, and two to hold against each other.
MIN_WINDOWS = 3
#: Windows of pushed frames, each a two-hundredth of them.
_WINDOWS = 200
#: Somebody comes so often and stays but for the last seconds of it, in seconds of video.
_TURN_S, _EMPTY_S = 60, 5
_COUNTED = {"soak pushed": "frames pushed", "soak live": "seconds of live streams"}


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a soak.

    Attributes:
        frames: Pushed or received frames, or seconds of live streams, since the start.
        elapsed_s: Seconds since the start.
        judged: Frames judged in this window.
        people: People that were distinguished since the start.
        gaps: Losses of streams since the start.
        memory_mb, threads, descriptors: The most that the process held in this window.
        p50_ms, p99_ms, max_ms: How long results took: a push, or from the sender's clock on.
        cpu_ms: CPU time of the process and its children for each judged frame.
    """

    frames: int
    elapsed_s: float
    judged: int
    people: int
    gaps: int
    memory_mb: float
    threads: int
    descriptors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float


@dataclass(slots=True, eq=False)
class Recording:
    """Collects what happens in one window after the other.

    Args:
        other_s: Returns the CPU seconds of children that are not part of what is measured.
    """

    other_s: Callable[[], float] = lambda: 0.0
    _latencies_ms: list[float] = field(default_factory=list)
    _held: list[ProcessUsage] = field(default_factory=list)
    _start_s: float = field(default_factory=time.monotonic)
    _cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self._cpu_s = self._own_cpu_s()

    def begin(self) -> None:
        """Begins a first window; what came before counts for nothing."""
        self._latencies_ms, self._held = [], []
        self._start_s, self._cpu_s = time.monotonic(), self._own_cpu_s()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was judged in this window so far."""
        return not self._latencies_ms

    def judged(self, latency_ms: float) -> None:
        """A frame was judged."""
        self._latencies_ms.append(latency_ms)

    def look(self) -> None:
        """Takes stock of the process."""
        self._held.append(ProcessUsage.now())

    def end_window(self, frames: int, *, people: int, gaps: int = 0) -> Window:
        """Sums up what came since the last window, which is not empty, and begins the next."""
        self.look()
        latencies_ms, self._latencies_ms = self._latencies_ms, []
        held, self._held = self._held, []
        cpu_s = self._own_cpu_s()
        window = Window(
            frames=frames,
            elapsed_s=time.monotonic() - self._start_s,
            judged=len(latencies_ms),
            people=people,
            gaps=gaps,
            memory_mb=max(entry.memory_mb for entry in held),
            threads=max(entry.threads for entry in held),
            descriptors=max(entry.descriptors for entry in held),
            p50_ms=float(np.percentile(latencies_ms, 50)),
            p99_ms=float(np.percentile(latencies_ms, 99)),
            max_ms=max(latencies_ms),
            cpu_ms=(cpu_s - self._cpu_s) * 1e3 / len(latencies_ms),
        )
        self._cpu_s = cpu_s
        return window

    def _own_cpu_s(self) -> float:
        return tree_cpu_s() - self.other_s()


@dataclass(frozen=True, slots=True)
class PushedOptions:
    """Frames that a program pushes.

    Attributes:
        frames: How many.
        size: Width and height in pixels.
        fps: Frames per second of video.

    Raises:
        UsageError: A value out of range.
    """

    frames: int = 1_000_000
    size: tuple[int, int] = (160, 120)
    fps: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 240:
            raise UsageError(f"fps is {self.fps}; give 1 to 240")
        least = MIN_WINDOWS * _TURN_S * self.fps
        if self.frames < least:
            raise UsageError(
                f"{self.frames} frames: give {least} or more, {MIN_WINDOWS} minutes at {self.fps} "
                "a second"
            )


def soak_pushed(detector: Detector, clip: Path | None, options: PushedOptions) -> Iterator[Window]:
    """Pushes frames into one stream as fast as they are judged.

    A person comes every minute of video, stays for 55 s and goes, on the left and on the right in
    turn, so that people are found, followed, judged and given up all the while. The verdict is
    asked for after each window.

    Args:
        detector: Judges.
        clip: A video with one face in it; the sample where None.
        options: The frames that are pushed.

    Raises:
        UsageError: A value out of range, or a system that does not tell what a process holds.
        SourceError: The clip cannot be read or shows no face.
    """
    clip = clip_or_sample(clip)
    pictures = fitted_pictures(clip, options.size, options.fps)
    scene = _Scene(pictures, options.fps)
    length = max(_TURN_S * options.fps, options.frames // _WINDOWS)
    with detector.stream("pushed frames") as stream:
        recording = Recording()
        for number in range(options.frames):
            image = scene.picture(number)
            start_s = time.perf_counter()
            result = stream.push(image, number / options.fps)
            if result is not None:
                recording.judged((time.perf_counter() - start_s) * 1e3)
            if (number + 1) % length == 0:
                people = len(stream.verdict().people)
                if not people:
                    raise SourceError(clip, "no face in it that can be found", "give another clip")
                yield recording.end_window(number + 1, people=people)


class _Scene:
    """Pictures without end: a clip to and fro, with nobody in them at the end of each minute."""

    def __init__(self, pictures: list[Image], fps: int) -> None:
        there = [*pictures, *pictures[-2:0:-1]]
        self._sides = there, [np.ascontiguousarray(image[:, ::-1]) for image in there]
        self._empty = np.full_like(pictures[0], 96)
        self._fps = fps

    def picture(self, number: int) -> Image:
        """The picture of this number: uint8 [height, width, 3], BGR."""
        turn, within = divmod(number, _TURN_S * self._fps)
        if within >= (_TURN_S - _EMPTY_S) * self._fps:
            return self._empty
        side = self._sides[turn % 2]
        return side[within % len(side)]


@dataclass(frozen=True, slots=True)
class _Measure:
    """One thing that should not grow.

    Attributes:
        field: A field of `Window`.
        label: The name that people read.
        unit: Unit of its values.
        bar: How much it may grow from the second tenth to the last: per cent, or a count.
    """

    field: str
    label: str
    unit: str
    bar: float | None

    @property
    def change_unit(self) -> str:
        """Unit of its growth."""
        return "count" if self.unit == "count" else "%"

    def change(self, early: float, late: float) -> float:
        """Returns how much it grew."""
        return late - early if self.unit == "count" else 100.0 * (late / early - 1.0)


_MEASURES = (
    _Measure("memory_mb", "resident memory", "MB", 100 * MAX_GROWTH),
    _Measure("threads", "threads", "count", 0.0),
    _Measure("descriptors", "open descriptors", "count", 0.0),
    _Measure("cpu_ms", "CPU time per judged frame", "ms", 100 * MAX_SLOWER),
    _Measure("p50_ms", "latency, p50", "ms", None),
    _Measure("p99_ms", "latency, p99", "ms", None),
)


def soak_result(
    kind: str, arguments: Mapping[str, Any], ran: RunInfo, windows: Sequence[Window]
) -> Result:
    """Returns the result of a soak, with the windows in its details.

    Args:
        kind: `pushed` or `live`.
        arguments: The arguments of the command.
        ran: The bundle, provider and precision that ran.
        windows: `MIN_WINDOWS` or more.

    Raises:
        UsageError: There are fewer.
    """
    if len(windows) < MIN_WINDOWS:
        raise UsageError(
            f"{len(windows)} windows were measured, {MIN_WINDOWS} are needed: let it run for longer"
        )
    tenth = max(1, len(windows) // 10)
    parts = windows[tenth : 2 * tenth], windows[-tenth:]
    figures = []
    for measure in _MEASURES:
        name, unit = measure.field.removesuffix("_mb").removesuffix("_ms"), measure.unit
        early, late = (
            float(statistics.median(getattr(window, measure.field) for window in part))
            for part in parts
        )
        change, label = measure.change(early, late), measure.label
        figures += [
            Figure(f"{name}.second_tenth", f"{label}, second tenth", unit, "lower", (early,)),
            Figure(f"{name}.last_tenth", f"{label}, last tenth", unit, "lower", (late,)),
            Figure(
                f"{name}.change",
                f"{label}, change",
                measure.change_unit,
                "lower",
                (change,),
                measure.bar,
            ),
        ]
    return Result(
        benchmark=f"soak {kind}",
        arguments=arguments,
        ran=ran,
        figures=figures,
        details={"windows": [dataclasses.asdict(window) for window in windows]},
    )


def soak_lines(result: Result) -> Iterator[str]:
    """Yields how long it ran, and whether anything grew."""
    last = result.details["windows"][-1]
    judged = sum(window["judged"] for window in result.details["windows"])
    yield (
        f"{result.benchmark}: {last['frames']} {_COUNTED[result.benchmark]} in "
        f"{last['elapsed_s']:.0f} s, {judged} frames judged, {last['people']} people, "
        f"{last['gaps']} losses"
    )
    yield f"{'':34}{'second tenth':>14}{'last tenth':>12}{'change':>10}"
    figures = iter(result.figures)
    for early, late, change in zip(figures, figures, figures, strict=True):
        bar = ""
        if change.bar is not None:
            bar = f"  bar {change.bar:g}: {'reached' if change.reached else 'MISSED'}"
        label, unit = early.label.rpartition(",")[0], early.unit
        sign = "%" if change.unit == "%" else ""
        yield (
            f"{f'{label}, {unit}':34}{early.values[0]:14.1f}{late.values[0]:12.1f}"
            f"{change.values[0]:+9.1f}{sign:1}{bar}"
        )
