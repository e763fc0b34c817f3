"""A video on standard input, read so that waiting for more of it can be ended."""

from __future__ import annotations

import os
import select
import stat
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

    Attributes:
        empty: Whether nothing has come yet.

    Raises:
        SourceError: standard input is closed.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.empty = True
        try:
            self._descriptor = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise SourceError("standard input: it is closed") from error

    @property
    def mode(self) -> int:
        """Kind of the open file, as `os.fstat` gives it."""
        return os.fstat(self._descriptor).st_mode

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end or once stopped."""
        # Windows can wait for sockets only.
        while os.name != "nt" and not select.select([self._descriptor], [], [], _POLL_S)[0]:
            if self._stop.is_set():
                return b""
        data = b"" if self._stop.is_set() else os.read(self._descriptor, size)
        self.empty = self.empty and not data
        return data


class RedirectedFile(PipeReader):
    """A file that standard input was redirected from: it can be read in any order.

    MP4 files that were never prepared for streaming keep their index at the end.
    """

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(stop)
        self._start = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place in what was given, and returns it in bytes from its start."""
        if whence == os.SEEK_SET:
            offset += self._start
        return os.lseek(self._descriptor, offset, whence) - self._start

    def tell(self) -> int:
        """The place that is read next, in bytes from the start of what was given."""
        return self.seek(0, os.SEEK_CUR)


def open_standard_input(stop: threading.Event) -> PipeReader:
    """Opens standard input as what it is.

    Raises:
        SourceError: Standard input is closed.
    """
    pipe = PipeReader(stop)
    return RedirectedFile(stop) if stat.S_ISREG(pipe.mode) else pipe
