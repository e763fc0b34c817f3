"""Fitting the sequence model on out-of-fold features of whole clips."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole
from dfd_training.evaluation.statistics import accuracy, auc
from dfd_training.fitting.optimization import make_loss
from dfd_training.fitting.record import assign, numbered, values_of, write_curves, write_record
from dfd_training.models import SIGNALS_HEAD, build_sequence_model, save_model, with_crop_scale
from dfd_training.sequence.out_of_fold import digest_of, score_sequences, write_out_of_fold
from dfd_training.sequence.sequences import ClipSequence
from dfd_training.sequence.windows import FitSequenceOptions, WindowBatches

SEQUENCE_NAME = "sequence.keras"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SequenceFit:
    """The result of a fit: path of the shipped head, and each fold's AUC."""

    path: Path
    fold_auc: dict[int, float]


@dataclass
class _FoldFit:
    """A head fitted without a fold, epoch by epoch.

    Attributes:
        history: Figures of the fold after each epoch.
        values: The model's variables after each epoch.
        logits: float32, those of the fold's sequences after each epoch, end to end.
        optimizer: Its variables after the last epoch.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    values: list[list[NDArray[Any]]] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    optimizer: list[NDArray[Any]] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """First epoch with the highest AUC."""
        return int(np.argmax([row["val_auc"] for row in self.history]))

    def is_done(self, options: FitSequenceOptions) -> bool:
        """Returns whether no epoch is left."""
        last = len(self.history) - 1
        return last + 1 >= options.epochs or (
            last >= 0 and last - self.best_epoch >= options.patience
        )

    def save(self, path: Path, digest: str) -> None:
        """Writes the state as `.npz`; a file of that name is replaced once it is whole."""
        arrays: dict[str, Any] = {"digest": np.array(digest)}
        arrays["history"] = np.array(json.dumps(self.history))
        for epoch, (values, logits) in enumerate(zip(self.values, self.logits, strict=True)):
            arrays[f"logits{epoch}"] = logits
            arrays |= {f"values{epoch}.{n}": value for n, value in enumerate(values)}
        arrays |= {f"optimizer.{n}": value for n, value in enumerate(self.optimizer)}
        with written_whole(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path, digest: str) -> _FoldFit:
        """Reads the state that `save` wrote; a state of another fit is ignored."""
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["digest"]) != digest:
                logger.warning(
                    "%s: left by a fit with other options or on other clips; begun anew", path
                )
                return cls()
            history = json.loads(str(saved["history"]))
            epochs = range(len(history))
            return cls(
                history=history,
                values=[numbered(saved, f"values{epoch}") for epoch in epochs],
                logits=[saved[f"logits{epoch}"] for epoch in epochs],
                optimizer=numbered(saved, "optimizer"),
            )


def fit_sequence(
    sequences: list[ClipSequence],
    out: Path,
    *,
    crop_scale: float,
    options: FitSequenceOptions | None = None,
    resume: bool = False,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> SequenceFit:
    """Fits one head a fold, each without its fold, and keeps the one without fold 0.

    The head that ships was fitted without fold 0, as the frame model that ships was; fold 0 chose
    its epoch. Each fold's out-of-fold logits come from the head fitted without it, after as many
    epochs as the other folds chose, so that the fold has no say in its own scores. Calibration
    and the choice between head and mean rest on those.

    Writes `sequence.keras`, `out_of_fold.npz` (float32 logits of every sequence, end to end, in
    the order of `sequences`), `headK.keras` (the heads that gave them), `history_foldK.csv`,
    `curves_foldK.png`, `settings.toml` and `run.json` into `out`.

    Args:
        sequences: Sequences of all folds.
        out: The run's folder.
        crop_scale: Side of the crops behind the features, over the size of the face; the models
            carry it.
        options: Options of the fit.
        resume: Go on where a fit of the same options on the same sequences was broken off.
        on_epoch: Called with fold and figures after each epoch.

    Raises:
        UsageError: When a fold lacks real or fake sequences, or the head is the one on signals.
    """
    options = options or FitSequenceOptions()
    if options.head == SIGNALS_HEAD:
        raise UsageError("the signals head is fitted in closed form: call fit_signals_head")
    out.mkdir(parents=True, exist_ok=True)
    held = {
        fold: [i for i, sequence in enumerate(sequences) if sequence.fold == fold]
        for fold in sorted({sequence.fold for sequence in sequences})
    }
    check_folds(sequences, held)
    digest = hashlib.sha256(f"{options} {digest_of(sequences)}".encode()).hexdigest()
    fits: dict[int, _FoldFit] = {}
    for fold, rows in held.items():
        progress = out / f"fold{fold}.progress.npz"
        resumed = resume and progress.is_file()
        fits[fold] = _FoldFit.load(progress, digest) if resumed else _FoldFit()
        _fit_one(
            fits[fold],
            [sequence for sequence in sequences if sequence.fold != fold],
            [sequences[i] for i in rows],
            options,
            partial(_after_epoch, fits[fold], progress, digest, partial(on_epoch, fold)),
        )
        history = pd.DataFrame(fits[fold].history)
        history.to_csv(out / f"history_fold{fold}.csv", index=False)
        write_curves(history, out / f"curves_fold{fold}.png")
    width = sequences[0].features.shape[1]
    best = _head(fits[0].values[fits[0].best_epoch], width, options)
    save_model(with_crop_scale(best, crop_scale), out / SEQUENCE_NAME)
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(sequences)
    heads: dict[int, keras.Model] = {}
    for fold, rows in held.items():
        others = [fit.best_epoch for other, fit in fits.items() if other != fold]
        epoch = int(np.median(others)) if others else fits[fold].best_epoch
        epoch = min(epoch, len(fits[fold].logits) - 1)
        heads[fold] = with_crop_scale(_head(fits[fold].values[epoch], width, options), crop_scale)
        ends = np.cumsum([len(sequences[i].frame_logit) for i in rows])
        for i, part in zip(rows, np.split(fits[fold].logits[epoch], ends[:-1]), strict=True):
            logits[i] = part
    write_out_of_fold(out, sequences, logits, heads)
    fold_auc = {fold: max(row["val_auc"] for row in fit.history) for fold, fit in fits.items()}
    data = {
        "sequences": len(sequences),
        "sha256": digest_of(sequences),
        "crop_scale": crop_scale,
    }
    write_record(out, {"fit": options}, data=data, fold_auc=fold_auc)
    for fold in held:
        (out / f"fold{fold}.progress.npz").unlink()
    return SequenceFit(out / SEQUENCE_NAME, fold_auc)


def check_folds(sequences: Sequence[ClipSequence], held: Mapping[int, Sequence[int]]) -> None:
    """Refuses folds that could not be judged, or leave nothing to fit on.

    Args:
        sequences: Sequences of all folds.
        held: By fold, the numbers of its sequences.

    Raises:
        UsageError: There is but one fold, none is fold 0, or one lacks reals or fakes.
    """
    if 0 not in held or len(held) < 2:
        raise UsageError(
            f"the clips fall into the folds {sorted(held)}: fold 0 and another are needed; add "
            "groups of clips to the table"
        )
    for fold, rows in held.items():
        fakes = sum(sequences[i].fake for i in rows)
        if fakes in (0, len(rows)):
            raise UsageError(
                f"fold {fold} has {len(rows) - fakes} real and {fakes} fake clips: both kinds are "
                "needed in every fold; add groups of clips to the table"
            )


def _fit_one(
    fit: _FoldFit,
    training: list[ClipSequence],
    held: list[ClipSequence],
    options: FitSequenceOptions,
    after_epoch: Callable[[dict[str, float]], None],
) -> None:
    """Fits the head without a fold, from the last epoch of `fit` on."""
    keras.utils.set_random_seed(options.seed)
    model = _compiled(training[0].features.shape[1], options)
    if fit.history:
        assign(model.variables, fit.values[-1])
        assign(model.optimizer.variables, fit.optimizer)
    labels = np.array([sequence.fake for sequence in held], np.int64)
    for epoch in range(len(fit.history), options.epochs):
        if fit.is_done(options):
            return
        batches = WindowBatches(training, options, epoch=epoch)
        fitted = model.fit(batches, epochs=1, verbose=0)
        logits = score_sequences(model, held)
        scores = np.array([part.mean() for part in logits], np.float64)
        signed = np.where(labels == 1, -scores, scores)
        row = {
            "epoch": float(epoch),
            **{name: float(fitted.history[name][0]) for name in ("loss", "accuracy", "auc")},
            "val_loss": float(np.logaddexp(0.0, signed).mean()),
            "val_accuracy": accuracy(labels, np.where(scores >= 0.0, 1.0, 0.0)),
            "val_auc": auc(labels, scores),
        }
        fit.history.append(row)
        fit.values.append(values_of(model.variables))
        fit.logits.append(np.concatenate(logits))
        fit.optimizer = values_of(model.optimizer.variables)
        after_epoch(row)


def _after_epoch(
    fit: _FoldFit,
    path: Path,
    digest: str,
    on_epoch: Callable[[dict[str, float]], None],
    row: dict[str, float],
) -> None:
    fit.save(path, digest)
    on_epoch(row)


def _compiled(width: int, options: FitSequenceOptions) -> keras.Model:
    model = build_sequence_model(feature_width=width, head=options.head, dropout=options.dropout)
    schedule = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=options.epochs * options.steps, alpha=0.02
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=options.weight_decay, clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    loss = make_loss(
        options.loss,
        smoothing=options.label_smoothing,
        gamma=options.focal_gamma,
        alpha=options.focal_alpha,
    )
    model.compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=[
            keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
            keras.metrics.AUC(from_logits=True, name="auc"),
        ],
        jit_compile=keras.backend.backend() == "jax",  # which does nothing fast without it
    )
    return model


def _head(values: list[NDArray[Any]], width: int, options: FitSequenceOptions) -> keras.Model:
    """Builds the model with the variables of an epoch."""
    model = build_sequence_model(feature_width=width, head=options.head, dropout=options.dropout)
    assign(model.variables, values)
    return model
