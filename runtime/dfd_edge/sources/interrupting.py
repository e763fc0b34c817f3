"""Ends FFmpeg's waits for the network when another thread asks for it.

While FFmpeg waits, it asks PyAV about ten times a second whether to go on, and PyAV compares
`time.monotonic()` with its timeout. It offers no other way to end a wait, and closing the container
from another thread is not safe. So PyAV gets a clock that runs ahead in a thread that is to stop:
whatever that thread waits for is then past its timeout. Other threads see the real time. Should a
later PyAV read its clock elsewhere, as those before 17 do, the timeouts themselves still end every
wait.

A look-up of a host name asks nobody; it ends by the system's own limit.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import av.container.core

#: Longer than any timeout, in seconds.
_AHEAD_S = 1e6


class _Stop(threading.local):
    event: threading.Event | None = None


_stop = _Stop()
_calls = itertools.count(1)


class _Clock:
    """Stands for the module `time` in PyAV, which takes nothing but `monotonic` from it."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    @staticmethod
    def monotonic() -> float:
        """Seconds; in a thread that is to stop each call is later than any timeout."""
        if is_interrupted():
            return time.monotonic() + next(_calls) * _AHEAD_S
        return time.monotonic()


av.container.core.time = _Clock()  # type: ignore[attr-defined]


@contextlib.contextmanager
def interrupted_by(stop: threading.Event) -> Iterator[None]:
    """Lets `stop` end the waits of sources that this thread opens or reads."""
    before = _stop.event
    _stop.event = stop
    try:
        yield
    finally:
        _stop.event = before


def is_interrupted() -> bool:
    """Whether this thread was asked to stop."""
    return _stop.event is not None and _stop.event.is_set()
