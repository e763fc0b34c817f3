"""The rows marked train, and group-disjoint folds of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.data.store import CropStore

FOLD_SHARES = (0.25, 0.25, 0.25, 0.25)
"""Shares of the training groups."""


def assign_folds(
    rows: pd.DataFrame, *, shares: tuple[float, ...] = FOLD_SHARES, seed: int = 0
) -> pd.Series[int]:
    """Deals the groups of each source into folds.

    Groups share footage or a person, so none is split. Each source is dealt by itself, so that
    every fold sees every source that has enough groups; small sources are dealt together. No
    fold stays empty where there are enough groups.

    Args:
        rows: Columns `group` and `source`.
        shares: Share of each fold, summing to 1.
        seed: Seed of the deal.

    Returns:
        The fold of each row, 0 to len(shares) - 1, with the rows' index.

    Raises:
        UsageError: When the shares do not sum to 1.
    """
    if abs(sum(shares) - 1.0) > 1e-6 or min(shares) <= 0:
        raise UsageError(f"fold shares {shares} must be positive and sum to 1")
    rng = np.random.default_rng(seed)
    sources = rows.drop_duplicates("group").set_index("group")["source"]
    sizes = sources.value_counts()
    # Sources too small to give each fold its share are dealt together.
    few = sources.map(sizes) < 1.0 / min(shares)
    pools = sources.where(~few, "")
    fold_of: dict[str, int] = {}
    for _, pool in pools.groupby(pools, sort=True):
        groups = sorted(str(group) for group in pool.index)
        fold_of |= _deal([str(group) for group in rng.permutation(groups)], np.array(shares))
    _fill_empty(fold_of, len(shares))
    return rows["group"].map(fold_of).astype(int)


def _deal(groups: list[str], shares: NDArray[np.float64]) -> dict[str, int]:
    """Deals groups one by one to the fold that lacks most of its share."""
    counts = np.zeros(len(shares))
    fold_of: dict[str, int] = {}
    for group in groups:
        fold = int(np.argmax(shares * (counts.sum() + 1) - counts))
        counts[fold] += 1
        fold_of[group] = fold
    return fold_of


def _fill_empty(fold_of: dict[str, int], folds: int) -> None:
    """Gives each empty fold a group of the fullest one, as long as there are enough groups."""
    for fold in range(folds):
        counts = np.bincount(list(fold_of.values()), minlength=folds)
        if counts[fold] == 0 and counts.max() > 1:
            fullest = int(np.argmax(counts))
            fold_of[max(group for group, its in fold_of.items() if its == fullest)] = fold


def training_rows(store: CropStore, *, with_validation: bool = False) -> pd.DataFrame:
    """Returns the rows of a store that are marked train, with the column `fold`.

    Args:
        store: The crop store.
        with_validation: Whether rows marked val are returned too.

    Raises:
        UsageError: No row is marked train.
    """
    marked = ["train", "val"] if with_validation else ["train"]
    rows = store.index[store.index["split"].isin(marked)].copy()
    if rows.empty:
        found = ", ".join(sorted(set(store.index["split"]))) or "no crop at all"
        raise UsageError(
            f"{store.path}: no row of its index is marked train (found: {found}): mark files as "
            "train in the table's column split, and prepare them"
        )
    rows["fold"] = assign_folds(rows)
    return rows
