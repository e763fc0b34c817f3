"""Estimate of a run's time and cost from a timed sample of its clips."""

from __future__ import annotations

import math
import random
import tempfile
import time
from dataclasses import dataclass

from dfd_edge.archive.dataset import Dataset
from dfd_edge.archive.inputs import source_key
from dfd_edge.archive.rows import Clip
from dfd_edge.archive.run import ArchiveRequest, bundle_hash
from dfd_edge.archive.storage import Store, fetch
from dfd_edge.archive.worker import Worker

_SEED = 0
_WIDTH = 1.96


@dataclass(frozen=True, slots=True)
class Sample:
    """Clips drawn at random from those that are not done.

    Attributes:
        clips: The drawn ones.
        total: Clips that are not done.
        done: Clips that are.
    """

    clips: list[Clip]
    total: int
    done: int


def estimate(request: ArchiveRequest, *, sample: int, price: float | None = None) -> str:
    """Judges a few clips without writing anything, and estimates time and cost of all.

    Args:
        request: The run.
        sample: Clips to judge.
        price: Price of this machine for an hour, or None.

    Returns:
        The estimate, in lines. The interval of 95 % is that of the mean over the sample.

    Raises:
        DfdError: As `run_archive` does.
    """
    drawn = draw(request, sample)
    lines = [f"clips to judge: {drawn.total:,} ({drawn.done:,} done before)"]
    if not drawn.clips:
        return "\n".join(lines)
    seconds, sizes = _timed(request, drawn.clips)
    mean_s = sum(seconds) / len(seconds)
    spread = _standard_error(seconds)
    each = f"{mean_s:.2f} s a clip, {len(seconds)} clips timed one at a time"
    lines.append(f"sample: {each}; {_bytes(sum(sizes) / len(sizes))} a clip")
    lines.append(f"size: about {_bytes(drawn.total * sum(sizes) / len(sizes))}")
    worker_h = drawn.total * mean_s / 3600
    either_h = drawn.total * _WIDTH * spread / 3600
    low_h, high_h = max(0.0, worker_h - either_h), worker_h + either_h
    lines.append(f"worker hours: {_interval(worker_h, low_h, high_h)}")
    jobs = request.jobs
    span = _interval(worker_h / jobs, low_h / jobs, high_h / jobs)
    lines.append(f"hours with --jobs {jobs}: {span}, if each has a core of its own")
    if price is not None:
        hour = price / jobs
        lines.append(f"cost: {_interval(hour * worker_h, hour * low_h, hour * high_h)}")
    return "\n".join(lines)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:,.3g} [{low:,.3g}, {high:,.3g}]"


def draw(request: ArchiveRequest, count: int) -> Sample:
    """Draws clips at random from those that are not done (reservoir sampling, Vitter, 1985)."""
    random_ = random.Random(_SEED)
    store = Store(request.out)
    dataset = Dataset(store, "part", bundle="", version="")
    finished = {source for source, _, _ in dataset.done()}
    chosen: list[Clip] = []
    total = done = 0
    for clip in request.clips():
        if source_key(clip.source) in finished:
            done += 1
            continue
        total += 1
        if len(chosen) < count:
            chosen.append(clip)
        elif (place := random_.randrange(total)) < count:
            chosen[place] = clip
        if total == request.limit:
            break
    return Sample(chosen, total, done)


def _timed(request: ArchiveRequest, clips: list[Clip]) -> tuple[list[float], list[int]]:
    """Judges clips; returns the seconds of each, fetching included, and their bytes."""
    bundle_hash(request.judge)  # refused here rather than by the worker
    seconds: list[float] = []
    sizes: list[int] = []
    with (
        tempfile.TemporaryDirectory(prefix="dfd-archive-", dir=request.scratch) as folder,
        Worker(request.judge, request.worker) as worker,
    ):
        worker.start()
        for clip in clips:
            since_s = time.monotonic()
            fetched = fetch(clip, folder)
            if fetched.path is not None:
                worker.judge(fetched.path, clip.source)
                worker.read_provenance(fetched.path, clip.source)
            fetched.discard()
            seconds.append(time.monotonic() - since_s)
            sizes.append(fetched.clip.size or 0)
    return seconds, sizes


def _standard_error(values: list[float]) -> float:
    if len(values) < 2:
        return math.inf
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError("unreachable")
