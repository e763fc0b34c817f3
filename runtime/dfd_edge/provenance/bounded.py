"""Provenance within bounds of time and memory: a child process parses what strangers wrote.

Manifests are parsed by a native library, which may abort, hang or fill the memory. That ends a
process that does nothing else, and the file gets a record that says so.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

from dfd_edge.closing import Closing
from dfd_edge.provenance.child import MOST_ANSWER_BYTES, Request, answer_of, loaded
from dfd_edge.provenance.manifests import sidecar_of
from dfd_edge.provenance.outcome import conclude
from dfd_edge.provenance.record import Mark, Provenance
from dfd_edge.sandbox.messages import receive_message, send_object
from dfd_edge.sandbox.process import ChildProcess, name_of_signal, unavailable
from dfd_edge.schema import SchemaError, from_plain, parse_json
from dfd_edge.text import cleaned

logger = logging.getLogger(__name__)

#: Time for a file of any size, and bytes a second that hashing is granted beside it.
TIME_S = 20.0
BYTES_PER_S = 50e6
#: Memory of the process that reads, libraries included.
MEMORY_BYTES = 1 << 30
#: Reads what a `Request` asks for; not imported here, since it offers what this module bounds.
_FUNCTION = "dfd_edge.provenance.reading:read_request"
#: Longest start of a process, and its delay beyond the time of a file.
_START_S, _GRACE_S = 60.0, 5.0
_LONGEST_TEXT = 4000


class _Failed(Exception):
    """A file could not be read; the text says why, for users."""


class _Died(_Failed):
    """The process that reads has ended."""


def read_bounded(
    path: str | os.PathLike[str],
    trust: Any,  # noqa: ANN401 - handed on
    *,
    timeout_s: float | None = None,
    memory_bytes: int = MEMORY_BYTES,
    function: str = _FUNCTION,
) -> Provenance:
    """Reads the provenance of a file in a process of its own.

    Safe to call from several threads. The process is started with the first file and kept for the
    next. Where none can be started (Windows, frozen programs) the file is read in this process,
    and no limit but that of the size of manifests holds.

    Args:
        path: The file.
        trust: Trust list, as `read_provenance` takes it.
        timeout_s: Time that it may take; by default 20 s, and a second more for each 50 MB.
        memory_bytes: Memory that the process may allocate.
        function: Reads the file in that process, as `MODULE:FUNCTION`.

    Returns:
        Its provenance. Where a limit is exceeded or the process dies, its outcome is `ERROR`, its
        `error` names the cause, and its marks are those that could still be read.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links
    if timeout_s is None:
        timeout_s = TIME_S + _size_of(path) / BYTES_PER_S
    sidecar = sidecar_of(path)
    request = Request(
        path=path,
        files=(str(path),) if sidecar is None else (str(path), str(sidecar)),
        trust=trust,
        marks_only=False,
        timeout_s=timeout_s,
        memory_mb=memory_bytes >> 20,
    )
    try:
        return _read(request, function)
    except _Failed as error:
        logger.info("%s: provenance: %s", path, error)
        return conclude(None, None, _marks(request, function), str(error))


def _marks(request: Request, function: str) -> tuple[Mark, ...]:
    """Reads plain metadata alone, after manifests have failed."""
    request = dataclasses.replace(
        request, marks_only=True, timeout_s=min(request.timeout_s, TIME_S)
    )
    try:
        return _read(request, function).marks
    except _Failed:
        return ()


def _read(request: Request, function: str) -> Provenance:
    if unavailable() is not None:
        return _provenance_of(answer_of(loaded(function), request), request)
    try:
        return _ask(request, function)
    except _Died:
        # A process that waited may have died of anything, and so may the others that wait: those
        # are ended first where memory runs out.
        return _ask(request, function, fresh=True)


def _ask(request: Request, function: str, *, fresh: bool = False) -> Provenance:
    try:
        reader = _Reader(function) if fresh else _idle.pop()
    except IndexError:
        reader = _Reader(function)
    if reader.function != function:
        reader.close()
        reader = _Reader(function)
    try:
        code, answer = reader.read(request)
    except BaseException:
        reader.close()
        raise
    _idle.append(reader)
    if code != 0:
        raise _Failed(_cause(code, request))
    return _provenance_of(answer, request)


class _Reader(Closing):
    """A process that reads one file after the other. Not to be shared between threads.

    Args:
        function: Reads a file.

    Raises:
        _Failed: It cannot be started.
    """

    def __init__(self, function: str) -> None:
        self.function = function
        try:
            self._process = ChildProcess("dfd_edge.provenance.child", function)
        except OSError as error:
            raise _Failed(f"the process that reads it cannot be started ({error})") from error
        try:
            message, _ = self._hear(_START_S)
        except BaseException:
            self.close()
            raise
        if "refused" in message:
            self.close()
            raise _Failed(f"the process that reads it cannot be started ({message['refused']})")

    def read(self, request: Request) -> tuple[object, bytes]:
        """Has a file read.

        Returns:
            The exit code of the worker, negative for a signal, and its answer: those of a worker
            that may be taken over.

        Raises:
            _Died: The process has ended.
            _Failed: It was silent for too long, or sent no sense.
        """
        try:
            send_object(self._process.control, request)
        except BrokenPipeError:
            raise _Died(self._cause_of_death()) from None
        message, answer = self._hear(request.timeout_s + _GRACE_S)
        return message.get("code"), answer

    def close(self) -> None:
        """Ends the process. Safe to call twice."""
        self._process.close()

    def _hear(self, within_s: float) -> tuple[dict[str, Any], bytes]:
        """Receives a message, and the bytes behind it."""
        until_s = time.monotonic() + within_s

        def receive(buffer: memoryview) -> None:
            self._process.read(buffer, until_s)

        try:
            message, size = receive_message(receive)
            if size > MOST_ANSWER_BYTES:
                raise ValueError
            answer = bytearray(size)
            receive(memoryview(answer))
        except TimeoutError:
            raise _Failed(f"the process that read it said nothing for {within_s:.0f} s") from None
        except EOFError:
            raise _Died(self._cause_of_death()) from None
        except ValueError:
            raise _Failed("the process that read it sent no sense") from None
        return message, bytes(answer)

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        how = name_of_signal(code) if code < 0 else f"exit {code}"
        return f"the process that read it died ({how})"


def _cause(code: object, request: Request) -> str:
    """Returns why a worker gave no answer, by its exit code."""
    if code == -signal.SIGALRM:
        return f"it was not read within the {request.timeout_s:.3g} s that it may take"
    if code == -signal.SIGKILL:
        return "the process that read it was killed (SIGKILL), perhaps for want of memory"
    if isinstance(code, int) and code < 0:
        return (
            f"reading it crashed ({name_of_signal(code)}): damaged, hostile, or too large for the "
            f"{request.memory_mb:,} MB of memory that reading may take"
        )
    return f"reading it failed (exit {code})"


def _provenance_of(answer: bytes, request: Request) -> Provenance:
    """Returns the provenance in an answer, each value checked.

    Raises:
        _Failed: The answer is an error, or no sense.
    """
    try:
        fields = parse_json(answer.decode("ascii"))
        if not isinstance(fields, dict):
            raise SchemaError("no object")
        if "memory" in fields:
            raise _Failed(
                f"reading it takes more than the {request.memory_mb:,} MB of memory that it may"
            )
        if "fault" in fields:
            raise _Failed(f"reading it failed through a fault of ours ({fields['fault']!s:.100})")
        found = from_plain(Provenance, _printable(fields.get("provenance")))
    except (SchemaError, UnicodeDecodeError, RecursionError):
        raise _Failed("the process that read it sent no sense") from None
    # Outcome and summary follow from the rest, whatever a worker that was taken over answers.
    return conclude(found.manifest, found.remote, found.marks, found.error)


def _printable(value: object) -> object:
    """Returns JSON whose texts are clean, as they are already unless a worker was taken over."""
    if isinstance(value, str):
        return cleaned(value, _LONGEST_TEXT)
    if isinstance(value, dict):
        return {key: _printable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return value


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it says why
        return 0


#: Processes that wait for the next file, as many as files were read at once; more are ended.
_idle: deque[_Reader] = deque(maxlen=8)
if hasattr(os, "register_at_fork"):
    # A copy of this process must not listen to the same pipes.
    os.register_at_fork(after_in_child=_idle.clear)
