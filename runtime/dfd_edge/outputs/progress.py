"""One line of progress on a terminal."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TextIO

from dfd_edge.outputs.text import printable

_REFRESH_S = 0.1
_BAR_WIDTH = 24
_CLEAR_LINE = "\r\x1b[K"


class ProgressLine:
    """A progress bar with time left, on a line that is wiped afterwards. Silent off terminals.

    Args:
        file: Where to draw, standard error as a rule.
        enabled: False draws nothing; by default whether `file` is a terminal that can wipe a line.
    """

    def __init__(self, file: TextIO, *, enabled: bool | None = None) -> None:
        self._file = file
        if enabled is None:
            enabled = file.isatty() and os.environ.get("TERM") != "dumb"
        self._enabled = enabled
        self._drawn_s = 0.0
        self._started_s = time.monotonic()
        self._name = ""

    def start(self, name: str) -> None:
        """Begins a source."""
        self._name = printable(name)
        self._started_s = time.monotonic()

    def update(self, done_s: float, whole_s: float | None) -> None:
        """Draws how much of the source is done, in its own seconds; at most ten times a second."""
        now_s = time.monotonic()
        if not self._enabled or now_s - self._drawn_s < _REFRESH_S:
            return
        if not whole_s:
            self.text(f"{self._name}  {done_s:.0f} s done")
            return
        share = min(1.0, done_s / whole_s)
        filled = round(share * _BAR_WIDTH)
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        left = ""
        if share > 0.02:
            left = f"  {(now_s - self._started_s) * (1.0 - share) / share:.0f} s left"
        self.text(f"{self._name}  [{bar}] {share:4.0%}{left}")

    def text(self, line: str) -> None:
        """Puts this text on the line."""
        if self._enabled:
            self._drawn_s = time.monotonic()
            self._write(_CLEAR_LINE + line)

    def clear(self) -> None:
        """Wipes the line."""
        if self._enabled and self._drawn_s:
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that has gone needs no progress
            self._file.write(text)
            self._file.flush()
