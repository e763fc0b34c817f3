"""Work on many files, side by side."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Self, TypeVar

import cv2

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers:
    """Processes of one thread each. Use as a context manager.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def do(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Result]:
        """Do the same work on every job.

        Args:
            work: a function of a module, or a `functools.partial` of one.
            jobs: its arguments.
            on_done: called after each job.

        Returns:
            The results in the order of the jobs.
        """
        futures = [self._pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            future.result()
            on_done()
        return [future.result() for future in futures]


def _begin() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
