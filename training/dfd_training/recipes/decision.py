"""Calibrators and thresholds of a recipe, from groups that neither its fit nor its stop saw."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.manifest import Calibrator, DecisionSpec, Metric, PersonScore, Threshold
from dfd_training.data.table import is_fake
from dfd_training.decision.calibrate import calibrate
from dfd_training.metrics import METRICS, estimate, to_metric
from dfd_training.sequence.sequences import ClipSequence, Treatment

MIN_GROUPS = 3
"""With fewer groups of real or of fake clips nothing is calibrated."""

_FIGURES = ("auc", "accuracy", "log_loss")


@dataclass(frozen=True, slots=True)
class RecipeDecision:
    """The decision, and what there is to say of it.

    Attributes:
        spec: of the bundle.
        metrics: on the groups that it was set on; empty where there are too few.
        unmeasured: why nothing was calibrated; None where it was.
    """

    spec: DecisionSpec
    metrics: dict[str, Metric]
    unmeasured: str | None = None


def decide(
    rows: pd.DataFrame,
    frame_logits: list[NDArray[np.float32]],
    last_logits: NDArray[np.float32],
    *,
    draws: int = 1000,
) -> RecipeDecision:
    """Sets the decision by the rules of `calibrate`, a clip's score being its last logit.

    Args:
        rows: the held-out clips: `label`, `path`, `group`, `source`.
        frame_logits: float32 [T] of each.
        last_logits: float32 [n].
        draws: bootstrap samples for the intervals.

    Returns:
        The decision; where the groups do not suffice, or score the wrong way round, the published
        one: the probability as the network gives it, `fake` from one half on.
    """
    fake = is_fake(rows) if len(rows) else np.zeros(0, np.bool_)
    groups = rows["group"].to_numpy(np.str_) if len(rows) else np.zeros(0, np.str_)
    counts = [len(set(groups[fake == kind])) for kind in (False, True)]
    if min(counts) < MIN_GROUPS:
        reason = (
            f"the held-out groups are {counts[0]} with real and {counts[1]} with fake clips, and "
            f"{MIN_GROUPS} of each are needed"
        )
        return RecipeDecision(_published(), {}, reason)
    scores = np.asarray(1.0 / (1.0 + np.exp(-last_logits.astype(np.float64))))
    labels = fake.astype(np.int64)
    metrics = {
        f"held-out groups of train, clip {name}": to_metric(
            estimate(METRICS[name], labels, scores, groups, draws=draws)
        )
        for name in _FIGURES
    }
    sequences = [
        ClipSequence(
            path=str(row.path),
            group=str(row.group),
            source=str(row.source),
            fold=0,
            variant=Treatment.PLAIN,
            fake=bool(truth),
            true_fake=bool(truth),
            features=np.zeros((1, 0), np.float32),
            frame_logit=logits,
            detail=np.full(1, np.inf, np.float32),
            face_px=np.zeros(1, np.float32),
        )
        for row, truth, logits in zip(rows.itertuples(), fake, frame_logits, strict=True)
    ]
    last = [np.array([logit], np.float32) for logit in last_logits]
    try:
        found = calibrate(sequences, last, person_score=PersonScore.SEQUENCE, draws=draws).decision
    except UsageError as error:
        return RecipeDecision(_published(), metrics, str(error))
    return RecipeDecision(dataclasses.replace(found, person_score=PersonScore.LAST), metrics)


def _published() -> DecisionSpec:
    half = Threshold(probability=0.5, target_rate=1.0, rate=0.0, n=0, upper_bound=1.0)
    return DecisionSpec(
        person_score=PersonScore.LAST,
        calibrators={name: Calibrator(1.0, 0.0) for name in ("frame", "step", "person")},
        thresholds={"real": half, "fake": half},
    )
