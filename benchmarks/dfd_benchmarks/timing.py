"""Measurements that are taken several times, and what is told of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum of a figure over several runs.

    Attributes:
        low: The smallest value.
        median: The middle value.
        high: The largest value.
        runs: How many values there were.
    """

    low: float
    median: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one or more values."""
        return cls(min(values), statistics.median(values), max(values), len(values))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of a call in seconds, over all threads of this process."""
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def wall_seconds(work: Callable[[], object]) -> float:
    """Elapsed time of a call in seconds."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
