"""Intervals over groups for AUCs and for differences of two scores on the same files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_training.metrics import Estimate, Labels, Scores, auc

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
