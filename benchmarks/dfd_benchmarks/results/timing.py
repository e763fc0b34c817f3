"""CPU time and elapsed time: of a call, of a stage frame by frame, and their spread over runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum of a figure over several runs.

    Attributes:
        low: The smallest value.
        median: The middle value.
        high: The largest value.
        runs: Number of values.
    """

    low: float
    median: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarises one or more values."""
        return cls(min(values), statistics.median(values), max(values), len(values))


def wall_seconds(work: Callable[[], object]) -> float:
    """Elapsed time of a call in seconds."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


@dataclass(frozen=True, slots=True, eq=False)
class StageTimes:
    """Times of one stage.

    Attributes:
        cpu_ms: float64 [n], CPU milliseconds of each judged frame, all threads.
        wall_ms: float64 [n], elapsed milliseconds of each.
        rest_cpu_ms, rest_wall_ms: Time that belongs to no frame: opening a file, its last frames.
    """

    cpu_ms: NDArray[np.float64]
    wall_ms: NDArray[np.float64]
    rest_cpu_ms: float = 0.0
    rest_wall_ms: float = 0.0

    @property
    def cpu_mean_ms(self) -> float:
        """CPU milliseconds per judged frame, the rest shared out."""
        return float(self.cpu_ms.sum() + self.rest_cpu_ms) / len(self.cpu_ms)

    @property
    def wall_mean_ms(self) -> float:
        """Elapsed milliseconds per judged frame, the rest shared out."""
        return float(self.wall_ms.sum() + self.rest_wall_ms) / len(self.wall_ms)


class StageTimer:
    """Takes CPU time and elapsed time of one lap after the other."""

    def __init__(self) -> None:
        self._cpu_ns: list[int] = []
        self._wall_ns: list[int] = []
        self._cpu_start = self._wall_start = 0

    def start(self) -> None:
        """Begins a lap."""
        self._wall_start = time.perf_counter_ns()
        self._cpu_start = time.process_time_ns()

    def stop(self) -> None:
        """Ends the lap."""
        self._cpu_ns.append(time.process_time_ns() - self._cpu_start)
        self._wall_ns.append(time.perf_counter_ns() - self._wall_start)

    def times(self, *, rest: int = 0) -> StageTimes:
        """All laps; the last `rest` of them belong to no frame."""
        cpu_ms, wall_ms = np.array(self._cpu_ns) / 1e6, np.array(self._wall_ns) / 1e6
        frames = len(cpu_ms) - rest
        return StageTimes(
            cpu_ms[:frames],
            wall_ms[:frames],
            float(cpu_ms[frames:].sum()),
            float(wall_ms[frames:].sum()),
        )
