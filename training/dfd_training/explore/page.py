"""The page of an exploration, and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_edge.report.figures import BarChart, shortened
from dfd_edge.report.html import data_uri, render_page
from dfd_edge.sinks.files import written_whole
from dfd_edge.version import version_of
from dfd_training.data.croppers import dlib_is_there
from dfd_training.data.readers.any_layout import Layout
from dfd_training.data.table import LABELS
from dfd_training.explore.charts import chart_png, chart_table, percent
from dfd_training.explore.columns import frequent_values, missing_sentences
from dfd_training.explore.detectors import DETECTORS, DLIB_MISSING, SEARCHED_PX
from dfd_training.explore.figures import DetectorRow
from dfd_training.explore.folder import FolderFiles
from dfd_training.explore.search import EXCERPT_BYTES, EXCERPT_S, MAX_SECONDS, Detections, FileFacts
from dfd_training.explore.sheets import Sheet
from dfd_training.explore.tables import GROUPS, UNLABELLED

RECORD = "explore.json"
_TEMPLATE = Path(__file__).with_name("explore.html")
_LISTED = 20
_HEAD_ROWS = 6
_MARKS = {"REAL": "●", "FAKE": "▲", UNLABELLED: "○"}
_STYLES = {"REAL": "real", "FAKE": "fake", UNLABELLED: "none"}
_FILTERS: dict[str, Callable[..., object]] = {
    "data_uri": data_uri,
    "short": shortened,
    "percent": percent,
    "plain": lambda value: f"{value:g}",
    "base": lambda path: PurePath(path).name,
}


@dataclass(frozen=True, slots=True)
class Clip:
    """An excerpt that the page plays.

    Attributes:
        path: Path of its file.
        label: Label of that file.
        mp4: H.264 in MP4.
        poster: The first frame as JPEG, shown until it plays and in print, or None.
    """

    path: str
    label: str
    mp4: bytes
    poster: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class PageContent:
    """Content of the page.

    Attributes:
        name: Name of the table's file, or of the folder.
        layout: The form of the data.
        table: All columns, with defaults and `UNLABELLED` for an empty label.
        raw: The columns as written.
        columns: Their summary from `summarise_columns`.
        folder: The files of the folder; None where none of the table's is there.
        charts: Charts by name.
        sheets: "faces REAL" and so on, "pictures", "first frames", "families", "family", "drawn",
            "differ" and "not found", as far as there are any.
        clips: Excerpts.
        detectors: Figures of each detector.
        opened: Number of files whose facts were read.
        searched: Number of files searched for faces.
        missing: Paths of rows whose file is not there.
        broken: Reason for each other file that could not be read, by path.
        notes: What the reading of the data left out, a line each.
        options: Options of the run.
    """

    name: str
    layout: Layout
    table: pd.DataFrame
    raw: pd.DataFrame
    columns: pd.DataFrame
    folder: FolderFiles | None
    charts: dict[str, BarChart]
    sheets: dict[str, Sheet]
    clips: list[Clip]
    detectors: list[DetectorRow]
    opened: int
    searched: int
    missing: list[str]
    broken: dict[str, str]
    notes: list[str]
    options: dict[str, Any]


def render(content: PageContent) -> str:
    """Renders the page as text; it states its own size."""
    values = {
        "content": content,
        "drawings": {name: chart.chart() for name, chart in content.charts.items()},
        "counts": content.table["label"].value_counts().to_dict(),
        "sources": content.table["source"].nunique(),
        "groups": [label for label in GROUPS if label in set(content.table["label"])],
        "head": content.raw[:_HEAD_ROWS],
        "values": _by_column(frequent_values(content.raw)),
        "sentences": missing_sentences(content.raw),
        "lists": _lists(content),
        "listed": _LISTED,
        "dlib_missing": None if dlib_is_there() else DLIB_MISSING,
        "version": version_of("dfd-edge"),
        "marks": _MARKS,
        "styles": _STYLES,
        "split_missing": [
            label for label in LABELS if f"missing_{label.lower()}" in content.columns
        ],
        "searched_px": SEARCHED_PX,
        "max_seconds": MAX_SECONDS,
        "excerpt_s": EXCERPT_S,
        "excerpt_kb": EXCERPT_BYTES // 1000,
    }
    records = json.dumps(_records(content), allow_nan=False)

    def rendered(size: str) -> str:
        every = {**values, "size": size}
        return render_page(_TEMPLATE, every, records=records, charts=True, filters=_FILTERS)

    size = len(rendered("00.0").encode("utf-8"))
    return rendered(f"{size / 1e6:.1f}")


def _by_column(values: pd.DataFrame) -> dict[str, list[dict[Hashable, Any]]]:
    """Returns the most frequent values of each column that has any."""
    return {
        str(name): rows.to_dict("records") for name, rows in values.groupby("column", sort=False)
    }


def _lists(content: PageContent) -> dict[str, list[str]]:
    """Returns the files that need attention, by title."""
    return {
        "Rows without a file": sorted(content.missing),
        "Files without a row": [] if content.folder is None else content.folder.without_row,
        "Unreadable files": sorted(content.broken.values()),
    }


def _records(content: PageContent) -> dict[str, Any]:
    """Returns the figures of the page, for further use."""
    return {
        "table": content.name,
        "options": content.options,
        "charts": {
            name: chart_table(chart).to_dict("list") for name, chart in content.charts.items()
        },
        "columns": content.columns.to_dict("records"),
        "missing_values": missing_sentences(content.raw),
        "detectors": [asdict(row) for row in content.detectors],
    }


def make_folder(out: Path) -> None:
    """Creates the folder that `--out` names, where it does not exist.

    Raises:
        UsageError: It cannot be created.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: no folder can be made there ({error.strerror})") from error


def chart_files(charts: dict[str, BarChart]) -> dict[str, bytes]:
    """Returns each chart as PNG and as CSV, by name of the file."""
    pictures = {f"figures/{name}.png": chart_png(chart) for name, chart in charts.items()}
    return pictures | {
        f"figures/{name}.csv": as_csv(chart_table(chart)) for name, chart in charts.items()
    }


def sheet_files(sheets: dict[str, Sheet]) -> dict[str, bytes]:
    """Returns each sheet as PNG, by name of the file."""
    return {f"sheets/{sheet.name}.png": sheet.png() for sheet in sheets.values()}


def as_csv(table: pd.DataFrame) -> bytes:
    """Returns a table as CSV."""
    return str(table.to_csv(index=False)).encode("utf-8")


def detector_table(rows: Sequence[DetectorRow]) -> pd.DataFrame:
    """Returns the figures of the detectors, one row for each."""
    return pd.DataFrame(
        [
            {
                "name": row.name,
                "frames": row.frames,
                "share_found": round(row.share, 4),
                **{
                    f"share_found_{label.lower().replace(' ', '_')}": round(share, 4)
                    for label, share in row.share_by_label.items()
                },
                "per_frame": round(row.per_frame, 3),
                "found_by_no_other": None if row.unmatched is None else round(row.unmatched, 4),
                "median_cpu_ms": round(row.cpu_ms, 2),
            }
            for row in rows
        ]
    )


def file_table(
    table: pd.DataFrame, facts: Sequence[FileFacts], detections: Sequence[Detections]
) -> pd.DataFrame:
    """Returns the opened rows of the table with their facts and the faces found in them."""
    names = [item.name for item in fields(FileFacts)]
    known = pd.DataFrame([asdict(item) for item in facts], columns=names)
    found = pd.DataFrame(
        [
            {
                "path": file.path,
                "searched_frames": len(file.frames),
                **{
                    f"frames with a face, {name}": sum(number > 0 for number in file.faces(name))
                    for name in DETECTORS
                    if file.faces(name)
                },
            }
            for file in detections
        ]
    )
    merged = table.merge(known, on="path")
    if found.empty:
        return merged
    numbers = {name: "Int64" for name in found if name != "path"}
    return merged.merge(found, on="path", how="left").astype(numbers)


def unreadable_table(unreadable: dict[str, str]) -> pd.DataFrame:
    """Returns the files that are missing or damaged, with the reasons."""
    return pd.DataFrame(sorted(unreadable.items()), columns=["path", "reason"])


def write_files(out: Path, files: dict[str, bytes], facts: dict[str, Any]) -> None:
    """Writes every file whole, in order, and removes files that only an earlier run wrote.

    Args:
        out: The folder.
        files: Contents by name, relative to the folder.
        facts: Facts of the run, kept in `explore.json` with the list of the files.

    Raises:
        UsageError: A file cannot be written.
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
