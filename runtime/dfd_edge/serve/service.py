"""The parts of a running service, and its begin and end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from dfd_edge.closing import Closing
from dfd_edge.errors import UsageError
from dfd_edge.serve.judging.hub import Hub
from dfd_edge.serve.judging.queue import Queue
from dfd_edge.serve.judging.results import Results
from dfd_edge.serve.judging.store import Judgement, State, Store, Upload
from dfd_edge.serve.judging.worker import ProcessWorker, Worker
from dfd_edge.serve.live import Live
from dfd_edge.serve.metrics import Metrics
from dfd_edge.serve.routes.models import JudgementModel
from dfd_edge.serve.routes.problems import Problem, error_of
from dfd_edge.serve.settings import ServiceSettings
from dfd_edge.version import own_version

logger = logging.getLogger(__name__)

_RETENTION_S = 600.0
DRAIN_S = 60.0
"""Longest wait of the end for judgements that run; those that are not done wait again."""

MakeWorkers = Callable[[ServiceSettings], Sequence[Worker]]


def process_workers(settings: ServiceSettings) -> list[Worker]:
    """Returns a process for each file that is judged at once."""
    return [ProcessWorker(settings) for _ in range(settings.jobs)]


class FolderLock(Closing):
    """The right to be the only service that works in a folder.

    Args:
        settings: Names the folder.

    Raises:
        UsageError: Another service has it.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        path = settings.data / "lock"
        self._file = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise UsageError(
                f"--data {settings.data}: in use by another dfd-edge serve (process {holder}): "
                "end it, or give another folder"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def close(self) -> None:
        """Gives the folder up. Safe to call twice."""
        self._file.close()


class Service:
    """A service in its folder.

    Args:
        settings: Its settings.
        make_workers: Returns what judges; processes by default.

    Raises:
        UsageError: The folder cannot be used, or another service works in it.
    """

    def __init__(
        self, settings: ServiceSettings, make_workers: MakeWorkers = process_workers
    ) -> None:
        settings.prepare()
        self.settings = settings
        self.version = own_version()
        self._lock = FolderLock(settings)
        try:
            self.store = Store(settings.data / "judgements.sqlite3")
        except UsageError:
            self._lock.close()
            raise
        self.hub = Hub()
        self.live = Live(settings, self.hub)
        self.metrics = Metrics()
        self.results = Results(settings)
        self.queue = Queue(
            *(self.store, self.results, self.hub, self.metrics, settings),
            workers=make_workers(settings),
        )
        self.queue.describe = self.describe
        self._retention: asyncio.Task[None] | None = None
        self._watch_figures()

    async def start(self) -> None:
        """Resumes what an earlier service left, and begins to judge. Safe to call twice.

        Raises:
            DfdError: The model cannot be loaded.
        """
        if self._retention is not None:
            return
        error = error_of("crashed", "the service died each time while it judged this file")
        waiting, failed = self.store.resume(error)
        if waiting or failed:
            logger.warning("resumed: %d judgements wait again, %d have failed", waiting, failed)
        self._delete_strays()
        await self.queue.start()
        await self.live.start()
        self._retention = asyncio.create_task(self._retain())

    async def end(self, within_s: float = DRAIN_S) -> None:
        """Waits for judgements that run, and closes everything. Safe to call twice."""
        self.hub.close()
        await asyncio.to_thread(self.live.close)
        if self._retention is not None:
            self._retention.cancel()
        await self.queue.drain(within_s)
        self.store.close()
        self._lock.close()

    @property
    def bundle(self) -> str:
        """Hash of the bundle that judges."""
        return str(self.queue.about["bundle"])

    def submit(self, upload: Upload, *, again: bool = False) -> tuple[Judgement, bool]:
        """Queues a file that was received.

        Returns:
            The judgement, and whether it is new: the same bundle may have judged the file already.

        Raises:
            Problem: The queue is full, or the service is ending.
        """
        try:
            self.check_room()
            judgement, new = self.store.add(
                upload, bundle=self.bundle, version=self.version, again=again
            )
        except BaseException:
            (self.settings.media / upload.media).unlink(missing_ok=True)
            raise
        self.metrics.received.inc(upload.bytes)
        if not new:
            (self.settings.media / upload.media).unlink(missing_ok=True)
            return judgement, False
        logger.info(
            "%s: queued %s", judgement.id, judgement.name, extra={"judgement": judgement.id}
        )
        self.queue.added(judgement)
        return judgement, True

    def check_room(self) -> None:
        """Refuses a new judgement where none is taken.

        Raises:
            Problem: The queue is full, or the service is ending.
        """
        if self.queue.ending:
            raise Problem("ending", "the service is ending: try again later", {"Retry-After": "30"})
        if self.store.counts()[State.QUEUED] >= self.settings.max_queue:
            raise Problem(
                "queue-full",
                f"{self.settings.max_queue} judgements are waiting: try again later",
                {"Retry-After": "30"},
            )

    def get(self, id_: str) -> Judgement:
        """Returns a judgement.

        Raises:
            Problem: There is none of this name.
        """
        found = self.store.get(id_)
        if found is None:
            raise Problem("not-found", f"there is no judgement {id_!r:.60}")
        return found

    async def delete(self, judgement: Judgement) -> None:
        """Deletes a judgement with its original and its results, whatever its state."""
        if judgement.id in self.queue.running:
            await self.queue.cancel(judgement, reason="deleted")
        self.store.delete(judgement.id)
        self.queue.forget_media(judgement)
        self.results.delete(judgement.id)
        self.queue.deleted(judgement)
        logger.info("%s: deleted", judgement.id, extra={"judgement": judgement.id})

    async def ended(self, judgement: Judgement, within_s: float) -> Judgement:
        """Waits until a judgement has ended, or for so many seconds; returns how it is then.

        Raises:
            Problem: It was deleted meanwhile.
        """
        subscription = self.hub.subscribe(judgement.id)
        try:
            async with asyncio.timeout(within_s):
                if not self.get(judgement.id).state.final:
                    async for event in subscription:
                        if event is not None and event.final:
                            break
        except TimeoutError:
            pass
        finally:
            self.hub.leave(judgement.id, subscription)
        return self.get(judgement.id)

    def describe(self, judgement: Judgement) -> dict[str, Any]:
        """Returns a judgement as the API gives it."""
        position = self.store.position(judgement)
        running = self.queue.running.get(judgement.id)
        return JudgementModel.of(
            judgement,
            position=position,
            progress=None if running is None else running.progress(),
            starts_in_s=self.queue.wait_s(position),
        ).model_dump(mode="json", by_alias=True)

    async def _retain(self) -> None:
        """Deletes originals that are old enough, every few minutes."""
        while True:
            for judgement in await asyncio.to_thread(self.store.expired, self.settings.keep_days):
                self.queue.forget_media(judgement)
                logger.info("%s: original deleted", judgement.id)
            await asyncio.sleep(_RETENTION_S)

    def _delete_strays(self) -> None:
        """Deletes uploads that were cut off when an earlier service was killed."""
        names = [path.name for path in self.settings.media.iterdir()]
        for name in self.store.strays(names):
            with contextlib.suppress(OSError):
                (self.settings.media / name).unlink()

    def _watch_figures(self) -> None:
        def count(state: State) -> Callable[[], float]:
            return lambda: self.store.counts()[state]

        watch = self.metrics.watch
        watch("dfd_queue_depth", "Judgements that wait.", count(State.QUEUED))
        watch("dfd_running", "Judgements that run.", lambda: len(self.queue.running))
        watch("dfd_workers", "Processes that are ready to judge.", lambda: self.queue.alive)
        watch("dfd_listeners", "Open streams of events.", lambda: self.hub.listeners)
