"""Figures on the training's own held-out folds, for the model's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle.manifest import DecisionSpec, Metric, PersonScore
from dfd_training.calibration.shrinkage import Shrinkage
from dfd_training.calibration.thresholds import (
    ClipScores,
    fake_threshold,
    rate_of,
)
from dfd_training.evaluation.statistics import GroupBootstrap
from dfd_training.sequence.sequences import ClipSequence, Treatment

REPORTED_RATES = (0.01, 0.05)
_SCORE_NAMES = {PersonScore.FRAME: "mean of CNN logits", PersonScore.SEQUENCE: "sequence model"}

Floats = NDArray[np.float64]


def clip_metrics(
    sequences: Sequence[ClipSequence],
    scores: Mapping[PersonScore, Floats],
    runtime: Floats,
    draws: int,
) -> dict[str, Metric]:
    """Computes the clip AUC for each kind of fake.

    Args:
        sequences: Sequences of the held-out folds.
        scores: Mean logit of each, of the sequence model and of the CNN; their AUC differ by the
            figure that names both.
        runtime: The person's score of each, pooled as in the runtime.
        draws: Bootstrap samples.
    """
    variant = np.array([sequence.variant.value for sequence in sequences])
    plain, degraded = variant == Treatment.PLAIN, variant == Treatment.DEGRADED
    real = np.array([not sequence.fake for sequence in sequences])
    true_fake = np.array([sequence.true_fake for sequence in sequences])
    generator = np.array([sequence.generator for sequence in sequences])
    groups = np.array([sequence.group for sequence in sequences])
    swap_groups = {sequence.group for sequence in sequences if sequence.true_fake}
    paired = np.isin(groups, list(swap_groups))
    made, synthesised = variant == Treatment.MADE, variant == Treatment.SYNTHESISED
    cases = {
        "true fakes against their originals": plain & ((real & paired) | true_fake),
        "true fakes against all real clips": plain & (real | true_fake),
        "true fakes against all real clips, degraded": degraded & (real | true_fake),
    }
    if synthesised.any():
        cases["synthesised fakes against all real clips"] = (plain & real) | synthesised
    for name in np.unique(generator[synthesised]):
        fakes = synthesised & (generator == name)
        cases[f"synthesised {name} against all real clips"] = (plain & real) | fakes
    for name in np.unique(generator[made]):
        fakes = made & (generator == name)
        cases[f"fakes by {name} against real clips"] = fakes | (variant == Treatment.MATCHED)
    metrics: dict[str, Metric] = {}
    for case, rows in cases.items():
        labels = (~real[rows]).astype(np.int64)
        drawn = GroupBootstrap.of(groups[rows], draws=draws)
        for kind, values in scores.items():
            figure = drawn.auc(labels, values[rows])
            metrics[f"{case}, clip AUC ({_SCORE_NAMES[kind]})"] = figure.to_metric()
        metrics[f"{case}, clip AUC (runtime)"] = drawn.auc(labels, runtime[rows]).to_metric()
        head, mean = (scores[kind][rows] for kind in (PersonScore.SEQUENCE, PersonScore.FRAME))
        gain = drawn.auc_difference(labels, head, mean).to_metric()
        metrics[f"{case}, clip AUC, sequence model above the mean by"] = gain
    return metrics


def threshold_metrics(
    decision: DecisionSpec, clips: ClipScores, photographs: ClipScores
) -> dict[str, Metric]:
    """Computes the rates of each label on reals and true fakes, at shipped and other thresholds.

    Args:
        decision: The thresholds that ship.
        clips: Clips of the held-out folds.
        photographs: Photographs with the probability of stills; may be empty.
    """
    reals, fakes = clips.footage(fake=False), clips.footage(fake=True)
    fake_at, real_at = (decision.thresholds[name].probability for name in ("fake", "real"))
    metrics: dict[str, Metric] = {}
    for target in REPORTED_RATES:
        probability = fake_threshold(reals, target)
        at = f"threshold for {target:.0%} false positives"
        metrics[at] = Metric(round(probability, 4))
        false_positives = rate_of(reals.p >= probability, reals)
        metrics[f"{at}: real clips called fake"] = false_positives.bounded()
        metrics[f"{at}: true fakes called fake"] = rate_of(fakes.p >= probability, fakes).metric()
    still = decision.still
    still_at = still.thresholds if still is not None else decision.thresholds
    fake_stills = photographs.footage(fake=True)
    photographs = photographs.footage(fake=False)
    parts = {
        "real clips, plain": reals.subset(reals.variant == Treatment.PLAIN),
        "real clips, degraded": reals.subset(reals.variant == Treatment.DEGRADED),
        "real clips by webcams, phones and browsers": reals.subset(reals.camera),
        "real photographs": photographs.subset(photographs.variant == Treatment.PLAIN),
        "real photographs, degraded": photographs.subset(photographs.variant == Treatment.DEGRADED),
    }
    for name, part in parts.items():
        if len(part):
            limits = still_at if name.startswith("real photographs") else decision.thresholds
            high, low = limits["fake"].probability, limits["real"].probability
            metrics[f"{name}: share called fake"] = rate_of(part.p >= high, part).bounded()
            unsure = (part.p < high) & (part.p > low)
            metrics[f"{name}: share called unsure"] = rate_of(unsure, part).metric()
    metrics["true fakes: share called fake"] = rate_of(fakes.p >= fake_at, fakes).metric()
    metrics["true fakes: share called real"] = rate_of(fakes.p <= real_at, fakes).bounded()
    if len(fake_stills):
        found = fake_stills.p >= still_at["fake"].probability
        metrics["fake photographs: share called fake"] = rate_of(found, fake_stills).metric()
    return metrics


def shrinkage_metrics(shrinkage: Shrinkage) -> dict[str, Metric]:
    """Returns how much shrinkage of blurred crops and of few steps lowers the log loss."""
    parts = {
        "blurred crops": (shrinkage.detail, shrinkage.detail_gain),
        "few steps": (shrinkage.steps, shrinkage.steps_gain),
    }
    return {
        f"log loss saved by shrinkage for {name} ({'kept' if value else 'left out'})": gain
        for name, (value, gain) in parts.items()
    }
