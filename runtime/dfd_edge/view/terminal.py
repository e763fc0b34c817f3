"""Live sources in a terminal: a few lines that are redrawn in place."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

import click

from dfd_edge.judging.results import FrameResult, Label, PersonResult
from dfd_edge.sinks.console import STYLES, Printer
from dfd_edge.sinks.sink import Sink, SourceState
from dfd_edge.text import printable
from dfd_edge.view.overlay import clock
from dfd_edge.view.timeline import judging_rate

BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
ASCII_LEVELS = "_.-:=+*#"
_SPAN_S = 20.0
_REFRESH_S = 0.2
_SILENT_S = 2.0
_HEAD_WIDTH = 13
_INDENT = 8
_PERSON_WIDTH = 22
_MOST_CELLS = 40
_LEAST_CELLS = 5
_LEAST_NAME = 8
_LEAST_WIDTH = 20
_Segments = list[tuple[str, Label | None]]
"""A line: pieces of text, each with the label that gives its colour."""


def sparkline(
    points: Iterable[tuple[float, float]],
    now_s: float,
    *,
    cells: int,
    span_s: float,
    levels: str = BLOCKS,
) -> str:
    """Draws scores as one character per interval of time; an interval without scores is blank.

    The intervals are fixed in the clock of the times, so that the line moves without flicker. Of
    several scores in one interval the highest is drawn.

    Args:
        points: Time in seconds and score in [0, 1] of each.
        now_s: Time at the right edge.
        cells: Characters to fill.
        span_s: Seconds that they cover.
        levels: Characters from the lowest to the highest score.

    Returns:
        `cells` characters, the newest last.

    Example:
        >>> sparkline([(0.5, 0.0), (2.5, 0.6), (3.5, 1.0)], 3.9, cells=4, span_s=4.0)
        '▁ ▅█'
    """
    stretch_s = span_s / cells
    last = math.floor(now_s / stretch_s)
    highest: dict[int, float] = {}
    for time_s, score in points:
        cell = math.floor(time_s / stretch_s) - last + cells - 1
        if 0 <= cell < cells:
            highest[cell] = max(score, highest.get(cell, 0.0))
    return "".join(
        levels[min(len(levels) - 1, int(highest[cell] * len(levels)))] if cell in highest else " "
        for cell in range(cells)
    )


@dataclass(slots=True)
class _Seen:
    """Results of one source, with their times of arrival."""

    results: deque[tuple[float, FrameResult]] = field(default_factory=deque)

    def add(self, result: FrameResult, now_s: float) -> None:
        self.results.append((now_s, result))
        while now_s - self.results[0][0] > _SPAN_S:
            self.results.popleft()


class TerminalView:
    """Lines on the state of live sources, redrawn in place. Not thread-safe.

    It never takes more lines than the terminal has; earlier output stays above it.

    Args:
        file: The terminal.
        size: Returns its columns and lines.
        now: The clock, in seconds.
        colour: Whether labels are coloured; by default unless NO_COLOR is set.
    """

    def __init__(
        self,
        file: TextIO,
        *,
        size: Callable[[], tuple[int, int]] | None = None,
        now: Callable[[], float] = time.monotonic,
        colour: bool | None = None,
    ) -> None:
        self._file = file
        self._size = size or self._terminal_size
        self._now = now
        self._colour = not os.environ.get("NO_COLOR") if colour is None else colour
        self._encoding = getattr(file, "encoding", None) or "ascii"
        self._levels = BLOCKS if self._writes(BLOCKS) else ASCII_LEVELS
        self._seen: dict[str, _Seen] = {}
        self._drawn_lines = 0
        self._drawn_s: float | None = None

    def add(self, result: FrameResult) -> None:
        """Adds the newest result of a source."""
        self._seen.setdefault(result.source, _Seen()).add(result, self._now())

    def draw(self, states: Sequence[SourceState]) -> None:
        """Redraws the lines, at most five times a second."""
        now_s = self._now()
        if self._drawn_s is not None and now_s - self._drawn_s < _REFRESH_S:
            return
        columns, rows = self._size()
        lines = [self._painted(line) for line in self.lines(states, columns - 1, rows - 1)]
        up = f"\x1b[{self._drawn_lines}A" if self._drawn_lines else ""
        text = "".join(f"{line}\x1b[K\n" for line in lines)
        self._file.write(f"\r{up}{text}\x1b[J")
        self._file.flush()
        self._drawn_lines = len(lines)
        self._drawn_s = now_s

    def wipe(self) -> None:
        """Removes the lines, so that something else can be printed; `draw` brings them back."""
        if self._drawn_lines:
            self._file.write(f"\r\x1b[{self._drawn_lines}A\x1b[J")
            self._file.flush()
        self._drawn_lines = 0
        self._drawn_s = None

    def lines(self, states: Sequence[SourceState], width: int, height: int) -> list[_Segments]:
        """Returns the lines to draw.

        Args:
            states: The sources, in the order of their lines.
            width: Columns that may be filled.
            height: Lines that may be filled. Where they are too few, people are left out first.
        """
        width, height = max(width, _LEAST_WIDTH), max(height, 1)
        heads = [self._head(state, width) for state in states]
        people = [[] if state.ended else self._people(state.name, width) for state in states]
        room = height - sum(len(head) for head in heads)
        if room < 0:
            return self._shortened(heads, height)
        lines: list[_Segments] = []
        for number, (head, persons) in enumerate(zip(heads, people, strict=True)):
            share = room // (len(states) - number)
            shown = persons if len(persons) <= share else persons[: max(0, share - 1)]
            lines += head + shown
            room -= len(shown)
            if len(shown) < len(persons) and share:
                lines.append([(f"  and {len(persons) - len(shown)} more", None)])
                room -= 1
        return lines

    def _shortened(self, heads: list[list[_Segments]], height: int) -> list[_Segments]:
        """Returns the first line of as many sources as fit."""
        lines = [head[0] for head in heads]
        if len(lines) <= height:
            return lines
        left = len(lines) - height + 1
        return [*lines[: height - 1], [(f"and {left} more sources", None)]]

    def _head(self, state: SourceState, width: int) -> list[_Segments]:
        """Returns label, name and state of a source, on as many lines as needed."""
        seen = self._seen.get(state.name)
        newest = seen.results[-1] if seen is not None and seen.results else None
        label = newest[1].label if newest is not None else None
        if state.ended:
            word = "ENDED"
        elif label is None:
            word = "WAITING" if state.opened else "OPENING"
        else:
            word = label.value.upper().replace("_", " ")
        p_fake = newest[1].p_fake if newest is not None else None
        score = "   -" if p_fake is None else f"{p_fake:.2f}"
        details = self._details(state, seen)
        name = self._encodable(printable(state.name))
        # As much as fits goes beside the name; in a wide terminal everything does.
        beside: list[str] = []
        room = width - _HEAD_WIDTH - 1
        needed = min(_cells(name), max(_LEAST_NAME, room - sum(len(d) + 2 for d in details)))
        while details and needed + sum(len(d) + 2 for d in [*beside, details[0]]) <= room:
            beside.append(details.pop(0))
        tail = "".join(f"  {detail}" for detail in beside)
        name = self._cut(name, room - len(tail))
        first: _Segments = [
            (f"{word:<7} {score} ", None if state.ended else label),
            (f" {name}{tail}", None),
        ]
        lines = [first]
        lines += [[(line, None)] for line in _wrapped(details, width)]
        return lines

    def _details(self, state: SourceState, seen: _Seen | None) -> list[str]:
        """Returns rate, staleness, losses and time, the most important first."""
        details = []
        if seen is not None and seen.results:
            came_s, newest = seen.results[-1]
            silent_s = self._now() - came_s
            if not state.ended:
                rate_hz = judging_rate((at for at, _ in reversed(seen.results)), self._now())
                if rate_hz is not None:
                    details.append(f"{rate_hz:.1f}/s")
                if silent_s > _SILENT_S:
                    details.append(f"silent {silent_s:.0f} s")
                elif newest.staleness_ms is not None:
                    details.append(f"{newest.staleness_ms:.0f} ms old")
        if state.dropped:
            details.append(f"{state.dropped} dropped")
        if state.gaps:
            details.append(f"{state.gaps} gap{'' if state.gaps == 1 else 's'}")
        if seen is not None and seen.results:
            details.append(clock(seen.results[-1][1].time_s))
        return details

    def _people(self, source: str, width: int) -> list[_Segments]:
        """Returns a line for each person in the newest frame, and for those who just left it."""
        seen = self._seen.get(source)
        if seen is None or not seen.results:
            return []
        now_s, newest = self._now(), seen.results[-1][1]
        present = {person.track for person in newest.people}
        last: dict[int, PersonResult] = {}
        points: dict[int, list[tuple[float, float]]] = {}
        for came_s, result in seen.results:
            for person in result.people:
                last[person.track] = person
                if person.p_fake is not None:
                    points.setdefault(person.track, []).append((came_s, person.p_fake))
        cells = min(_MOST_CELLS, width - _PERSON_WIDTH)
        lines = []
        # People in view come first: the others are left out where lines are few.
        for track in sorted(last, key=lambda track: (track not in present, track)):
            person = last[track]
            said = person.reason or person.label.value
            if track not in present:
                said = "not in view"
            score = "   -" if person.p_fake is None else f"{person.p_fake:.2f}"
            label = person.label if track in present and person.judged else None
            line: _Segments = [(f"{f'#{track}':>4} {said:<11.11} {score} ", label)]
            if cells >= _LEAST_CELLS:
                drawn = sparkline(
                    points.get(track, []), now_s, cells=cells, span_s=_SPAN_S, levels=self._levels
                )
                line.append((drawn, None))
            lines.append(line)
        return lines

    def _painted(self, line: _Segments) -> str:
        return "".join(
            click.style(text, fg=STYLES[label]) if label is not None and self._colour else text
            for text, label in line
        )

    def _terminal_size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._file.fileno())
        except (OSError, ValueError):
            return 80, 24
        return columns or 80, rows or 24  # some terminals do not know their size

    def _writes(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return False
        return True

    def _encodable(self, text: str) -> str:
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _cut(self, text: str, room: int) -> str:
        """Returns the text cut to this many columns; its end, which differs most, is kept."""
        if _cells(text) <= room:
            return text + " " * (room - _cells(text))
        mark = "\u2026" if self._writes("\u2026") else ".."
        room = max(room - len(mark), 1)
        first = len(text)
        taken = 0
        while first and taken + _cells(text[first - 1]) <= room:
            first -= 1
            taken += _cells(text[first])
        return mark + text[first:] + " " * (room - taken)


class LiveTerminal(Sink):
    """Shows live sources in a terminal for as long as it is open.

    Args:
        printer: Its lines go above the view; the view is removed while it prints.
        file: The terminal.
    """

    def __init__(self, printer: Printer, file: TextIO) -> None:
        self._printer = printer
        self._view = TerminalView(file)
        # Other parts log to the same terminal.
        self._handlers = tuple(logging.getLogger().handlers)
        with printer.lock:
            printer.view = self._view
        for handler in self._handlers:
            handler.addFilter(self._make_room)

    def frame(self, result: FrameResult) -> None:
        """Receives the newest result of a live source."""
        with self._printer.lock:
            self._view.add(result)

    def refresh(self, states: Sequence[SourceState]) -> None:
        """Redraws the lines, at most five times a second."""
        with self._printer.lock:
            if self._printer.view is not None:
                self._view.draw(states)

    def close(self) -> None:
        """Removes the lines. Safe to call twice."""
        for handler in self._handlers:
            handler.removeFilter(self._make_room)
        with self._printer.lock:
            self._view.wipe()
            self._printer.view = None

    def _make_room(self, record: logging.LogRecord) -> bool:
        """Lets a log record pass, on a line of its own."""
        self._printer.wipe()
        return True


def terminal_for_views(*, as_json: bool) -> TextIO | None:
    """Returns the terminal for live sources: standard error, else standard output, else None.

    Args:
        as_json: Whether JSON Lines go to standard output, which is then left to them, also where
            it is the same terminal as standard error.
    """
    if os.environ.get("TERM") == "dumb":
        return None
    if as_json and sys.stdout.isatty():
        return None
    if sys.stderr.isatty():
        return sys.stderr
    return sys.stdout if sys.stdout.isatty() and not as_json else None


def _wrapped(details: list[str], width: int) -> list[str]:
    """Returns details on lines of their own, indented below the name."""
    lines: list[str] = []
    for detail in details:
        if lines and len(lines[-1]) + 2 + len(detail) <= width:
            lines[-1] += f"  {detail}"
        else:
            lines.append(" " * max(0, min(_INDENT, width - len(detail))) + detail)
    return lines


def _cells(text: str) -> int:
    """Returns the columns of a text: two per wide character, none per combining character."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
