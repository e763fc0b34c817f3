"""CPU time and elapsed time of a stage, frame by frame."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class StageTimes:
    """What one stage took.

    Attributes:
        cpu_ms: float64 [n], CPU milliseconds of each judged frame, all threads.
        wall_ms: float64 [n], elapsed milliseconds of each.
        rest_cpu_ms, rest_wall_ms: What belongs to no frame: opening a file, its last frames.
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


class Laps:
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
