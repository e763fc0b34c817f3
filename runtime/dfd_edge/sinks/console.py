"""Text for people: verdicts on standard output, notes and progress on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import click

from dfd_edge.errors import BrokenOutput, OutputError
from dfd_edge.judging.results import Event, EventKind, FrameResult, Label, Verdict
from dfd_edge.sinks.sink import Sink
from dfd_edge.text import printable

if TYPE_CHECKING:
    from dfd_edge.provenance.record import Provenance

#: Terminal colours of the labels.
STYLES = {Label.FAKE: "red", Label.REAL: "green", Label.UNSURE: "yellow", Label.NO_FACE: "blue"}

_REFRESH_S = 0.1
_BAR_WIDTH = 24
_CLEAR_LINE = "\r\x1b[K"
_SHOWN_INTERVALS = 4


class ProgressLine:
    """A progress bar with time left, on a line that is erased afterwards. Silent off terminals.

    Args:
        file: Where to draw, usually standard error.
        enabled: Whether to draw; by default if `file` is a terminal that can erase a line.
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
        """Starts a source."""
        self._name = printable(name)
        self._started_s = time.monotonic()

    def update(self, done_s: float, whole_s: float | None) -> None:
        """Draws the seconds of the source that are done; at most ten times a second."""
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
        """Replaces the line."""
        if self._enabled:
            self._drawn_s = time.monotonic()
            self._write(_CLEAR_LINE + line)

    def clear(self) -> None:
        """Erases the line."""
        if self._enabled and self._drawn_s:
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal has gone
            self._file.write(text)
            self._file.flush()


class Wipeable(Protocol):
    """Lines in a terminal that are redrawn in place."""

    def wipe(self) -> None:
        """Removes the lines, so that something else can be printed."""


class Printer:
    """Standard output and standard error, shared by the sinks that print; thread-safe.

    Attributes:
        lock: Held while something is printed; logging takes it too while lines are redrawn.
        progress: The line of progress on standard error.
        view: Lines that are redrawn in place and show live sources, or None.
        error: Why standard output cannot be written any more, else None.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.progress = ProgressLine(sys.stderr)
        self.view: Wipeable | None = None
        self.error: OutputError | None = None

    def print(self, line: str) -> None:
        """Prints a line to standard output.

        Raises:
            OutputError: It cannot be written, now or at an earlier call.
        """
        with self.lock:
            if self.error is None:
                try:
                    click.echo(line)
                except BrokenPipeError:
                    self.error = BrokenOutput("nobody reads standard output any more")
                except OSError as error:
                    self.error = OutputError(
                        f"standard output cannot be written ({error.strerror})"
                    )
            if self.error is not None:
                raise self.error

    def note(self, line: str) -> None:
        """Prints a line to standard error."""
        with self.lock, contextlib.suppress(OSError):  # there is no other place for it
            self.wipe()
            click.echo(f"dfd-edge: {printable(line)}", err=True)

    def wipe(self) -> None:
        """Removes what is redrawn in place."""
        with self.lock:
            self.progress.clear()
            if self.view is not None:
                self.view.wipe()


class Console(Sink):
    """Prints verdicts, events and errors.

    Args:
        printer: Standard output and standard error.
        as_json: Whether JSON Lines go to standard output: then only errors are printed here.
        files: How many files the run judges, for the line of progress.
    """

    def __init__(self, printer: Printer, *, as_json: bool = False, files: int = 1) -> None:
        self.printer = printer
        self._as_json = as_json
        self._files = files
        self._begun = 0

    def begin(self, source: str, *, live: bool) -> None:
        """Starts the progress of a file."""
        if not live:
            self._begun += 1
            place = f"{self._begun}/{self._files} " if self._files > 1 else ""
            self.printer.progress.start(f"{place}{Path(source).name}")

    def progress(self, done_s: float, whole_s: float | None) -> None:
        """Draws the progress of a file."""
        self.printer.progress.update(done_s, whole_s)

    def event(self, event: Event) -> None:
        """Prints an event; drops only where no live display counts them."""
        counted = event.kind is EventKind.DROP and self.printer.view is not None
        if event.kind is EventKind.ERROR:
            self.printer.note(f"error: {event.detail}")
            if event.provenance is not None and not self._as_json:
                self.printer.note(f"{event.source}: {provenance_line(event.provenance)}")
        elif not self._as_json and not counted:
            self.printer.note(f"{event.source}: {event.kind.value}: {event.detail}")

    def verdict(self, verdict: Verdict) -> None:
        """Prints a verdict."""
        if not self._as_json:
            with self.printer.lock:
                self.printer.wipe()
                self.printer.print(verdict_line(verdict))
                if verdict.provenance is not None:
                    self.printer.print(f"{'':8} {provenance_line(verdict.provenance)}")


class LiveLines(Sink):
    """Prints a line for each change of a live label; in a terminal, one line in place.

    Args:
        printer: Standard output and standard error.
    """

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._labels: dict[str, Label] = {}

    def frame(self, result: FrameResult) -> None:
        """Shows the state of a live source."""
        line = live_line(result)
        with self._printer.lock:
            self._printer.progress.text(line)
            changed = self._labels.get(result.source) is not result.label
            self._labels[result.source] = result.label
            if changed and not sys.stderr.isatty():
                self._printer.print(line)


def verdict_line(verdict: Verdict) -> str:
    """Returns a verdict as one line: label, P(fake), coverage, speed and remarks."""
    label = click.style(f"{verdict.label.value.upper():8}", fg=STYLES[verdict.label], bold=True)
    probability = "   -" if verdict.p_fake is None else f"{verdict.p_fake:.2f}"
    parts = [f"P(fake) {probability}", f"coverage {verdict.coverage:4.0%}"]
    if verdict.realtime_factor is not None:
        parts.append(f"{verdict.realtime_factor:.1f}x real time")
    elif verdict.first_verdict_s is not None:
        parts.append(f"first verdict after {verdict.first_verdict_s:.1f} s")
    if len(verdict.people) > 1:
        parts.append(f"{len(verdict.people)} people")
    spans = [
        f"{interval.start_s:.1f}-{interval.end_s:.1f}"
        for person in verdict.people
        if person.label is Label.FAKE
        for interval in person.intervals
    ]
    if spans:
        more = " ..." if len(spans) > _SHOWN_INTERVALS else ""
        parts.append(f"looked fake at {', '.join(spans[:_SHOWN_INTERVALS])} s{more}")
    if verdict.p_fake is None and verdict.people:
        most = max(person.judged_steps for person in verdict.people)
        parts.append(f"too little was seen: {most} judged frame{'' if most == 1 else 's'}")
    if verdict.reason:
        parts.append(f"({verdict.reason})")
    return f"{label} {printable(verdict.source)}  " + "  ".join(parts)


def provenance_line(provenance: Provenance) -> str:
    """Returns what a file says of its origin as one line: the conclusion, and the trust list."""
    line = f"provenance: {provenance.summary}"
    # Nothing in a record that does not hold can be relied on, the name of a trusted signer neither.
    if provenance.manifest is not None and provenance.outcome.value != "signed_broken":
        signature = provenance.manifest.signature
        trust = "trusted" if signature.trusted else "not trusted"
        line += f"  signer {trust}: {signature.trust_list}"
    return printable(line)


def live_line(result: FrameResult) -> str:
    """Returns the state of a live source as one line."""
    people = "  ".join(
        f"#{p.track} {p.reason or p.label.value} {'-' if p.p_fake is None else f'{p.p_fake:.2f}'}"
        for p in result.people
    )
    stale = "" if result.staleness_ms is None else f"  {result.staleness_ms:.0f} ms old"
    label = result.label.value.upper()
    return (
        f"{printable(result.source)}  {result.time_s:.1f} s  {label}  {people or 'no face'}{stale}"
    )
