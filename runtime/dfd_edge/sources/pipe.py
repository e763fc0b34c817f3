"""A video on standard input, read so that waiting for more of it can be ended."""

from __future__ import annotations

import os
import select
import sys
import threading

from dfd_edge.errors import SourceError

_POLL_S = 0.05


class PipeReader:
    """The bytes of standard input, for PyAV to read.

    A plain read of a silent pipe holds until its sender moves. This one looks for `stop` while it
    waits, and takes that for the end of the input.

    Args:
        stop: ends the reading.

    Raises:
        SourceError: standard input is closed.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        try:
            self._descriptor = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise SourceError("standard input: it is closed") from error

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end or once stopped."""
        # Windows can wait for sockets only.
        while os.name != "nt" and not select.select([self._descriptor], [], [], _POLL_S)[0]:
            if self._stop.is_set():
                return b""
        return b"" if self._stop.is_set() else os.read(self._descriptor, size)
