"""A run on an archive: lists what is not done, has it judged, and commits the rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from dfd_edge.archive.dataset import Dataset, Place
from dfd_edge.archive.engine import Engine, LocalEngine, contents_key
from dfd_edge.archive.inputs import ManifestColumns, Selection, clips_of, source_key
from dfd_edge.archive.ledger import MEMORY, Ledger, RunFacts
from dfd_edge.archive.memory import MemoryLog
from dfd_edge.archive.progress import Progress
from dfd_edge.archive.rows import Clip, ClipRow, Failure
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.archive.storage import Store
from dfd_edge.errors import UnreachableError
from dfd_edge.schema import to_plain
from dfd_edge.version import own_version

#: Rows are committed at least this often, later at every hundredth of the run's length, so that
#: the parts of a long run are few.
_COMMIT_S, _MOST_COMMIT_S, _COMMIT_SHARE = 30.0, 600.0, 0.01
_MOST_ROWS, _MOST_FRAME_ROWS = 5_000, 200_000
#: After so many clips in a row that cannot be reached, the storage is at fault.
_MOST_UNREACHABLE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRequest:
    """A run on an archive.

    Attributes:
        inputs: What is to be judged.
        out: Folder or address of the results.
        columns: Columns of manifests.
        selection: The part of the clips that this run is for.
        limit: Most clips to judge; None for all.
        judge: How they are judged.
        worker: How worker processes run.
        jobs: Worker processes of the local engine.
        scratch: Folder for copies of clips from object storage.
        retry_failed: Whether clips that failed are judged again.
    """

    inputs: tuple[str, ...]
    out: str
    columns: ManifestColumns = field(default_factory=ManifestColumns)
    selection: Selection = field(default_factory=Selection)
    limit: int | None = None
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    jobs: int = 1
    scratch: str | None = None
    retry_failed: bool = False

    def engine(self, ledger: Ledger) -> LocalEngine:
        """Returns the local engine."""
        return LocalEngine(
            self.judge,
            self.worker,
            jobs=self.jobs,
            strikes_of=ledger.strikes_of,
            strike=ledger.strike,
            scratch=self.scratch,
        )

    def clips(self) -> Iterator[Clip]:
        """Lists the clips of this run, done or not."""
        return clips_of(self.inputs, self.columns, self.selection)


@dataclass(slots=True)
class Outcome:
    """Result of a run.

    Attributes:
        judged: Rows committed by this run.
        failed: Those without a verdict.
        duplicates: Those whose contents another clip has.
        before: Rows that earlier runs committed.
        stopped: Whether it was stopped before its end.
    """

    judged: int = 0
    failed: int = 0
    duplicates: int = 0
    before: int = 0
    stopped: bool = False


def bundle_hash(settings: JudgeSettings) -> str:
    """Returns the hash of the bundle that judges.

    Raises:
        BundleError: It is missing or damaged.
    """
    from dfd_edge.bundle import Bundle  # noqa: PLC0415 - opens the graphs

    return Bundle.load(None if settings.model is None else Path(settings.model)).sha256


def run_archive(
    request: ArchiveRequest,
    stop: threading.Event,
    *,
    engine: Callable[[Ledger], Engine] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Judges what is not done yet, and commits it.

    Args:
        request: What is asked for.
        stop: Set it to end after the clips that are being judged.
        engine: Returns the engine; the local one by default.
        note: Prints progress.

    Raises:
        DfdError: Another run has the archive, or it was begun with other settings; the bundle is
            refused; the storage cannot be reached; results cannot be written.
    """
    bundle = bundle_hash(request.judge)
    store = Store(request.out)
    shard, shards = request.selection.shard, request.selection.shards
    facts = RunFacts(bundle, to_plain(request.judge), shards)
    with Ledger(store, facts, shard) as ledger:
        prefix = f"part-{shard}of{shards}"
        version = own_version()
        dataset = Dataset(store, prefix, bundle=bundle, version=version)
        dataset.remove_orphans()
        if request.retry_failed:
            ledger.forget_strikes()
            note(f"{dataset.drop_failed()} clips that failed are judged again")
        chosen = (engine or request.engine)(ledger)
        memory = MemoryLog(store, MEMORY, shard, chosen.workers_mb)
        book = _Book(dataset, ledger, memory)
        progress = Progress(request.clips, book.is_done, note, limit=request.limit)
        pending = (clip for clip in request.clips() if not book.is_done(clip))
        clips = islice(pending, request.limit)
        try:
            for row in chosen.rows(clips, book.contents(), stop):
                memory.sample()
                book.add(row)
                progress.show(book.outcome)
            book.end()
        finally:
            progress.close()
        book.outcome.stopped = stop.is_set()
        progress.show(book.outcome, last=True)
    return book.outcome


class _Book:
    """The clips that are done, and the rows that wait for their commit."""

    def __init__(self, dataset: Dataset, ledger: Ledger, memory: MemoryLog) -> None:
        self.outcome = Outcome()
        self._dataset = dataset
        self._ledger = ledger
        self._memory = memory
        self._done: set[bytes] = set()
        self._places: dict[bytes, int] = {}
        self._fresh: dict[bytes, ClipRow] = {}
        self._rows: list[ClipRow] = []
        self._frame_rows = 0
        self._unreachable: list[ClipRow] = []
        self._copies: dict[bytes, list[ClipRow]] = {}
        self._began_s = self._committed_s = time.monotonic()
        for source, sha256, place in dataset.done():
            self._done.add(source)
            self.outcome.before += 1
            if sha256 is not None:
                self._places[contents_key(sha256)] = _packed(place)

    def is_done(self, clip: Clip) -> bool:
        """Whether an earlier run has committed the clip."""
        return source_key(clip.source) in self._done

    def contents(self) -> Iterator[bytes]:
        """Keys of the contents that are judged."""
        return iter(self._places)

    def add(self, row: ClipRow) -> None:
        """Adds a row, and commits when it is time.

        Raises:
            UnreachableError: Too many clips in a row could not be reached. Those have no row.
            OutputError: A commit fails.
        """
        judgement = row.judgement
        if judgement is not None and judgement.failure is Failure.UNREACHABLE:
            self._unreachable.append(row)
            if len(self._unreachable) >= _MOST_UNREACHABLE:
                self.commit()
                raise UnreachableError(
                    row.clip.source,
                    f"{_MOST_UNREACHABLE} clips in a row could not be reached, this one last "
                    f"({judgement.error})",
                    "run again when the storage answers: what is done is kept",
                )
            return
        if judgement is not None and row.sha256 is not None:
            self._take_reachable()
        self._take(row)
        now_s = time.monotonic()
        wait_s = min(_MOST_COMMIT_S, max(_COMMIT_S, _COMMIT_SHARE * (now_s - self._began_s)))
        full = len(self._rows) >= _MOST_ROWS or self._frame_rows >= _MOST_FRAME_ROWS
        if full or now_s - self._committed_s >= wait_s:
            self.commit()

    def end(self) -> None:
        """Commits what is left."""
        self._take_reachable()
        self.commit()

    def commit(self) -> None:
        """Writes the rows so far.

        Raises:
            OutputError: They cannot be written, or the lock was lost.
        """
        self._committed_s = time.monotonic()
        if not self._rows:
            return
        self._ledger.check_held()
        part = self._dataset.commit(self._rows)
        for number, row in enumerate(self._rows):
            if row.sha256 is not None and row.duplicate_of is None:
                self._places[contents_key(row.sha256)] = _packed(Place(part, number))
        self.outcome.judged += len(self._rows)
        self._rows.clear()
        self._fresh.clear()
        self._frame_rows = 0
        self._memory.write()

    def _take_reachable(self) -> None:
        unreachable, self._unreachable = self._unreachable, []
        for row in unreachable:
            self._take(row)

    def _take(self, row: ClipRow) -> None:
        if row.sha256 is None:
            self._keep(row)
            return
        key = contents_key(row.sha256)
        if row.judgement is not None:
            self._fresh[key] = row
            self._keep(row)
            for copy in self._copies.pop(key, []):
                self._keep(self._filled(copy, key))
        elif key in self._fresh or key in self._places:
            self._keep(self._filled(row, key))
        else:
            self._copies.setdefault(key, []).append(row)

    def _filled(self, copy: ClipRow, key: bytes) -> ClipRow:
        """Returns the row of a copy with the judgement of the clip that was judged."""
        self.outcome.duplicates += 1
        if key in self._fresh:
            first = self._fresh[key]
            return replace(copy, judgement=first.judgement, duplicate_of=first.clip.source)
        source, judgement = self._dataset.read(_unpacked(self._places[key]))
        return replace(copy, judgement=judgement, duplicate_of=source)

    def _keep(self, row: ClipRow) -> None:
        self._rows.append(row)
        self._frame_rows += len(row.frames)
        if row.judgement is not None and row.judgement.error is not None:
            self.outcome.failed += 1


def _packed(place: Place) -> int:
    """Returns a place in one number, which takes a third of the memory."""
    return place.part << 24 | place.row


def _unpacked(place: int) -> Place:
    return Place(place >> 24, place & 0xFFFFFF)
