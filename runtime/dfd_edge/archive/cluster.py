"""The engine of clusters: Ray Data streams blocks of clips through a pool of actors.

Each actor keeps a worker process, as a thread of the local engine does, and both call `judge_clip`.
So a clip that ends its worker costs no actor, and an actor that dies with its node is retried by
Ray. Rows come back to the driver, which alone writes.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dfd_edge.archive.engine import Claims, judge_clip
from dfd_edge.archive.rows import Clip, ClipRow
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.archive.storage import fetch
from dfd_edge.archive.worker import Worker
from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError, UsageError

#: Most clips of a block, which an actor is given at once and loses at once, and the blocks that
#: each actor has at least: the last ones end together.
_BLOCK_CLIPS, _BLOCKS_EACH = 16, 16
#: Clips of one pipeline; the next one starts its actors anew.
_PIPELINE_CLIPS = 50_000


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
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._began = not ray.is_initialized()
        if self._began:
            try:
                ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
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
        remote = self._ray.remote(num_cpus=0, max_restarts=0)(Claims)
        claims = remote.remote(list(known))
        try:
            while chunk := list(itertools.islice(clips, _PIPELINE_CLIPS)):
                yield from self._pipeline(chunk, claims, stop)
                if stop.is_set():
                    return
        finally:
            self._ray.kill(claims)

    def close(self) -> None:
        """Leaves the cluster. Safe to call twice."""
        if self._began:
            self._began = False
            self._ray.shutdown()

    def _pipeline(self, chunk: list[Clip], claims: Any, stop: threading.Event) -> Iterator[ClipRow]:  # noqa: ANN401
        data = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        actors = min(self._settings.actors or self._room(), len(chunk))
        size = max(1, min(_BLOCK_CLIPS, len(chunk) // (actors * _BLOCKS_EACH)))
        blocks = [
            pa.table({"clip": [pickle.dumps(clip) for clip in chunk[at : at + size]]})
            for at in range(0, len(chunk), size)
        ]
        judged = data.from_arrow(blocks).map_batches(
            _Judge,
            fn_constructor_args=(self._judge, self._limits, claims, self._settings.scratch),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus,
        )
        try:
            for batch in judged.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in batch["row"].to_pylist():
                    yield pickle.loads(row)
                if stop.is_set():
                    return
        except self._ray.exceptions.RayError as error:
            raise _refusal(error) from error

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
        self._worker = Worker(judge, limits)
        self._worker.start()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Judges a block: a column of clips in, a column of rows out."""
        clips: list[Clip] = [pickle.loads(clip) for clip in block["clip"].to_pylist()]
        rows: list[bytes] = []
        ahead = self._fetcher.submit(fetch, clips[0], self._folder.name)
        for number in range(len(clips)):
            fetched = ahead.result()
            if number + 1 < len(clips):
                ahead = self._fetcher.submit(fetch, clips[number + 1], self._folder.name)
            rows.append(pickle.dumps(judge_clip(fetched, self._worker, self._claim)))
        return pa.table({"row": rows})

    def _claim(self, sha256: str, source: str) -> bool:
        import ray  # noqa: PLC0415 - runs on the cluster only

        return bool(ray.get(self._claims.claim.remote(sha256, source)))


def _refusal(error: Exception) -> DfdError:
    """Returns the error of this program that an actor raised, or one that names Ray's."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, DfdError):
            return UsageError(str(at))
        at = at.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return UsageError(f"the cluster gave up: {lines[-1] if lines else type(error).__name__}")
