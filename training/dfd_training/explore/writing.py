"""The files of an exploration beside its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole
from dfd_training.explore.charts import BarChart
from dfd_training.explore.detection import DetectorRow
from dfd_training.explore.detectors import DETECTORS
from dfd_training.explore.looking import Look
from dfd_training.explore.reading import FileFacts
from dfd_training.explore.sheets import Sheet

RECORD = "explore.json"


def make_folder(out: Path) -> None:
    """Make the folder that `--out` names, where it does not exist.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: no folder can be made there ({error.strerror})") from error


def chart_files(charts: dict[str, BarChart]) -> dict[str, bytes]:
    """Each chart as PNG and as CSV, by name of the file."""
    pictures = {f"figures/{name}.png": chart.png() for name, chart in charts.items()}
    return pictures | {
        f"figures/{name}.csv": as_csv(chart.table()) for name, chart in charts.items()
    }


def sheet_files(sheets: dict[str, Sheet]) -> dict[str, bytes]:
    """Each sheet as PNG, by name of the file."""
    return {f"sheets/{sheet.name}.png": sheet.png() for sheet in sheets.values()}


def as_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV."""
    return str(table.to_csv(index=False)).encode("utf-8")


def detector_table(rows: Sequence[DetectorRow]) -> pd.DataFrame:
    """Figures of each detector, a row each."""
    return pd.DataFrame(
        [
            {
                "name": row.name,
                "frames": row.frames,
                "share_found": round(row.share, 4),
                **{
                    f"share_found_{label.lower()}": round(share, 4)
                    for label, share in row.share_by_label.items()
                },
                "per_frame": round(row.per_frame, 3),
                "found_by_no_other": None if row.alone is None else round(row.alone, 4),
                "median_cpu_ms": round(row.cpu_ms, 2),
            }
            for row in rows
        ]
    )


def file_table(
    table: pd.DataFrame, facts: Sequence[FileFacts], looks: Sequence[Look]
) -> pd.DataFrame:
    """The rows of the table that were opened, what is known of them, and faces found in them."""
    known = pd.DataFrame([asdict(item) for item in facts])
    found = pd.DataFrame(
        [
            {
                "path": look.path,
                "searched_frames": len(look.frames),
                **{
                    f"frames with a face, {name}": sum(number > 0 for number in look.faces(name))
                    for name in DETECTORS
                    if look.faces(name)
                },
            }
            for look in looks
        ]
    )
    merged = table.merge(known, on="path")
    if found.empty:
        return merged
    numbers = {name: "Int64" for name in found if name != "path"}
    return merged.merge(found, on="path", how="left").astype(numbers)


def unreadable_table(unreadable: dict[str, str]) -> pd.DataFrame:
    """Files that are missing or broken, and why."""
    return pd.DataFrame(sorted(unreadable.items()), columns=["path", "reason"])


def write_files(out: Path, files: dict[str, bytes], facts: dict[str, Any]) -> None:
    """Write every file whole, in order, and remove what only an earlier run wrote.

    Args:
        out: the folder.
        files: contents by name, relative to the folder.
        facts: of the run; `explore.json` keeps them, with the list of the files.

    Raises:
        UsageError: a file cannot be written.
    """
    for stale in _written_before(out) - set(files):
        path = (out / stale).resolve()
        if path.is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)
    record = json.dumps({**facts, "files": sorted(files)}, indent=1) + "\n"
    for name, encoded in {RECORD: record.encode("utf-8"), **files}.items():
        path = out / name
        make_folder(path.parent)
        with written_whole(path) as partial:
            partial.write_bytes(encoded)


def _written_before(out: Path) -> set[str]:
    try:
        return set(map(str, json.loads((out / RECORD).read_text("utf-8"))["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return set()
