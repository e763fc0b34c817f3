"""Exploration of a table: a folder with a page, figures, contact sheets and lists."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import cv2
import numpy as np
import pandas as pd

from dfd_edge.errors import UsageError
from dfd_edge.version import version_of
from dfd_training.data.table import read_csv_text, read_table
from dfd_training.explore.detectors import DetectorSet
from dfd_training.explore.figures import (
    DetectorRow,
    detector_rows,
    face_charts,
    file_charts,
    most_faked,
    summarise_columns,
    table_charts,
)
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
from dfd_training.explore.search import (
    excerpt,
    film_strip,
    read_facts,
    search_file,
    stratified,
)
from dfd_training.explore.sheets import (
    comparison_sheets,
    face_sheets,
    family_sheet,
    not_found_sheet,
)

Job = TypeVar("Job")
Result = TypeVar("Result")
PAGE = "index.html"
MAX_CLIPS = 24
STRIP_FRAMES = 4
FAKES_SHOWN = 5
ProgressStage = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Called with the name of a stage and its number of jobs; returns a context manager that gives a
function to call after each job."""


@dataclass(frozen=True, slots=True)
class ExploreOptions:
    """Options of an exploration.

    Attributes:
        sample: Number of files to search for faces.
        frames: Searched frames of each clip.
        probe: Number of files to open for their size, length and rate.
        max_clips: Number of excerpts on the page.
        with_smile: Search for smiles too.
        seed: Seed of all random choices.
        workers: Number of processes.

    Raises:
        UsageError: A value is out of range.
    """

    sample: int = 100
    frames: int = 4
    probe: int = 5000
    max_clips: int = 6
    with_smile: bool = False
    seed: int = 0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        ranges = {
            "sample": (1, 10_000),
            "frames": (1, 64),
            "probe": (1, 1_000_000),
            "max_clips": (0, MAX_CLIPS),
            "seed": (0, 2**32 - 1),
            "workers": (1, 256),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} {value}: give a number from {least} to {most}")


@dataclass(frozen=True, slots=True)
class Exploration:
    """Summary of an exploration for the command line.

    Attributes:
        page: The HTML file.
        page_bytes: Its size.
        rows: Number of rows of the table.
        opened: Number of opened files.
        searched: Number of files searched for faces.
        unreadable: Number of files that were missing or could not be read.
        detectors: Figures of each detector.
    """

    page: Path
    page_bytes: int
    rows: int
    opened: int
    searched: int
    unreadable: int
    detectors: list[DetectorRow]


def explore(
    table_path: Path, out: Path, *, root: Path | None, options: ExploreOptions, stage: ProgressStage
) -> Exploration:
    """Explores the files of a table and writes the page and its files.

    Nothing is written before all files are processed. Files of an earlier run in the same folder
    that this one does not write are removed; other files are left alone.

    Args:
        table_path: A table that `read_table` reads.
        out: The folder; created where it does not exist.
        root: Folder that relative paths start from; None for the table's own.
        options: Options of the exploration.
        stage: Reports progress.

    Raises:
        UsageError: The table is invalid, none of its files exists, or the folder cannot be written.
    """
    folder = root or table_path.parent
    table, raw = read_table(table_path, root=folder), read_csv_text(table_path)
    make_folder(out)
    DetectorSet(with_smile=options.with_smile)  # fails now rather than in the middle of the work
    labels = dict(zip(table["path"], table["label"], strict=True))
    missing = [path for path in table["path"] if not (folder / path).is_file()]
    if len(missing) == len(table):
        raise UsageError(
            f"{table_path}: none of its {len(table)} files is in {folder}: give --root, the folder "
            "that its paths start from"
        )
    there = table[~table["path"].isin(missing)]
    sampled = stratified(there, options.sample, options.seed)
    family = _family(there)
    with Workers(options.workers) as workers:
        paths = _to_open(there, sampled, options)
        with stage("opening files", len(paths)) as on_done:
            facts = workers.do(partial(read_facts, root=folder), paths, on_done)
        broken = {item.path: item.error for item in facts if item.error}
        searchable = [path for path in sampled if path not in broken]
        search = partial(
            search_file, root=folder, frames=options.frames, with_smile=options.with_smile
        )
        with stage("searching for faces", len(searchable)) as on_done:
            detections = workers.do(search, searchable, on_done)
        broken.update({file.path: file.error for file in detections if file.error})
        detections = [file for file in detections if file.frames]
        readable = {item.path for item in facts if not item.error and not item.still}
        clips = _choose_clips(table[table["path"].isin(readable)], options)
        with stage("cutting excerpts", len(family) + len(clips)) as on_done:
            strip = partial(film_strip, root=folder, frames=STRIP_FRAMES)
            strips = workers.do(strip, family, on_done)
            played = workers.do(partial(excerpt, root=folder), clips, on_done)
    rows = detector_rows(detections, labels)
    stills = {item.path for item in facts if item.still}
    columns = summarise_columns(raw)
    unreadable = {path: f"{path}: no such file" for path in missing} | broken
    charts = table_charts(table, columns) | file_charts(facts, labels)
    sheets = {
        **{
            f"faces {key}": sheet
            for key, sheet in face_sheets(table, detections, options.seed).items()
        },
        **comparison_sheets(table, detections, labels, options.seed),
        "family": family_sheet(dict(zip(family, strips, strict=True)), labels),
        "not found": not_found_sheet(table, detections, labels, options.seed),
    }
    content = PageContent(
        name=table_path.name,
        table=table,
        columns=columns,
        charts=charts | face_charts(detections, stills, rows),
        sheets={key: sheet for key, sheet in sheets.items() if sheet is not None},
        clips=[
            Clip(path, labels[path], encoded)
            for path, encoded in zip(clips, played, strict=True)
            if encoded is not None
        ],
        detectors=rows,
        opened=len(facts),
        searched=len(detections),
        unreadable=unreadable,
        options=asdict(options),
    )
    page = render(content).encode("utf-8")
    files = {
        **chart_files(content.charts),
        **sheet_files(content.sheets),
        "columns.csv": as_csv(columns),
        "detectors.csv": as_csv(detector_table(rows)),
        "files.csv": as_csv(file_table(table, facts, detections)),
        "unreadable.csv": as_csv(unreadable_table(unreadable)),
        PAGE: page,
    }
    counts = {"rows": len(table), "opened": len(facts), "searched": len(detections)}
    run = {"version": version_of("dfd-edge"), "table": content.name, "options": content.options}
    write_files(out, files, {**run, **counts, "unreadable": len(unreadable)})
    return Exploration(
        page=out / PAGE,
        page_bytes=len(page),
        **counts,
        unreadable=len(unreadable),
        detectors=rows,
    )


def _to_open(there: pd.DataFrame, sampled: list[str], options: ExploreOptions) -> list[str]:
    """Returns a plain random sample, so that shares are unbiased, and the searched files."""
    count = min(options.probe, len(there))
    rng = np.random.default_rng(options.seed)
    plain = there["path"].iloc[np.sort(rng.choice(len(there), count, replace=False))]
    # Originals are played beside their fakes.
    made_from = set(there["original"][there["path"].isin(sampled)]) & set(there["path"])
    return list(dict.fromkeys([*plain, *sampled, *sorted(made_from)]))


def _family(there: pd.DataFrame) -> list[str]:
    """Returns the original with the most fakes, and some of these; empty without fakes."""
    known = set(there["path"])
    original = next((str(path) for path in most_faked(there).index if path in known), None)
    if original is None:
        return []
    fakes = there["path"][(there["original"] == original) & (there["label"] == "FAKE")]
    return [original, *fakes[:FAKES_SHOWN]]


def _choose_clips(readable: pd.DataFrame, options: ExploreOptions) -> list[str]:
    """Returns fake clips, each after its original where that can be read, then other real ones."""
    fakes = stratified(readable[readable["label"] == "FAKE"], options.max_clips // 2, options.seed)
    original = dict(zip(readable["path"], readable["original"], strict=True))
    chosen: list[str] = []
    for fake in fakes:
        pair = [path for path in (original[fake],) if path in original]
        chosen += [path for path in [*pair, fake] if path not in chosen]
    left = readable[(readable["label"] == "REAL") & ~readable["path"].isin(chosen)]
    return chosen + stratified(left, options.max_clips - len(chosen), options.seed)


class Workers:
    """Pool of single-threaded processes. Use as a context manager.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def do(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Result]:
        """Runs a function on every job.

        Args:
            work: A function of a module, or a `functools.partial` of one.
            jobs: Its arguments.
            on_done: Called after each job.

        Returns:
            The results in the order of the jobs.
        """
        futures = [self._pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            future.result()
            on_done()
        return [future.result() for future in futures]


def _begin() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
