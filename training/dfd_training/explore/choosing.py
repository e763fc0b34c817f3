"""Which files of a table are looked at."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
import pandas as pd

from dfd_edge.sources.containers import IMAGE_SUFFIXES


def looks_like_photograph(path: str) -> bool:
    """Whether a file is a still picture by its name; nothing is opened."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def draw_evenly(table: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Draw files evenly over labels, and inside a label over data sets, sources and kinds.

    A stratum that has fewer files than its share gives all it has, and the others give more: a
    rare label or source is seen even among thousands of other files.

    Args:
        table: as `read_table` gives it.
        count: how many, at most.
        seed: of the drawing.

    Returns:
        Paths as in the table, in its order.
    """
    rng = np.random.default_rng(seed)
    rows = table.iloc[rng.permutation(len(table))]
    kind = rows["path"].map(looks_like_photograph)
    dataset = rows.get("dataset", "")
    within = rows.assign(_kind=kind, _dataset=dataset)
    # The turn in which a file comes up, inside its stratum; then inside its label.
    turn = within.groupby(["label", "_dataset", "source", "_kind"]).cumcount()
    ordered = within.assign(_turn=turn).sort_values("_turn", kind="stable")
    turn = ordered.groupby("label").cumcount()
    drawn = ordered.assign(_turn=turn).sort_values("_turn", kind="stable")["path"][:count]
    kept = set(drawn)
    return [path for path in table["path"] if path in kept]
