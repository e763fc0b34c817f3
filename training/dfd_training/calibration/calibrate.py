"""Calibration: person's score, calibrators, thresholds and figures from out-of-fold logits."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dfd_edge.bundle.manifest import Calibrator, DecisionSpec, Metric, PersonScore, StillSpec
from dfd_edge.errors import UsageError
from dfd_training.calibration.fold_metrics import clip_metrics, shrinkage_metrics, threshold_metrics
from dfd_training.calibration.shrinkage import fit_shrinkage, pooled
from dfd_training.calibration.thresholds import (
    ClipScores,
    decision_thresholds,
)
from dfd_training.sequence.sequences import FOOTAGE, MIN_STEPS, ClipSequence, Treatment

TRUE_FAKE_SHARE = 0.5

logger = logging.getLogger(__name__)
FEWEST_STILLS = 50
"""Real photographs, and fake ones, that a decision on stills needs."""

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]


class NoDecisionError(UsageError):
    """Clips or scores that no decision can be set on; the message gives the cause alone."""


@dataclass(frozen=True)
class Calibration:
    """The decision of a precision, and figures on the training's own folds."""

    decision: DecisionSpec
    metrics: dict[str, Metric]


def calibrate(
    sequences: Sequence[ClipSequence],
    sequence_logits: Sequence[NDArray[np.float32]],
    *,
    precision: str = "fp32",
    person_score: PersonScore | None = None,
    photographs: Sequence[ClipSequence] = (),
    cameras: Collection[str] = (),
    draws: int = 1000,
) -> Calibration:
    """Chooses the person's score, fits the calibrators (Platt, 1999) and sets the thresholds.

    All scores are of clips that their model did not see. In the fits, reals weigh as much as
    fakes, true fakes as much as synthesised ones, and every group of footage the same. Thresholds
    are set on real clips and true fakes, plain and degraded.

    Args:
        sequences: Out-of-fold features and frame logits of one precision of the frame models.
        sequence_logits: Out-of-fold logits of each step, in the same order.
        precision: Precision of the frame models, for the names of figures.
        person_score: The person's score; by default the one with the higher AUC on the folds.
        photographs: Out-of-fold frame logits of photographs. Stills get a decision of their own
            where there are `FEWEST_STILLS` real ones and as many fakes.
        cameras: Sources that are recordings by webcams, phones and browsers: they weigh as much
            as all other real clips together when thresholds are set.
        draws: Bootstrap samples for the intervals.

    Raises:
        NoDecisionError: There are no true fakes or no reals, or fakes score below reals.
    """
    fake = np.array([sequence.fake for sequence in sequences])
    true_fake = np.array([sequence.true_fake for sequence in sequences])
    groups = np.array([sequence.group for sequence in sequences])
    if not true_fake.any() or fake.all():
        raise NoDecisionError(
            "calibration needs real clips and true fakes among the rows marked train, here are "
            f"{int((~fake).sum())} and {int(true_fake.sum())}"
        )
    sources = {sequence.source for sequence in sequences if not sequence.fake}
    if cameras and (unknown := sorted(set(cameras) - sources)):
        logger.warning("no real clips of %s: these cameras do not count", ", ".join(unknown))
    weights = _weights(fake, true_fake, groups)
    logits = {
        PersonScore.FRAME: [sequence.frame_logit for sequence in sequences],
        PersonScore.SEQUENCE: list(sequence_logits),
    }
    # Logits of frames and of sequences may differ in number: a recipe has one of the latter.
    means = {
        kind: np.array([part.mean() for part in parts], np.float64)
        for kind, parts in logits.items()
    }
    chosen = person_score or _better_score(sequences, means)
    shrinkage = fit_shrinkage(sequences, logits[chosen], weights, draws=draws)
    people = pooled(sequences, logits[chosen], shrinkage)
    person = _platt(people.logit, fake, weights, share=people.share)
    calibrators = {
        "frame": _platt(*_per_step(logits[PersonScore.FRAME], fake, weights)),
        "step": _platt(*_per_step(logits[PersonScore.SEQUENCE], fake, weights)),
        "person": person,
    }
    score = people.scaled(person.slope, person.intercept)
    clips = ClipScores.of(sequences, np.asarray(expit(score), np.float64), cameras=cameras)
    still = _still_decision(photographs)
    decision = DecisionSpec(
        person_score=chosen,
        calibrators=calibrators,
        thresholds=decision_thresholds(clips.footage(fake=False), clips.footage(fake=True)),
        min_steps=MIN_STEPS,
        settle_steps=shrinkage.steps,
        settle_detail=shrinkage.detail,
        still=still,
    )
    stills = _still_scores(photographs, still.calibrator if still else calibrators["frame"])
    named = {
        **clip_metrics(sequences, means, score, draws),
        **threshold_metrics(decision, clips, stills),
        **shrinkage_metrics(shrinkage),
    }
    metrics = {f"training folds, {precision}, {name}": metric for name, metric in named.items()}
    return Calibration(decision, metrics)


def _still_decision(photographs: Sequence[ClipSequence]) -> StillSpec | None:
    """Fits a calibrator on photographs and sets thresholds; None where there are too few."""
    fake = np.array([photograph.fake for photograph in photographs], np.bool_)
    whole = np.array([photograph.variant is Treatment.PLAIN for photograph in photographs], bool)
    if min((fake & whole).sum(), (~fake & whole).sum()) < FEWEST_STILLS:
        return None
    groups = np.array([photograph.group for photograph in photographs])
    calibrator = _platt(_still_logits(photographs), fake, _weights(fake, fake, groups))
    scores = _still_scores(photographs, calibrator)
    thresholds = decision_thresholds(scores.footage(fake=False), scores.footage(fake=True))
    return StillSpec(calibrator, thresholds)


def _still_logits(photographs: Sequence[ClipSequence]) -> Floats:
    return np.array([photograph.frame_logit.mean() for photograph in photographs], np.float64)


def _still_scores(photographs: Sequence[ClipSequence], calibrator: Calibrator) -> ClipScores:
    """Returns photographs with the probability of their crop."""
    logits = calibrator.slope * _still_logits(photographs) + calibrator.intercept
    return ClipScores.of(photographs, np.asarray(expit(logits), np.float64))


def _better_score(
    sequences: Sequence[ClipSequence], means: dict[PersonScore, Floats]
) -> PersonScore:
    """Returns the score with the higher AUC on whole clips and synthesised fakes."""
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


def _per_step(
    logits: Sequence[NDArray[np.float32]], fake: Truths, weights: Floats
) -> tuple[Floats, Truths, Floats]:
    """Returns every step as a row; a sequence's weight is divided among its steps."""
    lengths = np.array([len(part) for part in logits])
    return (
        np.concatenate(list(logits)).astype(np.float64),
        np.repeat(fake, lengths),
        np.repeat(weights / lengths, lengths),
    )


def _platt(
    logits: Floats, fake: Truths, weights: Floats, *, share: Floats | None = None
) -> Calibrator:
    """Fits slope and intercept; the intercept of each row is multiplied by its share."""
    columns = np.stack([logits, np.ones(len(logits)) if share is None else share], axis=1)
    regression = LogisticRegression(C=1e3, fit_intercept=False)
    regression.fit(columns, fake, sample_weight=weights * len(weights) / weights.sum())
    slope, intercept = (float(value) for value in regression.coef_[0])
    if slope <= 0:
        raise NoDecisionError(
            f"the calibrator's slope is {slope:.3f}: fakes score below reals, the model has "
            "learned nothing that carries over to its held-out folds"
        )
    return Calibrator(slope=slope, intercept=intercept)
