"""Baseline classifiers: quick ones for the leak checks, and a linear probe on ImageNet features."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dfd_edge.errors import UsageError
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore
from dfd_training.evaluation.crops.scoring import embedding
from dfd_training.evaluation.statistics import Labels, Scores, auc
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.fitting.sources import draw_pairs
from dfd_training.models import build_frame_model, save_model, with_crop_scale

FOLDS = 5
Features = NDArray[np.float64]
ClassifierFactory = Callable[[int], Any]
"""Creates an unfitted scikit-learn classifier from a seed."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Candidates for the inverse strength of the penalty; the held-out fold chooses."""

_BATCH_PAIRS = 32


def forest(seed: int) -> Any:  # noqa: ANN401 - scikit-learn is untyped
    """Creates a random forest (Breiman, 2001), for few features of mixed kinds."""
    return RandomForestClassifier(
        100, min_samples_leaf=2, class_weight="balanced", random_state=seed, n_jobs=1
    )


def linear(seed: int) -> Any:  # noqa: ANN401 - scikit-learn is untyped
    """Creates a logistic regression on standardised features, for many features of one kind."""
    del seed
    regression = LogisticRegression(C=0.01, class_weight="balanced", max_iter=500)
    return make_pipeline(StandardScaler(), regression)


def out_of_fold(
    make: ClassifierFactory,
    features: Features,
    labels: Labels,
    groups: NDArray[np.str_],
    *,
    seed: int = 0,
) -> Scores:
    """Scores each row by a classifier that saw no row of its group.

    Args:
        make: Creates the classifier.
        features: float [n, F].
        labels: int [n], 1 for fake.
        groups: Text [n].
        seed: Seed of the folds and the classifier.

    Returns:
        float [n], the probability of fake.

    Raises:
        UsageError: Fakes or reals come from one group only.
    """
    few = min(len(set(groups[labels == 1])), len(set(groups[labels == 0])))
    if few < 2:
        raise UsageError(
            "the rows hold fakes or reals of one group only: a classifier cannot be held against "
            "groups that it has not seen"
        )
    scores = np.full(len(labels), np.nan)
    folds = StratifiedGroupKFold(min(FOLDS, few), shuffle=True, random_state=seed)
    for train, test in folds.split(features, labels, groups):
        if 0 < labels[train].sum() < len(train):
            scores[test] = fit_and_score(
                make, features[train], labels[train], features[test], seed=seed
            )
    known = ~np.isnan(scores)
    scores[~known] = labels[known].mean() if known.any() else 0.5
    return scores


def fit_and_score(
    make: ClassifierFactory, features: Features, labels: Labels, others: Features, *, seed: int = 0
) -> Scores:
    """Fits on some rows and scores others: float [m], the probability of fake.

    Raises:
        UsageError: The rows to fit on are all fakes or all reals.
    """
    if not 0 < labels.sum() < len(labels):
        raise UsageError("the rows to fit on hold fakes only or reals only: nothing to tell apart")
    classifier = make(seed)
    classifier.fit(features, labels)
    return np.asarray(classifier.predict_proba(others)[:, 1], np.float64)


def paired_wins(
    differences: Features, groups: NDArray[np.str_], guide: Features | None = None
) -> NDArray[np.float64]:
    """Picks the fake of each pair by the difference of their features, learned from other pairs.

    Args:
        differences: float [pairs, F], the fake's features less its original's.
        groups: Text [pairs].
        guide: float [m, F], differences of other pairs to learn from; None to learn from the
            pairs of the other groups.

    Returns:
        float [pairs]: 1 where the fake is picked, 0 where its original is, 0.5 where nothing
        differs.

    Raises:
        UsageError: There is no guide, and there are pairs of one group only.
    """
    if guide is not None:
        return _prefers_fake(guide, differences)
    if len(set(groups)) < 2:
        raise UsageError("pairs of one group only: nothing to learn from")
    won = np.zeros(len(differences))
    folds = GroupKFold(min(10, len(set(groups))))
    for train, test in folds.split(differences, groups=groups):
        won[test] = _prefers_fake(differences[train], differences[test])
    return won


def _prefers_fake(guide: Features, differences: Features) -> NDArray[np.float64]:
    """Returns the choices of a logistic regression through the origin, fitted on the guide."""
    scale = np.sqrt((guide**2).mean(axis=0))
    known, unknown = (
        np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)
        for rows in (guide, differences)
    )
    regression = LogisticRegression(C=1.0, fit_intercept=False, max_iter=500)
    regression.fit(np.concatenate([known, -known]), np.repeat([1, 0], len(known)))
    margins = regression.decision_function(unknown)
    return np.where(np.abs(margins) < 1e-9, 0.5, (margins > 0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """Options of the probe's fit.

    Attributes:
        pairs: Number of pairs to fit on.
        held_out_pairs: Number of pairs from the held-out fold.
        holdout: The held-out fold, which chooses the penalty.
        seed: Seed of all drawing.
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
        path: The `.keras` frame model: EfficientNet-Lite0 with its ImageNet weights and a new
            logit.
        strength: The inverse strength of the penalty that the held-out fold chose.
        held_out_auc: AUC on pairs of the held-out fold.
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
    """Fits logistic regression on the frozen features of pairs, drawn as for the frame model.

    Writes `best.keras` and `run.json` into `out`; every command that judges frame models can
    judge the probe.

    Args:
        store: The crops; only rows marked train are read.
        out: Folder of the run.
        options: Options of the fit.
        pairs: Options of drawing pairs.
        on_batch: Called with the number of pairs just drawn.

    Raises:
        UsageError: There are too few rows.
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
    save_model(
        with_crop_scale(model, store.crop_scale, detector=store.detector), out / "best.keras"
    )
    settings = {"options": dataclasses.asdict(options), "pairs": dataclasses.asdict(pairs)}
    (out / "run.json").write_text(json.dumps(settings, indent=2) + "\n")
    return Probe(out / "best.keras", strength, area)
