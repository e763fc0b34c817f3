"""Drawing into frames: colours, text, filled labels and the evidence map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.judging.results import Label
from dfd_edge.sources.frames import Image

Colour = tuple[int, int, int]

#: BGR; distinct with red-green colour blindness too (blue, vermilion, yellow, grey).
COLOURS: dict[Label, Colour] = {
    Label.REAL: (190, 130, 20),
    Label.FAKE: (20, 70, 225),
    Label.UNSURE: (60, 200, 235),
    Label.NO_FACE: (160, 160, 160),
}
INK: Colour = (255, 255, 255)
DARK: Colour = (24, 24, 24)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SCALE = 0.4
_LEAST_UNIT = 0.85
_LINES = 360.0
_ALPHA = 0.65
_STRONG_LOGIT = 4.0
"""Evidence drawn with the full tint where nothing in the map is stronger."""
_GRID_PX = 176
"""Largest size at which the map is smoothed; for larger crops it is stretched."""
_FRAMED_SHARE = 0.5
_SMALL_PX = 150
"""Crops smaller than this get a thinner outline."""
_SMOOTHED = 3
"""Neighbours on each side over which a point of the outline is averaged."""
_STRAIGHT_PX = 0.2
"""Tolerance of the outline, in pixels of the smoothed map."""
_TINTS = [
    np.rint(np.arange(256) * (channel / 255.0)).astype(np.uint8) for channel in COLOURS[Label.FAKE]
]
"""Lookup tables: the blue, green and red that a tint of 0 to 255 adds."""


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in pixels of the frame; `right` and `bottom` lie outside it."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Area) -> bool:
        """Returns whether the two share a pixel."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def unit_of(image: Image) -> float:
    """Returns the drawing unit in pixels: 1 at 360 lines, with a minimum for small pictures."""
    height, width = image.shape[:2]
    return max(_LEAST_UNIT, float(min(height, width)) / _LINES)


def write(canvas: Image, text: str, at: tuple[int, int], unit: float, ink: Colour = INK) -> None:
    """Writes a line in place.

    Args:
        canvas: uint8 [height, width, 3], BGR.
        text: ASCII; the font has no other characters.
        at: x, y of the lower left corner of its first letter.
        unit: Pixels of a drawing unit.
        ink: Colour of the letters.
    """
    scale, thickness = _font(unit)
    cv2.putText(canvas, text, at, _FONT, scale, ink, thickness, cv2.LINE_AA)


def text_width(text: str, unit: float) -> int:
    """Returns the width of a line in pixels."""
    (wide, _), _ = cv2.getTextSize(text, _FONT, *_font(unit))
    return wide


def tag_size(text: str, unit: float) -> tuple[int, int]:
    """Returns width and height of a filled label in pixels."""
    return text_width(text, unit) + 2 * _tag_pad(unit), round(16 * unit)


def tag_area(text: str, corner: tuple[int, int], unit: float, within: Area) -> Area:
    """Returns the area of a filled label with its corner at `corner`, moved into `within`."""
    wide, tall = tag_size(text, unit)
    x = max(within.left, min(corner[0], within.right - wide))
    y = max(within.top, min(corner[1], within.bottom - tall))
    return Area(x, y, x + wide, y + tall)


def draw_tag(canvas: Image, text: str, area: Area, colour: Colour, unit: float) -> None:
    """Draws a filled label in place, with black or white text."""
    cv2.rectangle(canvas, (area.left, area.top), (area.right - 1, area.bottom - 1), colour, -1)
    at = (area.left + _tag_pad(unit), area.bottom - round(4.5 * unit))
    write(canvas, text, at, unit, ink_on(colour))


def ink_on(colour: Colour) -> Colour:
    """Returns black or white, whichever is more legible on this colour."""
    luma = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
    return DARK if luma > 140 else INK


def darken(canvas: Image, area: Area, share: float) -> None:
    """Darkens an area to this share of its brightness, in place."""
    part = canvas[area.top : area.bottom, area.left : area.right]
    if part.size:
        part[:] = cv2.convertScaleAbs(part, alpha=share)


def _tag_pad(unit: float) -> int:
    return round(3 * unit)


def _font(unit: float) -> tuple[float, int]:
    """Returns scale and thickness of text."""
    return _SCALE * unit, max(1, round(0.8 * unit))


def draw_evidence(crop: Image, evidence: NDArray[np.float32]) -> Image:
    """Returns a copy of a crop with an evidence map, drawn as `lay_evidence` does.

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
    """Draws an evidence map over a part of a frame, in place.

    Evidence for fake is tinted in the colour of `fake`, in proportion to its logit: fully at the
    strongest spot of the map, or at `_STRONG_LOGIT` where that is more. Areas with more than half
    of the full tint are outlined, so that they can be seen without colours. Evidence for real is
    not drawn.

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
    """Outlines the areas with more than half of the full tint."""
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
