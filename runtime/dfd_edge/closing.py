"""Orderly ends: objects closed by a `with` block, and native calls at the exit of the program."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

_EXIT_WAIT_S = 3.0
"""Longest wait of the exit for native calls of other threads; the driver of a camera may hang."""
_POLL_S = 0.002


class Closing(ABC):
    """Base of objects that are closed when their `with` block is left."""

    @abstractmethod
    def close(self) -> None:
        """Releases all resources. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Exit:
    """Whether the program is ending, and the threads that it waits for."""

    def __init__(self) -> None:
        self.begun = False
        self.awaited: set[threading.Thread] = set()
        atexit.register(self._wait)

    def _wait(self) -> None:
        self.begun = True
        until_s = time.monotonic() + _EXIT_WAIT_S
        # After a fork the other threads are gone.
        while any(t.is_alive() for t in tuple(self.awaited)) and time.monotonic() < until_s:
            time.sleep(_POLL_S)


_exit = _Exit()


def native_calls() -> contextlib.AbstractContextManager[object]:
    """Returns a block that holds up the program's exit while it calls native libraries.

    Python ends a daemon thread that returns from a native call after the exit has begun. C++
    libraries (onnxruntime, OpenCV) abort the process then. So the exit waits for such blocks in
    other threads, and a thread that enters one later ends instead.

    Raises:
        SystemExit: The program is ending; ends the thread silently.
    """
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread in _exit.awaited:
        return contextlib.nullcontext()
    held = contextlib.ExitStack()
    held.callback(_exit.awaited.discard, thread)
    _exit.awaited.add(thread)
    if _exit.begun:
        held.close()
        raise SystemExit
    return held
