"""Selection of the files and crops of a store to judge: clips, their fakes, generated fakes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore

MAX_CROPS = 12
MAX_PHOTOGRAPHS = 150


class Swaps(StrEnum):
    """Choice of true fakes among the rows marked train."""

    FOLD = "fold"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class JudgedFile:
    """One file and the crops of it that are judged.

    Attributes:
        path: Path of the file.
        fake: Whether it is a fake.
        group: Group; files of one group share footage or a person.
        source: Source of the file.
        original: Path of the real file that a fake is based on, or "".
        generator: Generator of the fake; "" for reals.
        generated: Whether it was generated from stored crops of the real file.
        photograph: Whether it is a single picture.
        shard: Shard of the store.
        positions: Positions of the crops in the shard, in order of time.
    """

    path: str
    fake: bool
    group: str
    source: str
    original: str
    generator: str
    generated: bool
    photograph: bool
    shard: str
    positions: tuple[int, ...]


def select_files(
    store: CropStore,
    *,
    split: str = "train",
    fold: int | None = None,
    swaps: Swaps = Swaps.FOLD,
    max_crops: int = MAX_CROPS,
) -> list[JudgedFile]:
    """Selects clips with evenly spaced crops, and the fakes generated from them.

    Real photographs are selected only as originals of generated fakes; at most 150 photographs
    of each generator are selected.

    Args:
        store: The crops.
        split: `train` or `val`.
        fold: Fold of the rows marked train; None for all of them.
        swaps: `all` adds the true fakes of the other folds and their originals.
        max_crops: Maximum number of crops of a clip.

    Returns:
        Files in the order of their paths.

    Raises:
        UsageError: Nothing is left, or the fold does not exist.
    """
    rows = _rows(store, split, fold, swaps)
    rows = rows[rows["judged"]]
    still = _is_still(rows)
    generated = _generated(store, split, fold)
    wanted = _even_photographs(generated)
    parts = [rows[~still], rows[still & rows["path"].isin(set(wanted["original"]))], wanted]
    files = [
        _file(part, max_crops)
        for _, part in pd.concat(parts, ignore_index=True).groupby("shard", sort=False)
    ]
    if not files:
        where = f"split {split}" if fold is None else f"split {split}, fold {fold}"
        raise UsageError(f"{store.path}: no judged clip in {where}")
    return sorted(files, key=lambda file: file.path)


def evenly(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Returns at most `count` positions, evenly spaced, including the first and the last."""
    if len(positions) <= count:
        return positions
    places = np.linspace(0, len(positions) - 1, count).round().astype(np.int64)
    return positions[places]


def _rows(store: CropStore, split: str, fold: int | None, swaps: Swaps) -> pd.DataFrame:
    if fold is not None and not 0 <= fold < len(FOLD_SHARES):
        raise UsageError(f"fold {fold} does not exist; there are {len(FOLD_SHARES)}, from 0")
    if split != "train":
        if fold is not None:
            raise UsageError(f"fold {fold}: rows marked {split} have no folds; leave --fold out")
        return store.index[store.index["split"] == split].copy()
    rows = training_rows(store)
    if fold is None:
        return rows
    inside = rows["fold"] == fold
    if swaps is Swaps.ALL:
        fakes = rows[rows["label"] == "FAKE"]
        inside |= rows["path"].isin(set(fakes["path"]) | set(fakes["original"]))
    return rows[inside]


def _generated(store: CropStore, split: str, fold: int | None) -> pd.DataFrame:
    """Returns the generated fakes whose real file is among the rows."""
    generated: pd.DataFrame | None = getattr(store, "made", None)
    if generated is None or generated.empty:
        return store.index.iloc[:0].assign(generated=False)
    rows = generated[(generated["split"] == split) & generated["judged"]].assign(generated=True)
    if fold is None:
        return rows
    training = training_rows(store)
    inside = set(training.loc[training["fold"] == fold, "group"])
    return rows[rows["group"].isin(inside)]


def _is_still(rows: pd.DataFrame) -> pd.Series[bool]:
    """Marks photographs: files of one crop at time 0."""
    return (rows.groupby("shard")["shard"].transform("size") == 1) & (rows["time_s"] == 0.0)


def _even_photographs(generated: pd.DataFrame) -> pd.DataFrame:
    """Returns all generated clips, and at most `MAX_PHOTOGRAPHS` photographs of each generator."""
    still = _is_still(generated)
    kept = [generated[~still]]
    for _, part in generated[still].groupby("generator", sort=True):
        order = part.sort_values("path")
        kept.append(order.iloc[evenly(np.arange(len(order)), MAX_PHOTOGRAPHS)])
    return pd.concat(kept)


def _file(rows: pd.DataFrame, max_crops: int) -> JudgedFile:
    first = rows.iloc[0]
    ordered = rows.sort_values(["time_s", "track"])["position"].to_numpy(np.int64)
    fake = first["label"] == "FAKE"
    return JudgedFile(
        path=str(first["path"]),
        fake=bool(fake),
        group=str(first["group"]),
        source=str(first["source"]),
        original=str(first["original"]),
        generator=str(first["generator"]) if fake else "",
        generated=bool(first.get("generated") is True or first.get("generated") == 1.0),
        photograph=len(rows) == 1 and float(first["time_s"]) == 0.0,
        shard=str(first["shard"]),
        positions=tuple(int(position) for position in evenly(ordered, max_crops)),
    )
