"""The engine of clusters: Ray Data streams blocks of clips through a pool of actors.

Each actor keeps a worker process, as a thread of the local engine does, and both call `judge_clip`.
So a clip that ends its worker costs no actor, and an actor that dies with its node is retried by
Ray. Rows come back to the driver, which alone writes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from dfd_edge.archive.engine import Claims, judge_clip
from dfd_edge.archive.rows import Clip, ClipRow
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.archive.storage import fetch
from dfd_edge.archive.worker import Worker
from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError, UsageError

#: Clips of a block, which an actor is given at once and loses at once.
BLOCK_CLIPS = 4
#: Clips of one pipeline; the next one starts its actors anew.
_PIPELINE_CLIPS = 50_000
_CLIP_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("size", pa.int64()),
        ("modified_s", pa.float64()),
        ("expected", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Size of the cluster's part.

    Attributes:
        address: Of the cluster; "auto" for the one that this machine belongs to, "local" for a new
            one on this machine alone.
        actors: Most actors; None for as many as the cluster has room for.
        cpus: Processors that each reserves.
        gpus: GPUs that each reserves.
    """

    address: str
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


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
        self._ray = ray
        self._judge = judge
        self._limits = limits
        self._settings = settings
        self._began = not ray.is_initialized()
        if self._began:
            try:
                ray.init(address=settings.address, log_to_driver=False, logging_level="error")
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
        blocks = [
            pa.Table.from_pylist([_record(clip) for clip in block], _CLIP_SCHEMA)
            for block in itertools.batched(chunk, BLOCK_CLIPS)
        ]
        actors = self._settings.actors or self._room()
        judged = data.from_arrow(blocks).map_batches(
            _Judge,
            fn_constructor_args=(self._judge, self._limits, claims),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(actors, len(blocks))),
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus,
        )
        for batch in judged.iter_batches(batch_size=None, batch_format="pyarrow"):
            for record in batch.to_pylist():
                yield _row(record)
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
