"""Thresholds of the labels, set on held-out folds, and their error rates.

Groups of footage weigh alike, since clips of one group share a person or a scene; within a group,
plain and degraded clips weigh alike. Real recordings by webcams, phones and browsers, where they
are named, weigh as much as all other real clips together: they are what detectors are pointed at.
A few hundred clips of a hundred groups say little about a rate of 2 %, so every rate has an upper
bound.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle.manifest import Metric, Threshold
from dfd_training.evaluation.statistics import GroupBootstrap, rate_upper_bound
from dfd_training.sequence.sequences import ClipSequence, Treatment

FALSE_POSITIVE_TARGET = 0.02
"""Share of real clips that may be called fake."""
MISS_TARGET = 0.10
"""Share of true fakes that may be called real."""
UNSURE_TARGET = 0.25
"""Share of real clips that may be called unsure, before more fakes are called real."""

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class ClipScores:
    """Clips with the probability that the runtime would give them; arrays of one length.

    Attributes:
        p: float64, P(fake) of the most suspicious person.
        fake: bool, whether the clip is a fake.
        true_fake: bool, whether it is a published deepfake, not one synthesised by this toolkit.
        variant: Text, how the clip was processed.
        group: Text, the group of footage.
        camera: bool, whether it is a real recording by a webcam, a phone or a browser.
    """

    p: Floats
    fake: Truths
    true_fake: Truths
    variant: NDArray[np.str_]
    group: NDArray[np.str_]
    camera: Truths

    def __len__(self) -> int:
        return len(self.p)

    @classmethod
    def of(
        cls, sequences: Sequence[ClipSequence], p_person: Floats, *, cameras: Collection[str] = ()
    ) -> ClipScores:
        """Joins the people of each clip; each variant of a clip counts as one.

        Args:
            sequences: The people.
            p_person: float64, P(fake) of each.
            cameras: Sources that are recordings by webcams, phones and browsers.
        """
        names = np.array([f"{s.path} {s.variant} {s.copy}" for s in sequences], np.str_)
        clips, first, member = np.unique(names, return_index=True, return_inverse=True)
        p = np.zeros(len(clips))
        np.maximum.at(p, member, p_person)
        chosen = [sequences[i] for i in first]
        return cls(
            p=p,
            fake=np.array([s.fake for s in chosen], np.bool_),
            true_fake=np.array([s.true_fake for s in chosen], np.bool_),
            variant=np.array([s.variant.value for s in chosen], np.str_),
            group=np.array([s.group for s in chosen], np.str_),
            camera=np.array([s.source in cameras and not s.fake for s in chosen], np.bool_),
        )

    def subset(self, rows: Truths) -> ClipScores:
        """Returns some of the clips."""
        return ClipScores(
            self.p[rows],
            self.fake[rows],
            self.true_fake[rows],
            self.variant[rows],
            self.group[rows],
            self.camera[rows],
        )

    def footage(self, *, fake: bool) -> ClipScores:
        """Returns the real clips or the true fakes, plain and degraded."""
        whole = np.isin(self.variant, [Treatment.PLAIN.value, Treatment.DEGRADED.value])
        return self.subset(whole & (self.true_fake if fake else ~self.fake))

    def weights(self) -> Floats:
        """Returns weights that sum to 1: groups weigh alike, and the variants in a group alike.

        Recordings by cameras have half of the weight, where there are both they and others.
        """
        parts = [rows for rows in (self.camera, ~self.camera) if rows.any()]
        weights = np.zeros(len(self))
        for rows in parts:
            weights[rows] = self.subset(rows)._even_weights() / len(parts)
        return weights

    def _even_weights(self) -> Floats:
        kinds = np.char.add(np.char.add(self.group, " "), self.variant)
        each = 1.0 / _counts(kinds)
        _, member = np.unique(self.group, return_inverse=True)
        shares = np.bincount(member, each)[member]
        return np.asarray(each / shares / len(np.unique(self.group)), np.float64)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of clips, groups weighing alike.

    Attributes:
        value: The share.
        low: Lower end of the 95 % bootstrap interval over groups.
        high: Upper end.
        upper_bound: One-sided 95 % upper bound (Clopper and Pearson, 1934), with the groups as
            trials; where they do not weigh alike, with as many as their weights are worth (Kish,
            1965).
        groups: Number of groups.
    """

    value: float
    low: float
    high: float
    upper_bound: float
    groups: int

    def metric(self) -> Metric:
        """Returns it in the form that manifests carry, with the interval."""
        return Metric(_short(self.value), _short(self.low), _short(self.high), self.groups)

    def bounded(self) -> Metric:
        """Returns it in the form that manifests carry, with the upper bound alone."""
        return Metric(_short(self.value), None, _short(self.upper_bound), self.groups)


def rate_of(hits: Truths, clips: ClipScores, *, draws: int = 1000, seed: int = 0) -> Rate:
    """Returns the share of clips for which `hits` is True, by their weights."""
    if not len(clips):
        return Rate(0.0, 0.0, 1.0, 1.0, 0)
    drawn = GroupBootstrap.of(clips.group, draws=draws, seed=seed)
    weights = clips.weights()
    share = drawn.mean(hits.astype(np.float64), weights)
    _, member = np.unique(clips.group, return_inverse=True)
    trials = 1.0 / float((np.bincount(member, weights) ** 2).sum())
    bound = rate_upper_bound(share.value * trials, trials)
    return Rate(share.value, share.low, share.high, bound, drawn.groups)


def fake_threshold(reals: ClipScores, target: float) -> float:
    """Returns the lowest P(fake), at least one half, that at most `target` of the reals reach."""
    highest = _quantile(-reals.p, reals.weights(), target)
    return 0.5 if highest is None else max(0.5, _above(-highest))


def real_threshold(fakes: ClipScores, target: float) -> float:
    """Returns the highest P(fake), at most one half, with at most `target` of the fakes below."""
    lowest = _quantile(fakes.p, fakes.weights(), target)
    return 0.5 if lowest is None else min(0.5, _below(lowest))


def sure_threshold(reals: ClipScores, target: float, fake_at: float) -> float:
    """Returns the lowest P(fake), at most one half, that leaves `target` of the reals unsure.

    Args:
        reals: Real clips.
        target: Share of them between it and `fake_at`.
        fake_at: P(fake) at which a clip is called fake.
    """
    beyond = float(reals.weights()[reals.p >= fake_at].sum())
    highest = _quantile(-reals.p, reals.weights(), target + beyond)
    return 0.0 if highest is None else min(0.5, float(np.ceil(-highest * 1e4) / 1e4))


def decision_thresholds(reals: ClipScores, fakes: ClipScores) -> dict[str, Threshold]:
    """Sets `fake` where few reals reach, and `real` where few true fakes stay below.

    Where that leaves more than `UNSURE_TARGET` of the reals unsure, `real` starts at a higher
    P(fake), one half at most; its target is then the share of fakes that this costs.
    """
    fake_at = fake_threshold(reals, FALSE_POSITIVE_TARGET)
    real_at = max(real_threshold(fakes, MISS_TARGET), sure_threshold(reals, UNSURE_TARGET, fake_at))
    missed = fakes.p <= real_at
    aim = max(MISS_TARGET, rate_of(missed, fakes).value if len(fakes) else 0.0)
    return {
        "fake": measured_threshold(fake_at, reals.p >= fake_at, reals, FALSE_POSITIVE_TARGET),
        "real": measured_threshold(real_at, missed, fakes, aim),
    }


def measured_threshold(
    probability: float, wrong: Truths, clips: ClipScores, aim: float
) -> Threshold:
    """Returns a threshold with its error rate on the clips that it was set on."""
    rate = rate_of(wrong, clips)
    return Threshold(
        probability=probability,
        target_rate=aim,
        rate=rate.value,
        n=rate.groups,
        upper_bound=rate.upper_bound,
    )


def _quantile(values: Floats, weights: Floats, share: float) -> float | None:
    """Returns the first value, in rising order, with more than `share` of the weight up to it."""
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weights[order])
    beyond = np.flatnonzero(passed > share + 1e-9)
    return float(values[order][beyond[0]]) if len(beyond) else None


def _counts(names: NDArray[np.str_]) -> NDArray[np.int64]:
    _, member, counts = np.unique(names, return_inverse=True, return_counts=True)
    return np.asarray(counts[member], np.int64)


def _above(probability: float) -> float:
    """Returns the next probability of four decimals, which printing does not change."""
    return float(min(1.0, np.round(np.floor(probability * 1e4) / 1e4 + 1e-4, 4)))


def _below(probability: float) -> float:
    return float(max(0.0, np.round(np.ceil(probability * 1e4) / 1e4 - 1e-4, 4)))


def _short(value: float) -> float:
    return round(value, 4)
