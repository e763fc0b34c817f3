"""CSV: one row for each person in each judged frame."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dfd_edge.errors import OutputError
from dfd_edge.judging.results import Event, EventKind, FrameResult, PersonResult, Verdict
from dfd_edge.sinks.files import FileSink
from dfd_edge.text import printable, valid_text

if TYPE_CHECKING:
    from dfd_edge.provenance.record import Provenance

COLUMNS = (
    "source time_s track x0 y0 x1 y1 judged reason p_frame p_step p_fake label".split()  # noqa: SIM905
)
#: Columns behind those, with `--provenance`.
PROVENANCE_COLUMNS = (
    "provenance",
    "provenance_signer",
    "provenance_trusted",
    "provenance_signed_at",
    "provenance_claim_generator",
    "provenance_source_types",
    "provenance_generators",
    "provenance_error",
)

#: Spreadsheets take a cell that starts with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvFile(FileSink):
    """Writes a row for each person in each judged frame; thread-safe.

    Where the disk is full, results are still accepted, and leaving the block says so at the end.
    What comes after that is dropped.

    Args:
        path: File to write; it appears when the block is left, whole or not at all.
        provenance: Whether each row carries the provenance of its file, and a file without any
            row gets one for that.
    """

    def __init__(self, path: Path, *, provenance: bool = False) -> None:
        super().__init__(path)
        self._file: TextIO | None = None
        self._lock = threading.Lock()
        self._error: OSError | None = None
        self._columns = (*COLUMNS, *PROVENANCE_COLUMNS) if provenance else COLUMNS
        self._unread = [""] * (len(self._columns) - len(COLUMNS))
        self._provenance: dict[str, list[str]] = {}
        self._without_row: set[str] = set()

    def provenance(self, source: str, provenance: Provenance) -> None:
        """Keeps the provenance of a file for its rows."""
        with self._lock:
            self._provenance[source] = _provenance_cells(provenance)
            self._without_row.add(source)

    def frame(self, result: FrameResult) -> None:
        """Writes the rows of one result; a frame without faces gives none."""
        cells = self._provenance.get(result.source, self._unread)
        self._write([[*_row(result, person), *cells] for person in result.people])
        if result.people:
            self._without_row.discard(result.source)

    def verdict(self, verdict: Verdict) -> None:
        """Ends a file."""
        self._end(verdict.source)

    def event(self, event: Event) -> None:
        """Ends a file that could not be judged."""
        if event.kind is EventKind.ERROR:
            self._end(event.source)

    def _end(self, source: str) -> None:
        """Writes a row for a file that has a provenance, and nobody in any judged frame."""
        cells = self._provenance.pop(source, self._unread)
        if source in self._without_row:
            self._without_row.discard(source)
            self._write([[_cell(source), *[""] * (len(COLUMNS) - 1), *cells]])

    def _write(self, rows: list[list[object]]) -> None:
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
        csv.writer(self._file).writerow(self._columns)

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


def _provenance_cells(provenance: Provenance) -> list[str]:
    """Returns the cells of `PROVENANCE_COLUMNS`."""
    from dfd_edge.sinks.provenance_columns import ProvenanceColumns  # noqa: PLC0415 - few need it

    columns = ProvenanceColumns.of(provenance)
    return [
        columns.outcome,
        _foreign(columns.signer),
        "" if columns.trusted is None else str(int(columns.trusted)),
        _foreign(columns.signed_at),
        _foreign(columns.claim_generator),
        _foreign("; ".join(columns.source_types)),
        _foreign("; ".join(columns.generators)),
        _foreign(columns.error),
    ]


def _foreign(text: str | None) -> str:
    """Returns text out of a file as a cell that no spreadsheet takes for a formula."""
    cell = printable(text or "")
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def _cell(source: str) -> str:
    """Returns the name of a source as a cell that no spreadsheet takes for a formula.

    Only the name of a file can start like one; with `./` before it, it still names that file.
    """
    name = valid_text(source)
    return f"./{name}" if name.startswith(_FORMULA_STARTS) else name
