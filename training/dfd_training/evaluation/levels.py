"""Scores of an evaluation by level, with curves, reliability and confusion matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from dfd_training.evaluation.evaluate import Evaluation
from dfd_training.evaluation.report import VERDICTS
from dfd_training.evaluation.statistics import (
    CALIBRATION_BINS,
    Estimate,
    Labels,
    Metric,
    Scores,
    Weights,
    calibration_bins,
    calibration_error,
    draws_for,
    estimate,
    ratio,
)

_LEVELS = {"crop": ("frames", "p_frame"), "step": ("frames", "p_step"), "clip": ("files", "p_fake")}
SINGLE_FACES = "single faces"
HISTOGRAM_BINS = 20
Floats = NDArray[np.float64]
CLASSES = ("real", "fake")
AT = 0.5
"""P(fake) from which a row counts as fake in the plain matrix and in the report."""


@dataclass(frozen=True)
class Level:
    """P(fake) of all rows of one level that have one.

    Attributes:
        name: "clips", "photographs" or "single faces".
        keys: [n], identifiers of the rows, equal in evaluations of the same files.
        labels: int [n], 1 for fake.
        scores: float [n], P(fake).
        groups: Text [n].
        unscored: Rows that have no P(fake), such as files without a face.
    """

    name: str
    keys: pd.Index[str]
    labels: Labels
    scores: Scores
    groups: NDArray[np.str_]
    unscored: int

    @property
    def two_classes(self) -> bool:
        """Whether there are fakes and reals, so that curves can be drawn."""
        return bool(0 < self.labels.sum() < len(self.labels))

    @property
    def counts(self) -> str:
        """The number of rows of each class, as text."""
        fakes = int(self.labels.sum())
        return f"n = {len(self.labels)}: {len(self.labels) - fakes} real, {fakes} fake"

    def figure(self, metric: Metric, *, draws: int = 1000) -> Estimate:
        """Returns a metric of the scores with its interval over groups."""
        return estimate(
            metric,
            self.labels,
            self.scores,
            self.groups,
            draws=draws_for(len(self.labels), draws),
        )


def levels_of(evaluation: Evaluation) -> list[Level]:
    """Returns clips and photographs by the runtime's P(fake), faces by that of their crop alone.

    Levels without a single score are left out.
    """
    files = evaluation.files
    found = [
        _level(f"{kind}s", files[files["kind"] == kind], "p_fake", "path")
        for kind in ("clip", "photograph")
    ]
    frames = evaluation.frames.merge(files[["path", "label", "group"]], on="path")
    time_ms = (frames["time_s"] * 1000.0).round().astype(int).astype(str)
    frames["key"] = frames["path"] + "|" + time_ms + "|" + frames["track"].astype(str)
    found.append(_level(SINGLE_FACES, frames, "p_frame", "key"))
    return [level for level in found if len(level.labels)]


def _level(name: str, rows: pd.DataFrame, column: str, key: str) -> Level:
    scored = rows[rows[column].notna()]
    return Level(
        name,
        pd.Index(scored[key].astype(str)),
        np.asarray(scored["label"] == "FAKE", np.int64),
        scored[column].to_numpy(np.float64),
        scored["group"].to_numpy(str),
        len(rows) - len(scored),
    )


@dataclass(frozen=True)
class Curves:
    """Curves of a level over all thresholds, and the distribution of its scores.

    Attributes:
        level: The level.
        roc: `threshold`, `false_positive_rate`, `true_positive_rate`.
        precision_recall: `threshold`, `recall`, `precision`; of the fakes.
        histogram: `low`, `high`, `real`, `fake`: rows of each class, by P(fake).
        reliability: Bins of P(fake) with the share of fakes in each.
    """

    level: Level
    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    histogram: pd.DataFrame
    reliability: list[ReliabilityBin]


def curves_of(level: Level) -> Curves:
    """Computes the curves of a level that has both classes."""
    false_positive, true_positive, at = roc_curve(level.labels, level.scores)
    roc = pd.DataFrame(
        {
            # The first threshold of scikit-learn is infinite: nothing is called fake.
            "threshold": np.minimum(at, 1.0),
            "false_positive_rate": false_positive,
            "true_positive_rate": true_positive,
        }
    )
    precision, recall, at = precision_recall_curve(level.labels, level.scores)
    precision_recall = pd.DataFrame(
        {"threshold": np.append(at, 1.0), "recall": recall, "precision": precision}
    )
    bins = reliability_bins(level.labels, level.scores, pd.Series(level.groups))
    return Curves(level, roc, precision_recall, histogram_of(level), bins)


def histogram_of(level: Level) -> pd.DataFrame:
    """Returns rows of each class by P(fake): `low`, `high`, `real`, `fake`. One class is enough."""
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(level.scores[level.labels == number], edges)[0]
        for number, name in enumerate(("real", "fake"))
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of counts.

    Attributes:
        title: Name of the rows.
        columns: Names of the predictions.
        counts: int [2, columns], the row of the reals, then that of the fakes.
        note: Remark on rows that are left out, or "".
    """

    title: str
    columns: tuple[str, ...]
    counts: NDArray[np.int64]
    note: str

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each count over the sum of its row; 0 where the row is empty."""
        sums = self.counts.sum(axis=1, keepdims=True)
        return np.asarray(self.counts / np.maximum(sums, 1), np.float64)


@dataclass(frozen=True)
class ClassRow:
    """Figures of one class, with rows of P(fake) 0.5 and more classified as fake.

    Attributes:
        name: "real" or "fake".
        precision: Share of the rows classified as this class that belong to it; NaN, like the
            next two, where one class is missing.
        recall: Share of the rows of this class that are classified as it.
        f1: Harmonic mean of both.
        support: Number of rows of the class.
    """

    name: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


@dataclass(frozen=True)
class ClassificationReport:
    """The report of a level that has both classes."""

    level: Level
    rows: list[ClassRow]


def verdict_confusions(evaluation: Evaluation) -> list[Confusion]:
    """Counts the verdicts on clips and on photographs, by the bundle's own thresholds.

    Files that could not be read have a matrix of their own.
    """
    found: list[Confusion] = []
    for kind, part in evaluation.files.groupby("kind", sort=True):
        counts = [
            [
                int(((part["label"] == label) & (part["verdict"] == verdict)).sum())
                for verdict in VERDICTS
            ]
            for label in ("REAL", "FAKE")
        ]
        name = "unreadable files" if kind == "unreadable" else f"{kind}s"
        note = "not judged: see the list of errors" if kind == "unreadable" else ""
        found.append(Confusion(f"{name}: verdicts", VERDICTS, np.array(counts), note))
    return found


def plain_confusions(evaluation: Evaluation) -> list[Confusion]:
    """Counts files and single faces classified by P(fake) 0.5, without a class `unsure`."""
    found: list[Confusion] = []
    for level in levels_of(evaluation):
        counts = confusion_matrix(level.labels, level.scores >= AT, labels=[0, 1])
        note = ""
        if level.unscored:
            note = f"without {level.unscored} that have no P(fake): no face, or too little seen"
        found.append(Confusion(f"{level.name}: P(fake) cut at {AT}", CLASSES, counts, note))
    return found


def classification_reports(
    evaluation: Evaluation, *, draws: int = 1000
) -> list[ClassificationReport]:
    """Computes precision, recall and F1 of both classes, for every level that has both."""
    reports: list[ClassificationReport] = []
    for level in levels_of(evaluation):
        if not level.two_classes:
            continue
        rows = []
        for number, name in enumerate(CLASSES):
            precision, recall, f1 = (
                level.figure(_of_class(score, number), draws=draws)
                for score in (_precision, _recall, _f1)
            )
            support = int((level.labels == number).sum())
            rows.append(ClassRow(name, precision, recall, f1, support))
        reports.append(ClassificationReport(level, rows))
    return reports


def _precision(hits: Scores, called: Scores, actual: Scores) -> Scores:
    del actual
    return ratio(hits, called)


def _recall(hits: Scores, called: Scores, actual: Scores) -> Scores:
    del called
    return ratio(hits, actual)


def _f1(hits: Scores, called: Scores, actual: Scores) -> Scores:
    return ratio(2.0 * hits, called + actual)


def _of_class(score: Callable[[Scores, Scores, Scores], Scores], number: int) -> Metric:
    """Builds a figure of one class from the weights of hits, predicted rows and actual rows."""

    def of_samples(labels: Labels, scores: Scores, weights: Weights) -> Scores:
        called, actual = (scores >= AT) == number, labels == number
        return score(weights @ (called & actual), weights @ called, weights @ actual)

    return Metric(f"{score.__name__.strip('_')} of {CLASSES[number]}", of_samples)


def report_table(reports: list[ClassificationReport]) -> pd.DataFrame:
    """Returns the classification report as one table, intervals in columns of their own."""
    rows: list[dict[str, object]] = []
    for report in reports:
        for row in report.rows:
            flat: dict[str, object] = {"level": report.level.name, "class": row.name}
            for name in ("precision", "recall", "f1"):
                figure: Estimate = getattr(row, name)
                flat |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
            first = row.precision
            rows.append({**flat, "support": row.support, "n": first.n, "groups": first.groups})
    return pd.DataFrame(rows)


def confusion_table(matrices: list[Confusion]) -> pd.DataFrame:
    """Returns confusion matrices as rows: `matrix`, `label`, `called`, `count`, `share`."""
    return pd.DataFrame(
        [
            {
                "matrix": matrix.title,
                "label": CLASSES[row],
                "called": called,
                "count": int(matrix.counts[row, column]),
                "share": float(matrix.shares[row, column]),
            }
            for matrix in matrices
            for row in range(2)
            for column, called in enumerate(matrix.columns)
        ]
    )


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows whose P(fake) lies in one bin.

    Attributes:
        low: Lower edge of the bin.
        high: Upper edge.
        n: Rows in it.
        groups: Groups that they come from.
        mean_p: Mean P(fake); NaN where the bin is empty.
        fake_share: Share of them that are fakes; NaN where the bin is empty.
    """

    low: float
    high: float
    n: int
    groups: int
    mean_p: float
    fake_share: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Reliability of the probabilities of one level.

    Attributes:
        level: Crop, step or clip.
        error: Expected calibration error, with an interval over groups.
        bins: Bins of P(fake) from 0 to 1.
    """

    level: str
    error: Estimate
    bins: list[ReliabilityBin]


def reliability(evaluation: Evaluation, *, draws: int = 1000) -> list[Reliability]:
    """Computes the reliability of probabilities at every level that has fakes and reals.

    The error is that of Guo et al. (ICML 2017) over ten bins. Few clips in a bin make it large
    by chance alone: read it with its interval and the bins' n.
    """
    clips = evaluation.files[evaluation.files["kind"] == "clip"]
    frames = evaluation.frames.merge(clips[["path", "label", "group"]], on="path")
    tables = {"files": clips, "frames": frames}
    found: list[Reliability] = []
    for level, (table, column) in _LEVELS.items():
        rows = tables[table][tables[table][column].notna()]
        labels, p = labels_of(rows), rows[column].to_numpy(np.float64)
        if not 0 < labels.sum() < len(labels):
            continue
        groups = rows["group"].to_numpy(str)
        count = draws_for(len(rows), draws)
        error = estimate(calibration_error, labels, p, groups, draws=count)
        found.append(Reliability(level, error, reliability_bins(labels, p, rows["group"])))
    return found


def reliability_bins(labels: Labels, p: Scores, groups: pd.Series[str]) -> list[ReliabilityBin]:
    """Counts rows and fakes in ten bins of P(fake)."""
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    member = calibration_bins(p)
    bins: list[ReliabilityBin] = []
    for number in range(CALIBRATION_BINS):
        inside = member == number
        filled = bool(inside.any())
        bins.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                n=int(inside.sum()),
                groups=int(groups[inside].nunique()),
                mean_p=float(p[inside].mean()) if filled else float("nan"),
                fake_share=float(labels[inside].mean()) if filled else float("nan"),
            )
        )
    return bins


def labels_of(rows: pd.DataFrame) -> Labels:
    """Returns 1 for each fake, 0 for each real: int [n]."""
    return np.asarray(rows["label"] == "FAKE", np.int64)
