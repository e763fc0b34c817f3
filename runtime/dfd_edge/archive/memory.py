"""Memory of a run over time: the main process and its workers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.archive.storage import Store
from dfd_edge.schema import SchemaError, from_plain, to_plain

#: Seconds between samples, doubled whenever a run has so many of them.
_EVERY_S, _MOST_SAMPLES = 1.0, 600
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6 if hasattr(os, "sysconf") else 0.0  # not on Windows


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Memory of one run, as it is kept with the results.

    Attributes:
        began_s: Start of the run in seconds since 1970.
        seconds: Seconds since then of each sample, in order.
        main_mb: Resident megabytes of the main process.
        workers_mb: Resident megabytes of its workers together; pages that they share count in each.
    """

    began_s: float
    seconds: tuple[float, ...]
    main_mb: tuple[float, ...]
    workers_mb: tuple[float, ...]


class MemoryLog:
    """Samples the memory of a run, and keeps it beside the results.

    Args:
        store: The folder of results.
        folder: Folder of it for the records.
        shard: The run's part of the clips.
        workers_mb: Returns the resident memory of the workers.
    """

    def __init__(
        self, store: Store, folder: str, shard: int, workers_mb: Callable[[], float]
    ) -> None:
        self._store = store
        self._workers_mb = workers_mb
        self._began_s, self._since_s = time.time(), time.monotonic()
        self._name = f"{folder}/{self._began_s:.0f}-{shard}-{os.getpid()}.json"
        self._every_s = _EVERY_S
        self._samples: list[tuple[float, float, float]] = []

    def sample(self) -> None:
        """Takes a sample when it is time; to be called often."""
        at_s = time.monotonic() - self._since_s
        if self._samples and at_s - self._samples[-1][0] < self._every_s:
            return
        workers_mb = self._workers_mb()
        if self._samples and not workers_mb:
            return  # they have ended, and the last rows are being committed
        self._samples.append((at_s, resident_mb(os.getpid(), below=False), workers_mb))
        if len(self._samples) >= _MOST_SAMPLES:
            del self._samples[1::2]
            self._every_s *= 2

    def write(self) -> None:
        """Writes the samples so far; does nothing where the system does not report memory.

        Raises:
            OutputError: They cannot be written.
        """
        if not any(main_mb for _, main_mb, _ in self._samples):
            return
        columns = (
            tuple(round(x, 1) for x in column) for column in zip(*self._samples, strict=True)
        )
        record = MemoryRecord(self._began_s, *columns)
        self._store.write(self._name, json.dumps(to_plain(record)).encode())


def read_memory(store: Store, folder: str) -> Iterator[MemoryRecord]:
    """Reads the records of all runs on an archive, the first run first."""
    for name in store.names(folder):
        try:
            yield from_plain(MemoryRecord, json.loads(store.read(name) or b""))
        except (SchemaError, ValueError):
            continue  # a record is no part of the results: the page does without


def resident_mb(pid: int | None, *, below: bool = True) -> float:
    """Returns the resident memory of a process; 0 where there is none, or no /proc.

    Args:
        pid: The process.
        below: Whether to add that of its children, and of theirs.
    """
    if pid is None:
        return 0.0
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        if not below:
            return pages * _PAGE_MB
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in _children(task)]
    except (OSError, IndexError):
        return 0.0
    return pages * _PAGE_MB + sum(resident_mb(child) for child in children)


def _children(task: Path) -> list[bytes]:
    try:
        return (task / "children").read_bytes().split()
    except OSError:  # a thread that has ended
        return []
