"""Figures of scores against labels, and their bootstrap intervals over groups of footage.

Rows of one group share footage or a person and are not independent, so the bootstrap draws whole
groups with replacement (percentile bootstrap, Efron and Tibshirani, 1993). All samples are computed
at once: a sample is a row of weights, how often each row of the data is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from dfd_edge.bundle.manifest import Metric as CardMetric

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Weights = NDArray[np.float64]

CALIBRATION_BINS = 10
SURE = 1e-7
"""Probabilities nearer to 0 or 1 count as this near, so that their logarithm is finite."""

_SLOW_ROWS = 2000
_CHUNK = 2_000_000
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: The figure on all rows; NaN where one class is missing.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of rows.
        groups: Number of groups that the bootstrap drew from.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def signed(self, *, digits: int = 3) -> str:
        """Returns value and interval with their signs, as text for a difference."""
        value, low, high = (f"{end:+.{digits}f}" for end in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0: a difference is significant."""
        return self.low > 0.0 or self.high < 0.0

    def to_metric(self) -> CardMetric:
        """Returns the figure in the form that manifests carry."""
        if np.isnan(self.value):
            return CardMetric(value=0.0, n=0)
        return CardMetric(
            value=round(self.value, 4), low=round(self.low, 4), high=round(self.high, 4), n=self.n
        )


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of labels (1 for fake, 0 for real) and scores. Called, it gives the plain value.

    Attributes:
        name: The figure's name in tables.
        of_samples: Computes the figure for weighted samples: from labels [n], scores [n] and
            weights [k, n] to float [k].
        of_rows: Computes it for rows that all count once; by default as a single sample.
    """

    name: str
    of_samples: Callable[[Labels, Scores, Weights], Scores]
    of_rows: Callable[[Labels, Scores], float] | None = None

    def __call__(self, labels: Labels, scores: Scores) -> float:
        """Returns the figure; NaN where it needs both classes and one is missing."""
        if self.of_rows is not None:
            return self.of_rows(labels, scores)
        return float(self.of_samples(labels, scores, np.ones((1, len(labels))))[0])


def _auc(labels: Labels, scores: Scores) -> float:
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else _NAN


def _sampled_auc(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    """Computes scikit-learn's `roc_auc_score` for each row of weights, without its checks."""
    false_positive, true_positive = _roc(labels, scores, weights)
    heights = (true_positive[:, 1:] + true_positive[:, :-1]) / 2.0
    return np.asarray((np.diff(false_positive) * heights).sum(axis=1))


def _average_precision(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    reals, fakes = _counts_above(labels, scores, weights)
    precision = ratio(fakes, reals + fakes)
    return ratio((np.diff(fakes) * precision[:, 1:]).sum(axis=1), fakes[:, -1], empty=_NAN)


def _equal_error_rate(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    false_positive, true_positive = _roc(labels, scores, weights)
    gaps = false_positive - (1.0 - true_positive)
    pairs = zip(gaps, false_positive, strict=True)
    return np.array([np.interp(0.0, gap, rates) for gap, rates in pairs])


def _true_positive_rate_at_5(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    false_positive, true_positive = _roc(labels, scores, weights)
    return np.asarray(np.where(false_positive <= 0.05, true_positive, 0.0).max(axis=1))


def _accuracy(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    right = (scores >= 0.5) == (labels == 1)
    return ratio(weights @ right, weights.sum(axis=1), empty=_NAN)


def _calibration_error(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    gaps = np.eye(CALIBRATION_BINS)[calibration_bins(scores)] * (scores - labels)[:, None]
    return ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1), empty=_NAN)


def _log_loss(labels: Labels, scores: Scores, weights: Weights) -> Scores:
    p = np.clip(scores, SURE, 1.0 - SURE)
    losses = -np.where(labels == 1, np.log(p), np.log(1.0 - p))
    return ratio(weights @ losses, weights.sum(axis=1), empty=_NAN)


auc = Metric("AUC", _sampled_auc, _auc)
"""Area under the ROC curve, by scikit-learn."""
average_precision = Metric("average precision", _average_precision)
"""Average precision of the fakes."""
equal_error_rate = Metric("EER", _equal_error_rate)
"""The error rate where as many reals are called fake as fakes real."""
accuracy = Metric("accuracy at 0.5", _accuracy)
"""Share of rows on their side of P(fake) 0.5."""
true_positive_rate_at_5 = Metric("TPR at 5 % FPR", _true_positive_rate_at_5)
"""Share of fakes found when at most 5 % of the reals are called fake."""
calibration_error = Metric("calibration error", _calibration_error)
"""Expected calibration error over ten bins of P(fake) (Guo et al., ICML 2017)."""
log_loss = Metric("log loss", _log_loss)
"""Mean negative log likelihood of the labels (binary cross-entropy), in nats."""

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
    """Returns the change of a metric from one score to another on the same rows.

    Its bootstrap weighs the rows alike for both scores, so the interval is that of the paired
    difference. It takes scores as float [n, 2]: the score to compare with, and the other.
    """

    def of_samples(labels: Labels, both: Scores, weights: Weights) -> Scores:
        before, after = (metric.of_samples(labels, both[:, i], weights) for i in (0, 1))
        return np.asarray(after - before)

    return Metric(
        f"change of {metric.name}",
        of_samples,
        lambda labels, both: metric(labels, both[:, 1]) - metric(labels, both[:, 0]),
    )


@dataclass(frozen=True, eq=False)
class GroupBootstrap:
    """Bootstrap samples of whole groups, the same for every figure of these rows.

    Attributes:
        member: int [n], the group of each row.
        counts: float64 [draws, groups], how often each group is in each sample.
    """

    member: NDArray[np.int64]
    counts: Weights

    @classmethod
    def of(cls, groups: NDArray[np.str_], *, draws: int = 1000, seed: int = 0) -> GroupBootstrap:
        """Draws samples.

        Args:
            groups: Text [n], the group of each row.
            draws: Number of samples.
            seed: Seed of the drawing.
        """
        names, member = np.unique(groups, return_inverse=True)
        number = len(names)
        if not number:
            return cls(member, np.zeros((draws, 0)))
        drawn = np.random.default_rng(seed).integers(0, number, (draws, number))
        places = drawn + number * np.arange(draws)[:, None]
        counts = np.bincount(places.ravel(), minlength=draws * number)
        return cls(member, counts.reshape(draws, number).astype(np.float64))

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.counts.shape[1])

    def estimate(self, metric: Metric, labels: Labels, scores: Scores) -> Estimate:
        """Computes a metric with its 95 % interval; NaN where one class is missing.

        Samples without fakes or without reals are left out.

        Args:
            metric: The figure.
            labels: int [n], 1 for fake.
            scores: float [n], or [n, 2] for the change of a metric.
        """
        n = len(labels)
        if not 0 < labels.sum() < n:
            return Estimate(_NAN, _NAN, _NAN, n, self.groups)
        values: list[Scores] = []
        step = max(1, _CHUNK // n)
        for start in range(0, len(self.counts), step):
            weights = self.counts[start : start + step][:, self.member]
            fakes = weights @ labels
            both = (fakes > 0) & (fakes < weights.sum(axis=1))
            if both.any():
                values.append(metric.of_samples(labels, scores, weights[both]))
        return self._with_interval(metric(labels, scores), values, n)

    def auc(self, labels: Labels, scores: Scores) -> Estimate:
        """Computes the area under the ROC curve with its interval."""
        return self.estimate(auc, labels, scores)

    def auc_difference(self, labels: Labels, scores: Scores, base: Scores) -> Estimate:
        """Computes how much the AUC of `scores` is above that of `base`, paired."""
        return self.estimate(change_of(auc), labels, np.stack([base, scores], axis=1))

    def mean(self, values: Scores, weights: Scores | None = None) -> Estimate:
        """Computes the mean of a quantity, such as a share or a shift, with its interval.

        Args:
            values: float [n].
            weights: float [n]; by default all rows count alike.
        """
        if not len(values):
            return Estimate(_NAN, _NAN, _NAN, 0, self.groups)
        weights = np.ones(len(values)) if weights is None else weights
        sums = np.bincount(self.member, weights * values, minlength=self.groups)
        sizes = np.bincount(self.member, weights, minlength=self.groups)
        drawn_sizes = self.counts @ sizes
        known = drawn_sizes > 0
        drawn = (self.counts @ sums)[known] / drawn_sizes[known]
        return self._with_interval(float(sums.sum() / sizes.sum()), [drawn], len(values))

    def _with_interval(self, value: float, samples: list[Scores], n: int) -> Estimate:
        known = np.concatenate(samples) if samples else np.zeros(0)
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (_NAN, _NAN)
        return Estimate(value, float(low), float(high), n, self.groups)


def estimate(
    metric: Metric,
    labels: Labels,
    scores: Scores,
    groups: NDArray[np.str_],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Computes one metric with a 95 % bootstrap interval over groups.

    Args:
        metric: The figure.
        labels: int [n], 1 for fake.
        scores: float [n], P(fake), or [n, 2] for the change of a metric.
        groups: Text [n].
        draws: Bootstrap samples.
        seed: Seed of the bootstrap.
    """
    return GroupBootstrap.of(groups, draws=draws, seed=seed).estimate(metric, labels, scores)


def draws_for(rows: int, draws: int) -> int:
    """Returns the number of bootstrap samples for a table: a fifth from 2000 rows on."""
    return draws if rows < _SLOW_ROWS else max(100, draws // 5)


def rate_upper_bound(hits: float, n: float, confidence: float = 0.95) -> float:
    """Returns the one-sided upper bound of a rate (Clopper and Pearson, 1934); 1 when n is 0.

    Neither hits nor n need be whole: in a weighted rate, hits are the rate times n.
    """
    from scipy.stats import beta  # noqa: PLC0415 - slow to import, rarely needed

    if n == 0 or hits >= n:
        return 1.0
    return float(beta.ppf(confidence, hits + 1, n - hits))


def to_logits(p: Scores, *, sure: float = SURE) -> Scores:
    """Returns the logits of probabilities, kept finite by a distance `sure` from 0 and 1."""
    return np.asarray(logit(np.clip(p, sure, 1.0 - sure)), np.float64)


def calibration_bins(p: Scores) -> NDArray[np.int64]:
    """Returns which of the ten equal bins each probability lies in: int [n], 0 to 9."""
    return np.clip((p * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)


def _counts_above(labels: Labels, scores: Scores, weights: Weights) -> tuple[Weights, Weights]:
    """Sums the weights of reals and of fakes at or above each distinct score: [k, scores + 1] each.

    The first column is 0, the last the total.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))
    is_fake = labels[order] == 1
    ordered = weights[:, order]
    start = np.zeros((len(weights), 1))
    reals, fakes = (
        np.hstack([start, np.cumsum(ordered * kind, axis=1)[:, ends]])
        for kind in (~is_fake, is_fake)
    )
    return reals, fakes


def _roc(labels: Labels, scores: Scores, weights: Weights) -> tuple[Weights, Weights]:
    """Returns false and true positive rates at each distinct score; NaN without the class."""
    reals, fakes = _counts_above(labels, scores, weights)
    return ratio(reals, reals[:, -1:], empty=_NAN), ratio(fakes, fakes[:, -1:], empty=_NAN)


def ratio(part: Weights, whole: Weights, *, empty: float = 0.0) -> Weights:
    """Divides, and gives `empty` where the whole is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    filled = np.full(shape, empty)
    return np.asarray(np.divide(part, whole, out=filled, where=np.broadcast_to(whole > 0, shape)))
