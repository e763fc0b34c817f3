"""The child process that reads provenance: a small server, and a worker of it for each file.

python -m dfd_edge.provenance.child CONTROL ANSWERS LIFELINE MODULE:FUNCTION

The server has loaded all libraries and parses nothing. On Linux it forks for each file: the worker
may read that file alone, write none, and allocate what it was granted; whatever a hostile file does
to it ends with it. Elsewhere the server reads the files itself, and its parent starts it anew.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_edge.errors import is_out_of_memory
from dfd_edge.sandbox import confining
from dfd_edge.sandbox.messages import read_all, receive_object, send_message, write_all
from dfd_edge.schema import to_plain

#: Longest answer; a longer one becomes an error. Lists and texts are cut as they are read, so that
#: only hostile files come near it.
MOST_ANSWER_BYTES = 16 << 20
_CHUNK = 1 << 16
#: Modules that readers import where they need them: loaded once, else by each worker anew. None of
#: them starts a thread, without which no process should fork.
_MODULES = (
    *("c2pa", "av", "cv2"),
    *("dfd_edge.provenance.metadata.films", "dfd_edge.provenance.metadata.pictures"),
)

Read = Callable[["Request"], Any]
"""Reads what is asked for; returns a dataclass."""


@dataclass(frozen=True, slots=True)
class Request:
    """A file to read.

    Attributes:
        path: The file; absolute.
        files: Files that may be opened: it, and sidecars beside it, which need not exist.
        trust: Trust list, as `read_provenance` takes it.
        marks_only: Whether manifests are left alone.
        timeout_s: Time that it may take.
        memory_mb: Memory that it may allocate, libraries included.
    """

    path: Path
    files: tuple[str, ...]
    trust: Any
    marks_only: bool
    timeout_s: float
    memory_mb: int


def main(control: int, answers: int, lifeline: int, function: str) -> None:
    """Reads what is asked for until the parent ends."""
    confining.end_with_parent(lifeline, of_thread=False)
    confining.die_first()
    confining.leave_network()
    try:
        read = loaded(function)
        for module in _MODULES:
            with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
                importlib.import_module(module)
    except Exception as error:
        send_message(answers, {"refused": f"{type(error).__name__}: {error}"[:500]}, [])
        return
    send_message(answers, {"ready": True}, [])
    while True:
        try:
            request: Request = receive_object(lambda buffer: read_all(control, buffer))
        except EOFError:
            return
        if sys.platform == "linux":
            code, data = _in_worker(read, request, (control, answers))
        else:
            code, data = 0, answer_of(read, request)
        send_message(answers, {"code": code}, [memoryview(data)])


def loaded(function: str) -> Read:
    """Imports a function, given as `MODULE:FUNCTION`."""
    module, _, name = function.partition(":")
    read: Read = getattr(importlib.import_module(module), name)
    return read


def _in_worker(read: Read, request: Request, pipes: tuple[int, ...]) -> tuple[int, bytes]:
    """Reads a file in a process of its own.

    Returns:
        Its exit code, negative for a signal: SIGALRM where its time was over. Then its answer.
    """
    result, written = os.pipe()
    worker = os.fork()
    if worker == 0:
        code = 1
        try:
            for descriptor in (result, *pipes):
                os.close(descriptor)
            confining.end_with_thread()
            signal.setitimer(signal.ITIMER_REAL, request.timeout_s)
            confining.limit(request.memory_mb)
            confining.read_only(request.files)
            write_all(written, answer_of(read, request))
            code = 0
        finally:
            os._exit(code)
    os.close(written)
    data = bytearray()
    while len(data) <= MOST_ANSWER_BYTES and (chunk := os.read(result, _CHUNK)):
        data += chunk
    os.close(result)  # a worker that has more to say dies of it
    _, status = os.waitpid(worker, 0)
    return os.waitstatus_to_exitcode(status), bytes(data[:MOST_ANSWER_BYTES])


def answer_of(read: Read, request: Request) -> bytes:
    """Reads a file; returns its provenance, or why there is none, as JSON."""
    try:
        answer = {"provenance": to_plain(read(request))}
    except Exception as error:
        # Its text may hold whatever the file does.
        answer = {"memory": True} if is_out_of_memory(error) else {"fault": type(error).__name__}
    return json.dumps(answer).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
