"""From out-of-fold logits to calibrated probabilities, thresholds and the card's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dfd_edge.errors import UsageError
from dfd_edge.manifest import Calibrator, DecisionSpec, Metric, PersonScore
from dfd_training.calibration.fold_metrics import clip_metrics, settling_metrics, threshold_metrics
from dfd_training.calibration.shrinkage import Settling, fit_settling, looks_of
from dfd_training.calibration.thresholds import (
    FALSE_POSITIVE_TARGET,
    MISS_TARGET,
    JudgedClips,
    fake_from,
    make_threshold,
    real_up_to,
)
from dfd_training.clips.sequences import FOOTAGE, MIN_STEPS, ClipSequence

TRUE_FAKE_SHARE = 0.5

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """What calibration gives: a variant's decision, and figures on the training's own folds."""

    decision: DecisionSpec
    metrics: dict[str, Metric]


def calibrate(
    sequences: Sequence[ClipSequence],
    sequence_logits: Sequence[NDArray[np.float32]],
    *,
    precision: str = "fp32",
    person_score: PersonScore | None = None,
    photographs: Sequence[ClipSequence] = (),
    draws: int = 1000,
) -> Calibration:
    """Choose the person's score, fit the calibrators (Platt, 1999) and set the thresholds.

    Everything rests on scores of clips that their model never saw. In the fits, reals and fakes
    weigh the same, true fakes as much as synthesised ones, and each group of footage as much as
    any other. Thresholds are set on real clips and true fakes, as they are and degraded.

    Args:
        sequences: out-of-fold features and frame logits of one variant of the frame models.
        sequence_logits: out-of-fold logits of each step, in the same order.
        precision: of the variant, for the names of figures.
        person_score: the person's score; the better one on the folds by default.
        photographs: out-of-fold frame logits of real photographs, for a figure of their own.
        draws: bootstrap samples for the intervals.

    Raises:
        UsageError: when there are no true fakes or no reals.
    """
    fake = np.array([sequence.fake for sequence in sequences])
    true_fake = np.array([sequence.true_fake for sequence in sequences])
    groups = np.array([sequence.group for sequence in sequences])
    if not true_fake.any() or fake.all():
        raise UsageError("calibration needs real clips and true fakes among the rows of train")
    weights = _weights(fake, true_fake, groups)
    logits = {
        PersonScore.FRAME: [sequence.frame_logit for sequence in sequences],
        PersonScore.SEQUENCE: list(sequence_logits),
    }
    means = {
        kind: np.array([part.mean() for part in parts], np.float64)
        for kind, parts in logits.items()
    }
    chosen = person_score or _better(sequences, means)
    settling = fit_settling(sequences, logits[chosen], weights, draws=draws)
    looks = looks_of(sequences, logits[chosen], settling)
    person = _platt(looks.logit, fake, weights, share=looks.share)
    calibrators = {
        "frame": _platt(*_steps(logits[PersonScore.FRAME], fake, weights)),
        "step": _platt(*_steps(logits[PersonScore.SEQUENCE], fake, weights)),
        "person": person,
    }
    score = looks.scaled(person.slope, person.intercept)
    clips = JudgedClips.of(sequences, np.asarray(expit(score), np.float64))
    decision = _decision(chosen, calibrators, clips, settling)
    named = {
        **clip_metrics(sequences, means, score, draws),
        **threshold_metrics(decision, clips, _judged_alone(photographs, calibrators["frame"])),
        **settling_metrics(settling),
    }
    metrics = {f"training folds, {precision}, {name}": metric for name, metric in named.items()}
    return Calibration(decision, metrics)


def _decision(
    chosen: PersonScore,
    calibrators: dict[str, Calibrator],
    clips: JudgedClips,
    settling: Settling,
) -> DecisionSpec:
    """Thresholds: `fake` where few reals reach, `real` where few true fakes reach."""
    reals, fakes = clips.footage(fake=False), clips.footage(fake=True)
    fake_at = fake_from(reals, FALSE_POSITIVE_TARGET)
    real_at = real_up_to(fakes, MISS_TARGET)
    return DecisionSpec(
        person_score=chosen,
        calibrators=calibrators,
        thresholds={
            "fake": make_threshold(fake_at, reals.p >= fake_at, reals, FALSE_POSITIVE_TARGET),
            "real": make_threshold(real_at, fakes.p <= real_at, fakes, MISS_TARGET),
        },
        min_steps=MIN_STEPS,
        settle_steps=settling.steps,
        settle_detail=settling.detail,
    )


def _judged_alone(photographs: Sequence[ClipSequence], frame: Calibrator) -> JudgedClips:
    """Photographs with the probability of their crop."""
    logits = np.array([photograph.frame_logit.mean() for photograph in photographs], np.float64)
    return JudgedClips.of(
        photographs, np.asarray(expit(frame.slope * logits + frame.intercept), np.float64)
    )


def _better(sequences: Sequence[ClipSequence], means: dict[PersonScore, Floats]) -> PersonScore:
    """The score that tells fakes from reals better, on whole clips and synthesised fakes."""
    fake = np.array([sequence.fake for sequence in sequences])
    true_fake = np.array([sequence.true_fake for sequence in sequences])
    groups = np.array([sequence.group for sequence in sequences])
    whole = np.array([sequence.variant in FOOTAGE for sequence in sequences])
    counted = whole | (fake & ~true_fake)
    shares = _weights(fake[counted], true_fake[counted], groups[counted])
    return max(
        means,
        key=lambda kind: roc_auc_score(fake[counted], means[kind][counted], sample_weight=shares),
    )


def _weights(fake: Truths, true_fake: Truths, groups: NDArray[np.str_]) -> Floats:
    weights = np.zeros(len(fake))
    kinds = ((~fake, 1.0), (true_fake, TRUE_FAKE_SHARE), (fake & ~true_fake, 1 - TRUE_FAKE_SHARE))
    for inside, share in kinds:
        if not inside.any():
            continue
        _, member, counts = np.unique(groups[inside], return_inverse=True, return_counts=True)
        each = 1.0 / counts[member]
        weights[inside] = each * share / each.sum()
    # Where one kind of fake is absent, the other carries the whole weight.
    weights[fake] /= weights[fake].sum()
    return weights


def _steps(
    logits: Sequence[NDArray[np.float32]], fake: Truths, weights: Floats
) -> tuple[Floats, Truths, Floats]:
    """Every step as a row of its own; a sequence's weight is shared out among its steps."""
    lengths = np.array([len(part) for part in logits])
    return (
        np.concatenate(list(logits)).astype(np.float64),
        np.repeat(fake, lengths),
        np.repeat(weights / lengths, lengths),
    )


def _platt(
    logits: Floats, fake: Truths, weights: Floats, *, share: Floats | None = None
) -> Calibrator:
    """Fit slope and intercept; the intercept of each row is multiplied by its share."""
    columns = np.stack([logits, np.ones(len(logits)) if share is None else share], axis=1)
    regression = LogisticRegression(C=1e3, fit_intercept=False)
    regression.fit(columns, fake, sample_weight=weights * len(weights) / weights.sum())
    slope, intercept = (float(value) for value in regression.coef_[0])
    if slope <= 0:
        raise UsageError(
            f"the calibrator's slope is {slope:.3f}: fakes score below reals, the model has "
            "learned nothing that carries over to its held-out folds"
        )
    return Calibrator(slope=slope, intercept=intercept)
