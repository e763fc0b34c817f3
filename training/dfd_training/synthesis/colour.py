"""Changes of colour that tell one copy of a face from the other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dfd_training.synthesis.detail import Picture


@dataclass(frozen=True, slots=True)
class ColourChange:
    """A change of colour.

    Attributes:
        offset: added to blue, green and red, in grey levels.
        contrast: factor round mid-grey.
        gamma: exponent.
        saturation: factor.
        hue: shift in degrees.
    """

    offset: tuple[float, float, float]
    contrast: float
    gamma: float
    saturation: float
    hue: float


def draw_colour(rng: np.random.Generator, strength: float = 1.0) -> ColourChange:
    """Draw a change of colour; `strength` 1 is about what SBI uses."""
    blue, green, red = rng.uniform(-18, 18, 3) * strength
    return ColourChange(
        offset=(float(blue), float(green), float(red)),
        contrast=float(1.0 + rng.uniform(-0.15, 0.15) * strength),
        gamma=float(np.exp(rng.uniform(-0.25, 0.25) * strength)),
        saturation=float(1.0 + rng.uniform(-0.3, 0.3) * strength),
        hue=float(rng.uniform(-12, 12) * strength),
    )


def change_colour(image: Picture, change: ColourChange) -> Picture:
    """Apply a change of colour to a BGR picture (uint8)."""
    levels = np.arange(256, dtype=np.float32)
    curve = 255.0 * (levels / 255.0) ** change.gamma
    curve = (curve - 127.5) * change.contrast + 127.5
    table = np.stack([curve + offset for offset in change.offset], axis=1)
    table = np.clip(np.round(table), 0, 255).astype(np.uint8)[None]
    changed = cv2.LUT(image, table)
    if change.hue or change.saturation != 1.0:
        hsv = cv2.cvtColor(changed, cv2.COLOR_BGR2HSV)
        hue = ((levels + change.hue / 2.0) % 180).astype(np.uint8)
        saturation = np.clip(levels * change.saturation, 0, 255).astype(np.uint8)
        tables = np.stack([hue, saturation, levels.astype(np.uint8)], axis=1)[None]
        changed = cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2BGR)
    return np.asarray(changed, np.uint8)
