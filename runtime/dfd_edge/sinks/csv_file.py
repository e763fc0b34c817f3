"""One row for each person in each judged frame."""

from __future__ import annotations

import contextlib
import csv
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dfd_edge.errors import OutputError
from dfd_edge.judging.results import FrameResult, PersonResult
from dfd_edge.sinks.files import written_whole
from dfd_edge.sinks.text import valid_text

COLUMNS = (
    "source time_s track x0 y0 x1 y1 judged reason p_frame p_step p_fake label".split()  # noqa: SIM905
)

#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvFile:
    """Writes results as CSV; thread-safe. What comes after `close` is left out.

    Where the disk is full, results are still taken, and `close` says so at the end.

    Args:
        path: File to write; see `opened_csv` for one that appears whole.
    """

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._lock = threading.Lock()
        self._error: OSError | None = None
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def add(self, result: FrameResult) -> None:
        """Writes the rows of one result; a frame without faces gives none."""
        rows = [_row(result, person) for person in result.people]
        with self._lock:
            if self._file.closed or self._error is not None:
                return
            try:
                self._writer.writerows(rows)
            except OSError as error:
                self._error = error

    def close(self) -> None:
        """Finishes the file. Safe to call twice.

        Raises:
            OSError: Rows are missing in it, or it cannot be finished.
        """
        with self._lock:
            error, self._error = self._error, None
            try:
                self._file.close()  # closed even where its last rows cannot be written
            except OSError as last:
                error = error or last
            if error is not None:
                raise error


@contextlib.contextmanager
def opened_csv(path: Path) -> Iterator[CsvFile]:
    """Gives a CSV file that appears at the end, whole or not at all.

    Raises:
        UsageError: The folder does not exist or cannot be written to.
        OutputError: The file cannot be written; what the block did stays done.
    """
    with written_whole(path) as partial:
        file = CsvFile(partial)
        try:
            yield file
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise
        try:
            file.close()
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


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
