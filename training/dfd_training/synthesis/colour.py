"""Changes of colour and of detail that tell one copy of a face from the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


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


class DetailKind(Enum):
    """How the detail of a copy is changed."""

    NONE = "none"
    SHRINK = "shrink"
    SHARPEN = "sharpen"
    BLUR = "blur"


@dataclass(frozen=True, slots=True)
class DetailChange:
    """A change of detail: what is done, and how strongly, from 0 to 1."""

    kind: DetailKind
    strength: float


def draw_detail(rng: np.random.Generator) -> DetailChange:
    """Draw a change of detail: mostly a loss, since swap models work at low resolution."""
    kinds = (DetailKind.NONE, DetailKind.SHRINK, DetailKind.SHARPEN, DetailKind.BLUR)
    kind = kinds[int(rng.choice(4, p=(0.15, 0.4, 0.2, 0.25)))]
    return DetailChange(kind=kind, strength=float(rng.uniform(0, 1)))


def change_detail(image: Picture, change: DetailChange) -> Picture:
    """Apply a change of detail to a BGR picture (uint8)."""
    height, width = image.shape[:2]
    if change.kind is DetailKind.SHRINK:
        factor = 0.7 - 0.45 * change.strength
        size = (max(8, round(width * factor)), max(8, round(height * factor)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        image = np.asarray(
            cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8
        )
    elif change.kind is DetailKind.SHARPEN:
        blurred = cv2.GaussianBlur(image, (0, 0), 1.0)
        amount = 0.4 + 1.0 * change.strength
        image = np.asarray(cv2.addWeighted(image, 1 + amount, blurred, -amount, 0), np.uint8)
    elif change.kind is DetailKind.BLUR:
        sigma = (0.4 + 1.6 * change.strength) * width / 256
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    return image


def transfer_colour(
    source: Picture, target: Picture, mask: NDArray[np.float32], share: float = 1.0
) -> Picture:
    """Give the source the target's colours inside a mask.

    Mean and standard deviation of each channel are matched in CIELAB (Reinhard et al., "Color
    Transfer between Images", 2001).

    Args:
        source: uint8 [height, width, 3], BGR.
        target: uint8, same shape.
        mask: float32 [height, width]; statistics are taken where it exceeds 0.5.
        share: 0 leaves the source as it is, 1 matches it wholly.
    """
    inside = (mask > 0.5).astype(np.uint8)
    if int(inside.sum()) < 16:
        return source
    lab_source = cv2.cvtColor(source, cv2.COLOR_BGR2LAB)
    lab_target = cv2.cvtColor(target, cv2.COLOR_BGR2LAB)
    mean_source, spread_source = cv2.meanStdDev(lab_source, mask=inside)
    mean_target, spread_target = cv2.meanStdDev(lab_target, mask=inside)
    gain = np.clip(spread_target / np.maximum(spread_source, 1.0), 0.5, 2.0).ravel()
    levels = np.arange(256, dtype=np.float32)[:, None]
    matched = (levels - mean_source.ravel()) * gain + mean_target.ravel()
    table = np.clip(levels + share * (matched - levels), 0, 255).round().astype(np.uint8)[None]
    changed = cv2.cvtColor(cv2.LUT(lab_source, table), cv2.COLOR_LAB2BGR)
    return np.asarray(changed, np.uint8)
