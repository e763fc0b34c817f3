"""Fitting the sequence model on out-of-fold features of whole clips."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.curves import write_curves
from dfd_training.metrics import auc
from dfd_training.models import HEADS, build_sequence_model, save_model
from dfd_training.sequences import MIN_STEPS, ClipSequence

SEQUENCE_NAME = "sequence.keras"
SCORES_NAME = "out_of_fold.npz"

_LENGTH_STEP = 32


@dataclass(frozen=True, slots=True)
class FitSequenceOptions:
    """How the sequence model is fitted.

    Attributes:
        head: name in the registry.
        epochs: at most so many.
        steps: batches an epoch.
        batch_size: sequences a batch, half of them fake.
        max_steps: longest window shown in training, steps.
        learning_rate: of AdamW, at the start of the cosine.
        weight_decay: of AdamW.
        dropout: share of values dropped.
        label_smoothing: of the binary cross-entropy.
        patience: epochs without a better AUC before the fit ends.
        seed: of everything drawn.
    """

    head: str = "gru"
    epochs: int = 30
    steps: int = 40
    batch_size: int = 32
    max_steps: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    label_smoothing: float = 0.05
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UsageError(f"head {self.head!r} is unknown; known are {', '.join(sorted(HEADS))}")
        if self.max_steps < MIN_STEPS:
            raise UsageError(f"max_steps is {self.max_steps}; {MIN_STEPS} or more")


@dataclass(frozen=True)
class SequenceFit:
    """What a fit gave: the path of the shipped head, and each fold's AUC."""

    path: Path
    fold_auc: dict[int, float]


class WindowBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of windows of random start and length, padded behind; fakes and reals one to one.

    A clip of each source is drawn as often fake as real. A window that starts in mid-clip
    teaches the head to begin from a zero state anywhere, as it does after a gap.
    """

    def __init__(
        self, sequences: list[ClipSequence], options: FitSequenceOptions, *, epoch: int
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._options = options
        self._epoch = epoch
        self._pools = _pools(sequences)
        weights = np.sqrt([len(groups) for groups in self._pools])
        self._weights = weights / weights.sum()

    def __len__(self) -> int:
        return self._options.steps

    def __getitem__(
        self, index: int
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[np.float32]]:
        """Return inputs, labels [B, T] and weights [B, T] (0 on padding)."""
        rng = np.random.default_rng((self._options.seed, self._epoch, index))
        windows: list[tuple[NDArray[np.float32], bool]] = []
        for _ in range(self._options.batch_size // 2):
            groups = self._pools[int(rng.choice(len(self._pools), p=self._weights))]
            reals, fakes = groups[int(rng.integers(len(groups)))]
            for pool in (reals, fakes):
                sequence = pool[int(rng.integers(len(pool)))]
                longest = min(len(sequence.features), self._options.max_steps)
                length = int(rng.integers(min(MIN_STEPS, longest), longest + 1))
                start = int(rng.integers(len(sequence.features) - length + 1))
                windows.append((sequence.features[start : start + length], sequence.fake))
        features, mask = pad([window for window, _ in windows], self._options.max_steps)
        fake = np.array([fake for _, fake in windows], np.float32)
        labels = np.repeat(fake[:, None], self._options.max_steps, axis=1)
        return {"features": features, "mask": mask}, labels, mask.astype(np.float32)


def pad(
    features: list[NDArray[np.float32]], length: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stack sequences [t, F] into [n, length, F], zeros behind; the mask is True on real steps."""
    stacked = np.zeros((len(features), length, features[0].shape[1]), np.float32)
    mask = np.zeros((len(features), length), np.bool_)
    for row, part in enumerate(features):
        stacked[row, : len(part)] = part
        mask[row, : len(part)] = True
    return stacked, mask


def fit_sequence(
    sequences: list[ClipSequence],
    out: Path,
    *,
    options: FitSequenceOptions | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> SequenceFit:
    """Fit one head a fold, each without its fold, and keep the one without fold 0.

    The head that ships was fitted without fold 0, as the frame model that ships was; fold 0 chose
    its epoch. Each fold's out-of-fold logits come from the head fitted without it, after as many
    epochs as the other folds chose, so that the fold has no say in its own scores. Calibration
    and the choice between head and mean rest on those.

    Writes `sequence.keras`, `out_of_fold.npz` (float32 logits of every sequence, end to end, in
    the order of `sequences`), `history_foldK.csv`, `curves_foldK.png` and `run.json` into `out`.

    Raises:
        UsageError: when a fold lacks real or fake sequences.
    """
    options = options or FitSequenceOptions()
    out.mkdir(parents=True, exist_ok=True)
    held = {
        fold: [i for i, sequence in enumerate(sequences) if sequence.fold == fold]
        for fold in sorted({sequence.fold for sequence in sequences})
    }
    fits: dict[int, _FoldFit] = {}
    for fold, rows in held.items():
        fits[fold] = _fit_one(
            [sequence for sequence in sequences if sequence.fold != fold],
            [sequences[i] for i in rows],
            options,
            partial(on_epoch, fold),
        )
        fits[fold].history.to_csv(out / f"history_fold{fold}.csv", index=False)
        write_curves(fits[fold].history, out / f"curves_fold{fold}.png")
    save_model(fits[0].model, out / SEQUENCE_NAME)
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(sequences)
    for fold, rows in held.items():
        others = [fit.best_epoch for other, fit in fits.items() if other != fold]
        epoch = int(np.median(others)) if others else fits[fold].best_epoch
        scored = fits[fold].logits[min(epoch, len(fits[fold].logits) - 1)]
        for i, part in zip(rows, scored, strict=True):
            logits[i] = part
    with (out / SCORES_NAME).open("wb") as stream:
        np.savez(
            stream,
            sequence_logit=np.concatenate(logits),
            digest=np.array(digest_of(sequences)),
        )
    fold_auc = {fold: float(fit.history["val_auc"].max()) for fold, fit in fits.items()}
    settings = {"options": dataclasses.asdict(options), "fold_auc": fold_auc}
    (out / "run.json").write_text(json.dumps(settings, indent=2) + "\n")
    return SequenceFit(out / SEQUENCE_NAME, fold_auc)


def digest_of(sequences: list[ClipSequence]) -> str:
    """Tells sets of sequences apart: a hash of their frame logits and paths."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(sequence.path.encode())
        digest.update(sequence.frame_logit.tobytes())
    return digest.hexdigest()


def score_sequences(
    model: keras.Model, features: list[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Logits after each step, one float32 [T] for each features float32 [T, F]."""
    # Sequences of like length go together, their length rounded up: Keras traces few shapes.
    buckets: dict[int, list[int]] = {}
    for number, part in enumerate(features):
        buckets.setdefault(-(-len(part) // _LENGTH_STEP) * _LENGTH_STEP, []).append(number)
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(features)
    for length, numbers in buckets.items():
        padded, mask = pad([features[number] for number in numbers], length)
        scored = model.predict({"features": padded, "mask": mask}, batch_size=32, verbose=0)
        for row, number in enumerate(numbers):
            logits[number] = np.asarray(scored[row, : len(features[number])], np.float32)
    return logits


@dataclass(frozen=True)
class _FoldFit:
    """A head fitted without a fold: its best weights, and what each epoch said of the fold."""

    model: keras.Model
    history: pd.DataFrame
    best_epoch: int
    logits: list[list[NDArray[np.float32]]]


def _fit_one(
    training: list[ClipSequence],
    held: list[ClipSequence],
    options: FitSequenceOptions,
    on_epoch: Callable[[dict[str, float]], None],
) -> _FoldFit:
    keras.utils.set_random_seed(options.seed)
    width = training[0].features.shape[1]
    model = build_sequence_model(feature_width=width, head=options.head, dropout=options.dropout)
    schedule = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=options.epochs * options.steps, alpha=0.02
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=options.weight_decay, clipnorm=1.0),
        loss=_StepLoss(options.label_smoothing),
        jit_compile=False,
    )
    labels = np.array([sequence.fake for sequence in held], np.int64)
    history: list[dict[str, float]] = []
    logits: list[list[NDArray[np.float32]]] = []
    best_weights, best_epoch = model.get_weights(), 0
    for epoch in range(options.epochs):
        batches = WindowBatches(training, options, epoch=epoch)
        fitted = model.fit(batches, epochs=1, verbose=0)
        logits.append(score_sequences(model, [sequence.features for sequence in held]))
        scores = np.array([part.mean() for part in logits[-1]], np.float64)
        signed = np.where(labels == 1, -scores, scores)
        row = {
            "epoch": float(epoch),
            "loss": float(fitted.history["loss"][0]),
            "val_loss": float(np.logaddexp(0.0, signed).mean()),
            "val_auc": auc(labels, scores),
        }
        if row["val_auc"] > max((past["val_auc"] for past in history), default=-1.0):
            best_weights, best_epoch = model.get_weights(), epoch
        history.append(row)
        on_epoch(row)
        if epoch - best_epoch >= options.patience:
            break
    model.set_weights(best_weights)
    return _FoldFit(model, pd.DataFrame(history), best_epoch, logits)


@keras.saving.register_keras_serializable("dfd_training")
class _StepLoss(keras.losses.Loss):  # type: ignore[misc] # Keras is untyped
    """Binary cross-entropy of each step, [B, T]; the sample weights leave the padding out."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(name="step_loss")
        self._smoothing = label_smoothing

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of every step of labels and logits, both [B, T]."""
        smooth = y_true * (1.0 - self._smoothing) + 0.5 * self._smoothing
        return ops.softplus(y_pred) - smooth * y_pred


def _pools(
    sequences: list[ClipSequence],
) -> list[list[tuple[list[ClipSequence], list[ClipSequence]]]]:
    """For each source its groups, and of each group the real and the fake sequences.

    A group belongs to the source of its real footage.
    """
    groups: dict[str, tuple[list[ClipSequence], list[ClipSequence]]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.group, ([], []))[sequence.fake].append(sequence)
    sources: dict[str, list[tuple[list[ClipSequence], list[ClipSequence]]]] = {}
    for reals, fakes in groups.values():
        if reals and fakes:
            sources.setdefault(reals[0].source, []).append((reals, fakes))
    pools = list(sources.values())
    if not pools:
        raise UsageError("no group has both real and fake sequences to fit on")
    return pools
