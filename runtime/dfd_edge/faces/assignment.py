"""Which of some go with which of others, at the least cost in all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(costs: NDArray[np.float64], *, unpaired: float) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of the costs is least.

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant, 1987), O(n^3): meant
    for the faces of a frame. A pair that costs `unpaired` or more is not made.

    Args:
        costs: [rows, columns]; infinite where a pair is impossible.
        unpaired: what a row costs that is left alone.

    Returns:
        The pairs of row and column, by row.
    """
    rows, columns = costs.shape
    if not rows or not columns:
        return []
    # Each row may also go to a column of its own, which stands for being left alone.
    alone = np.full((rows, rows), np.inf)
    np.fill_diagonal(alone, unpaired)
    usable = np.where(costs < unpaired, costs, np.inf)
    everything = np.hstack([usable, alone])
    width = columns + rows
    row_price = np.zeros(rows + 1)
    column_price = np.zeros(width + 1)
    row_of = np.full(width + 1, rows)  # the last column is where each search starts
    for row in range(rows):
        row_of[width] = row
        column = width
        shortest = np.full(width, np.inf)
        before = np.full(width, width)
        done = np.zeros(width + 1, bool)
        while row_of[column] != rows:
            done[column] = True
            here = row_of[column]
            reduced = everything[here] - row_price[here] - column_price[:width]
            better = ~done[:width] & (reduced < shortest)
            shortest[better] = reduced[better]
            before[better] = column
            column = int(np.argmin(np.where(done[:width], np.inf, shortest)))
            step = shortest[column]
            row_price[row_of[done]] += step
            column_price[done] -= step
            shortest[~done[:width]] -= step
        while column != width:
            row_of[column] = row_of[before[column]]
            column = int(before[column])
    return sorted((int(row_of[j]), j) for j in range(columns) if row_of[j] != rows)
