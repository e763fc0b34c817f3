"""Group-disjoint folds inside the rows marked train."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dfd_edge.errors import UsageError

FOLD_SHARES = (0.2, 0.4, 0.4)
"""Shares of the training groups; fold 0 is held out of the shipped model."""


def assign_folds(
    rows: pd.DataFrame, *, shares: tuple[float, ...] = FOLD_SHARES, seed: int = 0
) -> pd.Series[int]:
    """Deal the groups of each source into folds.

    Groups share footage or a person, so none is split; each source is dealt by itself, so that
    every fold sees every source that has enough groups.

    Args:
        rows: columns `group` and `source`.
        shares: share of each fold, summing to 1.
        seed: of the deal.

    Returns:
        The fold of each row, 0 to len(shares) - 1, with the rows' index.

    Raises:
        UsageError: when the shares do not sum to 1.
    """
    if abs(sum(shares) - 1.0) > 1e-6 or min(shares) <= 0:
        raise UsageError(f"fold shares {shares} must be positive and sum to 1")
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    wanted = np.array(shares)
    for _, part in rows.groupby("source", sort=True):
        groups = sorted(set(part["group"]) - set(fold_of))
        counts = np.zeros(len(shares))
        # A source of few groups starts at a fold of chance, not always at the largest.
        tie_break = rng.random(len(shares)) * 0.5
        for group in rng.permutation(groups):
            deficit = wanted * (counts.sum() + 1) - counts + tie_break * wanted
            fold = int(np.argmax(deficit))
            counts[fold] += 1
            fold_of[str(group)] = fold
    return rows["group"].map(fold_of).astype(int)
