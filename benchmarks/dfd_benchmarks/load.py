"""How busy the machine is while something is measured, by whom, and what a process holds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.errors import UsageError

_STAT = Path("/proc/stat")
_STATM = Path("/proc/self/statm")
_THREADS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
#: Fields of /proc/stat's first line that are no work: idle and waiting for input or output.
_IDLE_FIELDS = (3, 4)


class BusyCores:
    """Cores kept busy since it was made, by this process and on the whole machine."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._own_s = time.process_time()
        self._all_s = _machine_cpu_s()

    def own(self) -> float:
        """By this process."""
        return (time.process_time() - self._own_s) / (time.monotonic() - self._start_s)

    def all(self) -> float | None:
        """By all processes, and what a hypervisor took; None where the system does not say."""
        now_s = _machine_cpu_s()
        if now_s is None or self._all_s is None:
            return None
        return (now_s - self._all_s) / (time.monotonic() - self._start_s)


def _machine_cpu_s() -> float | None:
    """CPU seconds of all processes since the machine was started."""
    if not _STAT.is_file():
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
    ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(count for field, count in enumerate(ticks) if field not in _IDLE_FIELDS)
    return busy / float(os.sysconf("SC_CLK_TCK"))


def resident_mb() -> float:
    """Resident memory of this process in megabytes (10^6 bytes).

    Raises:
        UsageError: The system does not tell it in /proc.
    """
    if not _STATM.is_file():
        raise UsageError("this system does not tell the memory of a process in /proc; use Linux")
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment.

    Attributes:
        memory_mb: Resident memory in megabytes (10^6 bytes).
        threads: Threads, native ones included.
        descriptors: Open files, sockets and pipes.
    """

    memory_mb: float
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Holdings:
        """Takes stock.

        Raises:
            UsageError: The system does not tell it in /proc.
        """
        memory_mb = resident_mb()
        # Listing the descriptors opens one.
        descriptors = len(os.listdir(_DESCRIPTORS)) - 1  # noqa: PTH208 - names alone, quickly
        return cls(memory_mb, len(os.listdir(_THREADS)), descriptors)  # noqa: PTH208
