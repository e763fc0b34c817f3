"""Services for tests: in a thread of this process, with workers that follow a script or real ones,
or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dfd_edge.bundle import Bundle

# The others need the extra; a test file that imports this one is skipped without it.
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
for _library in ("fastapi", "python_multipart", "prometheus_client", "jinja2"):
    pytest.importorskip(_library, reason="the extra `serve` is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from dfd_edge.serve.app import create_app  # noqa: E402
from dfd_edge.serve.judging.worker import Worker, WorkerDied  # noqa: E402
from dfd_edge.serve.service import process_workers  # noqa: E402
from dfd_edge.serve.settings import ServiceSettings  # noqa: E402

START_S = 60.0
RUN = {"record": "run", "precision": "fp32", "rate_hz": 5.0}


def verdict(source: str, label: str = "real") -> dict[str, Any]:
    """A verdict record as short as the service lets it be."""
    return {
        **{"record": "verdict", "source": source, "label": label, "p_fake": 0.25},
        **{"coverage": 1.0, "frames": 1, "duration_s": 1.0, "people": [], "complete": True},
        "reason": None,
    }


class ScriptedWorker:
    """Judges text files by what stands in them: words such as `wait`, `die`, `fail` or `fake`.

    `wait` lasts until `release` is set or the judgement is stopped.
    """

    def __init__(self) -> None:
        self.judged: list[str] = []
        self.starts = 0
        self.release = asyncio.Event()
        self._stop = asyncio.Event()

    async def start(self) -> dict[str, Any]:
        self.starts += 1
        bundle = Bundle.load()
        decision = bundle.manifest.decision_of("fp32")
        return {
            "bundle": bundle.hash,
            "manifest": bundle.manifest.to_json(),
            "decision": decision.to_json(),
            "run": RUN,
        }

    async def judge(
        self, path: str, name: str, report: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        self.judged.append(name)
        self._stop.clear()
        words = Path(path).read_text("utf-8").split()
        report({"record": RUN})
        report({"crop": {"still": False}})
        report({"progress": {"done_s": 0.5, "total_s": 1.0}})
        if "wait" in words:
            waits = [asyncio.ensure_future(e.wait()) for e in (self.release, self._stop)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()
        if "die" in words:
            raise WorkerDied("the process that judges has ended (signal 11)")
        if "fail" in words:
            return {"failed": {"name": "not-judged", "detail": f"{name}: not a film; send one"}}
        report({"record": verdict(name, "fake" if "fake" in words else "real")})
        return {"done": True}

    async def stop(self) -> None:
        self._stop.set()

    async def close(self) -> None:
        self._stop.set()


class Served:
    """A service in a thread. Its settings are those of `ServiceSettings`."""

    def __init__(self, settings: ServiceSettings, make_workers: Any) -> None:
        self.app = create_app(settings, make_workers)
        self.service = self.app.state.service
        self._socket = socket.create_server((settings.host, settings.port))
        self.port = self._socket.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(self.app, log_config=None, ws="none", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def start(self) -> None:
        self._thread.start()
        with self.client() as client:
            client.get("/healthz").raise_for_status()  # waits in the socket's queue until it starts

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.service.hub.close)
        self.loop.call_soon_threadsafe(self.service.queue.hurry)
        self._server.should_exit = True
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the service does not end"

    def client(self, **options: Any) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=self.address, timeout=START_S, **options)

    def call(self, function: Callable[[], object]) -> None:
        """Calls something in the loop of the service."""
        self.loop.call_soon_threadsafe(function)


@contextlib.contextmanager
def serving(
    data: Path, workers: Sequence[Worker] | None = None, **settings: Any
) -> Iterator[Served]:
    """A service on a free port; with these workers, or processes that judge."""
    make = process_workers if workers is None else lambda settings: workers
    served = Served(ServiceSettings(data=data, port=0, **settings), make)
    served.start()
    try:
        yield served
    finally:
        served.stop()


class Program:
    """`dfd-edge serve` as a process of its own, on a free port."""

    def __init__(self, data: Path, *options: str) -> None:

        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dfd_edge",
                "serve",
                "--port",
                "0",
                "--data",
                str(data),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found is None:
            self.end(signal.SIGKILL)
        assert found is not None, self.errors
        self.address = found[0]

    def client(self) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=self.address, timeout=START_S)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and waits for the end; returns the exit status."""
        self.process.send_signal(number)
        _, self.errors = self.process.communicate(timeout=START_S)
        return self.process.returncode

    def kill(self) -> None:
        """Kills it, if it still runs."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
