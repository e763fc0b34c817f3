"""The service on a Ray cluster: one process has the queue and the database, replicas judge.

    dfd-edge serve --ray
    serve run dfd_edge.serve.ray_app:build data=/srv/dfd jobs=4

The queue hands a judgement to Ray Serve for each of `jobs` at a time; Ray adds replicas while
judgements wait for one, and removes them when they are idle. A judgement whose replica is lost goes
back to its place in the queue, three times at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.sandbox import confining
from dfd_edge.serve.judging.worker import Report, Worker, WorkerDied, judging_settings
from dfd_edge.serve.settings import ServiceSettings, default_folder

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

    from dfd_edge.serve.service import MakeWorkers

# Ray reports nothing home, unless that is set to 1. From 2.60 on it asks for a token by itself.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException
except ImportError as error:
    raise UsageError(
        f"--ray needs Ray, which cannot be imported ({error}): pip install 'dfd-edge[cpu,ray]'"
    ) from error

#: Some functions of Ray have no types.
_untyped: Any = ray
_serve: Any = serve
APPLICATION = "dfd-edge"
_LOCAL = "local"
_PART_BYTES = 32 << 20
_STOP_S = 5.0
#: Requests that the ingress takes at once: above the limit that the guard keeps.
_MAX_ONGOING = 256
_UPSCALE_S, _DOWNSCALE_S = 5.0, 300.0


class Judge:
    """A replica: it loads a detector once and judges one file after the other.

    Args:
        settings: As `judging_settings` returns them.

    Raises:
        DfdError: The model cannot be loaded.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from dfd_edge.serve.judging.child import load  # noqa: PLC0415 - loads the model's libraries

        confining.die_first()
        self._judging, self._about = load(settings)

    async def about(self) -> dict[str, Any]:
        """Returns what the service has to know of the model, as `Worker.start` does."""
        return self._about | {"pid": os.getpid()}

    async def judge(
        self, name: str, path: str | None, parts: Sequence[ray.ObjectRef[bytes]]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Judges a file and yields what comes of it, in messages as of `child`.

        Args:
            name: What its records call it.
            path: The file, where this machine has it.
            parts: Its bytes, where not.
        """
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        stop, ended = threading.Event(), threading.Event()

        def send(message: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(messages.put_nowait, message)

        def judge(file: str) -> None:
            try:
                self._judging.judge(file, name, send, stop)
            finally:
                ended.set()

        with tempfile.NamedTemporaryFile() as copy:  # noqa: SIM117 - the order matters
            with _stopping(stop, ended):
                if path is None:
                    for part in parts:
                        copy.write(await part)
                    copy.flush()
                threading.Thread(target=judge, args=(path or copy.name,), daemon=True).start()
                while True:
                    batch = [await messages.get()]
                    while not messages.empty():
                        batch.append(messages.get_nowait())
                    yield batch
                    if _is_last(batch[-1]):
                        return


@contextlib.contextmanager
def _stopping(stop: threading.Event, ended: threading.Event) -> Iterator[None]:
    """Ends a judgement that is cancelled; and this process where it does not stop within seconds.

    Ray starts another replica then.
    """
    try:
        yield
    except BaseException:
        stop.set()
        if not ended.is_set():
            patience = threading.Timer(_STOP_S, lambda: ended.is_set() or os._exit(1))
            patience.daemon = True
            patience.start()
        raise


def _is_last(message: dict[str, Any]) -> bool:
    return "done" in message or "failed" in message


class ReplicaWorker:
    """A place in the queue whose judgements go to any replica that is free.

    Args:
        handle: Of the replicas.
    """

    def __init__(self, handle: DeploymentHandle[Judge]) -> None:
        self._handle = handle
        self._answer: Any = None
        self._stopped = False

    async def start(self) -> dict[str, Any]:
        """Waits until a replica has loaded its model; returns what `Worker.start` does.

        Raises:
            WorkerDied: None could.
        """
        try:
            about: dict[str, Any] = await self._handle.about.remote()
        except (RayError, RayServeException) as error:
            raise WorkerDied(f"no replica answers ({_cause(error)})") from error
        return about

    async def judge(self, path: str, name: str, report: Report) -> dict[str, Any]:
        """Judges a file, as `Worker.judge` says."""
        self._stopped = False
        here, parts = await asyncio.to_thread(_shared, Path(path))
        self._answer = self._handle.options(stream=True).judge.remote(name, here, parts)
        try:
            async for batch in self._answer:
                for message in batch:
                    if _is_last(message):
                        return dict(message)
                    report(message)
        except (RayError, RayServeException) as error:
            if self._stopped:  # as was wished: the replica is well
                return {"done": True}
            raise WorkerDied(f"the replica that judges was lost ({_cause(error)})") from error
        finally:
            self._answer = None
        raise WorkerDied("the replica that judges sent no end")

    async def stop(self) -> None:
        """Ends the judgement that runs."""
        self._stopped = True
        if self._answer is not None:
            self._answer.cancel()

    async def close(self) -> None:
        """Ends it. Safe to call twice."""
        await self.stop()


def _shared(path: Path) -> tuple[str | None, list[ray.ObjectRef[bytes]]]:
    """Returns a file's path where all of the cluster is this machine, else its bytes in parts."""
    if sum(node["Alive"] for node in _untyped.nodes()) == 1:
        return str(path), []
    parts = []
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            parts.append(ray.put(part))
    return None, parts


def _cause(error: Exception) -> str:
    return type(error).__name__


def judges(settings: ServiceSettings) -> Application:
    """Returns the replicas: one, and up to `jobs` of them while judgements wait."""
    scaling = {
        "min_replicas": 1,
        "max_replicas": settings.jobs,
        "target_ongoing_requests": 1,
        "upscale_delay_s": _UPSCALE_S,
        "downscale_delay_s": _DOWNSCALE_S,
    }
    deployment: Any = serve.deployment(
        Judge,
        name="Judge",
        max_ongoing_requests=1,
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": settings.threads},
    )
    bound: Application = deployment.bind(judging_settings(settings))
    return bound


@contextlib.contextmanager
def cluster(settings: ServiceSettings, address: str) -> Iterator[MakeWorkers]:
    """Has replicas on a cluster while the service runs; yields what makes the queue's workers.

    Args:
        settings: Settings of the service.
        address: Of the cluster; "local" starts one on this machine.

    Raises:
        DfdError: The cluster cannot be reached, or the model cannot be loaded.
    """
    Bundle.load(settings.model)  # whose error would come as a traceback of a replica
    os.environ.pop("DFD_TOKEN", None)  # replicas get no secret of the service
    try:
        # Without an address Ray would join any cluster that it finds on this machine.
        ray.init(address, log_to_driver=False, **_only_here(address))
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"--ray {address}: no cluster there ({first})") from error
    name = f"{APPLICATION} judges"
    try:
        serve.start(proxy_location="Disabled")  # what listens for requests is the service itself
        try:
            handle = serve.run(judges(settings), name=name, route_prefix=None)
        except (RayError, RayServeException, RuntimeError) as error:
            raise UsageError(
                f"--ray {address}: no replica could be started ({_cause(error)}): see Ray's log"
            ) from error
        try:
            yield lambda settings: replica_workers(settings, handle)
        finally:
            serve.delete(name)
    finally:
        if address == _LOCAL:
            _serve.shutdown()
        _untyped.shutdown()


def _only_here(address: str) -> dict[str, Any]:
    """Returns options of a cluster that is started here; an existing one takes none."""
    if address != _LOCAL:
        return {}
    # By default Ray's processes give way to all others of the machine.
    return {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}


def replica_workers(settings: ServiceSettings, handle: DeploymentHandle[Judge]) -> list[Worker]:
    """Returns a place in the queue for each replica that there may be."""
    return [ReplicaWorker(handle) for _ in range(settings.jobs)]


class ClusterSettings(BaseModel):
    """Arguments of `build`: settings of the service, as its options say.

    The token comes from the environment variable DFD_TOKEN.

    Attributes:
        data: Folder of the database and originals, on the machine of the ingress.
        model: Folder of the bundle, on every machine.
        jobs: Replicas at most.
        keep: Days that originals are kept.
        hosts: Names of the service, separated by commas.
        machine: A custom resource of Ray that the machine with the data folder alone has.
    """

    data: Path | None = None
    model: Path | None = None
    provider: str = "auto"
    jobs: int = 2
    keep: float = 7.0
    hosts: str = ""
    machine: str | None = None


def build(args: ClusterSettings) -> Application:
    """Returns the whole service as an application of Ray Serve, for `serve run` and its files.

    Args:
        args: Its settings.

    Raises:
        UsageError: A setting is out of range.
    """
    settings = ServiceSettings(
        data=args.data or default_folder(),
        model=args.model,
        provider=args.provider,
        jobs=args.jobs,
        keep_days=args.keep,
        token=os.environ.get("DFD_TOKEN") or None,
        hosts=tuple(filter(None, args.hosts.split(","))),
    )

    def application() -> FastAPI:
        from dfd_edge.serve.app import create_app  # noqa: PLC0415 - in the ingress alone

        name = serve.get_replica_context().app_name
        handle: Any = serve.get_deployment_handle("Judge", name)
        return create_app(settings, lambda settings: replica_workers(settings, handle))

    ingress: Any = serve.deployment(
        serve.ingress(application)(),
        name="Service",
        num_replicas=1,  # the one that has the queue and the database
        max_ongoing_requests=_MAX_ONGOING,
        ray_actor_options={
            "num_cpus": 0,
            "resources": {args.machine: 0.001} if args.machine else {},
        },
    )
    bound: Application = ingress.bind(judges(settings))
    return bound


app = build(ClusterSettings())
