"""What files were called: confusion matrices and the classification report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from dfd_training.evaluation import Evaluation
from dfd_training.metrics import Estimate, Labels, Metric, Scores
from dfd_training.report import VERDICTS
from dfd_training.results.levels import Level, levels_of

CLASSES = ("real", "fake")
AT = 0.5
"""P(fake) from which a row counts as fake in the plain matrix and in the report."""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of counts.

    Attributes:
        title: which rows.
        columns: what they were called.
        counts: int [2, columns], the row of the reals, then that of the fakes.
        note: what is not in it, or "".
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
    """Figures of one class, rows with P(fake) of 0.5 and more taken for fake.

    Attributes:
        name: "real" or "fake".
        precision: share of the rows called so that are so; NaN, as the next two, where one class
            is missing.
        recall: share of the rows that are so that are called so.
        f1: harmonic mean of both.
        support: rows of the class.
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
    """What the clips, and what the photographs, were called, by the bundle's own thresholds.

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
    """The same and single faces with P(fake) cut at 0.5, without a middle ground."""
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
    """Precision, recall and F1 of both classes, of every level that has both."""
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


def _precision(labels: Labels, called: Labels) -> float:
    return _ratio(int((labels & called).sum()), int(called.sum()))


def _recall(labels: Labels, called: Labels) -> float:
    return _ratio(int((labels & called).sum()), int(labels.sum()))


def _f1(labels: Labels, called: Labels) -> float:
    return _ratio(2 * int((labels & called).sum()), int(labels.sum() + called.sum()))


def _ratio(part: int, whole: int) -> float:
    """As scikit-learn has it where nothing was called so: 0."""
    return part / whole if whole else 0.0


def _of_class(score: Callable[[Labels, Labels], float], number: int) -> Metric:
    """A figure of one class, as a metric of labels and P(fake).

    Computed by hand: scikit-learn checks its inputs anew in each of thousands of samples.
    """

    def figure(labels: Labels, scores: Scores) -> float:
        return score((labels == number).astype(np.int64), ((scores >= AT) == number).astype(int))

    return figure


def report_table(reports: list[ClassificationReport]) -> pd.DataFrame:
    """The classification report as one table, intervals in columns of their own."""
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
    """Confusion matrices one below the other: `matrix`, `label`, `called`, `count`, `share`."""
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
