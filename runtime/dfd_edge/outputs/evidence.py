"""The evidence map: where in a crop the score of a frame comes from."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.outputs.drawing import COLOURS, DARK, INK
from dfd_edge.results import Label
from dfd_edge.sources.frames import Image

_ALPHA = 0.65
_STRONG_LOGIT = 4.0
"""Evidence that gets the full tint where nothing in the map is stronger."""
_GRID_PX = 176
"""The map is smoothed at this size at most; larger crops get it stretched."""
_FRAMED_SHARE = 0.5
_SMALL_PX = 150
"""Crops smaller than this get a thinner line."""
_SMOOTHED = 3
"""Neighbours on each side that a point of the line is averaged with."""
_STRAIGHT_PX = 0.2
"""How far the line may run beside the exact one, in pixels of the smoothed map."""
_TINTS = [
    np.rint(np.arange(256) * (channel / 255.0)).astype(np.uint8) for channel in COLOURS[Label.FAKE]
]
"""What a tint of 0 to 255 adds to blue, green and red."""


def draw_evidence(crop: Image, evidence: NDArray[np.float32]) -> Image:
    """Lays an evidence map over a copy of a crop, as `lay_evidence` does.

    Args:
        crop: uint8 [size, size, 3], BGR.
        evidence: float32 [h, w], in logits.

    Returns:
        uint8 [size, size, 3], BGR.
    """
    drawn = np.ascontiguousarray(crop).copy()
    lay_evidence(drawn, evidence, (0, 0, crop.shape[0]))
    return drawn


def lay_evidence(canvas: Image, evidence: NDArray[np.float32], crop: tuple[int, int, int]) -> None:
    """Lays an evidence map over a part of a frame, in place.

    What speaks for fake is tinted in the colour of `fake`, in proportion to its logit: full at
    the strongest spot of the map, or at `_STRONG_LOGIT` where that is more. What gets half of
    the full tint is framed by a line, so that it can be told without colours. What speaks for
    real, or for nothing, stays as it is.

    Args:
        canvas: uint8 [height, width, 3], BGR.
        evidence: float32 [h, w], in logits.
        crop: x0, y0 and side in pixels of the square that the map covers; it may reach beyond
            the edges of the frame.
    """
    strongest = float(evidence.max())
    x0, y0, side = crop
    height, width = canvas.shape[:2]
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + side, width), min(y0 + side, height)
    if strongest <= 0.0 or right <= left or bottom <= top:
        return
    share = np.clip(evidence / max(strongest, _STRONG_LOGIT), 0.0, 1.0).astype(np.float32)
    grid = min(side, _GRID_PX)
    smooth = np.clip(cv2.resize(share, (grid, grid), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    tint = np.rint(smooth * (255.0 * _ALPHA)).astype(np.uint8)
    if grid != side:
        tint = np.asarray(cv2.resize(tint, (side, side), interpolation=cv2.INTER_LINEAR))
    tint = np.ascontiguousarray(tint[top - y0 : bottom - y0, left - x0 : right - x0])
    part = canvas[top:bottom, left:right]
    kept = cv2.bitwise_not(cv2.merge((tint, tint, tint)))
    added = cv2.merge([cv2.LUT(tint, table) for table in _TINTS])
    part[:] = cv2.add(cv2.multiply(part, kept, scale=1.0 / 255.0), added)
    _frame(canvas, smooth, crop)


def _frame(canvas: Image, smooth: NDArray[np.float32], crop: tuple[int, int, int]) -> None:
    """Draws a line around what gets more than half of the full tint."""
    x0, y0, side = crop
    scale = side / smooth.shape[0]
    inside = (smooth > _FRAMED_SHARE).astype(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    lines = []
    for line in found:
        points = line[:, 0].astype(np.float32)
        if len(points) < 2 * _SMOOTHED:
            continue  # a speck
        # The edges of the grid's pixels are smoothed away, all around the closed line.
        around = np.concatenate([points[-_SMOOTHED:], points, points[:_SMOOTHED]])
        sums = np.cumsum(np.concatenate([np.zeros((1, 2), np.float32), around]), axis=0)
        length = 2 * _SMOOTHED + 1
        even = ((sums[length:] - sums[:-length]) / length).astype(np.float32)
        few = cv2.approxPolyDP(even[:, None], _STRAIGHT_PX, True)
        lines.append(np.rint(few * scale + (x0, y0)).astype(np.int32))
    light = max(1, round(side / 300))
    dark = 3 * light if side >= _SMALL_PX else 2 * light
    cv2.polylines(canvas, lines, True, DARK, dark, cv2.LINE_AA)
    cv2.polylines(canvas, lines, True, INK, light, cv2.LINE_AA)
