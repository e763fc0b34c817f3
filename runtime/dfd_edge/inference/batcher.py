"""Runs crops of many streams through the frame model in one batch.

Each stream has its own thread. A thread that finds the model free runs it on everything that
waits; what comes meanwhile waits and goes together next. So batches grow with the load, and with
one stream nothing waits at all. No stream waits for another one's frames to arrive, but for the
few milliseconds that an accelerator's batch may be worth.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfd_edge.inference.session import FrameOutputs

if TYPE_CHECKING:
    from dfd_edge.inference.session import Session

_ACCELERATOR_BUDGET_S = 0.002


@dataclass(slots=True, eq=False)
class _Request:
    crops: NDArray[np.uint8]
    taken: bool = False
    outputs: FrameOutputs | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.outputs is not None or self.error is not None

    def result(self) -> FrameOutputs:
        if self.error is not None:
            raise self.error
        assert self.outputs is not None
        return self.outputs


class Batcher:
    """Runs a session's frame model for threads that ask at about the same time.

    Args:
        session: The loaded graphs.
        workers: Batches that may run at once; by default one a core on a CPU, where a batch is
            no faster than its crops one by one, and one on an accelerator.
        budget_s: Seconds that a batch which is not full waits for crops of other streams; by
            default 0 on a CPU and 2 ms on an accelerator. It is never waited by a lone stream.

    Attributes:
        batches: Batches run so far.
        crops: Crops run so far.
    """

    def __init__(
        self, session: Session, *, workers: int | None = None, budget_s: float | None = None
    ) -> None:
        on_cpu = session.parallel
        self.batches = 0
        self.crops = 0
        self._session = session
        self._workers = workers or ((os.cpu_count() or 1) if on_cpu else 1)
        self._budget_s = (
            (0.0 if on_cpu else _ACCELERATOR_BUDGET_S) if budget_s is None else budget_s
        )
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._running = 0
        self._streams = 0

    def join(self) -> None:
        """Counts a stream in: batches may wait for its crops."""
        with self._changed:
            self._streams += 1

    def leave(self) -> None:
        """Counts a stream out."""
        with self._changed:
            self._streams -= 1
            self._changed.notify_all()

    def run_frame(self, crops: NDArray[np.uint8]) -> FrameOutputs:
        """Runs the frame model on a stream's crops, with those of others where some wait.

        The arguments, results and errors are those of `Session.run_frame`.
        """
        request = _Request(crops)
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
            while not request.done:
                if request.taken or self._running >= self._workers:
                    self._changed.wait()
                    continue
                self._running += 1
                batch = self._take()
                self._changed.release()
                try:
                    self._run(batch)
                finally:
                    self._changed.acquire()
                    self._running -= 1
                    self._put_back(batch, own=request)
                    self._changed.notify_all()
        return request.result()

    def _take(self) -> list[_Request]:
        """Takes waiting requests, the oldest first, as far as they fit into one batch."""
        deadline_s = time.monotonic() + self._budget_s
        while (
            self._budget_s
            and len(self._waiting) < self._streams
            and sum(len(request.crops) for request in self._waiting) < self._session.max_batch
            and (left_s := deadline_s - time.monotonic()) > 0
        ):
            self._changed.wait(left_s)
        batch: list[_Request] = []
        count = 0
        for request in self._waiting:
            count += len(request.crops)
            if batch and count > self._session.max_batch:
                break
            request.taken = True
            batch.append(request)
        del self._waiting[: len(batch)]
        return batch

    def _put_back(self, batch: list[_Request], *, own: _Request) -> None:
        """Returns other threads' requests to the queue after an interrupt in this thread."""
        left = [request for request in batch if not request.done and request is not own]
        for request in left:
            request.taken = False
        self._waiting[:0] = left

    def _run(self, batch: list[_Request]) -> None:
        """Runs a batch; if it fails, runs each request alone, so that each gets its own error."""
        if len(batch) > 1:
            try:
                outputs = self._session.run_frame(np.concatenate([r.crops for r in batch]))
            except Exception:
                pass
            else:
                self._count(batch)
                first = 0
                for request in batch:
                    rows = slice(first, first := first + len(request.crops))
                    request.outputs = _rows(outputs, rows)
                return
        for request in batch:
            try:
                request.outputs = self._session.run_frame(request.crops)
            except Exception as error:
                request.error = error
            else:
                self._count([request])

    def _count(self, batch: list[_Request]) -> None:
        self.batches += 1
        self.crops += sum(len(request.crops) for request in batch)


def _rows(outputs: FrameOutputs, rows: slice) -> FrameOutputs:
    evidence = outputs.evidence
    return FrameOutputs(
        features=outputs.features[rows],
        fake_logit=outputs.fake_logit[rows],
        evidence=None if evidence is None else evidence[rows],
    )
