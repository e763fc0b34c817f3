"""Exploration of a data set: a folder with a page, figures, contact sheets and lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_edge.version import version_of
from dfd_training.data.readers.any_layout import FoundTable, Layout, read_any
from dfd_training.data.table import with_defaults
from dfd_training.explore.columns import frequent_values, summarise_columns
from dfd_training.explore.detectors import DetectorSet
from dfd_training.explore.figures import DetectorRow, detector_rows, face_charts, file_charts
from dfd_training.explore.folder import read_folder
from dfd_training.explore.page import (
    Clip,
    PageContent,
    as_csv,
    chart_files,
    detector_table,
    file_table,
    make_folder,
    render,
    sheet_files,
    unreadable_table,
    write_files,
)
from dfd_training.explore.sheets import (
    comparison_sheets,
    face_sheets,
    families_sheet,
    family_sheet,
    first_frame_sheet,
    not_found_sheet,
    picture_sheet,
)
from dfd_training.explore.tables import UNLABELLED, table_charts
from dfd_training.explore.work import ExploreOptions, FileWork, ProgressStage, Workers

PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class Exploration:
    """Summary of an exploration for the command line.

    Attributes:
        page: The HTML file.
        page_bytes: Its size.
        layout: The form of the data.
        rows: Number of rows of the table.
        opened: Number of opened files.
        searched: Number of files searched for faces.
        unreadable: Number of files that were missing or could not be read.
        without_row: Number of videos and pictures in the folder that no row names.
        notes: What the reading of the data left out, a line each.
        detectors: Figures of each detector.
    """

    page: Path
    page_bytes: int
    layout: Layout
    rows: int
    opened: int
    searched: int
    unreadable: int
    without_row: int
    notes: list[str]
    detectors: list[DetectorRow]


def explore(
    data: Path, out: Path, *, root: Path | None, options: ExploreOptions, stage: ProgressStage
) -> Exploration:
    """Explores a data set and writes the page and its files.

    Nothing is written before all files are processed. Files of an earlier run in the same folder
    that this one does not write are removed; other files are left alone. Where none of the files
    is there, such as beside downloaded metadata, the figures are those of the table alone.

    Args:
        data: A table or a folder that `read_any` reads.
        out: The folder; created where it does not exist.
        root: Folder that relative paths start from; None for the table's own.
        options: Options of the exploration.
        stage: Reports progress.

    Raises:
        UsageError: There is no data set, none of its files is in the given root, or the folder
            cannot be written.
    """
    source = read_any(data, root=root)
    folder, table = source.root, _with_labels(source)
    make_folder(out)
    # Fails now rather than in the middle of the work.
    DetectorSet(with_smile=options.with_smile, haar=options.haar)
    missing = [path for path in table["path"] if not (folder / path).is_file()]
    notes = list(source.notes)
    if len(missing) == len(table):
        nothing = f"{data}: none of its {len(table)} files is in {folder}"
        if root is not None:
            raise UsageError(f"{nothing}: give --root, the folder that its paths start from")
        notes.append(
            f"{nothing}: the figures are those of the table alone; --root says where files are"
        )
    there = table[~table["path"].isin(missing)]
    labels = dict(zip(table["path"], table["label"], strict=True))
    with Workers(options.workers) as workers:
        work = FileWork(folder, options, workers, stage)
        facts, detections, broken = work.opened_and_searched(there)
        readable = [item.path for item in facts if not item.error]
        clips = [item.path for item in facts if not item.error and not item.still]
        pictures = work.pictures(there, readable, clips)
    rows = detector_rows(detections, labels)
    stills = {item.path for item in facts if item.still}
    columns = summarise_columns(source.raw)
    in_folder = read_folder(there["path"], folder) if len(there) else None
    unreadable = {path: f"{path}: no such file" for path in missing} | broken
    charts = table_charts(table, columns, in_folder) | file_charts(facts, labels)
    sheets = {
        **{
            f"faces {key}": sheet
            for key, sheet in face_sheets(table, detections, options.seed).items()
        },
        **comparison_sheets(table, detections, labels, options.seed),
        "pictures": picture_sheet([pictures.frames[path] for path in pictures.drawn], labels),
        "first frames": first_frame_sheet([pictures.frames[p] for p in pictures.clips], labels),
        "families": families_sheet(pictures.families, pictures.frames, labels),
        "family": family_sheet(pictures.strips, labels),
        "not found": not_found_sheet(table, detections, labels, options.seed),
    }
    content = PageContent(
        name=data.resolve().name,
        layout=source.layout,
        table=table,
        raw=source.raw,
        columns=columns,
        folder=in_folder,
        charts=charts | face_charts(detections, stills, rows),
        sheets={key: sheet for key, sheet in sheets.items() if sheet is not None},
        clips=[
            Clip(path, labels[path], encoded, pictures.frames[path].picture)
            for path, encoded in pictures.excerpts.items()
            if encoded is not None
        ],
        detectors=rows,
        opened=len(facts),
        searched=len(detections),
        missing=missing,
        broken=broken,
        notes=notes,
        options=options.as_dict(),
    )
    page = render(content).encode("utf-8")
    without_row = [] if in_folder is None else in_folder.without_row
    files = {
        **chart_files(content.charts),
        **sheet_files(content.sheets),
        "columns.csv": as_csv(columns),
        "values.csv": as_csv(frequent_values(source.raw)),
        "detectors.csv": as_csv(detector_table(rows)),
        "files.csv": as_csv(file_table(table, facts, detections)),
        "unreadable.csv": as_csv(unreadable_table(unreadable)),
        "files_without_a_row.csv": as_csv(pd.DataFrame({"path": without_row})),
        PAGE: page,
    }
    counts = {"rows": len(table), "opened": len(facts), "searched": len(detections)}
    run = {"version": version_of("dfd-edge"), "table": content.name, "options": content.options}
    write_files(out, files, {**run, **counts, "unreadable": len(unreadable)})
    return Exploration(
        page=out / PAGE,
        page_bytes=len(page),
        layout=source.layout,
        **counts,
        unreadable=len(unreadable),
        without_row=len(without_row),
        notes=notes,
        detectors=rows,
    )


def _with_labels(source: FoundTable) -> pd.DataFrame:
    """Returns all columns with their defaults; a split that is not stated stays empty."""
    table = with_defaults(source.rows).assign(split=source.rows["split"])
    return table.assign(label=table["label"].where(table["label"] != "", UNLABELLED))
