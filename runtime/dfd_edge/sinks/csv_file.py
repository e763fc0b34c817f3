"""CSV: one row for each person in each judged frame."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import TextIO

from dfd_edge.errors import OutputError
from dfd_edge.judging.results import FrameResult, PersonResult
from dfd_edge.sinks.files import FileSink
from dfd_edge.sinks.text import valid_text

COLUMNS = (
    "source time_s track x0 y0 x1 y1 judged reason p_frame p_step p_fake label".split()  # noqa: SIM905
)

#: Spreadsheets take a cell that starts with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvFile(FileSink):
    """Writes a row for each person in each judged frame; thread-safe.

    Where the disk is full, results are still accepted, and leaving the block says so at the end.
    What comes after that is dropped.

    Args:
        path: File to write; it appears when the block is left, whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: TextIO | None = None
        self._lock = threading.Lock()
        self._error: OSError | None = None

    def frame(self, result: FrameResult) -> None:
        """Writes the rows of one result; a frame without faces gives none."""
        rows = [_row(result, person) for person in result.people]
        with self._lock:
            if self._file is None or self._error is not None:
                return
            try:
                csv.writer(self._file).writerows(rows)
            except OSError as error:
                self._error = error

    def start(self, partial: Path) -> None:
        """Opens the file and writes the names of the columns."""
        self._file = partial.open("w", encoding="utf-8", newline="")
        csv.writer(self._file).writerow(COLUMNS)

    def finish(self) -> None:
        """Finishes the file.

        Raises:
            OutputError: Rows are missing in it, or it cannot be finished.
        """
        error = self._closed()
        if error is not None:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error

    def discard(self) -> None:
        """Closes the file, which is then removed."""
        self._closed()

    def _closed(self) -> OSError | None:
        """Closes the file and returns the first error in writing it."""
        with self._lock:
            error, file = self._error, self._file
            self._file = self._error = None
            if file is not None:
                try:
                    file.close()  # closed even where its last rows cannot be written
                except OSError as last:
                    error = error or last
            return error


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
    """Returns the name of a source as a cell that no spreadsheet takes for a formula.

    Only the name of a file can start like one; with `./` before it, it still names that file.
    """
    name = valid_text(source)
    return f"./{name}" if name.startswith(_FORMULA_STARTS) else name
