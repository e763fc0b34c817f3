"""Shrinkage of a person's score toward one half where blurred crops or few steps support it.

A mean over one second of video is weaker evidence than one over ten, and a blurred crop weaker
than a sharp one. The calibrated logit of a step with detail d is multiplied by
d / (d + settle_detail), and the mean over n steps by n / (n + settle_steps). Both constants are
fitted on the folds, and kept only where held-out folds gain from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from dfd_edge.bundle.manifest import Metric
from dfd_edge.judging.decision import Pooled, pool_windows, step_shares
from dfd_training.evaluation.statistics import GroupBootstrap
from dfd_training.sequence.sequences import MIN_STEPS, ClipSequence

STEPS = (1.0, 2.0, 4.0, 8.0)
DETAILS = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Candidates, beside no shrinkage."""

_NOT_TRIED = Metric(0.0)
_LENGTHS = (MIN_STEPS, 6, 8, 12, 16, 24, 32, 48)
_STARTS = 4

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]
Logits = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """Fitted shrinkage constants.

    Attributes:
        steps: `settle_steps`; 0 where the folds show no gain.
        detail: `settle_detail`; 0 where the folds show no gain.
        steps_gain: Reduction of the held-out folds' log loss by the best `settle_steps`, in nats
            per window, with a 95 % bootstrap interval over groups.
        detail_gain: The same for the best `settle_detail`.
    """

    steps: float = 0.0
    detail: float = 0.0
    steps_gain: Metric = _NOT_TRIED
    detail_gain: Metric = _NOT_TRIED


def pooled(
    sequences: Sequence[ClipSequence], logits: Logits, shrinkage: Shrinkage
) -> Pooled[Floats]:
    """Returns the terms of whole sequences, pooled as in the runtime."""
    windows = _Windows.whole([len(part) for part in logits])
    return windows.pooled(sequences, logits, shrinkage.steps, shrinkage.detail)


def fit_shrinkage(
    sequences: Sequence[ClipSequence],
    logits: Logits,
    weights: Floats,
    *,
    draws: int = 1000,
) -> Shrinkage:
    """Fits the shrinkage by cross-validation: first for blurred crops, then for few steps.

    Windows of all lengths are scored, from 4 steps to whole sequences. For each fold, slope and
    intercept are fitted on the other folds, with each candidate and without. The candidate whose
    gain on the held-out folds has the highest lower bound is kept, if that bound is above 0.

    Args:
        sequences: Out-of-fold sequences.
        logits: float32 [T] of each, those that are pooled to the person's score.
        weights: Weight of each sequence.
        draws: Bootstrap samples.
    """
    if len({sequence.fold for sequence in sequences}) < 2:
        return Shrinkage()
    windows = _Windows.of_all_lengths([len(part) for part in logits])
    folds = _CrossValidation.of(sequences, weights, windows)

    def losses(steps: float, detail: float) -> Floats:
        return folds.losses(windows.pooled(sequences, logits, steps, detail))

    before = losses(0.0, 0.0)
    detail, detail_gain = _best(
        DETAILS, lambda value: folds.gain(before - losses(0.0, value), draws)
    )
    before = losses(0.0, detail)
    steps, steps_gain = _best(
        STEPS, lambda value: folds.gain(before - losses(value, detail), draws)
    )
    return Shrinkage(steps, detail, steps_gain, detail_gain)


def _best(values: Sequence[float], gain_of: Callable[[float], Metric]) -> tuple[float, Metric]:
    """Returns the value with the highest lower bound, 0 if that is not above 0; and its gain."""
    gains = {value: gain_of(value) for value in values}
    best = max(gains, key=lambda value: gains[value].low or 0.0)
    return (best if (gains[best].low or 0.0) > 0 else 0.0), gains[best]


@dataclass(frozen=True)
class _Windows:
    """Windows of sequences: number of the sequence, first step and length; int64 arrays."""

    sequence: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    share: Floats  # of the sequence's weight

    @classmethod
    def whole(cls, lengths: Sequence[int]) -> _Windows:
        count = len(lengths)
        starts, length = np.zeros(count, np.int64), np.array(lengths, np.int64)
        return cls(np.arange(count), starts, length, np.ones(count))

    @classmethod
    def of_all_lengths(cls, lengths: Sequence[int]) -> _Windows:
        rows: list[tuple[int, int, int, float]] = []
        for number, whole in enumerate(lengths):
            shown = [length for length in _LENGTHS if length < whole] + [whole]
            for length in shown:
                starts = np.unique(np.linspace(0, whole - length, _STARTS).astype(int))
                share = 1.0 / len(shown) / len(starts)
                rows += [(number, int(start), length, share) for start in starts]
        sequence, start, length_, share_ = zip(*rows, strict=True)
        return cls(np.array(sequence), np.array(start), np.array(length_), np.array(share_))

    def pooled(
        self, sequences: Sequence[ClipSequence], logits: Logits, steps: float, detail: float
    ) -> Pooled[Floats]:
        details = np.concatenate([sequence.detail for sequence in sequences])
        ends = np.cumsum([len(part) for part in logits])
        first = np.concatenate([[0], ends[:-1]])[self.sequence] + self.start
        shares = step_shares(details, detail)
        return pool_windows(np.concatenate(logits), shares, first, self.length, steps)


@dataclass(frozen=True)
class _CrossValidation:
    """Windows with their label, weight, fold and group."""

    fake: Floats
    weight: Floats
    fold: NDArray[np.int64]
    group: NDArray[np.str_]

    @classmethod
    def of(
        cls, sequences: Sequence[ClipSequence], weights: Floats, windows: _Windows
    ) -> _CrossValidation:
        rows = windows.sequence
        return cls(
            fake=np.array([s.fake for s in sequences], np.float64)[rows],
            weight=weights[rows] * windows.share,
            fold=np.array([s.fold for s in sequences], np.int64)[rows],
            group=np.array([s.group for s in sequences], np.str_)[rows],
        )

    def losses(self, people: Pooled[Floats]) -> Floats:
        """Returns the log loss of each window, by slope and intercept of the other folds."""
        losses = np.zeros(len(self.fake))
        for fold in np.unique(self.fold):
            held = self.fold == fold
            slope, intercept = self._fit(people, ~held)
            z = _subset(people, held).scaled(slope, intercept)
            losses[held] = np.logaddexp(0.0, z) - self.fake[held] * z
        return losses

    def gain(self, gains: Floats, draws: int) -> Metric:
        """Returns the weighted mean with a bootstrap interval over groups."""
        mean = GroupBootstrap.of(self.group, draws=draws).mean(gains, self.weight)
        return Metric(round(mean.value, 5), round(mean.low, 5), round(mean.high, 5), mean.groups)

    def _fit(self, people: Pooled[Floats], rows: Truths) -> tuple[float, float]:
        """Fits slope and intercept by the lowest weighted log loss (Platt, 1999)."""
        part, fake = _subset(people, rows), self.fake[rows]
        weight = self.weight[rows] / self.weight[rows].sum()

        def loss(line: Floats) -> tuple[float, Floats]:
            z = part.scaled(line[0], line[1])
            slope = weight * (expit(z) - fake)
            value = float((weight * (np.logaddexp(0.0, z) - fake * z)).sum())
            return value, np.array([(slope * part.logit).sum(), (slope * part.share).sum()])

        found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B")
        return float(found.x[0]), float(found.x[1])


def _subset(people: Pooled[Floats], rows: Truths) -> Pooled[Floats]:
    return Pooled(people.logit[rows], people.share[rows])
