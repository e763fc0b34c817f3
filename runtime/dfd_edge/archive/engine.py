"""The local engine: threads that each feed a worker process. `cluster` has the other one.

Both judge with `judge_clip`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from dfd_edge.archive.inputs import source_key
from dfd_edge.archive.memory import resident_mb
from dfd_edge.archive.rows import Clip, ClipRow, Judgement
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.archive.storage import Fetched, fetch
from dfd_edge.archive.worker import Worker
from dfd_edge.sources.containers import IMAGE_SUFFIXES

T = TypeVar("T")

_POLL_S = 0.1
#: Most pictures of a group: their rows come together, and so many wait for one worker at the end.
_GROUP_CLIPS = 8


class Claims:
    """Which contents are judged already or being judged: copies of a clip are judged once.

    Args:
        known: Keys of the contents that are judged, from `contents_key`.
    """

    def __init__(self, known: Iterable[bytes] = ()) -> None:
        self._holders: dict[bytes, bytes] = dict.fromkeys(known, b"")
        self._lock = threading.Lock()

    def claim(self, clips: Sequence[tuple[str, str]]) -> list[bool]:
        """Returns for clips whether each is the one of its contents that is to be judged.

        It stays so when asked again, as after a worker's death.

        Args:
            clips: Hash and source of each.
        """
        with self._lock:
            return [
                self._holders.setdefault(contents_key(sha256), holder) == holder
                for sha256, holder in ((sha256, source_key(source)) for sha256, source in clips)
            ]


def contents_key(sha256: str) -> bytes:
    """Returns 16 bytes that identify contents."""
    return bytes.fromhex(sha256)[:16]


class Engine(Protocol):
    """An engine judges clips and yields their rows in any order."""

    def rows(
        self, clips: Iterator[Clip], known: Iterable[bytes], stop: threading.Event
    ) -> Iterator[ClipRow]:
        """Judges clips.

        Args:
            clips: Listed as they are needed.
            known: Keys of contents that are judged already.
            stop: Set it to end after the clips that are being judged.
        """

    def workers_mb(self) -> float:
        """Returns the resident memory of the workers that run now, in megabytes."""


def groups(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """Groups clips that go through threads and messages together.

    A picture takes so little time that handing it on alone would be a tenth of it. Up to
    `_GROUP_CLIPS` pictures that follow one another are a group, and each film is one.
    """
    group: list[Clip] = []
    for clip in clips:
        if not is_picture(clip):
            yield from ([group] if group else [])
            yield [clip]
            group = []
            continue
        group.append(clip)
        if len(group) == _GROUP_CLIPS:
            yield group
            group = []
    if group:
        yield group


def is_picture(clip: Clip) -> bool:
    """Whether a clip is a picture, by the suffix of its name."""
    return os.path.splitext(clip.source)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - addresses


def bring(
    clips: Sequence[Clip], scratch: str, claim: Callable[[Sequence[tuple[str, str]]], list[bool]]
) -> list[Fetched]:
    """Fetches clips and claims their contents.

    Args:
        clips: The clips.
        scratch: Folder for copies of those from object storage.
        claim: `Claims.claim`, or what asks it elsewhere.
    """
    found = [fetch(clip, scratch) for clip in clips]
    whole = [(file.sha256, file.clip.source) for file in found if file.sha256 is not None]
    if not whole:
        return found
    firsts = iter(claim(whole))
    return [
        file if file.sha256 is None or next(firsts) else replace(file, repeated=True)
        for file in found
    ]


def judge_clip(
    fetched: Fetched,
    worker: Worker,
    *,
    struck: int = 0,
    on_strike: Callable[[int], None] = lambda strikes: None,
) -> ClipRow:
    """Judges a clip that was brought, unless another one with the same contents is.

    Its provenance is read in any case, since a sidecar belongs to one clip and not to its copies.

    Args:
        fetched: The clip; its copy is removed.
        worker: Judges.
        struck: Workers that this clip has ended before.
        on_strike: Called with their number when there is one more.
    """
    clip, sha256 = fetched.clip, fetched.sha256
    try:
        if fetched.error is not None or fetched.path is None or sha256 is None:
            return ClipRow(clip=clip, sha256=None, judgement=fetched.error, judged_s=time.time())
        judgement: Judgement | None = None
        frames: tuple[dict[str, Any], ...] = ()
        if not fetched.repeated:
            judgement, frames = worker.judge(
                fetched.path, clip.source, struck=struck, on_strike=on_strike
            )
        return ClipRow(
            clip=clip,
            sha256=sha256,
            judgement=judgement,
            judged_s=time.time(),
            frames=frames,
            provenance=worker.read_provenance(fetched.path, clip.source),
        )
    finally:
        fetched.discard()


class LocalEngine:
    """Judges on this machine: worker processes, each with its own session.

    Groups of clips are fetched and hashed ahead of their judgement, as many as there are workers.

    Args:
        judge: How clips are judged.
        limits: How worker processes run.
        jobs: Worker processes.
        strikes_of: Returns how many workers a clip has ended before.
        strike: Notes that a clip has ended so many workers.
        scratch: Folder for copies of clips from object storage; None for the system's.
    """

    def __init__(
        self,
        judge: JudgeSettings,
        limits: WorkerSettings,
        *,
        jobs: int,
        strikes_of: Callable[[str], int] = lambda source: 0,
        strike: Callable[[str, int], None] = lambda source, strikes: None,
        scratch: str | None = None,
    ) -> None:
        self._judge = judge
        self._limits = limits
        self._jobs = jobs
        self._strikes_of = strikes_of
        self._strike = strike
        self._scratch = scratch
        self._workers: set[Worker] = set()

    def rows(
        self, clips: Iterator[Clip], known: Iterable[bytes], stop: threading.Event
    ) -> Iterator[ClipRow]:
        """Judges clips; see `Engine`."""
        with tempfile.TemporaryDirectory(prefix="dfd-archive-", dir=self._scratch) as folder:
            run = _LocalRun(self, clips, Claims(known), stop, folder)
            try:
                yield from run.rows()
            finally:
                run.close()

    def workers_mb(self) -> float:
        """Returns the resident memory of the worker processes; see `Engine`."""
        return sum(resident_mb(worker.pid) for worker in tuple(self._workers))

    def judge_all(self, run: _LocalRun) -> None:
        """Judges what is fetched until there is no more; runs in a thread of its own."""
        with Worker(self._judge, self._limits) as worker:
            self._workers.add(worker)
            try:
                while (fetching := run.next_group()) is not None:
                    self._judge_group(fetching.result(), worker, run)
            finally:
                self._workers.discard(worker)

    def _judge_group(self, group: list[Fetched], worker: Worker, run: _LocalRun) -> None:
        rows: list[ClipRow] = []
        for fetched in group:
            if run.is_over():
                fetched.discard()
                continue
            source = fetched.clip.source

            def on_strike(strikes: int, source: str = source) -> None:
                self._strike(source, strikes)

            struck = self._strikes_of(source)
            rows.append(judge_clip(fetched, worker, struck=struck, on_strike=on_strike))
        run.give(rows)

    @property
    def jobs(self) -> int:
        """Worker processes."""
        return self._jobs


class _LocalRun:
    """The threads and queues of one run of the local engine."""

    def __init__(
        self,
        engine: LocalEngine,
        clips: Iterator[Clip],
        claims: Claims,
        stop: threading.Event,
        folder: str,
    ) -> None:
        self.claims = claims
        self._engine = engine
        self._stop = stop
        self._folder = folder
        self._over = threading.Event()
        self._fetching: queue.Queue[Future[list[Fetched]] | None] = queue.Queue(engine.jobs)
        self._rows: queue.Queue[list[ClipRow] | BaseException | None] = queue.Queue(2 * engine.jobs)
        self._fetchers = ThreadPoolExecutor(engine.jobs, "archive fetch")
        self._threads = [
            threading.Thread(target=self._work, name=f"archive job {number}", daemon=True)
            for number in range(1, engine.jobs + 1)
        ]
        self._feeder = threading.Thread(
            target=self._feed, args=(clips,), name="archive list", daemon=True
        )

    def rows(self) -> Iterator[ClipRow]:
        """Yields rows until all threads have ended; raises what one of them raised."""
        for thread in (*self._threads, self._feeder):
            thread.start()
        working = len(self._threads)
        while working:
            given = self._rows.get()
            if given is None:
                working -= 1
            elif isinstance(given, BaseException):
                raise given
            else:
                yield from given

    def is_over(self) -> bool:
        """Whether no more clips are to be judged."""
        return self._stop.is_set() or self._over.is_set()

    def next_group(self) -> Future[list[Fetched]] | None:
        """Returns the next clips to judge, or None at the end."""
        while not self.is_over():
            with contextlib.suppress(queue.Empty):
                return self._fetching.get(timeout=_POLL_S)
        return None

    def give(self, rows: list[ClipRow] | BaseException | None) -> None:
        """Passes on rows."""
        self._put(self._rows, rows)

    def close(self) -> None:
        """Ends all threads, after the clips that they are judging."""
        self._over.set()
        for thread in (*self._threads, self._feeder):
            if thread.ident is not None:
                thread.join()
        self._fetchers.shutdown(cancel_futures=True)

    def _feed(self, clips: Iterator[Clip]) -> None:
        try:
            for group in groups(clips):
                if self.is_over():
                    return
                fetching = self._fetchers.submit(bring, group, self._folder, self.claims.claim)
                self._put(self._fetching, fetching)
            for _ in self._threads:
                self._put(self._fetching, None)
        except BaseException as error:  # raised again by `rows`
            self.give(error)

    def _work(self) -> None:
        try:
            self._engine.judge_all(self)
        except BaseException as error:  # raised again by `rows`
            self.give(error)
        else:
            self.give(None)

    def _put(self, to: queue.Queue[T], thing: T) -> None:
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                to.put(thing, timeout=_POLL_S)
                return
