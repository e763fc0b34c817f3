"""From out-of-fold logits to calibrated probabilities, thresholds and the card's figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from dfd_edge.errors import UsageError
from dfd_edge.manifest import Calibrator, DecisionSpec, Metric, PersonScore, Threshold
from dfd_training.fit_sequence import SCORES_NAME, digest_of
from dfd_training.metrics import auc, estimate, rate_upper_bound, to_metric
from dfd_training.sequences import MIN_STEPS, ClipSequence, Variant

FALSE_POSITIVE_TARGET = 0.02
MISS_TARGET = 0.10
TRUE_FAKE_SHARE = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What calibration gives: the bundle's decision, and figures on the training's own folds."""

    decision: DecisionSpec
    metrics: dict[str, Metric]


def read_out_of_fold(folder: Path, sequences: list[ClipSequence]) -> list[NDArray[np.float32]]:
    """Read the sequence logits that `fit_sequence` wrote, one float32 [T] a sequence.

    Raises:
        UsageError: when they were computed on other sequences.
    """
    path = folder / SCORES_NAME
    if not path.is_file():
        raise UsageError(f"{path}: no out-of-fold scores: run dfd-train fit sequence first")
    with np.load(path, allow_pickle=False) as saved:
        logits, digest = saved["sequence_logit"], str(saved["digest"])
    if digest != digest_of(sequences):
        raise UsageError(
            f"{path}: these scores are of other frame models, crops or another seed: fit the "
            "sequence again"
        )
    lengths = [len(sequence.frame_logit) for sequence in sequences]
    return list(np.split(logits, np.cumsum(lengths)[:-1]))


def calibrate(
    sequences: list[ClipSequence],
    sequence_logits: list[NDArray[np.float32]],
    *,
    draws: int = 1000,
) -> Calibration:
    """Choose the person's score, fit the calibrators (Platt, 1999) and set the thresholds.

    Everything rests on scores of clips that their model never saw. In the fits, reals and fakes
    weigh the same, true fakes as much as synthesised ones, and each group of footage as much as
    any other. Thresholds are set on real clips and true fakes, as they are.

    Args:
        sequences: out-of-fold features and frame logits.
        sequence_logits: out-of-fold logits of each step, in the same order.
        draws: bootstrap samples for the intervals.

    Raises:
        UsageError: when there are no true fakes or no reals.
    """
    fake = np.array([sequence.fake for sequence in sequences])
    true_fake = np.array([sequence.true_fake for sequence in sequences])
    plain = np.array([sequence.variant is Variant.PLAIN for sequence in sequences])
    groups = np.array([sequence.group for sequence in sequences])
    if not true_fake.any() or fake.all():
        raise UsageError("calibration needs real clips and true fakes among the rows of train")
    weights = _weights(fake, true_fake, groups)
    frame_mean = np.array([sequence.frame_logit.mean() for sequence in sequences], np.float64)
    step_mean = np.array([logits.mean() for logits in sequence_logits], np.float64)
    counted = plain | ~true_fake
    scores = {PersonScore.FRAME: frame_mean, PersonScore.SEQUENCE: step_mean}
    shares = _weights(fake[counted], true_fake[counted], groups[counted])
    areas = {
        kind: _weighted_auc(fake[counted], values[counted], shares)
        for kind, values in scores.items()
    }
    chosen = max(areas, key=lambda kind: areas[kind])
    person_fit = _platt(scores[chosen], fake, weights)
    p_person = _sigmoid(person_fit, scores[chosen])
    calibrators = {
        "frame": _platt(*_steps([s.frame_logit for s in sequences], fake, weights)),
        "step": _platt(*_steps(sequence_logits, fake, weights)),
        "person": person_fit,
    }
    paths = np.array([sequence.path for sequence in sequences])
    p_real = _highest_by_clip(p_person, paths, ~fake & plain)
    p_true_fake = _highest_by_clip(p_person, paths, true_fake & plain)
    decision = DecisionSpec(
        person_score=chosen,
        calibrators=calibrators,
        thresholds=_thresholds(p_real, p_true_fake),
        min_steps=MIN_STEPS,
    )
    return Calibration(decision, _fold_metrics(sequences, scores, draws))


def _weights(
    fake: NDArray[np.bool_], true_fake: NDArray[np.bool_], groups: NDArray[np.str_]
) -> Floats:
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


def _weighted_auc(fake: NDArray[np.bool_], scores: Floats, weights: Floats) -> float:
    """AUC with weights: the chance that a drawn fake scores above a drawn real."""
    reals, fakes = scores[~fake], scores[fake]
    order = np.argsort(reals)
    below = np.concatenate([[0.0], np.cumsum(weights[~fake][order])])
    lower = below[np.searchsorted(reals[order], fakes, side="left")]
    upper = below[np.searchsorted(reals[order], fakes, side="right")]
    shares = weights[fake] / weights[fake].sum()
    return float((shares * (lower + upper) / 2.0).sum() / below[-1])


def _steps(
    logits: list[NDArray[np.float32]], fake: NDArray[np.bool_], weights: Floats
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Every step as a row of its own; a sequence's weight is shared out among its steps."""
    lengths = np.array([len(part) for part in logits])
    return (
        np.concatenate(logits).astype(np.float64),
        np.repeat(fake, lengths),
        np.repeat(weights / lengths, lengths),
    )


def _platt(logits: Floats, fake: NDArray[np.bool_], weights: Floats) -> Calibrator:
    regression = LogisticRegression(C=1e3)
    regression.fit(logits[:, None], fake, sample_weight=weights * len(weights) / weights.sum())
    slope = float(regression.coef_[0, 0])
    if slope <= 0:
        raise UsageError(
            f"the calibrator's slope is {slope:.3f}: fakes score below reals, the model has "
            "learned nothing that carries over to its held-out folds"
        )
    return Calibrator(slope=slope, intercept=float(regression.intercept_[0]))


def _sigmoid(calibrator: Calibrator, logits: Floats) -> Floats:
    scaled = calibrator.slope * logits + calibrator.intercept
    return np.asarray(1.0 / (1.0 + np.exp(-scaled)), np.float64)


def _highest_by_clip(p: Floats, paths: NDArray[np.str_], rows: NDArray[np.bool_]) -> Floats:
    """A clip's score is its most suspicious person's, as in the runtime."""
    clips, member = np.unique(paths[rows], return_inverse=True)
    highest = np.zeros(len(clips))
    np.maximum.at(highest, member, p[rows])
    return highest


def _thresholds(p_real: Floats, p_fake: Floats) -> dict[str, Threshold]:
    """`fake` where few reals reach, `real` where few true fakes reach; never across 0.5."""
    allowed = int(FALSE_POSITIVE_TARGET * len(p_real))
    highest = np.sort(p_real)[::-1]
    fake_at = max(0.5, _above(highest[allowed]) if allowed < len(highest) else 0.5)
    missed = int(MISS_TARGET * len(p_fake))
    lowest = np.sort(p_fake)
    real_at = min(0.5, _below(lowest[missed]) if missed < len(lowest) else 0.5)
    false_positives, misses = int((p_real >= fake_at).sum()), int((p_fake <= real_at).sum())
    return {
        "fake": Threshold(
            probability=fake_at,
            target_rate=FALSE_POSITIVE_TARGET,
            rate=false_positives / len(p_real),
            n=len(p_real),
            upper_bound=rate_upper_bound(false_positives, len(p_real)),
        ),
        "real": Threshold(
            probability=real_at,
            target_rate=MISS_TARGET,
            rate=misses / len(p_fake),
            n=len(p_fake),
            upper_bound=rate_upper_bound(misses, len(p_fake)),
        ),
    }


def _above(probability: float) -> float:
    """The next probability of four decimals: one that survives being printed."""
    return float(min(1.0, np.round(np.floor(probability * 1e4) / 1e4 + 1e-4, 4)))


def _below(probability: float) -> float:
    return float(max(0.0, np.round(np.ceil(probability * 1e4) / 1e4 - 1e-4, 4)))


def _fold_metrics(
    sequences: list[ClipSequence], scores: dict[PersonScore, Floats], draws: int
) -> dict[str, Metric]:
    """Clip AUC of head and of mean on the held-out folds, for true and for synthesised fakes."""
    plain = np.array([sequence.variant is Variant.PLAIN for sequence in sequences])
    real = np.array([not sequence.fake for sequence in sequences]) & plain
    true_fake = np.array([sequence.true_fake for sequence in sequences])
    swap_groups = {sequence.group for sequence in sequences if sequence.true_fake}
    paired = np.array([sequence.group in swap_groups for sequence in sequences])
    synthetic = np.array([sequence.fake for sequence in sequences]) & ~true_fake
    groups = np.array([sequence.group for sequence in sequences])
    metrics: dict[str, Metric] = {}
    cases = {
        "true swaps against their originals": (real & paired) | (true_fake & plain),
        "true swaps against all real clips": real | (true_fake & plain),
        "synthesised fakes against all real clips": real | synthetic,
    }
    for case, rows in cases.items():
        for kind, values in scores.items():
            labels = (~real[rows]).astype(np.int64)
            figure = estimate(auc, labels, values[rows], groups[rows], draws=draws)
            metrics[f"training folds, {case}, clip AUC ({_SCORE_NAMES[kind]})"] = to_metric(figure)
    return metrics


_SCORE_NAMES = {PersonScore.FRAME: "mean of CNN logits", PersonScore.SEQUENCE: "GRU"}
