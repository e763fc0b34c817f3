"""What the command line prints: JSON Lines or one human line a source."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

import click

from dfd_edge.errors import BrokenOutput, DfdError, OutputError, SourceError
from dfd_edge.judging.results import Event, EventKind, FrameResult, Label, Record, Verdict
from dfd_edge.sinks.csv_file import CsvFile
from dfd_edge.sinks.text import json_line, printable
from dfd_edge.view.terminal import STYLES, SourceState, TerminalView, terminal_for_views

if TYPE_CHECKING:
    from dfd_edge.sinks.webhook import Webhook


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


__all__ = ["Reporter", "live_line", "printable", "verdict_line"]

_SHOWN_INTERVALS = 4


class Reporter:
    """Prints results to standard output and troubles to standard error; thread-safe.

    Args:
        as_json: JSON Lines instead of human lines; then nothing else goes to standard output.
        csv_file: Takes a row for each person in each frame, or None.
        webhook: Is told of changed labels and of verdicts; its troubles are printed. Or None.

    Attributes:
        verdicts: Those taken so far.
        failures: How many sources could not be judged so far.
        output_error: Why standard output cannot be written any more, else None. Whatever would
            print there raises it.
    """

    def __init__(
        self, *, as_json: bool, csv_file: CsvFile | None = None, webhook: Webhook | None = None
    ) -> None:
        self.as_json = as_json
        self.progress = ProgressLine(sys.stderr)
        self.verdicts: list[Verdict] = []
        self.failures = 0
        self.output_error: OutputError | None = None
        self._csv = csv_file
        self._webhook = webhook
        if webhook is not None:
            webhook.tell = self.note
        self._view: TerminalView | None = None
        self._lock = threading.RLock()  # what is logged while it is held wipes the view too

    def record(self, record: Record) -> None:
        """Prints a record, where JSON Lines were asked for."""
        if self.as_json:
            with self._lock:
                self._print(json_line(record))

    def frame(self, result: FrameResult) -> None:
        """Takes the result of a frame."""
        self.record(result.to_record())
        if self._csv is not None:
            with self._lock:
                self._csv.add(result)

    def live(self, result: FrameResult, *, changed: bool) -> None:
        """Shows the state of a live source: in a terminal as it is, else when it changes."""
        if self._webhook is not None:
            self._webhook.live(result)
        with self._lock:
            if self._view is not None:
                self._view.add(result)
            elif not self.as_json:
                self.progress.text(live_line(result))
                if changed and not sys.stderr.isatty():
                    self._print(live_line(result))

    @contextlib.contextmanager
    def live_view(self) -> Iterator[None]:
        """Shows live sources in a terminal, where there is one, until the block is left."""
        terminal = terminal_for_views(as_json=self.as_json)
        if terminal is None:
            yield
            return
        # What other parts log goes to the same terminal.
        handlers = logging.getLogger().handlers
        with self._lock:
            self._view = TerminalView(terminal)
        for handler in handlers:
            handler.addFilter(self._make_room)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(self._make_room)
            with self._lock:
                self._view.wipe()
                self._view = None

    def refresh(self, states: list[SourceState]) -> None:
        """Draws live sources anew, where `live_view` shows them.

        Args:
            states: The sources, in the order of their lines.
        """
        with self._lock:
            if self._view is not None:
                self._view.draw(states)

    def event(self, event: Event) -> None:
        """Takes what happened to a source."""
        self.record(event.to_record())
        counted = event.kind is EventKind.DROP and self._view is not None  # it shows how many
        if not self.as_json and not counted:
            self.note(f"{event.source}: {event.kind.value}: {event.detail}")

    def verdict(self, verdict: Verdict) -> None:
        """Takes a verdict."""
        self.verdicts.append(verdict)
        self.record(verdict.to_record())
        if self._webhook is not None:
            self._webhook.verdict(verdict)
        if not self.as_json:
            with self._lock:
                self._clear()
                self._print(verdict_line(verdict))

    def failure(self, source: str, error: DfdError) -> None:
        """Takes a source that could not be judged; the others are still done."""
        self.failures += 1
        self.record(Event(source, 0.0, EventKind.ERROR, str(error)).to_record())
        self.note(f"error: {error}")

    def failures_of(self, errors: list[SourceError], events: list[Event]) -> None:
        """Takes what could not be found, and what is to be known of what was."""
        for event in events:
            self.event(event)
        for error in errors:
            self.failure(str(error).partition(": ")[0], error)

    def note(self, line: str) -> None:
        """Prints a line to standard error."""
        with self._lock, contextlib.suppress(OSError):  # it has no other place to go to
            self._clear()
            click.echo(f"dfd-edge: {printable(line)}", err=True)

    def _print(self, line: str) -> None:
        """Prints a line to standard output.

        Raises:
            OutputError: It cannot be written.
        """
        if self.output_error is None:
            try:
                click.echo(line)
            except BrokenPipeError:
                self.output_error = BrokenOutput("nobody reads standard output any more")
            except OSError as error:
                self.output_error = OutputError(
                    f"standard output cannot be written ({error.strerror})"
                )
        if self.output_error is not None:
            raise self.output_error

    def _clear(self) -> None:
        """Takes away what is drawn anew in place."""
        self.progress.clear()
        if self._view is not None:
            self._view.wipe()

    def _make_room(self, record: logging.LogRecord) -> bool:
        """Lets a log record pass, on a line of its own."""
        with self._lock:
            self._clear()
        return True


def verdict_line(verdict: Verdict) -> str:
    """One line for people: verdict, P(fake), coverage, speed, and what to know besides."""
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


def live_line(result: FrameResult) -> str:
    """One line for people on the state of a live source."""
    people = "  ".join(
        f"#{p.track} {p.reason or p.label.value} {'-' if p.p_fake is None else f'{p.p_fake:.2f}'}"
        for p in result.people
    )
    stale = "" if result.staleness_ms is None else f"  {result.staleness_ms:.0f} ms old"
    label = result.label.value.upper()
    return (
        f"{printable(result.source)}  {result.time_s:.1f} s  {label}  {people or 'no face'}{stale}"
    )
