"""Sources of the crops of a batch: pairs one to one, or crops as the table has them."""

from __future__ import annotations

from typing import Protocol

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import DfdError, UsageError
from dfd_training.augment.degrade import degrade, draw_degradation
from dfd_training.augment.jitter import Crop, draw_jitter, to_input, work_crop
from dfd_training.data.families import leave_out
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore
from dfd_training.fitting.options import Balance, FitFrameOptions, Media
from dfd_training.fitting.pairs import PairOptions, PairSampler

Crops = NDArray[np.uint8]
Labels = NDArray[np.int64]
Weights = NDArray[np.float32]


def divided_rows(store: CropStore, options: FitFrameOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the rows to fit on and those of the held-out fold, of the chosen media.

    Without a held-out fold (-1) all rows are fitted on, and those of fold 0 only follow the fit.

    Raises:
        UsageError: A source or the fold does not exist, or one of the two parts is empty.
    """
    rows = training_rows(store, with_validation=options.with_validation)
    if unknown := sorted(set(options.without_sources) - set(rows["source"])):
        raise UsageError(f"source {unknown[0]!r} is not in the store: {sorted(set(rows.source))}")
    rows = rows[~rows["source"].isin(options.without_sources)]
    if not -1 <= options.holdout < len(FOLD_SHARES):
        raise UsageError(f"fold {options.holdout} does not exist; there are {len(FOLD_SHARES)}")
    if options.without_families:
        fitted, judged = leave_out(rows, options.without_families, fold=options.holdout)
        return only_media(fitted, options.train_on), only_media(judged, options.validate_on)
    held = rows["fold"] == max(options.holdout, 0)
    training = only_media(rows if options.holdout < 0 else rows[~held], options.train_on)
    validation = only_media(rows[held], options.validate_on)
    for part, name, media in (
        (training, "the folds to fit on have", options.train_on),
        (validation, f"the held-out fold {max(options.holdout, 0)} has", options.validate_on),
    ):
        if part.empty:
            raise UsageError(
                f"{store.path}: {name} no crop (of {media}): add groups of files to the table, or "
                "choose other media or another fold"
            )
    return training, validation


def only_media(rows: pd.DataFrame, media: Media) -> pd.DataFrame:
    """Returns the rows of photographs or of clips."""
    if media is Media.ALL:
        return rows
    crops_per_file = rows.groupby("shard")["shard"].transform("size")
    still = (crops_per_file == 1) & (rows["time_s"] == 0.0)
    return rows[still if media is Media.PHOTOGRAPHS else ~still]


class CropSource(Protocol):
    """Draws crops with their labels."""

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Crops, Labels, Weights]:
        """Draws crops; the same seed gives the same.

        Args:
            count: Number of crops; even.
            seed: Seed of the draw.

        Returns:
            Crops uint8 [count, size, size, 3], RGB; labels, 1 for fake; what each weighs in the
            Loss, 1 on average.
        """


class PairSource:
    """Pairs of a real and a fake crop, one to one inside every source.

    Args:
        sampler: Sampler of the pairs.
        views: Times that a pair is degraded and shown; all pairs of a view stand together.
    """

    def __init__(self, sampler: PairSampler, views: int = 1) -> None:
        self._sampler = sampler
        self._views = views

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Crops, Labels, Weights]:
        """Draws half as many pairs, or a quarter where each is shown twice: see `CropSource`."""
        pairs = count // 2 // self._views
        crops, labels = draw_pairs(self._sampler, pairs, seed=seed, views=self._views)
        return crops, labels, np.ones(len(labels), np.float32)


class TableSource:
    """Stored crops as the table has them: every file as often as any other.

    Nothing is synthesised, no fake needs its original, and landmarks are not asked for. Each class
    weighs by its inverse share of the files (King and Zeng, 2001). Jitter and degradations are
    drawn alike for both classes.

    Args:
        store: The crop store.
        rows: The part of its index to draw from.
        options: The size of the crops, and how they are turned and degraded.

    Raises:
        UsageError: When a class has no judged crop among the rows.
    """

    def __init__(self, store: CropStore, rows: pd.DataFrame, options: PairOptions) -> None:
        self._store = store
        self._options = options
        usable = rows[rows["judged"]]
        self._files = [
            (str(shard), part["position"].to_numpy(np.int64), part["label"].iloc[0] == "FAKE")
            for shard, part in usable.groupby("shard", sort=True)
        ]
        fakes = sum(fake for _, _, fake in self._files)
        reals = len(self._files) - fakes
        if not (fakes and reals):
            raise UsageError(
                f"{reals} real and {fakes} fake files with a judged face: class weights need both "
                "classes; balance=pairs synthesises fakes from real files"
            )
        self.class_weights = (len(self._files) / (2 * reals), len(self._files) / (2 * fakes))

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Crops, Labels, Weights]:
        """Draws crops: see `CropSource`."""
        rng = np.random.default_rng(seed)
        drawn = [self._crop(rng) for _ in range(count)]
        labels = np.array([fake for _, fake in drawn], np.int64)
        weights = np.array(self.class_weights, np.float32)[labels]
        return np.stack([crop for crop, _ in drawn]), labels, weights

    def _crop(self, rng: np.random.Generator) -> tuple[Crop, bool]:
        shard, positions, fake = self._files[int(rng.integers(len(self._files)))]
        stored = self._store.crop(shard, int(positions[int(rng.integers(len(positions)))]))
        jitter = draw_jitter(rng, turn=self._options.turn)
        picture = work_crop(stored, jitter).image
        degradation = draw_degradation(rng, codec_share=self._options.codec_share)
        degraded = degrade(picture, degradation, rng)
        return to_input(degraded, self._options.input_size, flip=jitter.flip), fake


def draw_pairs(
    sampler: PairSampler, count: int, *, seed: tuple[int, ...], views: int = 1
) -> tuple[Crops, Labels]:
    """Draws pairs, real and fake alternating; with several views, all pairs a view.

    Returns:
        uint8 [2 views count, size, size, 3] and labels int64, 1 for fake.
    """
    rng = np.random.default_rng(seed)
    drawn = [sampler.draw_views(rng, views) for _ in range(count)]
    crops = [crop for view in range(views) for pair in drawn for crop in pair[view]]
    return np.stack(crops), np.tile(np.array([0, 1], np.int64), count * views)


def crop_sources(
    store: CropStore, options: FitFrameOptions, pairs: PairOptions
) -> tuple[CropSource, CropSource]:
    """Returns the sources of the fit and of the validation.

    Raises:
        UsageError: When one of the two has nothing to draw.
    """
    training, validation = divided_rows(store, options)
    held = max(options.holdout, 0)
    return (
        _source(store, training, options, pairs, name="the folds to fit on"),
        _source(
            store,
            validation,
            options,
            pairs,
            name=f"the held-out fold {held} has nothing to validate on",
            views=1,
        ),
    )


def _source(
    store: CropStore,
    rows: pd.DataFrame,
    options: FitFrameOptions,
    pairs: PairOptions,
    *,
    name: str,
    views: int | None = None,
) -> CropSource:
    try:
        if options.balance is Balance.CLASS_WEIGHTS:
            return TableSource(store, rows, pairs)
        wanted = 2 if options.consistency else 1
        return PairSource(PairSampler(store, rows, pairs), views=views or wanted)
    except UsageError as error:
        raise UsageError(f"{store.path}: {name} ({len(rows)} crops): {error}") from error


Float32 = NDArray[np.float32]


class FrameBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of one epoch; the same seed, epoch and index give the same batch.

    Args:
        source: Source of the crops.
        epoch: Counted from 0.
        steps: Batches.
        batch_size: Crops a batch.
        seed: Seed of the fit.
        threads: Threads that draw batches ahead.

    Attributes:
        error: Why a batch could not be drawn. A backend may wrap what a drawing thread raises in
            an error of its own.
    """

    def __init__(
        self,
        source: CropSource,
        *,
        epoch: int,
        steps: int,
        batch_size: int,
        seed: int,
        threads: int,
    ) -> None:
        super().__init__(workers=threads, use_multiprocessing=False, max_queue_size=6)
        self.error: DfdError | None = None
        self._source = source
        self._epoch = epoch
        self._steps = steps
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[Float32, Float32, Float32]:
        """Returns crops [batch, size, size, 3] in 0..255, labels, 1 for fake, and weights.

        With two views the second half of the batch shows what the first half shows.
        """
        seed = (self._seed, self._epoch, index)
        try:
            crops, labels, weights = self._source.draw(self._batch_size, seed)
        except DfdError as error:
            self.error = error
            raise
        return crops.astype(np.float32), labels.astype(np.float32), weights
