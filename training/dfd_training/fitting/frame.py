"""Fitting the frame model, stage after stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.data.store import CropStore
from dfd_training.evaluation.statistics import accuracy, auc
from dfd_training.fitting.optimization import (
    FitStage,
    LogitLoss,
    WeightAverage,
    make_loss,
    make_optimizer,
    set_trainable,
    stages_of,
)
from dfd_training.fitting.options import FitFrameOptions
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.precision import (
    full_precision,
    fuse_batch_norms,
    is_mixed,
    use_half_precision,
)
from dfd_training.fitting.record import (
    HISTORY_NAME,
    PROGRESS_NAME,
    FrameEpoch,
    FrameProgress,
    assign,
    check_resumed,
    data_facts,
    values_of,
    write_curves,
    write_record,
)
from dfd_training.fitting.sources import CropSource, FrameBatches, crop_sources
from dfd_training.models import (
    build_frame_model,
    load_frame_model,
    save_model,
    with_crop_scale,
)
from dfd_training.models.bundle_weights import bundle_folder, found_weights, measure_norms
from dfd_training.models.scoring import FrameModel

BEST_NAME = "best.keras"
LAST_NAME = "last.keras"

_VALIDATION = 1_000_003
_NORMS = 1_000_033
_NORM_CROPS = 512
_PREDICT_BATCH = 64


def fit_frame(
    store: CropStore,
    out: Path,
    *,
    options: FitFrameOptions | None = None,
    pairs: PairOptions | None = None,
    resume: bool = False,
    on_epoch: Callable[[FrameEpoch], None] = lambda _: None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Path:
    """Fits the frame model and keeps the weights that separate the held-out fold best.

    Writes `best.keras`, `last.keras`, `history.csv`, `curves.png`, `settings.toml` and `run.json`
    into `out`, and `progress.npz` to go on from, with more epochs too.

    Args:
        store: The crops; only rows marked train are read.
        out: The run's folder.
        options: Options of the fit.
        pairs: Options of the drawing of pairs.
        resume: Go on where a broken-off run of the same settings stopped.
        on_epoch: Called with each epoch's row of the history.
        on_step: Called after each batch, with the epoch.

    Returns:
        The path of `best.keras`.

    Raises:
        UsageError: When `out` holds a run and `resume` is False or the settings are others, the
            rows do not suffice, or a crop cannot be read.
    """
    options = options or FitFrameOptions()
    pairs = (pairs or PairOptions()).at_crop_scale(store.crop_scale)
    begun = (out / LAST_NAME).exists()
    if begun and not resume:
        raise UsageError(f"{out}: holds a run already: give --resume or another --out")
    _check_crop_scale(store, out / LAST_NAME if begun else None, options, pairs)
    tables = {"fit": options, "pairs": pairs}
    if begun:
        check_resumed(out, tables)
    kept = (out / PROGRESS_NAME).exists()
    if begun and not kept and (out / HISTORY_NAME).exists():
        return out / BEST_NAME  # it was finished by a version that kept nothing to go on from
    progress = FrameProgress.load(out) if kept else FrameProgress()
    if kept and _is_done(progress, options):
        return out / BEST_NAME
    keras.utils.set_random_seed(options.seed)
    training, validation = crop_sources(store, options, pairs)
    held = _HeldOut.draw(validation, options)
    model = with_crop_scale(
        load_frame_model(out / LAST_NAME) if progress.history else _begin(options, pairs, training),
        store.crop_scale,
        detector=store.detector,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_record(out, tables, data=data_facts(store))
    _Fit(
        model=model,
        training=training,
        held=held,
        out=out,
        options=options,
        progress=progress,
        on_epoch=on_epoch,
        on_step=on_step,
    ).run()
    return out / BEST_NAME


@dataclass(frozen=True)
class _HeldOut:
    """Crops of the held-out fold, drawn once.

    Attributes:
        crops: float32 [n, size, size, 3].
        labels: int64 [n].
        weights: float32 [n].
    """

    crops: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def draw(cls, source: CropSource, options: FitFrameOptions) -> _HeldOut:
        seed = (options.seed, _VALIDATION)
        crops, labels, weights = source.draw(2 * options.validation_pairs, seed)
        if len(np.unique(labels)) < 2:
            raise UsageError(
                f"the {len(labels)} crops drawn from the held-out fold are of one class: raise "
                "validation_pairs"
            )
        return cls(crops.astype(np.float32), labels, weights)


class _Fit:
    """A fit, from its last epoch on."""

    def __init__(
        self,
        *,
        model: keras.Model,
        training: CropSource,
        held: _HeldOut,
        out: Path,
        options: FitFrameOptions,
        progress: FrameProgress,
        on_epoch: Callable[[FrameEpoch], None],
        on_step: Callable[[int], None],
    ) -> None:
        self._model = model
        self._training = training
        self._held = held
        self._out = out
        self._options = options
        self._progress = progress
        self._on_epoch = on_epoch
        self._on_step = on_step
        self._mixed = is_mixed(options.mixed_precision)
        self._loss = make_loss(
            options.loss,
            smoothing=options.label_smoothing,
            gamma=options.focal_gamma,
            alpha=options.focal_alpha,
            consistency=options.consistency,
        )
        self._average = WeightAverage(options.average_decay)
        if progress.history:
            assign(model.variables, progress.variables)
            self._average.weights = progress.average
        if self._mixed:
            use_half_precision(model)
        else:
            fuse_batch_norms(model)

    def run(self) -> None:
        """Runs the stages that are left."""
        if _is_done(self._progress, self._options):
            return
        for stage in stages_of(self._options):
            if len(self._progress.history) >= stage.first + stage.epochs:
                continue
            trainer = self._compiled(stage)
            for epoch in range(len(self._progress.history), stage.first + stage.epochs):
                self._epoch(trainer, stage, epoch)
                if _is_done(self._progress, self._options):
                    return

    def _compiled(self, stage: FitStage) -> keras.Model:
        """Returns a compiled model of the logit alone, which shares the weights, for a stage."""
        set_trainable(self._model, stage)
        trainer = keras.Model(self._model.input, self._model.output["fake_logit"])
        optimizer = make_optimizer(self._options, stage, mixed=self._mixed)
        optimizer.build(trainer.trainable_variables)
        if len(self._progress.history) > stage.first:
            assign(optimizer.variables, self._progress.optimizer)
        trainer.compile(
            optimizer=optimizer,
            loss=self._loss,
            metrics=[
                keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
                keras.metrics.AUC(from_logits=True, name="auc"),
            ],
            # XLA made a step of TensorFlow 8 times slower on processors; jax does nothing fast
            # without it.
            jit_compile=keras.backend.backend() == "jax",
        )
        return trainer

    def _epoch(self, trainer: keras.Model, stage: FitStage, epoch: int) -> None:
        start = time.monotonic()
        trained = self._train(trainer, epoch)
        raw = trainer.get_weights()
        assert self._average.weights is not None
        trainer.set_weights(self._average.weights)
        logits = trainer.predict(self._held.crops, batch_size=_PREDICT_BATCH, verbose=0)
        scores, labels = logits.astype(np.float64), self._held.labels
        row = FrameEpoch(
            epoch=epoch,
            stage=stage.name.value,
            **trained,
            val_loss=_held_loss(self._loss, self._options, self._held, logits),
            val_accuracy=accuracy(labels, np.where(scores >= 0.0, 1.0, 0.0)),
            val_auc=auc(labels, scores),
            seconds=time.monotonic() - start,
        )
        best_before = max((past.val_auc for past in self._progress.history), default=-1.0)
        if self._options.keep_last or row.val_auc > best_before:
            self._save(BEST_NAME)
        trainer.set_weights(raw)
        self._progress = FrameProgress(
            history=[*self._progress.history, row],
            variables=values_of(self._model.variables),
            average=self._average.weights,
            optimizer=values_of(trainer.optimizer.variables),
        )
        self._save(LAST_NAME)
        self._progress.save(self._out)
        write_curves(self._progress.table(), self._out / "curves.png")
        self._on_epoch(row)

    def _train(self, trainer: keras.Model, epoch: int) -> dict[str, float]:
        """Trains one epoch and returns its loss, accuracy and AUC."""
        batches = FrameBatches(
            self._training,
            epoch=epoch,
            steps=self._options.steps,
            batch_size=self._options.batch_size,
            seed=self._options.seed,
            threads=self._options.threads,
        )
        steps = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self._on_step(epoch)
        )
        try:
            fitted = trainer.fit(
                batches, epochs=1, verbose=0, shuffle=False, callbacks=[self._average, steps]
            )
        except Exception:
            if batches.error is not None:
                raise batches.error from None
            raise
        history: dict[str, Any] = fitted.history
        return {name: float(history[name][0]) for name in ("loss", "accuracy", "auc")}

    def _save(self, name: str) -> None:
        with full_precision(self._model):
            save_model(self._model, self._out / name)


def _begin(options: FitFrameOptions, pairs: PairOptions, training: CropSource) -> keras.Model:
    model = build_frame_model(
        backbone=options.backbone,
        input_size=pairs.input_size,
        weights=options.weights,
        dropout=options.dropout,
    )
    if bundle_folder(found_weights(options.weights)) is not None:
        measure_norms(model, training.draw(_NORM_CROPS, (options.seed, _NORMS))[0])
    return model


def _check_crop_scale(
    store: CropStore, last: Path | None, options: FitFrameOptions, pairs: PairOptions
) -> None:
    """Refuses a fit whose parts are about crops of different scales.

    Args:
        store: The crops.
        last: The model that is resumed, if any.
        options: Options of the fit; its weights may come from another frame model.
        pairs: Options of the drawing of pairs, with the widths of the crops.

    Raises:
        UsageError: The model to go on from was fitted on crops of another scale, or no pair is cut
            as the fitted model will be given its crops.
    """
    scale = store.crop_scale
    if last is not None:
        if (begun := FrameModel.find(last).crop_scale) != scale:
            raise UsageError(
                f"{last}: the run was begun with crop scale {begun:g}, that of {store.path} is "
                f"{scale:g}: give the same store or another --out"
            )
    elif not options.other_crop_scale:
        weights = found_weights(options.weights)
        start = bundle_folder(weights)
        if start is None and Path(weights).suffix == ".keras":
            start = Path(weights)
        if start is not None and (before := FrameModel.find(start).crop_scale) != scale:
            raise UsageError(
                f"--weights {options.weights}: fitted on crops of {before:g} times the face, the "
                f"crop scale of {store.path} is {scale:g}: prepare a store with --crop-scale "
                f"{before:g}, or give --fit other_crop_scale=true to go on at {scale:g}"
            )
    if not pairs.closest <= scale <= pairs.widest:
        raise UsageError(
            f"crops of {pairs.closest:g} to {pairs.widest:g} faces (closest, widest) leave out the "
            f"crop scale of {store.path}, {scale:g}, at which the model will be used: choose "
            "widths around it, or prepare a store with another --crop-scale"
        )


def _is_done(progress: FrameProgress, options: FitFrameOptions) -> bool:
    return progress.is_done(
        epochs=options.epochs, warmup_epochs=options.warmup_epochs, patience=options.patience
    )


def _held_loss(
    loss: LogitLoss, options: FitFrameOptions, held: _HeldOut, logits: NDArray[np.float32]
) -> float:
    """Returns the fit's loss on the held-out crops, of which there is one view each."""
    if options.consistency:
        loss = make_loss(
            options.loss,
            smoothing=options.label_smoothing,
            gamma=options.focal_gamma,
            alpha=options.focal_alpha,
        )
    labels = held.labels.astype(np.float32)
    return float(keras.ops.convert_to_numpy(loss(labels, logits, sample_weight=held.weights)))
