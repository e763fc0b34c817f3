"""Scores over time in a few characters."""

from __future__ import annotations

import math
from collections.abc import Iterable

BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
ASCII_LEVELS = "_.-:=+*#"


def sparkline(
    points: Iterable[tuple[float, float]],
    now_s: float,
    *,
    cells: int,
    span_s: float,
    levels: str = BLOCKS,
) -> str:
    """Draws scores as one character for each stretch of time; a stretch without any is blank.

    The stretches are fixed in the clock of the times, so that what is drawn moves and does not
    flicker. Of several scores in one, the highest shows.

    Args:
        points: Time in seconds and score in [0, 1] of each.
        now_s: Time at the right edge.
        cells: Characters to fill.
        span_s: Seconds that they stand for.
        levels: Characters from the lowest to the highest score.

    Returns:
        `cells` characters, the newest last.

    Example:
        >>> sparkline([(0.5, 0.0), (2.5, 0.6), (3.5, 1.0)], 3.9, cells=4, span_s=4.0)
        '▁ ▅█'
    """
    stretch_s = span_s / cells
    last = math.floor(now_s / stretch_s)
    highest: dict[int, float] = {}
    for time_s, score in points:
        cell = math.floor(time_s / stretch_s) - last + cells - 1
        if 0 <= cell < cells:
            highest[cell] = max(score, highest.get(cell, 0.0))
    return "".join(
        levels[min(len(levels) - 1, int(highest[cell] * len(levels)))] if cell in highest else " "
        for cell in range(cells)
    )
