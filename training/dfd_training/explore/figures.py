"""Figures of files and of face detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dfd_edge.report.figures import BarChart, Series
from dfd_training.explore.charts import percent
from dfd_training.explore.detectors import DETECTORS, SAME_FACE, Pass, faces_of, overlap
from dfd_training.explore.search import Detections, FileFacts
from dfd_training.explore.tables import (
    GROUPS,
    LABEL_COLOURS,
    PATTERNS,
    count_labels,
    stacked_counts,
)

_FACES = {passes[0]: name for name, passes in DETECTORS.items() if len(passes) == 1}
_OTHER_COLOURS = (("#9061d6", ""), ("#2f9e76", "x"), ("#b58105", "-"))
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
    by_label: dict[str, list[bool]] = {label: [] for label in GROUPS}
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
            charts.append(stacked_counts(name, title, count_labels(rows, sizes), "files"))
    lengths = _by_label(known, labels, lambda item: item.length_s)
    charts.append(_histogram("length", "Length of the clips", "seconds", lengths))
    rates = _by_label(known, labels, lambda item: item.rate_hz)
    title = "Frame rate of the clips, frames a second"
    if any(rates.values()):
        values = [(value, label) for label in GROUPS for value in rates[label]]
        distinct = {round(value, 2) for value, _ in values}
        digits = 2 if len(distinct) <= _BINS else 0
        ordered = sorted({round(value, digits) for value, _ in values})
        if len(ordered) <= _BINS:
            names = pd.Series([f"{round(value, digits):g}" for value, _ in values])
            rows = pd.DataFrame({"label": [label for _, label in values]})
            counts = count_labels(rows, names).loc[[f"{value:g}" for value in ordered]]
            charts.append(stacked_counts("rate", title, counts, "clips", upright=True))
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
                PATTERNS[label],
                tuple(percent(row.share_by_label.get(label, 0.0)) for row in found),
            )
            for label in GROUPS
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
    )


def _by_label(
    facts: Sequence[FileFacts],
    labels: dict[str, str],
    value_of: Callable[[FileFacts], float | None],
) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {label: [] for label in GROUPS}
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
        {label: np.histogram(values[label], edges)[0] for label in GROUPS if values[label]},
        index=names,
    )
    return stacked_counts(name, f"{title}, {unit}", counts, "clips", upright=True)


def _round_step(step: float) -> float:
    """Rounds up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(power * lead for lead in (1, 2, 5, 10) if power * lead >= step * 0.999))


def _number(share: float | None) -> float:
    return 0.0 if share is None else round(100 * share, 2)
