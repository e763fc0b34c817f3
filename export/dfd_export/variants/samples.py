"""The crops that a variant is calibrated on, and the labelled ones that it is compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Resize
from dfd_export.gate.crops import cut_crops
from dfd_training.data.folds import FOLD_SHARES, assign_folds
from dfd_training.data.store import CropStore

MAX_COMPARED = 4000
"""Crops of the comparison; whole files are left out beyond it, so that clips stay whole."""

Crops = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Crops with what is known of them.

    Attributes:
        crops: uint8 [n, S, S, 3], RGB, files one after the other, each in order of time.
        paths: text [n], the file of each crop.
        groups: text [n], its group: footage or person.
        fake: bool [n].
        tracks: int [n], the person in the file.
        times_s: float [n], time in the file.
        description: The kind of crops, for reports.
    """

    crops: Crops
    paths: NDArray[np.str_]
    groups: NDArray[np.str_]
    fake: NDArray[np.bool_]
    tracks: NDArray[np.int64]
    times_s: NDArray[np.float64]
    description: str

    def __len__(self) -> int:
        return len(self.crops)


def read_samples(
    path: Path,
    *,
    size: int,
    crop_scale: float,
    calibration_crops: int,
    holdout: int | None = None,
    resize: Resize = Resize.AREA,
    seed: int = 0,
) -> tuple[Crops, Sample]:
    """Reads both from a crop store.

    Rows marked train calibrate, drawn evenly from every source. Rows marked val are compared: they
    tell how much a variant differs, and choose nothing. Where the store has no rows marked val,
    the rows that did not calibrate are compared.

    Args:
        path: A crop store of `dfd-train prepare`.
        size: Side of the crops in pixels.
        crop_scale: Side of the model's crop over the size of the face.
        calibration_crops: Number of crops that calibrate.
        holdout: A training fold whose crops do not calibrate, so that what the variant says of
            them is as far out of fold as what fp32 says; None for none.
        resize: How they come to that size.
        seed: Seed of the drawing.

    Returns:
        The calibrating crops, uint8 [n, S, S, 3], RGB, and the sample to compare on.

    Raises:
        UsageError: The folder is no crop store, there is no such fold, or there are not both reals
            and fakes to compare.
    """
    store = CropStore(path)
    rows = store.index[store.index["judged"]]
    marked_val = rows["split"] == "val"
    calibrating = _draw_evenly(
        _without_fold(store, rows[~marked_val], holdout), calibration_crops, seed
    )
    if calibrating.empty:
        raise UsageError(f"{path}: holds no judged crops marked train, which calibrate a variant")
    if marked_val.any():
        compared, text = rows[marked_val], "crops of the rows marked val"
    else:
        compared, text = rows.drop(calibrating.index), "crops that did not calibrate"
    compared = _whole_files(compared, MAX_COMPARED, seed)
    if compared.empty:
        raise UsageError(
            f"{path}: holds no {text} in files of at most {MAX_COMPARED} crops: a variant is "
            "compared on whole files"
        )
    fake = compared["label"].to_numpy() == "FAKE"
    if fake.all() or not fake.any():
        raise UsageError(
            f"{path}: a variant is compared on real and on fake crops, but its {text} are "
            f"{'all fake' if fake.any() else 'all real'}: give a crop store with both"
        )
    sample = Sample(
        crops=cut_crops(store, compared, size=size, crop_scale=crop_scale, resize=resize),
        paths=compared["path"].to_numpy(np.str_),
        groups=compared["group"].to_numpy(np.str_),
        fake=fake,
        tracks=compared["track"].to_numpy(np.int64),
        times_s=compared["time_s"].to_numpy(np.float64),
        description=text,
    )
    crops = cut_crops(store, calibrating, size=size, crop_scale=crop_scale, resize=resize)
    return crops, sample


def _without_fold(store: CropStore, rows: pd.DataFrame, fold: int | None) -> pd.DataFrame:
    if fold is None:
        return rows
    if not 0 <= fold < len(FOLD_SHARES):
        raise UsageError(f"fold {fold} does not exist; there are {len(FOLD_SHARES)}, from 0 on")
    fold_of = assign_folds(store.index[store.index["split"] == "train"])
    return rows[fold_of.reindex(rows.index) != fold]


def _draw_evenly(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Up to `count` rows, in turn from each source, in an order drawn at random."""
    mixed = rows.sample(frac=1.0, random_state=seed)
    turn = mixed.groupby("source").cumcount()
    return mixed.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]]


def _whole_files(rows: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """All rows of as many files, drawn at random, as make up `limit` rows at most.

    A file that is longer by itself is left out.
    """
    sizes = rows.groupby("path").size().sample(frac=1.0, random_state=seed)
    fitting = sizes[sizes <= limit]
    kept = fitting.index[fitting.cumsum() <= limit]
    chosen = rows[rows["path"].isin(kept)]
    return chosen.sort_values(["path", "time_s", "track"], kind="stable")
