"""A linear probe: how far frozen ImageNet features go on the pairs that the model is fitted on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dfd_edge.errors import UsageError
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.fitting.sources import draw_pairs
from dfd_training.metrics import Labels, auc
from dfd_training.models import build_frame_model, save_model, with_crop_scale
from dfd_training.quality.quick import Features
from dfd_training.quality.scoring import embedding

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse strengths of the penalty that are tried; the held-out fold chooses."""

_BATCH_PAIRS = 32


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How the probe is fitted.

    Attributes:
        pairs: drawn to fit on.
        held_out_pairs: drawn from the held-out fold.
        holdout: the fold that is not fitted on and chooses the penalty.
        seed: of everything drawn.
    """

    pairs: int = 1500
    held_out_pairs: int = 300
    holdout: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pairs", "held_out_pairs"):
            if getattr(self, name) < 2:
                raise UsageError(f"{name} is {getattr(self, name)}; 2 or more")
        if not 0 <= self.holdout < len(FOLD_SHARES):
            raise UsageError(
                f"fold {self.holdout} does not exist; there are {len(FOLD_SHARES)}, from 0"
            )


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe.

    Attributes:
        path: the `.keras` frame model: EfficientNet-Lite0 as ImageNet left it, with a new logit.
        strength: the inverse strength of the penalty that the held-out fold chose.
        held_out_auc: on pairs of the held-out fold.
    """

    path: Path
    strength: float
    held_out_auc: float


def fit_probe(
    store: CropStore,
    out: Path,
    *,
    options: ProbeOptions | None = None,
    pairs: PairOptions | None = None,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Probe:
    """Fit logistic regression on the frozen features of pairs, drawn as for the frame model.

    Writes `best.keras` and `run.json` into `out`; the model is one like any other, so that every
    command that judges frame models judges the probe.

    Args:
        store: the crops; only rows marked train are read.
        out: the run's folder.
        options: of the fit.
        pairs: of the drawing of pairs.
        on_batch: called with the number of pairs just drawn.

    Raises:
        UsageError: when the rows do not suffice.
    """
    options, pairs = options or ProbeOptions(), pairs or PairOptions()
    rows = training_rows(store)
    held = rows["fold"] == options.holdout
    embed = embedding(pairs.input_size)

    def collect(sampler: PairSampler, count: int, purpose: int) -> tuple[Features, Labels]:
        parts: list[tuple[Features, Labels]] = []
        for start in range(0, count, _BATCH_PAIRS):
            number = min(_BATCH_PAIRS, count - start)
            crops, labels = draw_pairs(sampler, number, seed=(options.seed, purpose, start))
            parts.append((embed(crops), labels))
            on_batch(number)
        features, kinds = zip(*parts, strict=True)
        return np.concatenate(features), np.concatenate(kinds)

    features, labels = collect(PairSampler(store, rows[~held], pairs), options.pairs, 0)
    others, truth = collect(PairSampler(store, rows[held], pairs), options.held_out_pairs, 1)
    scaler = StandardScaler().fit(features)
    fits = {}
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=1000)
        regression.fit(scaler.transform(features), labels)
        area = auc(truth, regression.decision_function(scaler.transform(others)))
        fits[strength] = (area, regression)
    strength = max(fits, key=lambda value: fits[value][0])
    area, regression = fits[strength]
    model = build_frame_model(input_size=pairs.input_size)
    # Standardisation is folded into the logit's weights.
    kernel = regression.coef_[0] / scaler.scale_
    bias = regression.intercept_ - kernel @ scaler.mean_
    model.get_layer("evidence_head").set_weights([kernel[:, None], bias])
    out.mkdir(parents=True, exist_ok=True)
    save_model(with_crop_scale(model, store.crop_scale), out / "best.keras")
    settings = {"options": dataclasses.asdict(options), "pairs": dataclasses.asdict(pairs)}
    (out / "run.json").write_text(json.dumps(settings, indent=2) + "\n")
    return Probe(out / "best.keras", strength, area)
