"""Colours, writing and labels that everything drawn into a frame shares."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from dfd_edge.results import Label
from dfd_edge.sources.frames import Image

Colour = tuple[int, int, int]

#: BGR, told apart by people with red-green blindness too (blue, vermilion, yellow, grey).
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


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in pixels of the frame; `right` and `bottom` lie outside it."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Area) -> bool:
        """Whether they share a pixel."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def unit_of(image: Image) -> float:
    """Size of a drawing unit in pixels: 1 at 360 lines, with a floor for small pictures."""
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
    """Pixels that a line takes."""
    (wide, _), _ = cv2.getTextSize(text, _FONT, *_font(unit))
    return wide


def tag_size(text: str, unit: float) -> tuple[int, int]:
    """Width and height in pixels of a filled label."""
    return text_width(text, unit) + 2 * _tag_pad(unit), round(16 * unit)


def tag_area(text: str, corner: tuple[int, int], unit: float, within: Area) -> Area:
    """Where a filled label lies whose upper left corner is wanted at `corner`: inside `within`."""
    wide, tall = tag_size(text, unit)
    x = max(within.left, min(corner[0], within.right - wide))
    y = max(within.top, min(corner[1], within.bottom - tall))
    return Area(x, y, x + wide, y + tall)


def draw_tag(canvas: Image, text: str, area: Area, colour: Colour, unit: float) -> None:
    """Draws a filled label in place; its letters are black or white, as the colour needs."""
    cv2.rectangle(canvas, (area.left, area.top), (area.right - 1, area.bottom - 1), colour, -1)
    at = (area.left + _tag_pad(unit), area.bottom - round(4.5 * unit))
    write(canvas, text, at, unit, ink_on(colour))


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is read more easily on this colour."""
    luma = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
    return DARK if luma > 140 else INK


def darken(canvas: Image, area: Area, share: float) -> None:
    """Takes the picture in an area down to this share of its light, in place."""
    part = canvas[area.top : area.bottom, area.left : area.right]
    if part.size:
        part[:] = cv2.convertScaleAbs(part, alpha=share)


def _tag_pad(unit: float) -> int:
    return round(3 * unit)


def _font(unit: float) -> tuple[float, int]:
    """Scale and thickness of writing."""
    return _SCALE * unit, max(1, round(0.8 * unit))
