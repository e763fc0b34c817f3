"""Figures and charts of an exploration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd

from dfd_edge.report.figures import FAKE_COLOUR, REAL_COLOUR, BarChart, Series
from dfd_training.data.table import LABELS
from dfd_training.explore.charts import percent
from dfd_training.explore.detectors import DETECTORS, SAME_FACE, Pass, faces_of, overlap
from dfd_training.explore.search import Detections, FileFacts

_FACES = {passes[0]: name for name, passes in DETECTORS.items() if len(passes) == 1}
LABEL_COLOURS = {"REAL": REAL_COLOUR, "FAKE": FAKE_COLOUR}
_PATTERNS = {"REAL": "", "FAKE": "/"}
_OTHER_COLOURS = (("#9061d6", ""), ("#2f9e76", "x"), ("#b58105", "."))
_MOST = 20
_MOST_ORIGINALS = 15
_BINS = 12


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """Figures of a pass, or of the passes of a detector together.

    Attributes:
        name: Name of the row.
        faces: Whether it finds faces, and not eyes or smiles.
        frames: Number of searched frames.
        share: Share of the frames with a detection.
        share_by_label: The same among the searched files of each label.
        per_frame: Mean number of detections in a frame.
        unmatched: Share of its boxes that no other detector found, or None without another;
            most are no faces, or faces that the others miss.
        cpu_ms: Median CPU time for a frame on one thread, in milliseconds.
    """

    name: str
    faces: bool
    frames: int
    share: float
    share_by_label: dict[str, float]
    per_frame: float
    unmatched: float | None
    cpu_ms: float


def detector_rows(detections: Sequence[Detections], labels: dict[str, str]) -> list[DetectorRow]:
    """Computes figures of the three detectors, then of the single Haar cascades.

    Args:
        detections: Detections in the searched files.
        labels: Labels of the files, by path.
    """
    whole = [(name, passes, True) for name, passes in DETECTORS.items()]
    single = [
        (item.value, (item,), item in {Pass.FRONTAL, Pass.PROFILE})
        for item in Pass
        if item not in _FACES
    ]
    rows = [_row(name, passes, detections, labels, faces=faces) for name, passes, faces in whole]
    rows += [_row(name, passes, detections, labels, faces=faces) for name, passes, faces in single]
    return [row for row in rows if row is not None]


def _row(
    name: str,
    passes: tuple[Pass, ...],
    detections: Sequence[Detections],
    labels: dict[str, str],
    *,
    faces: bool,
) -> DetectorRow | None:
    counts: list[int] = []
    times: list[float] = []
    by_label: dict[str, list[bool]] = {label: [] for label in LABELS}
    for file in detections:
        for found in file.frames:
            if passes[0] not in found:
                continue
            number = sum(len(found[item].boxes) for item in passes)
            counts.append(number)
            times.append(sum(found[item].cpu_ms for item in passes))
            by_label[labels[file.path]].append(number > 0)
    if not counts:
        return None
    return DetectorRow(
        name=name,
        faces=faces,
        frames=len(counts),
        share=float(np.mean(np.array(counts) > 0)),
        share_by_label={key: float(np.mean(hits)) for key, hits in by_label.items() if hits},
        per_frame=float(np.mean(counts)),
        unmatched=_unmatched(name, detections) if name in DETECTORS else None,
        cpu_ms=float(np.median(times)),
    )


def _unmatched(detector: str, detections: Sequence[Detections]) -> float | None:
    """Returns the share of a detector's faces that overlap with none of another detector."""
    total = lonely = 0
    for file in detections:
        for found in file.frames:
            mine = faces_of(found, detector) or []
            others = [faces_of(found, other) for other in DETECTORS if other != detector]
            known = [box for boxes in others if boxes is not None for box in boxes]
            total += len(mine)
            lonely += sum(all(overlap(box, b) <= SAME_FACE for b in known) for box in mine)
    return lonely / total if total else None


def table_charts(table: pd.DataFrame, columns: pd.DataFrame) -> dict[str, BarChart]:
    """Returns the charts of a table, by name.

    Args:
        table: A table from `read_table`.
        columns: Its summary from `summarise_columns`.
    """
    charts = [_counts("extensions", "Files by extension", table, extensions(table))]
    charts.append(
        BarChart(
            name="missing",
            title="Rows without a value",
            note="",
            categories=tuple(columns["column"]),
            series=(
                Series(
                    "missing",
                    tuple(float(value) for value in columns["missing_percent"]),
                    "#b58105",
                    texts=tuple(percent(value / 100) for value in columns["missing_percent"]),
                ),
            ),
            axis="% of the rows",
        )
    )
    charts.append(_shares("labels", "Labels", table, pd.Series("all files", table.index)))
    if "dataset" in table and table["dataset"].ne("").any():
        named = table["dataset"].where(table["dataset"] != "", "not named")
        charts.append(_shares("labels_by_dataset", "Labels by data set", table, named))
    charts.append(_shares("labels_by_source", "Labels by source", table, table["source"]))
    charts.append(_shares("labels_by_split", "Labels by split", table, table["split"]))
    fakes = most_faked(table)
    if len(fakes):
        left = len(fakes) - _MOST_ORIGINALS
        charts.append(
            BarChart(
                name="originals",
                title="Originals with the most fakes",
                note=f"{left} more originals have fakes." if left > 0 else "",
                categories=_names(fakes.index[:_MOST_ORIGINALS]),
                series=(
                    Series(
                        "fakes",
                        tuple(float(number) for number in fakes.iloc[:_MOST_ORIGINALS]),
                        LABEL_COLOURS["FAKE"],
                        _PATTERNS["FAKE"],
                    ),
                ),
                axis="fakes",
            )
        )
    return {chart.name: chart for chart in charts}


def file_charts(facts: Sequence[FileFacts], labels: dict[str, str]) -> dict[str, BarChart]:
    """Returns charts of resolution, length and frame rate, by name, as far as files have them.

    Args:
        facts: Facts of the opened files.
        labels: Labels of the files, by path.
    """
    known = [item for item in facts if not item.error]
    charts: list[BarChart | None] = []
    for still, what in ((True, "photographs"), (False, "clips")):
        some = [item for item in known if item.still is still]
        if some:
            sizes = pd.Series([f"{item.width} x {item.height}" for item in some])
            rows = pd.DataFrame({"label": [labels[item.path] for item in some]})
            name, title = f"resolution_{what}", f"Resolution of the {what}, pixels"
            charts.append(_counts(name, title, rows, sizes))
    lengths = _by_label(known, labels, lambda item: item.length_s)
    charts.append(_histogram("length", "Length of the clips", "seconds", lengths))
    rates = _by_label(known, labels, lambda item: item.rate_hz)
    title = "Frame rate of the clips, frames a second"
    if any(rates.values()):
        values = [(value, label) for label in LABELS for value in rates[label]]
        distinct = {round(value, 2) for value, _ in values}
        digits = 2 if len(distinct) <= _BINS else 0
        ordered = sorted({round(value, digits) for value, _ in values})
        if len(ordered) <= _BINS:
            names = pd.Series([f"{round(value, digits):g}" for value, _ in values])
            rows = pd.DataFrame({"label": [label for _, label in values]})
            counts = count_labels(rows, names).loc[[f"{value:g}" for value in ordered]]
            charts.append(_of_counts("rate", title, counts, "clips", upright=True))
        else:
            charts.append(_histogram("rate", "Frame rate of the clips", "frames a second", rates))
    return {chart.name: chart for chart in charts if chart is not None}


def face_charts(
    detections: Sequence[Detections], stills: set[str], rows: Sequence[DetectorRow]
) -> dict[str, BarChart]:
    """Returns charts of the faces found by each detector, by name.

    Args:
        detections: Detections in the searched files.
        stills: Paths of those that are photographs.
        rows: Figures of each detector.
    """
    charts = {}
    for what in ("clips", "photographs"):
        some = [file for file in detections if (file.path in stills) == (what == "photographs")]
        chart = _faces_found(what, [file for file in some if file.frames])
        if chart is not None:
            charts[chart.name] = chart
    found = [row for row in rows if row.faces]
    if found:
        series = tuple(
            Series(
                label,
                tuple(_number(row.share_by_label.get(label)) for row in found),
                LABEL_COLOURS[label],
                _PATTERNS[label],
                tuple(percent(row.share_by_label.get(label, 0.0)) for row in found),
            )
            for label in LABELS
            if any(label in row.share_by_label for row in found)
        )
        charts["detection_rate"] = BarChart(
            name="detection_rate",
            title="Frames in which a face was found",
            note="",
            categories=tuple(row.name for row in found),
            series=series,
            axis="% of the frames",
        )
    return charts


def _faces_found(what: str, detections: Sequence[Detections]) -> BarChart | None:
    """Draws the number of faces each detector found in a file: the median over its frames."""
    counts: dict[str, Counter[str]] = {}
    for detector in DETECTORS:
        for file in detections:
            if faces := file.faces(detector):
                number = int(np.floor(np.median(faces) + 0.5))
                counts.setdefault(detector, Counter())[str(min(number, 4))] += 1
    if not counts:
        return None
    categories = tuple("01234")
    series = tuple(
        Series(detector, tuple(float(counts[detector][c]) for c in categories), colour, pattern)
        for (colour, pattern), detector in zip(_OTHER_COLOURS, DETECTORS, strict=True)
        if detector in counts
    )
    return BarChart(
        name=f"faces_{what}",
        title=f"Faces found in the {what}",
        note="The median over the frames that were searched." if what == "clips" else "",
        categories=("none", "1 face", "2 faces", "3 faces", "4 or more"),
        series=series,
        axis=what,
        upright=True,
    )


def _names(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns file names, or whole paths where two files have one name."""
    paths = list(paths)
    names = [PurePath(path).name for path in paths]
    return tuple(names if len(set(names)) == len(names) else paths)


def _counts(name: str, title: str, rows: pd.DataFrame, by: pd.Series) -> BarChart:
    return _of_counts(name, title, count_labels(rows, by), "files")


def _of_counts(
    name: str, title: str, counts: pd.DataFrame, axis: str, *, upright: bool = False
) -> BarChart:
    if len(counts) > _MOST + 1 and not upright:
        rest = counts.iloc[_MOST:].sum().rename(f"{len(counts) - _MOST} others")
        counts = pd.concat([counts.iloc[:_MOST], rest.to_frame().T])
    return BarChart(
        name=name,
        title=title,
        note="",
        categories=tuple(str(value) for value in counts.index),
        series=tuple(
            Series(
                label,
                tuple(float(number) for number in counts[label]),
                LABEL_COLOURS[label],
                _PATTERNS[label],
            )
            for label in LABELS
            if counts[label].any()
        ),
        axis=axis,
        details=() if upright else _numbers(counts),
        upright=upright,
        stacked=True,
    )


def _shares(name: str, title: str, table: pd.DataFrame, by: pd.Series) -> BarChart:
    """Returns shares of the labels in percent, with the numbers of files."""
    counts = count_labels(table, by)
    if len(counts) > _MOST + 1:
        rest = counts.iloc[_MOST:].sum().rename(f"{len(counts) - _MOST} others")
        counts = pd.concat([counts.iloc[:_MOST], rest.to_frame().T])
    totals = counts.sum(axis=1)
    series = []
    for label in LABELS:
        shares = 100 * counts[label] / totals
        pairs = zip(shares, counts[label], strict=True)
        texts = tuple(f"{label} {percent(share / 100)}" if n else "" for share, n in pairs)
        values = tuple(round(float(share), 2) for share in shares)
        series.append(Series(label, values, LABEL_COLOURS[label], _PATTERNS[label], texts))
    return BarChart(
        name=name,
        title=title,
        note="",
        categories=tuple(str(value) for value in counts.index),
        series=tuple(series),
        axis="% of the files",
        details=tuple(
            f"{total} files, {percent(fakes / total)} FAKE"
            for total, fakes in zip(totals, counts["FAKE"], strict=True)
        ),
        stacked=True,
    )


def _numbers(counts: pd.DataFrame) -> tuple[str, ...]:
    """Returns files of each label in words, such as "12 REAL, 3 FAKE", for each row."""
    return tuple(
        ", ".join(f"{row[label]} {label}" for label in LABELS if row[label])
        for row in counts.to_dict("records")
    )


def _by_label(
    facts: Sequence[FileFacts],
    labels: dict[str, str],
    value_of: Callable[[FileFacts], float | None],
) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {label: [] for label in LABELS}
    for item in facts:
        value = value_of(item)
        if value is not None:
            values[labels[item.path]].append(value)
    return values


def _histogram(name: str, title: str, unit: str, values: dict[str, list[float]]) -> BarChart | None:
    together = np.array([value for some in values.values() for value in some])
    if not len(together):
        return None
    # A few values much larger than all others would squeeze these into one bar.
    top = max(float(np.quantile(together, 0.98)), 1e-3)
    step = _round_step(top / _BINS)
    edges = np.arange(0.0, top + step, step)
    edges = np.append(edges, np.inf) if together.max() >= edges[-1] else edges
    names = [
        f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
        for low, high in zip(edges[:-1].round(6), edges[1:].round(6), strict=True)
    ]
    counts = pd.DataFrame(
        {label: np.histogram(values[label], edges)[0] for label in LABELS}, index=names
    )
    return _of_counts(name, f"{title}, {unit}", counts, "clips", upright=True)


def _round_step(step: float) -> float:
    """Rounds up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(power * lead for lead in (1, 2, 5, 10) if power * lead >= step * 0.999))


def _number(share: float | None) -> float:
    return 0.0 if share is None else round(100 * share, 2)


def summarise_columns(raw: pd.DataFrame) -> pd.DataFrame:
    """Summarises how complete and how varied each column is.

    Args:
        raw: The table as written, from `read_csv_text`: `read_table` fills in values that follow
            from other columns.

    Returns:
        Columns `column`, `rows`, `missing`, `missing_percent`, `unique` (different values),
        `most_frequent`, `times`, `percent` (of the rows that have a value).
    """
    rows = []
    for name in raw:
        values = raw[name][raw[name] != ""]
        counts = values.value_counts()
        most, times = (str(counts.index[0]), int(counts.iloc[0])) if len(counts) else ("", 0)
        rows.append(
            {
                "column": name,
                "rows": len(raw),
                "missing": len(raw) - len(values),
                "missing_percent": round(100 * (1 - len(values) / len(raw)), 2),
                "unique": len(counts),
                "most_frequent": most,
                "times": times,
                "percent": round(100 * times / len(values), 2) if len(values) else 0.0,
            }
        )
    return pd.DataFrame(rows)


def count_labels(table: pd.DataFrame, by: pd.Series) -> pd.DataFrame:
    """Counts the files of each label by a value.

    Args:
        table: A table from `read_table`.
        by: A value for each row.

    Returns:
        One row for each value, the most frequent first; the columns `REAL` and `FAKE`.
    """
    counts = pd.crosstab(by.rename("value"), table["label"]).reindex(
        columns=list(LABELS), fill_value=0
    )
    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return counts.loc[order]


def extensions(table: pd.DataFrame) -> pd.Series:
    """Returns the suffix of each file's name in small letters, or "none"."""
    return table["path"].map(lambda path: PurePath(path).suffix.lower() or "none")


def most_faked(table: pd.DataFrame) -> pd.Series:
    """Counts the fakes of each original, the most first; originals without fakes are left out."""
    fakes = table["original"][(table["label"] == "FAKE") & (table["original"] != "")]
    return fakes.value_counts(sort=True)
