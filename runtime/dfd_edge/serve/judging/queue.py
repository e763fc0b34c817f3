"""The queue: takes what waits in the store in its order, has it judged, keeps what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dfd_edge.errors import DfdError
from dfd_edge.judging.results import Record
from dfd_edge.serve.judging.hub import Hub, ServerEvent
from dfd_edge.serve.judging.results import Results, ResultsWriter
from dfd_edge.serve.judging.store import MAX_TRIES, Judgement, State, Store
from dfd_edge.serve.judging.worker import Worker, WorkerDied
from dfd_edge.serve.metrics import Metrics
from dfd_edge.serve.routes.problems import error_of
from dfd_edge.serve.settings import ServiceSettings
from dfd_edge.text import json_line

logger = logging.getLogger(__name__)

ALL = ""
"""Topic of the events of every judgement."""
_RESTART_S = (0.0, 1.0, 5.0, 30.0)
"""Pauses before a process that died is started again; the last one holds from then on."""
_FAULT_S = 5.0
"""Pause after a fault of the queue itself."""
_REMEMBERED = 50
"""Judgements whose times tell how long one takes."""

Describe = Callable[[Judgement], dict[str, Any]]


@dataclass(slots=True, eq=False)
class Running:
    """A judgement that runs.

    Attributes:
        judgement: As it was begun.
        worker: Judges it.
        begun_s: When, on the monotonic clock.
        done_s, total_s: Seconds of the file that are done, and its length where it is known.
        ended_as: Why it is stopped: `cancelled`, `too-slow`, `deleted` or `ending`; None while it
            is not.
        lines: Lines of records that are written.
        verdict: The verdict record, once it has come.
    """

    judgement: Judgement
    worker: Worker
    begun_s: float = field(default_factory=time.monotonic)
    done_s: float = 0.0
    total_s: float | None = None
    ended_as: str | None = None
    lines: int = 0
    verdict: Record | None = None

    def progress(self) -> dict[str, float | None]:
        """Returns seconds done, in all and left, as far as they are known."""
        left_s = None
        if self.total_s is not None and self.done_s > 0.0:
            elapsed_s = time.monotonic() - self.begun_s
            left_s = max(0.0, round(elapsed_s * (self.total_s / self.done_s - 1.0), 1))
        return {"done_s": self.done_s, "total_s": self.total_s, "left_s": left_s}


class Queue:
    """Judges what waits, as many files at once as there are workers.

    Used from the event loop alone.

    Args:
        store: Keeps the judgements.
        results: Keeps their records.
        hub: Passes events on.
        metrics: Counts.
        settings: Limits.
        workers: What judges.
    """

    def __init__(
        self,
        store: Store,
        results: Results,
        hub: Hub,
        metrics: Metrics,
        settings: ServiceSettings,
        *,
        workers: Sequence[Worker],
    ) -> None:
        self.about: dict[str, Any] = {}
        self.running: dict[str, Running] = {}
        self.alive = 0
        self.describe: Describe | None = None
        self._store = store
        self._results = results
        self._hub = hub
        self._metrics = metrics
        self._settings = settings
        self._workers = workers
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stops: set[asyncio.Task[None]] = set()
        self._took_s: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def ending(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._ending

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self._workers)

    async def start(self) -> None:
        """Starts the workers, and judges what waits already.

        Raises:
            DfdError: The model cannot be loaded.
        """
        try:
            for found in await asyncio.gather(*(worker.start() for worker in self._workers)):
                self.about = found
        except WorkerDied as error:
            await self._close()
            raise DfdError(f"{error} before it had loaded the model; see the log") from error
        except BaseException:
            await self._close()
            raise
        self.alive = len(self._workers)
        self._results.keep_bundle(self.about)
        self._tasks = [asyncio.create_task(self._work(worker)) for worker in self._workers]

    def added(self, judgement: Judgement) -> None:
        """Says that a judgement was queued."""
        self._announce(judgement)
        self._wake.set()

    async def cancel(self, judgement: Judgement, *, reason: str = "cancelled") -> None:
        """Ends a judgement that waits or runs."""
        running = self.running.get(judgement.id)
        if running is not None:
            self._stop(running, reason)
        elif (ended := self._store.finish(judgement.id, State.CANCELLED)) is not None:
            self._over(ended)

    async def drain(self, within_s: float) -> None:
        """Begins nothing more, and waits for what runs; what does not end in time waits again.

        Args:
            within_s: Longest wait in seconds.
        """
        self._ending = True
        self._wake.set()
        ended = asyncio.gather(*self._tasks, return_exceptions=True)
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((ended, hurry), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for running in self.running.values():
            running.ended_as = running.ended_as or "ending"
        for task in self._tasks:
            task.cancel()
        await ended
        await self._close()

    def hurry(self) -> None:
        """Ends the wait of `drain`."""
        self._hurry.set()

    def wait_s(self, position: int | None) -> float | None:
        """Returns about how many seconds pass before a place in the queue is begun, or None."""
        if position is None or not self._took_s:
            return None
        mean_s = sum(self._took_s) / len(self._took_s)
        running = sum(
            max(0.0, mean_s - (time.monotonic() - r.begun_s)) for r in list(self.running.values())
        )
        return round((mean_s * (position - 1) + running) / max(1, len(self._workers)), 1)

    async def _close(self) -> None:
        for stop in self._stops:
            stop.cancel()
        await asyncio.gather(*(worker.close() for worker in self._workers))
        self.alive = 0

    async def _work(self, worker: Worker) -> None:
        """Judges one file after the other with one worker."""
        deaths = 0
        while not self._ending:
            self._wake.clear()
            try:
                judgement = self._store.claim()
                if judgement is None:
                    await self._wake.wait()
                elif await self._judge(judgement, worker):
                    deaths = 0
                else:
                    await self._restart(worker, deaths)
                    deaths += 1
            except Exception:  # the disk is full, say: the next try may succeed
                logger.exception("the queue has a fault; it goes on in %g s", _FAULT_S)
                await asyncio.sleep(_FAULT_S)
                await self._restart(worker, deaths)

    async def _restart(self, worker: Worker, deaths: int) -> None:
        self.alive -= 1
        while not self._ending:
            await asyncio.sleep(_RESTART_S[min(deaths, len(_RESTART_S) - 1)])
            try:
                await worker.start()
            except (DfdError, WorkerDied) as error:
                logger.error("a process that judges cannot be started: %s", error)
                deaths += 1
            else:
                self.alive += 1
                return

    async def _judge(self, judgement: Judgement, worker: Worker) -> bool:
        """Judges a file and stores how it ended; returns whether the worker still lives."""
        running = Running(judgement, worker)
        self.running[judgement.id] = running
        slow = asyncio.get_running_loop().call_later(
            self._settings.max_seconds, self._stop, running, "too-slow"
        )
        answer: dict[str, Any] | None = None
        try:
            self._announce(judgement)
            path = self._settings.media / (judgement.media or "")
            with self._results.writer(judgement.id) as writer:
                answer = await worker.judge(
                    str(path), judgement.name, lambda message: self._take(running, writer, message)
                )
        except WorkerDied as error:
            if running.ended_as is not None:
                self._end(running, None)
            else:
                logger.warning("%s: %s", judgement.id, error, extra={"judgement": judgement.id})
                self._metrics.deaths.inc()
                self._retry(running, str(error))
            return False
        except asyncio.CancelledError:
            self._end(running, None)
            raise
        except Exception as error:
            detail = f"{judgement.name}: its results cannot be kept ({error}); see the log"
            self._end(running, {"failed": {"name": "fault", "detail": detail}})
            raise
        else:
            self._end(running, answer)
            return True
        finally:
            slow.cancel()

    def _take(self, running: Running, writer: ResultsWriter, message: dict[str, Any]) -> None:
        """Stores and passes on a message of the worker."""
        id_ = running.judgement.id
        if (record := message.get("record")) is not None:
            line = json_line(record)
            writer.record(line)
            running.lines += 1
            if record["record"] == "verdict":
                running.verdict = record
            self._hub.publish(id_, ServerEvent("record", line, running.lines))
        elif (progress := message.get("progress")) is not None:
            running.done_s, running.total_s = progress["done_s"], progress["total_s"]
            told = running.progress()
            self._hub.publish(id_, ServerEvent.of("progress", told))
            self._hub.publish(ALL, ServerEvent.of("progress", {"id": id_, **told}))
        elif (evidence := message.get("evidence")) is not None:
            writer.evidence(json.dumps(evidence))
        elif (crop := message.get("crop")) is not None:
            writer.crop(json.dumps(crop))

    def _retry(self, running: Running, cause: str) -> None:
        """Puts a judgement back whose worker died, unless that has happened too often."""
        judgement = running.judgement
        del self.running[judgement.id]
        if judgement.tries < MAX_TRIES:
            waiting = self._store.requeue(judgement.id)
            if waiting is not None:
                self._announce(waiting)
                self._wake.set()
            return
        detail = f"{judgement.name}: {cause}, {judgement.tries} times: damaged or hostile?"
        self._finish(running, State.FAILED, error=error_of("crashed", detail))

    def _end(self, running: Running, answer: dict[str, Any] | None) -> None:
        """Stores how a judgement ended.

        Args:
            running: The judgement.
            answer: Last message of the worker; None where it was ended without one.
        """
        judgement = running.judgement
        del self.running[judgement.id]
        if running.ended_as == "ending" or (running.ended_as is None and answer is None):
            self._store.requeue(judgement.id, uncounted=True)
        elif running.ended_as == "too-slow":
            limit = self._settings.max_seconds
            detail = (
                f"{judgement.name}: not judged within {limit:g} s: cut out the part in question"
            )
            self._finish(running, State.FAILED, error=error_of("too-slow", detail))
        elif running.ended_as is not None:
            self._finish(running, State.CANCELLED)
        elif answer is not None and (failed := answer.get("failed")) is not None:
            error = error_of(failed["name"], failed["detail"])
            provenance = failed.get("provenance")
            self._finish(running, State.FAILED, error=error, provenance=provenance)
        else:
            self._took_s.append(time.monotonic() - running.begun_s)
            self._finish(running, State.DONE, verdict=running.verdict)

    def _finish(
        self,
        running: Running,
        state: State,
        *,
        verdict: Record | None = None,
        error: dict[str, str] | None = None,
        provenance: Record | None = None,
    ) -> None:
        failure: Record | None = None if error is None else {**error, "provenance": provenance}
        ended = self._store.finish(running.judgement.id, state, verdict=verdict, error=failure)
        if ended is None or state is State.CANCELLED:
            self._results.delete(running.judgement.id)
        if ended is not None:
            self._metrics.judged(ended, time.monotonic() - running.begun_s)
            self._over(ended)

    def _over(self, ended: Judgement) -> None:
        """Says how a judgement ended; its original goes where none are kept."""
        if self._settings.keep_days == 0 and ended.media is not None:
            self.forget_media(ended)
            ended = self._store.get(ended.id) or ended
        logger.info(
            "%s: %s", ended.id, ended.state, extra={"judgement": ended.id, "label": ended.label}
        )
        self._announce(ended)

    def forget_media(self, judgement: Judgement) -> None:
        """Deletes an original."""
        if judgement.media is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._settings.media / judgement.media).unlink()
            self._store.forget_media(judgement.id)

    def _stop(self, running: Running, reason: str) -> None:
        if running.ended_as is None:
            running.ended_as = reason
            stop = asyncio.create_task(running.worker.stop())
            self._stops.add(stop)
            stop.add_done_callback(self._stops.discard)

    def deleted(self, judgement: Judgement) -> None:
        """Says that a judgement was deleted."""
        event = ServerEvent.of("deleted", {"id": judgement.id}, final=True)
        self._hub.publish(judgement.id, event)
        self._hub.publish(ALL, event)

    def _announce(self, judgement: Judgement) -> None:
        if self.describe is not None:
            event = ServerEvent.of("state", self.describe(judgement), final=judgement.state.final)
            self._hub.publish(judgement.id, event)
            self._hub.publish(ALL, event)
