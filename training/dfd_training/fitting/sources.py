"""Where the crops of a batch come from: pairs one to one, or crops as the table has them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.degrade import degrade, draw_degradation
from dfd_training.fitting.options import Balance, FitFrameOptions
from dfd_training.fitting.rows import divided_rows
from dfd_training.jitter import Crop, draw_jitter, to_input, work_crop
from dfd_training.pairs import PairOptions, PairSampler
from dfd_training.store import CropStore

Crops = NDArray[np.uint8]
Labels = NDArray[np.int64]
Weights = NDArray[np.float32]


class CropSource(Protocol):
    """Draws crops with their labels."""

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Crops, Labels, Weights]:
        """Draw crops; the same seed gives the same.

        Args:
            count: how many; even.
            seed: of the draw.

        Returns:
            Crops uint8 [count, size, size, 3], RGB; labels, 1 for fake; what each weighs in the
            loss, 1 on average.
        """


class PairSource:
    """Pairs of a real and a fake crop, one to one inside every source.

    Args:
        sampler: of the pairs.
        views: how often each pair is degraded and shown; all pairs of a view stand together.
    """

    def __init__(self, sampler: PairSampler, views: int = 1) -> None:
        self._sampler = sampler
        self._views = views

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Crops, Labels, Weights]:
        """Draw half as many pairs, or a quarter where each is shown twice: see `CropSource`."""
        pairs = count // 2 // self._views
        crops, labels = draw_pairs(self._sampler, pairs, seed=seed, views=self._views)
        return crops, labels, np.ones(len(labels), np.float32)


class TableSource:
    """Stored crops as the table has them: every file as often as any other.

    Nothing is synthesised, no fake needs its original, and landmarks are not asked for. Each class
    weighs by its inverse share of the files (King and Zeng, 2001). Jitter and degradations are
    drawn alike for both classes.

    Args:
        store: the crop store.
        rows: the part of its index to draw from.
        options: the size of the crops, and how they are turned and degraded.

    Raises:
        UsageError: when a class has no judged crop among the rows.
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
        """Draw crops: see `CropSource`."""
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
    """Draw pairs, real and fake alternating; with several views, all pairs a view.

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
    """What the fit draws from, and what validation draws from.

    Raises:
        UsageError: when one of the two has nothing to draw.
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
