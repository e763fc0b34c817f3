"""How well scores separate fakes from reals, each figure with an interval over groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from dfd_edge.manifest import Metric as CardMetric

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Metric = Callable[[Labels, Scores], float]

CALIBRATION_BINS = 10
SURE = 1e-7
"""Probabilities nearer to 0 or 1 count as this near, so that their logarithm is finite."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the figure on all rows; NaN where one class is missing.
        low: lower end of the 95 % interval.
        high: upper end.
        n: number of rows.
        groups: number of groups that the bootstrap drew from.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def signed(self, *, digits: int = 3) -> str:
        """The figure as a difference: value and interval, each with its sign."""
        value, low, high = (f"{end:+.{digits}f}" for end in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    @property
    def tells(self) -> bool:
        """Whether a difference is told: its interval does not hold 0."""
        return self.low > 0.0 or self.high < 0.0


def auc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve; labels 1 for fake, 0 for real. NaN where one class is missing."""
    if not 0 < labels.sum() < len(labels):
        return float("nan")
    return float(roc_auc_score(labels, scores))


def average_precision(labels: Labels, scores: Scores) -> float:
    """Average precision of the fakes. NaN where there are none."""
    if not labels.any():
        return float("nan")
    return float(average_precision_score(labels, scores))


def equal_error_rate(labels: Labels, scores: Scores) -> float:
    """The error rate where as many reals are called fake as fakes real."""
    false_positive, true_positive = _roc(labels, scores)
    gap = false_positive - (1.0 - true_positive)
    return float(np.interp(0.0, gap, false_positive))


def accuracy(labels: Labels, scores: Scores) -> float:
    """Share of rows on their side of P(fake) 0.5."""
    return float(np.mean((scores >= 0.5) == (labels == 1)))


def true_positive_rate_at_5(labels: Labels, scores: Scores) -> float:
    """Share of fakes found when at most 5 % of the reals are called fake."""
    false_positive, true_positive = _roc(labels, scores)
    return float(true_positive[false_positive <= 0.05].max(initial=0.0))


def calibration_error(labels: Labels, scores: Scores) -> float:
    """Expected calibration error over ten bins of P(fake) (Guo et al., ICML 2017)."""
    bins = np.clip((scores * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    error = 0.0
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(scores[inside].mean() - labels[inside].mean())
    return float(error)


def log_loss(labels: Labels, scores: Scores) -> float:
    """Mean negative log likelihood of the labels (binary cross-entropy), in nats."""
    p = np.clip(scores, SURE, 1.0 - SURE)
    return float(-np.mean(np.where(labels == 1, np.log(p), np.log(1.0 - p))))


def _roc(labels: Labels, scores: Scores) -> tuple[Scores, Scores]:
    """False and true positive rates at each distinct score; NaN where one class is missing."""
    if not 0 < labels.sum() < len(labels):
        return np.full(2, np.nan), np.full(2, np.nan)
    false_positive, true_positive, _ = roc_curve(labels, scores, drop_intermediate=False)
    return false_positive, true_positive


METRICS: dict[str, Metric] = {
    "auc": auc,
    "average_precision": average_precision,
    "eer": equal_error_rate,
    "accuracy": accuracy,
    "tpr_at_5_fpr": true_positive_rate_at_5,
    "calibration_error": calibration_error,
    "log_loss": log_loss,
}


def change_of(metric: Metric) -> Metric:
    """The change of a metric from one score to another on the same rows, for `estimate`.

    The bootstrap then draws the same rows for both scores: the interval is that of the paired
    difference.

    Args:
        metric: a function of labels and scores.

    Returns:
        A function of labels and float [n, 2]: the score to compare with, and the other.
    """

    def change(labels: Labels, both: Scores) -> float:
        return metric(labels, both[:, 1]) - metric(labels, both[:, 0])

    return change


def estimate(
    metric: Metric,
    labels: Labels,
    scores: Scores,
    groups: NDArray[np.str_],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Compute a metric with a 95 % bootstrap interval over groups.

    Rows of one group share footage or a person and are not independent, so whole groups are
    drawn with replacement (percentile bootstrap, Efron and Tibshirani, 1993).

    Args:
        metric: a function of labels and scores.
        labels: int [n], 1 for fake.
        scores: float [n], P(fake), or [n, k] for metrics of several scores.
        groups: text [n].
        draws: bootstrap samples.
        seed: of the bootstrap.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(np.unique(labels)) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), len(labels), len(names))
    rows_of = [np.flatnonzero(member == number) for number in range(len(names))]
    rng = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(draws):
        drawn = np.concatenate([rows_of[i] for i in rng.integers(0, len(names), len(names))])
        if 0 < labels[drawn].sum() < len(drawn):
            values.append(metric(labels[drawn], scores[drawn]))
    low, high = np.percentile(values, [2.5, 97.5]) if values else (np.nan, np.nan)
    return Estimate(metric(labels, scores), float(low), float(high), len(labels), len(names))


def rate_upper_bound(hits: float, n: int, confidence: float = 0.95) -> float:
    """One-sided upper bound of a rate (Clopper and Pearson, 1934); 1 when n is 0.

    Hits need not be whole: in a weighted rate they are the rate times n.
    """
    from scipy.stats import beta  # noqa: PLC0415 - slow to import, rarely needed

    if n == 0 or hits >= n:
        return 1.0
    return float(beta.ppf(confidence, hits + 1, n - hits))


def to_metric(figure: Estimate) -> CardMetric:
    """An estimate in the form that manifests carry."""
    if np.isnan(figure.value):
        return CardMetric(value=0.0, n=0)
    return CardMetric(
        value=round(figure.value, 4),
        low=round(figure.low, 4),
        high=round(figure.high, 4),
        n=figure.n,
    )


NOTHING = float("nan")


@dataclass(frozen=True)
class GroupDraws:
    """Bootstrap samples over groups (Efron and Tibshirani, 1993), the same for every score.

    Attributes:
        counts: float64 [draws, n]: how often each row is in each sample.
        groups: number of groups drawn from.
    """

    counts: NDArray[np.float64]
    groups: int

    @classmethod
    def of(cls, groups: NDArray[np.str_], *, draws: int = 1000, seed: int = 0) -> GroupDraws:
        """Draw samples of whole groups with replacement, those that `metrics.estimate` draws."""
        names, member = np.unique(groups, return_inverse=True)
        if not len(names):
            return cls(np.zeros((draws, 0)), 0)
        rng = np.random.default_rng(seed)
        drawn = [
            np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            for _ in range(draws)
        ]
        return cls(np.asarray(drawn, np.float64)[:, member], len(names))

    def auc(self, labels: Labels, scores: Scores) -> Estimate:
        """Area under the ROC curve with its interval; NaN where one class is missing."""
        values = self._aucs(labels, scores)
        return self._estimate(_auc(labels, scores), values, len(labels))

    def auc_difference(self, labels: Labels, scores: Scores, base: Scores) -> Estimate:
        """By how much the AUC of `scores` is above that of `base`, sample by sample."""
        values = self._aucs(labels, scores) - self._aucs(labels, base)
        return self._estimate(_auc(labels, scores) - _auc(labels, base), values, len(labels))

    def mean(self, values: Scores) -> Estimate:
        """The mean of a quantity, such as a share or a shift, with its interval."""
        if not len(values):
            return self._estimate(NOTHING, np.array([]), 0)
        sizes = self.counts.sum(axis=1)
        sums = self.counts @ values
        drawn = sums[sizes > 0] / sizes[sizes > 0]
        return self._estimate(float(values.mean()), drawn, len(values))

    def _aucs(self, labels: Labels, scores: Scores) -> NDArray[np.float64]:
        """AUC of every sample: the share of its fake-real pairs in which the fake is above."""
        fake, real = labels == 1, labels == 0
        above = np.sign(scores[fake][:, None] - scores[real][None, :]) / 2.0 + 0.5
        fakes, reals = self.counts[:, fake], self.counts[:, real]
        won = np.einsum("df,fr,dr->d", fakes, above, reals, optimize=True)
        pairs = fakes.sum(axis=1) * reals.sum(axis=1)
        shares = np.full(len(pairs), np.nan)
        np.divide(won, pairs, out=shares, where=pairs > 0)
        return shares

    def _estimate(self, value: float, drawn: NDArray[np.float64], n: int) -> Estimate:
        known = drawn[~np.isnan(drawn)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (NOTHING, NOTHING)
        return Estimate(value, float(low), float(high), n, self.groups)


def _auc(labels: Labels, scores: Scores) -> float:
    return auc(labels, scores) if 0 < labels.sum() < len(labels) else NOTHING
