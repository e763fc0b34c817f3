"""The engine of clusters: Ray Data streams blocks of clips through a pool of actors.

Each actor keeps a worker process, as a thread of the local engine does, and both call `judge_clip`.
So a clip that ends its worker costs no actor, and an actor that dies with its node is retried by
Ray. Rows come back to the driver, which alone writes. The claims of the run are an actor too; when
that one dies, the driver starts another from what has come back.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dfd_edge.archive.engine import Claims, bring, contents_key, groups, is_picture, judge_clip
from dfd_edge.archive.memory import resident_mb
from dfd_edge.archive.rows import Clip, ClipRow
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.archive.storage import Fetched
from dfd_edge.archive.worker import Worker
from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError, UsageError

#: Most films of a block, or so many times as many pictures: an actor is given them at once and
#: loses them at once, and each block costs Ray tens of milliseconds.
_BLOCK_FILMS, _PICTURES_PER_FILM = 16, 8
#: Blocks that each actor has at least: the last ones end together.
_BLOCKS_EACH = 16
#: Clips of one pipeline; the next one starts its actors anew.
_PIPELINE_CLIPS = 50_000
#: Claims that may be lost in one pipeline.
_MOST_LOST = 3
_ANSWER_S = 30.0
#: An actor that has sent no rows for so long is not counted any more.
_SILENT_S = 600.0
#: Options of a cluster that is started here: blocks are small, and by default Ray's processes give
#: way to all others of the machine.
_OWN_CLUSTER: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": 200 << 20,
    "_system_config": {"worker_niceness": 0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Size of the cluster's part.

    Attributes:
        address: Of the cluster; "auto" for the one that this machine belongs to, "local" for a new
            one on this machine alone.
        actors: Most actors; None for as many as the cluster has room for.
        cpus: Processors that each reserves.
        gpus: GPUs that each reserves.
        scratch: Folder of each node for copies of clips from object storage; None for the system's.
    """

    address: str
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    scratch: str | None = None


class RayEngine(Closing):
    """Judges on a Ray cluster. Use as a context manager.

    Args:
        judge: How clips are judged.
        limits: How worker processes run.
        settings: Size of the cluster's part.

    Raises:
        UsageError: Ray is not installed, or the cluster is not reached.
    """

    def __init__(
        self, judge: JudgeSettings, limits: WorkerSettings, settings: ClusterSettings
    ) -> None:
        # Ray reports nothing home, unless that is set to 1.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray  # noqa: PLC0415 - an extra of its own
            import ray.data  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                f"--ray: Ray Data cannot be imported ({error}): run "
                "`pip install 'dfd-edge[archive-ray]'`"
            ) from error
        self._ray: Any = ray
        self._judge = judge
        self._limits = limits
        self._settings = settings
        self._resident: dict[str, tuple[float, float]] = {}
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._began = not ray.is_initialized()
        if self._began:
            try:
                self._ray.init(
                    address=settings.address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **(_OWN_CLUSTER if settings.address == "local" else {}),
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                cause = str(error).splitlines()[0]
                raise UsageError(
                    f"--ray {settings.address}: no cluster ({cause}): start one with "
                    "`ray start --head`, or give local"
                ) from error

    def rows(
        self, clips: Iterator[Clip], known: Iterable[bytes], stop: threading.Event
    ) -> Iterator[ClipRow]:
        """Judges clips; see `dfd_edge.archive.engine.Engine`."""
        judged = bytearray().join(known)  # a set would take six times the memory
        claims = self._claims(judged)
        try:
            while chunk := list(itertools.islice(clips, _PIPELINE_CLIPS)):
                left = {clip.source: clip for clip in chunk}
                for attempt in range(1 + _MOST_LOST):
                    try:
                        for row in self._pipeline(list(left.values()), claims, stop):
                            del left[row.clip.source]
                            if row.sha256 is not None and row.judgement is not None:
                                judged += contents_key(row.sha256)
                            yield row
                        break
                    except self._ray.exceptions.RayError as error:
                        if attempt == _MOST_LOST or self._answers(claims):
                            raise _refusal(error) from error
                    # Clips whose rows have not come are judged again, by new claims. The old ones
                    # may live on where a node is out of reach, with all their keys.
                    with contextlib.suppress(Exception):
                        self._ray.kill(claims)
                    claims = self._claims(judged)
                    if not left:
                        break
                if stop.is_set():
                    return
        finally:
            self._ray.kill(claims)

    def workers_mb(self) -> float:
        """Returns the memory of actors and their workers; see `dfd_edge.archive.engine.Engine`."""
        since_s = time.monotonic() - _SILENT_S
        return sum(mb for at_s, mb in self._resident.values() if at_s >= since_s)

    def close(self) -> None:
        """Leaves the cluster. Safe to call twice."""
        if self._began:
            self._began = False
            self._ray.shutdown()

    def _claims(self, judged: bytearray) -> Any:  # noqa: ANN401 - a handle of Ray's
        size = len(contents_key("00" * 32))
        keys = [bytes(judged[at : at + size]) for at in range(0, len(judged), size)]
        return self._ray.remote(num_cpus=0, max_restarts=0)(Claims).remote(keys)

    def _answers(self, claims: Any) -> bool:  # noqa: ANN401
        """Whether the actor of the claims lives."""
        try:
            self._ray.get(claims.claim.remote([]), timeout=_ANSWER_S)
        except self._ray.exceptions.RayError:
            return False
        return True

    def _pipeline(self, chunk: list[Clip], claims: Any, stop: threading.Event) -> Iterator[ClipRow]:  # noqa: ANN401
        self._resident.clear()  # the actors of the pipeline before have ended
        data = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        actors = min(self._settings.actors or self._room(), len(chunk))
        tables = [
            pa.table({"clip": [pickle.dumps(clip) for clip in block]})
            for block in blocks(chunk, len(chunk) // (actors * _BLOCKS_EACH))
        ]
        judged = data.from_arrow(tables).map_batches(
            _Judge,
            fn_constructor_args=(self._judge, self._limits, claims, self._settings.scratch),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus,
        )
        for batch in judged.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row, actor, mb in zip(*(column.to_pylist() for column in batch), strict=True):
                self._resident[actor] = time.monotonic(), mb
                yield pickle.loads(row)
            if stop.is_set():
                return

    def _room(self) -> int:
        """Returns how many actors the cluster has room for."""
        there = self._ray.cluster_resources()
        wanted = {"CPU": self._settings.cpus, "GPU": self._settings.gpus}
        rooms = [int(there.get(kind, 0) / each) for kind, each in wanted.items() if each > 0]
        if not rooms or min(rooms) < 1:
            raise UsageError(
                f"the cluster has {there.get('CPU', 0):g} processors and {there.get('GPU', 0):g} "
                f"GPUs, and a worker wants {wanted['CPU']:g} and {wanted['GPU']:g}: change "
                "--actor-cpus or --actor-gpus"
            )
        return min(rooms)


class _Judge:
    """An actor: judges the clips of one block after the other with a worker process of its own.

    Args:
        judge: How clips are judged.
        limits: How the worker process runs.
        claims: The actor that holds the `Claims` of the run.
        scratch: Folder for copies of clips.
    """

    def __init__(
        self,
        judge: JudgeSettings,
        limits: WorkerSettings,
        claims: Any,  # noqa: ANN401 - a handle of Ray's
        scratch: str | None,
    ) -> None:
        self._claims = claims
        self._fetcher = ThreadPoolExecutor(1, "archive fetch")
        self._folder = tempfile.TemporaryDirectory(prefix="dfd-archive-", dir=scratch)
        self._name = f"{socket.gethostname()}, process {os.getpid()}"
        self._worker = Worker(judge, limits)
        self._worker.start()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Judges a block: a column of clips in, a column of rows out."""
        clips: list[Clip] = [pickle.loads(clip) for clip in block["clip"].to_pylist()]
        rows: list[bytes] = []
        waiting = groups(clips)
        ahead = [self._bring(next(waiting))]
        while ahead:
            group = ahead.pop().result()
            ahead = [self._bring(following) for following in itertools.islice(waiting, 1)]
            rows += [pickle.dumps(judge_clip(fetched, self._worker)) for fetched in group]
        resident = resident_mb(os.getpid())
        return pa.table(
            {"row": rows, "actor": [self._name] * len(rows), "resident_mb": [resident] * len(rows)}
        )

    def _bring(self, group: list[Clip]) -> Future[list[Fetched]]:
        return self._fetcher.submit(bring, group, self._folder.name, self._claim)

    def _claim(self, clips: Sequence[tuple[str, str]]) -> list[bool]:
        import ray  # noqa: PLC0415 - runs on the cluster only

        return list(ray.get(self._claims.claim.remote(clips)))


def blocks(clips: Iterable[Clip], most: int) -> Iterator[list[Clip]]:
    """Divides clips into blocks of up to `most`, fewer where they are films."""
    block: list[Clip] = []
    films = 0.0
    for clip in clips:
        block.append(clip)
        films += 1 / _PICTURES_PER_FILM if is_picture(clip) else 1
        if len(block) >= most or films >= _BLOCK_FILMS:
            yield block
            block, films = [], 0.0
    if block:
        yield block


def _refusal(error: Exception) -> DfdError:
    """Returns the error of this program that an actor raised, or one that names Ray's."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, DfdError):
            return UsageError(str(at))
        at = at.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return UsageError(f"the cluster gave up: {lines[-1] if lines else type(error).__name__}")
