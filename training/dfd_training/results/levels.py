"""The scores of an evaluation, level by level, and the curves over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from dfd_training.evaluation import Evaluation
from dfd_training.metrics import Estimate, Labels, Metric, Scores, estimate
from dfd_training.quality.calibration import ReliabilityBin, reliability_bins

SINGLE_FACES = "single faces"
HISTOGRAM_BINS = 20
_FEWER_FROM = 2000
"""From so many rows on, a fifth of the bootstrap samples does: it is slow and steady there."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """P(fake) of all rows of one level that have one.

    Attributes:
        name: "clips", "photographs" or "single faces".
        keys: [n], what a row is known by: the same in evaluations of the same files.
        labels: int [n], 1 for fake.
        scores: float [n], P(fake).
        groups: text [n].
        unscored: rows that have no P(fake), such as files without a face.
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
        """How many rows there are of each class, in words."""
        fakes = int(self.labels.sum())
        return f"n = {len(self.labels)}: {len(self.labels) - fakes} real, {fakes} fake"

    def figure(self, metric: Metric, *, draws: int = 1000) -> Estimate:
        """A metric of the scores with its interval over groups."""
        return estimate(
            metric,
            self.labels,
            self.scores,
            self.groups,
            draws=draws_for(len(self.labels), draws),
        )


def draws_for(rows: int, draws: int) -> int:
    """Bootstrap samples for a table of so many rows."""
    return draws if rows < _FEWER_FROM else max(100, draws // 5)


def levels_of(evaluation: Evaluation) -> list[Level]:
    """Clips and photographs by the runtime's P(fake), faces by that of their crop alone.

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
    """Curves of a level over all thresholds, and where its scores lie.

    Attributes:
        level: whose.
        roc: `threshold`, `false_positive_rate`, `true_positive_rate`.
        precision_recall: `threshold`, `recall`, `precision`; of the fakes.
        histogram: `low`, `high`, `real`, `fake`: rows of each class, by P(fake).
        reliability: bins of P(fake) with the share of fakes in each.
    """

    level: Level
    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    histogram: pd.DataFrame
    reliability: list[ReliabilityBin]


def curves_of(level: Level) -> Curves:
    """Compute the curves of a level that has both classes."""
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
    """Rows of each class by P(fake): `low`, `high`, `real`, `fake`. One class is enough."""
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(level.scores[level.labels == number], edges)[0]
        for number, name in enumerate(("real", "fake"))
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})
