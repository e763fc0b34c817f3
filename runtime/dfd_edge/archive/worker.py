"""The parent's side of a worker process, restarted when it dies, hangs or fills its memory."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dfd_edge.errors
from dfd_edge.archive.child import OUT_OF_MEMORY
from dfd_edge.archive.rows import Failure, Judgement
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings, worker_environment
from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.sandbox.messages import receive_message, send_message
from dfd_edge.sandbox.process import name_of_signal
from dfd_edge.schema import SchemaError, from_plain, to_plain

if TYPE_CHECKING:
    from dfd_edge.provenance.trust import TrustList
    from dfd_edge.sinks.provenance_columns import ProvenanceColumns

#: A clip that ends so many workers is not tried again.
LIVES = 3
#: Longest start of a worker: an accelerator may compile its engines.
_START_S = 600.0
_TOO_LITTLE_MEMORY = "there is not enough memory to judge it"
_MOST_PAYLOAD = 1 << 28
#: Most bytes of one read: an answer without frames and thumbnail comes with one.
_READ_BYTES = 1 << 16
_FRAME_ROW_KEYS = frozenset(
    ("time_s", "track", "box", "p_frame", "p_step", "p_fake", "judged", "reason", "label")
)


class _Died(Exception):
    """The process ended, or says what cannot be read."""


class _Full(Exception):
    """The process had too little memory to answer."""


class _Late(Exception):
    """The process took too long."""


class Worker(Closing):
    """A process that judges clips, one at a time. Not to be shared between threads.

    Args:
        judge: How clips are judged.
        limits: How the process runs, and its limits.
    """

    def __init__(self, judge: JudgeSettings, limits: WorkerSettings) -> None:
        self._judge = judge
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: tuple[int, int, int] = (-1, -1, -1)
        self._trust_list: TrustList | None = None
        self._unread = memoryview(b"")

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def judge(
        self,
        path: str,
        name: str,
        *,
        struck: int = 0,
        on_strike: Callable[[int], None] = lambda strikes: None,
    ) -> tuple[Judgement, tuple[dict[str, Any], ...]]:
        """Judges a file.

        Args:
            path: The file, on this machine.
            name: Name of the clip in messages.
            struck: Workers that this clip has ended before.
            on_strike: Called with the number of workers that it has ended, when it ends one.

        Returns:
            The judgement and the rows of its frames.

        Raises:
            DfdError: No worker can start: the bundle or the provider is refused.
        """
        since_s = time.monotonic()
        cause = "in an earlier run"
        for attempt in range(struck + 1, LIVES + 1):
            try:
                self.start()
                judgement, frames = self._ask(path, name)
            except _Late:
                self.close()
                limit_s = self._limits.clip_time_s
                judgement, frames = (
                    Judgement.failed(f"{name}: not judged within {limit_s:g} s", Failure.TIME),
                    (),
                )
            except _Full:
                self.close()
                judgement, frames = (
                    Judgement.failed(f"{name}: {_TOO_LITTLE_MEMORY}", Failure.MEMORY),
                    (),
                )
            except _Died as error:
                cause = f"the last with {error}"
                self.close()
                on_strike(attempt)
                continue
            if judgement.failure is Failure.MEMORY:
                self.close()  # its memory may be in pieces
            seconds = time.monotonic() - since_s
            return replace(judgement, seconds=seconds, attempts=attempt), frames
        text = f"{name}: ended {LIVES} workers, {cause}"
        seconds = time.monotonic() - since_s
        return Judgement.failed(text, Failure.CRASH, seconds=seconds, attempts=LIVES), ()

    def read_provenance(self, path: str, name: str) -> ProvenanceColumns | None:
        """Returns what a file says of its origin; None where that is not asked for.

        Args:
            path: The file, on this machine.
            name: Name of the clip in messages.

        Raises:
            UsageError: It cannot be read on this machine: a library or the trust list is missing.
        """
        if not self._judge.provenance:
            return None
        from dfd_edge.provenance.beside import open_trust_list, read_beside  # noqa: PLC0415
        from dfd_edge.sinks.provenance_columns import ProvenanceColumns  # noqa: PLC0415

        if self._trust_list is None:
            given = self._judge.trust_list
            self._trust_list = open_trust_list(None if given is None else Path(given))
        return ProvenanceColumns.of(read_beside(Path(path), name, self._trust_list))

    def start(self) -> None:
        """Starts the process, unless it runs, and waits until its bundle is loaded.

        Raises:
            DfdError: The bundle or the provider is refused.
        """
        if self._process is not None:
            return
        for attempt in range(1, LIVES + 1):
            self._spawn()
            try:
                self._send({"judge": to_plain(self._judge), "worker": to_plain(self._limits)})
                message, _ = self._receive(_START_S)
            except (_Died, _Full, _Late) as error:
                self.close()
                if attempt == LIVES:
                    cause = str(error) or f"nothing came for {_START_S:g} s"
                    raise UsageError(
                        f"no worker can start ({cause}): run `dfd-edge --doctor`"
                    ) from error
            else:
                break
        if "refused" in message:
            self.close()
            raise _refusal(message)

    def close(self) -> None:
        """Ends the process. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for descriptor in self._pipes:
            os.close(descriptor)

    def _spawn(self) -> None:
        requests, to_child = os.pipe()
        from_child, answers = os.pipe()
        lifeline, held = os.pipe()
        given = (requests, answers, lifeline)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dfd_edge.archive.child", *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=given,
                env={
                    **worker_environment(),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    "OPENCV_LOG_LEVEL": "SILENT",
                },
                process_group=0,  # Ctrl-C in a terminal is for the parent
            )
        except OSError as error:
            for descriptor in (to_child, from_child, held):
                os.close(descriptor)
            raise UsageError(f"no worker can be started ({error.strerror})") from error
        finally:
            for descriptor in given:
                os.close(descriptor)
        self._pipes = (to_child, from_child, held)
        self._unread = memoryview(b"")

    def _ask(self, path: str, name: str) -> tuple[Judgement, tuple[dict[str, Any], ...]]:
        self._send({"path": path, "name": name})
        message, payload = self._receive(self._limits.clip_time_s)
        try:
            judgement = from_plain(Judgement, message["judgement"])
            length = message["thumbnail"]
            thumbnail, rows = payload[:length], json.loads(payload[length:] or b"[]")
            frames = tuple({key: row[key] for key in _FRAME_ROW_KEYS} for row in rows)
        except (KeyError, TypeError, SchemaError, json.JSONDecodeError) as error:
            raise _Died(f"an answer that cannot be read ({error})") from error
        return replace(judgement, thumbnail=bytes(thumbnail) or None), frames

    def _send(self, message: dict[str, Any]) -> None:
        try:
            send_message(self._pipes[0], message, [])
        except OSError as error:
            raise self._ending() from error

    def _receive(self, within_s: float) -> tuple[dict[str, Any], bytes]:
        until_s = time.monotonic() + within_s

        def receive(buffer: memoryview) -> None:
            while buffer:
                if not self._unread:
                    self._unread = self._read(until_s)
                taken = self._unread[: len(buffer)]
                buffer[: len(taken)] = taken
                buffer, self._unread = buffer[len(taken) :], self._unread[len(taken) :]

        try:
            message, size = receive_message(receive)
        except ValueError as error:
            raise _Died(f"an answer that cannot be read ({error})") from error
        if size > _MOST_PAYLOAD:
            raise _Died(f"an answer of {size} bytes")
        payload = bytearray(size)
        receive(memoryview(payload))
        return message, bytes(payload)

    def _read(self, until_s: float) -> memoryview:
        """Returns what the process has written, as much as there is."""
        left_s = until_s - time.monotonic()
        if left_s <= 0.0 or not select.select([self._pipes[1]], [], [], left_s)[0]:
            raise _Late
        data = os.read(self._pipes[1], _READ_BYTES)
        if not data:
            raise self._ending()
        return memoryview(data)

    def _ending(self) -> Exception:
        """Returns how the process ended, to be raised."""
        if self._process is None:
            return _Died("it was ended")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        code = self._process.returncode
        if code is None:
            return _Died("it closed its pipe")
        if code == OUT_OF_MEMORY:
            return _Full("it had too little memory")
        return _Died(f"exit code {code}" if code >= 0 else name_of_signal(code))


def _refusal(message: dict[str, Any]) -> DfdError:
    """Returns the error that a worker could not load its bundle for."""
    kind = getattr(dfd_edge.errors, str(message.get("kind")), None)
    text = str(message["refused"])
    if kind in (dfd_edge.errors.BundleError, dfd_edge.errors.ProviderError):
        return kind(text)  # type: ignore[no-any-return]
    return UsageError(text)
