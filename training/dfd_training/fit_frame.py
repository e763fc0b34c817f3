"""Fitting the frame model on pairs of real and fake crops."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.curves import write_curves
from dfd_training.folds import FOLD_SHARES, assign_folds
from dfd_training.metrics import auc
from dfd_training.models import build_frame_model, load_frame_model, save_model
from dfd_training.models.fused_norm import fuse_batch_norms
from dfd_training.pairs import PairOptions, PairSampler
from dfd_training.store import CropStore

_AVERAGE_EVERY = 10


class Media(StrEnum):
    """Kinds of files."""

    PHOTOGRAPHS = "photographs"
    CLIPS = "clips"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class FitFrameOptions:
    """How the frame model is fitted.

    Attributes:
        backbone: name in the registry.
        weights: "imagenet", "none", a file of weights, or a `.keras` frame model to go on from.
        train_on: which rows are trained on.
        validate_on: which rows of the held-out fold choose the best weights.
        holdout: the fold that is not trained on; -1 trains on all rows marked train.
        epochs: at most so many.
        steps: batches an epoch.
        batch_size: crops a batch, half of them real.
        learning_rate: at the start of the cosine.
        weight_decay: of AdamW.
        label_smoothing: of the binary cross-entropy.
        average_decay: of the moving average of weights, a step of 10 batches.
        consistency: weight of the squared difference between the logits of two views of a crop,
            degraded by different draws; 0 draws one view.
        freeze_batch_norm: keep the statistics and scales of batch norms that start trained: on
            processors a step takes half the time, but it learns much less.
        keep_last: keep the last epoch's averaged weights in the place of those that separate the
            held-out fold best, which then had no say in them.
        without_sources: sources that are left out of training and validation.
        patience: epochs without a better validation AUC before the fit ends.
        validation_pairs: pairs drawn once from the held-out fold.
        seed: of everything drawn.
        threads: threads that draw batches.
    """

    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    train_on: Media = Media.ALL
    validate_on: Media = Media.ALL
    holdout: int = 0
    epochs: int = 30
    steps: int = 100
    batch_size: int = 32
    learning_rate: float = 6e-4
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    average_decay: float = 0.9
    consistency: float = 0.0
    freeze_batch_norm: bool = False
    keep_last: bool = False
    without_sources: tuple[str, ...] = ()
    patience: int = 10
    validation_pairs: int = 300
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.batch_size % 2:
            raise UsageError(f"batch size {self.batch_size} must be even: half of it is real")
        if self.consistency and self.batch_size % 4:
            raise UsageError(f"batch size {self.batch_size} must be a multiple of 4: two views")
        for name in ("epochs", "steps", "validation_pairs", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; 1 or more")


class PairBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of one epoch; the same seed, epoch and index give the same batch."""

    def __init__(
        self,
        sampler: PairSampler,
        *,
        epoch: int,
        steps: int,
        batch_size: int,
        seed: int,
        threads: int,
        views: int = 1,
    ) -> None:
        super().__init__(workers=threads, use_multiprocessing=False, max_queue_size=6)
        self._sampler = sampler
        self._epoch = epoch
        self._steps = steps
        self._batch_size = batch_size
        self._seed = seed
        self._views = views

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return crops float32 [batch, size, size, 3] in 0..255, and labels, 1 for fake.

        With two views the second half of the batch shows what the first half shows.
        """
        crops, labels = draw_pairs(
            self._sampler,
            self._batch_size // 2 // self._views,
            seed=(self._seed, self._epoch, index),
            views=self._views,
        )
        return crops.astype(np.float32), labels.astype(np.float32)


def draw_pairs(
    sampler: PairSampler, count: int, *, seed: tuple[int, ...], views: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw pairs, real and fake alternating; with several views, all pairs a view.

    Returns:
        uint8 [2 views count, size, size, 3] and labels int64, 1 for fake.
    """
    rng = np.random.default_rng(seed)
    drawn = [sampler.draw_views(rng, views) for _ in range(count)]
    crops = [crop for view in range(views) for pair in drawn for crop in pair[view]]
    return np.stack(crops), np.tile(np.array([0, 1], np.int64), count * views)


@keras.saving.register_keras_serializable("dfd_training")
class ConsistentLoss(keras.losses.Loss):  # type: ignore[misc] # Keras is untyped
    """Binary cross-entropy, and how far two views of a crop are apart.

    The second half of the batch shows what the first half shows, degraded otherwise.

    Args:
        consistency: Weight of the squared difference of logits.
        label_smoothing: Of the cross-entropy.
    """

    def __init__(self, consistency: float, label_smoothing: float = 0.0) -> None:
        super().__init__(name="consistent_loss")
        self._consistency = consistency
        self._smoothing = label_smoothing

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of each crop, of labels and logits [B]."""
        smooth = y_true * (1.0 - self._smoothing) + 0.5 * self._smoothing
        entropy = ops.softplus(y_pred) - smooth * y_pred
        first, second = ops.split(y_pred, 2)
        apart = ops.square(first - second)
        return entropy + self._consistency * ops.concatenate([apart, apart])


class WeightAverage(keras.callbacks.Callback):  # type: ignore[misc] # Keras is untyped
    """Keeps a moving average of all weights, batch-norm statistics included.

    Averaged weights (Polyak and Juditsky, 1992) generalise better than the last ones and let
    the learning rate stay high for longer.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self.weights: list[NDArray[np.float32]] | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Fold the current weights in, every tenth batch."""
        del logs
        if batch % _AVERAGE_EVERY:
            return
        current = self.model.get_weights()
        if self.weights is None:
            self.weights = current
            return
        for average, weight in zip(self.weights, current, strict=True):
            np.multiply(average, self._decay, out=average)
            np.add(average, (1.0 - self._decay) * weight, out=average)


def fit_frame(
    store: CropStore,
    out: Path,
    *,
    options: FitFrameOptions | None = None,
    pairs: PairOptions | None = None,
    resume: bool = False,
    on_epoch: Callable[[dict[str, float]], None] = lambda _: None,
) -> Path:
    """Fit the frame model and keep the weights that separate the held-out fold best.

    Writes `best.keras`, `last.keras` (to go on from), `history.csv`, `curves.png` and
    `run.json` into `out`.

    Args:
        store: the crops; only rows marked train are read.
        out: the run's folder.
        options: of the fit.
        pairs: of the drawing of pairs.
        resume: go on where a broken-off run stopped.
        on_epoch: called with each epoch's row of the history.

    Returns:
        The path of `best.keras`.

    Raises:
        UsageError: when `out` holds a run and `resume` is False, or the rows do not suffice.
    """
    options = options or FitFrameOptions()
    pairs = pairs or PairOptions()
    best, last = out / "best.keras", out / "last.keras"
    if last.exists() and not resume:
        raise UsageError(f"{out}: holds a run already: give --resume or another --out")
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    training, validation = _samplers(store, options, pairs)
    crops, labels = draw_pairs(validation, options.validation_pairs, seed=(options.seed, 1_000_003))
    _write_settings(out, store, options, pairs)
    history: list[dict[str, float]] = []
    average = WeightAverage(options.average_decay)
    if last.exists():
        model = load_frame_model(last)
        saved_rows = pd.read_csv(out / "history.csv").to_dict("records")
        history = [{str(name): float(value) for name, value in row.items()} for row in saved_rows]
        average.weights = load_weights(out / "average.npz")
    else:
        model = _starting_model(options, pairs)
    if options.freeze_batch_norm and options.weights != "none":
        freeze_batch_norms(model)
    fuse_batch_norms(model)
    trainer = _compiled(model, options, done_steps=len(history) * options.steps)
    for epoch in range(len(history), options.epochs):
        start = time.monotonic()
        batches = PairBatches(
            training,
            epoch=epoch,
            steps=options.steps,
            batch_size=options.batch_size,
            seed=options.seed,
            threads=options.threads,
            views=2 if options.consistency else 1,
        )
        fitted = trainer.fit(batches, epochs=1, verbose=0, callbacks=[average])
        raw = trainer.get_weights()
        assert average.weights is not None
        trainer.set_weights(average.weights)
        logits = trainer.predict(crops.astype(np.float32), batch_size=64, verbose=0)
        row = {
            "epoch": float(epoch),
            "loss": float(fitted.history["loss"][0]),
            "val_loss": _binary_cross_entropy(labels, logits),
            "val_auc": auc(labels, logits.astype(np.float64)),
            "seconds": time.monotonic() - start,
        }
        best_before = max((past["val_auc"] for past in history), default=-1.0)
        if options.keep_last or row["val_auc"] > best_before:
            save_model(model, best)
        trainer.set_weights(raw)
        history.append(row)
        save_model(model, last)
        save_weights(average.weights, out / "average.npz")
        frame = pd.DataFrame(history)
        frame.to_csv(out / "history.csv", index=False)
        write_curves(frame, out / "curves.png")
        on_epoch(row)
        if epoch - int(np.argmax(frame["val_auc"])) >= options.patience:
            break
    return best


def save_weights(weights: list[NDArray[np.float32]], path: Path) -> None:
    """Write weights in their order as `.npz`; a file of that name is replaced once it is whole."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        arrays: dict[str, Any] = {f"w{number}": weight for number, weight in enumerate(weights)}
        np.savez(stream, **arrays)
    partial.replace(path)


def load_weights(path: Path) -> list[NDArray[np.float32]]:
    """Read what `save_weights` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        return [saved[f"w{number}"] for number in range(len(saved.files))]


def training_rows(store: CropStore) -> pd.DataFrame:
    """The rows of a store that are marked train, with their fold in the column `fold`."""
    rows = store.index[store.index["split"] == "train"].copy()
    rows["fold"] = assign_folds(rows)
    return rows


def freeze_batch_norms(model: keras.Model) -> None:
    """Let no batch norm of a model learn: inference's statistics hold in training too."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        elif isinstance(layer, keras.Model):
            freeze_batch_norms(layer)


def _starting_model(options: FitFrameOptions, pairs: PairOptions) -> keras.Model:
    if options.weights.endswith(".keras"):
        start = load_frame_model(Path(options.weights))
        if start.input.shape[1] == pairs.input_size:
            return start
        # Convolutions do not depend on the size of the picture: a fit may begin on small crops.
        model = build_frame_model(
            backbone=options.backbone, input_size=pairs.input_size, weights="none"
        )
        model.set_weights(start.get_weights())
        return model
    return build_frame_model(
        backbone=options.backbone, input_size=pairs.input_size, weights=options.weights
    )


def _only(rows: pd.DataFrame, media: Media) -> pd.DataFrame:
    if media is Media.ALL:
        return rows
    crops_per_file = rows.groupby("shard")["shard"].transform("size")
    still = (crops_per_file == 1) & (rows["time_s"] == 0.0)
    return rows[still if media is Media.PHOTOGRAPHS else ~still]


def _samplers(
    store: CropStore, options: FitFrameOptions, pairs: PairOptions
) -> tuple[PairSampler, PairSampler]:
    rows = training_rows(store)
    if unknown := sorted(set(options.without_sources) - set(rows["source"])):
        raise UsageError(f"source {unknown[0]!r} is not in the store: {sorted(set(rows.source))}")
    rows = rows[~rows["source"].isin(options.without_sources)]
    if not -1 <= options.holdout < len(FOLD_SHARES):
        raise UsageError(f"fold {options.holdout} does not exist; there are {len(FOLD_SHARES)}")
    held = rows["fold"] == max(options.holdout, 0)
    training = rows if options.holdout < 0 else rows[~held]
    sampler = PairSampler(store, _only(training, options.train_on), pairs)
    try:
        return sampler, PairSampler(store, _only(rows[held], options.validate_on), pairs)
    except UsageError as error:
        fold = max(options.holdout, 0)
        raise UsageError(
            f"the held-out fold {fold} has nothing to validate on ({options.validate_on}): {error}"
        ) from error


def _compiled(model: keras.Model, options: FitFrameOptions, *, done_steps: int) -> keras.Model:
    """A model of the logit alone, which shares the weights."""
    total = options.epochs * options.steps
    warmup = min(200, total // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=options.learning_rate / 20,
        decay_steps=max(1, total - warmup),
        warmup_target=options.learning_rate,
        warmup_steps=max(1, warmup),
        alpha=0.01,
    )
    optimizer = keras.optimizers.AdamW(
        learning_rate=schedule, weight_decay=options.weight_decay, clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    trainer = keras.Model(model.input, model.output["fake_logit"])
    optimizer.build(trainer.trainable_variables)
    optimizer.iterations.assign(done_steps)
    trainer.compile(
        optimizer=optimizer,
        loss=ConsistentLoss(options.consistency, options.label_smoothing)
        if options.consistency
        else keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=options.label_smoothing
        ),
        jit_compile=False,  # XLA made a step 8 times slower on processors
    )
    return trainer


def _binary_cross_entropy(labels: NDArray[np.int64], logits: NDArray[np.float32]) -> float:
    signed = np.where(labels == 1, -logits, logits).astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, signed)))


def _write_settings(
    out: Path, store: CropStore, options: FitFrameOptions, pairs: PairOptions
) -> None:
    settings = {
        "options": dataclasses.asdict(options),
        "pairs": dataclasses.asdict(pairs),
        "store": store.settings,
        "rows": len(store.index),
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }
    (out / "run.json").write_text(json.dumps(settings, indent=2) + "\n")
