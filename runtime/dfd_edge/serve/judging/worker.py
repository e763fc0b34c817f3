"""Processes that judge, as the service sees them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

from dfd_edge.errors import DfdError
from dfd_edge.serve.settings import ServiceSettings

logger = logging.getLogger(__name__)

_MAX_LINE = 16 << 20
"""Bytes of a message; the largest are frames of a crowd."""
_STOP_S = 5.0
"""A process that was asked to stop is ended after this."""
#: Environment variables that a process needs; the others may hold secrets of the service.
_SECRETS = ("DFD_TOKEN",)

Report = Callable[[dict[str, Any]], None]


class WorkerDied(Exception):
    """The process has ended before the judgement had; the text says how."""


class WorkerRefused(DfdError):
    """The process cannot load the model."""

    def __init__(self, detail: str, exit_code: int) -> None:
        super().__init__(detail)
        self.exit_code = exit_code


class Worker(Protocol):
    """Judges files for the queue, one at a time."""

    async def start(self) -> dict[str, Any]:
        """Loads the model; returns `bundle`, `manifest`, `decision` and `run`.

        Raises:
            DfdError: It cannot be loaded.
        """

    async def judge(self, path: str, name: str, report: Report) -> dict[str, Any]:
        """Judges a file.

        Args:
            path: The file.
            name: What its records call it.
            report: Called with each message but the last.

        Returns:
            The last message: `done`, or `failed` with `name` and `detail` of a problem, and with
            the `provenance` of the file.

        Raises:
            WorkerDied: It ended before; `start` starts it again.
        """

    async def stop(self) -> None:
        """Ends the judgement that runs: its `judge` has returned or raised a little later."""

    async def close(self) -> None:
        """Ends it. Safe to call twice."""


def judging_settings(settings: ServiceSettings) -> dict[str, Any]:
    """Returns what a process that judges has to know of the settings: no secret is among it."""
    return {
        "model": None if settings.model is None else str(settings.model),
        "provider": settings.provider,
        "precision": settings.precision,
        "threads": settings.threads,
        "provider_options": dataclasses.asdict(settings.provider_options),
        "sandbox": settings.sandbox,
        "memory_mb": settings.memory_mb,
        "max_duration_s": settings.max_duration_s,
        "provenance": settings.provenance,
        "trust_list": None if settings.trust_list is None else str(settings.trust_list.resolve()),
    }


class ProcessWorker:
    """A worker in a process of its own.

    Args:
        settings: Settings of the service.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = -1
        self._number = 0
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """Number of the process; None where none runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> dict[str, Any]:
        """Starts the process and waits until its model is loaded.

        Raises:
            WorkerRefused: The model cannot be loaded.
            WorkerDied: The process ended meanwhile.
        """
        await self.close()
        reading, self._lifeline = os.pipe()
        environment = {k: v for k, v in os.environ.items() if k not in _SECRETS}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dfd_edge.serve.judging.child", str(reading)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(reading,),
                env=environment,
                limit=_MAX_LINE,
            )
        finally:
            os.close(reading)
        log = asyncio.create_task(self._log(self._process))
        self._tasks.add(log)
        log.add_done_callback(self._tasks.discard)
        self._send(judging_settings(self._settings))
        answer = await self._receive()
        if (refused := answer.get("refused")) is not None:
            await self.close()
            raise WorkerRefused(refused["detail"], refused["exit_code"])
        about: dict[str, Any] = answer["ready"]
        return about

    async def judge(self, path: str, name: str, report: Report) -> dict[str, Any]:
        """Judges a file, as `Worker.judge` says."""
        self._number += 1
        self._send({"number": self._number, "path": path, "name": name})
        self._busy = True
        try:
            while not {"done", "failed"} & (message := await self._receive()).keys():
                report(message)
        finally:
            self._busy = False
        return message

    async def stop(self) -> None:
        """Asks the process to end its judgement; kills it where it does not within seconds."""
        number, process = self._number, self._process
        if process is None:
            return
        with contextlib.suppress(WorkerDied):
            self._send({"stop": number})
        await asyncio.sleep(_STOP_S)
        if self._busy and (number, process) == (self._number, self._process):
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def close(self) -> None:
        """Ends the process. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            raise WorkerDied("the process that judges has ended")
        process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _receive(self) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise WorkerDied("the process that judges was ended")
        try:
            line = await process.stdout.readline()
            if line.endswith(b"\n"):
                message = json.loads(line)
                if isinstance(message, dict):
                    return message
        except ValueError:  # too long a line, or no JSON: it can be trusted no further
            logger.error("the process that judges sent no message; it is ended")
        await self.close()
        code = process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise WorkerDied(f"the process that judges has ended ({how})")

    @staticmethod
    async def _log(process: asyncio.subprocess.Process) -> None:
        """Passes on what the process prints on standard error."""
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            logger.warning("process %d: %s", process.pid, line.decode(errors="replace").rstrip())
