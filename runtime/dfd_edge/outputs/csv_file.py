"""One row for each person in each judged frame."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from dfd_edge.results import FrameResult

COLUMNS = (
    "source time_s track x0 y0 x1 y1 judged reason p_frame p_step p_fake label".split()  # noqa: SIM905
)


class CsvFile:
    """Writes results as CSV.

    Args:
        path: File to write; see `written_whole` for the name to give.
    """

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def add(self, result: FrameResult) -> None:
        """Writes the rows of one result; a frame without faces gives none."""
        for person in result.people:
            box = [f"{side:.1f}" for side in person.box]
            scores = [
                "" if p is None else f"{p:.6f}"
                for p in (person.p_frame, person.p_step, person.p_fake)
            ]
            self._writer.writerow(
                [
                    result.source,
                    f"{result.time_s:.3f}",
                    person.track,
                    *box,
                    int(person.judged),
                    person.reason or "",
                    *scores,
                    person.label.value,
                ]
            )

    def close(self) -> None:
        """Finishes the file."""
        self._file.close()
