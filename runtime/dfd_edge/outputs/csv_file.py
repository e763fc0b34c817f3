"""One row for each person in each judged frame."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import TextIO

from dfd_edge.outputs.text import valid_text
from dfd_edge.results import FrameResult, PersonResult

COLUMNS = (
    "source time_s track x0 y0 x1 y1 judged reason p_frame p_step p_fake label".split()  # noqa: SIM905
)

#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvFile:
    """Writes results as CSV; thread-safe. What comes after `close` is left out.

    Args:
        path: File to write; see `written_whole` for the name to give.
    """

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._lock = threading.Lock()
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def add(self, result: FrameResult) -> None:
        """Writes the rows of one result; a frame without faces gives none."""
        rows = [_row(result, person) for person in result.people]
        with self._lock:
            if not self._file.closed:
                self._writer.writerows(rows)

    def close(self) -> None:
        """Finishes the file. Safe to call twice."""
        with self._lock:
            self._file.close()


def _row(result: FrameResult, person: PersonResult) -> list[object]:
    scores = (person.p_frame, person.p_step, person.p_fake)
    return [
        _cell(result.source),
        f"{result.time_s:.3f}",
        person.track,
        *(f"{side:.1f}" for side in person.box),
        int(person.judged),
        person.reason or "",
        *("" if score is None else f"{score:.6f}" for score in scores),
        person.label.value,
    ]


def _cell(source: str) -> str:
    """The name of a source, as a cell that no spreadsheet takes for a formula.

    Only the name of a file can begin like one; with `./` before it, it is the same file's.
    """
    name = valid_text(source)
    return f"./{name}" if name.startswith(_FORMULA_STARTS) else name
