"""Changes of detail: sharpness and noise of a face after tools and codecs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_GRAIN_SIDE = 768
# Sides of the squares that swap models paint, in pixels, and how much wider than the face
# (from brow to chin and ear to ear) these squares are.
MODEL_SIDES = (96, 112, 128, 128, 160, 192, 224, 256)
MODEL_MARGIN = 1.25


class DetailKind(Enum):
    """Kinds of change of a copy's detail."""

    NONE = "none"
    SHRINK = "shrink"
    MODEL_SIDE = "model side"
    SHARPEN = "sharpen"
    BLUR = "blur"
    JPEG = "jpeg"
    SMEAR = "smear"
    NOISE = "noise"


@dataclass(frozen=True, slots=True)
class DetailChange:
    """A change of detail.

    Attributes:
        kind: The kind of change.
        strength: Strength of the change, from 0 to 1.
        sharpen_after: Amount of unsharp masking afterwards, as tools offer it; 0 for none.
        seed: Seed of the noise.
    """

    kind: DetailKind
    strength: float
    sharpen_after: float = 0.0
    seed: int = 0


_SHARES = {
    DetailKind.NONE: 0.12,
    DetailKind.SHRINK: 0.16,
    DetailKind.MODEL_SIDE: 0.2,
    DetailKind.SHARPEN: 0.14,
    DetailKind.BLUR: 0.12,
    DetailKind.JPEG: 0.1,
    DetailKind.SMEAR: 0.08,
    DetailKind.NOISE: 0.08,
}
_LOSSES = (DetailKind.SHRINK, DetailKind.MODEL_SIDE, DetailKind.BLUR, DetailKind.SMEAR)


def draw_detail(rng: np.random.Generator) -> DetailChange:
    """Draws a change of detail: mostly a loss, since swap models work at low resolution."""
    kinds = tuple(_SHARES)
    kind = kinds[int(rng.choice(len(kinds), p=tuple(_SHARES.values())))]
    sharpened = kind in _LOSSES and rng.random() < 0.3
    return DetailChange(
        kind=kind,
        strength=float(rng.uniform(0, 1)),
        sharpen_after=float(rng.uniform(0.3, 1.5)) if sharpened else 0.0,
        seed=int(rng.integers(2**31)),
    )


def change_detail(image: Picture, change: DetailChange, *, face_px: float = 0.0) -> Picture:
    """Applies a change of detail to a BGR picture (uint8).

    Args:
        image: uint8 [height, width, 3].
        change: The change.
        face_px: Size of the face in pixels; 0 takes two thirds of the picture's width.
    """
    face_px = face_px or image.shape[1] / 1.5
    strength = change.strength
    match change.kind:
        case DetailKind.SHRINK:
            image = shrink_and_back(image, 0.8 - 0.5 * strength)
        case DetailKind.MODEL_SIDE:
            side = MODEL_SIDES[int(strength * (len(MODEL_SIDES) - 1e-6))]
            factor = side / (MODEL_MARGIN * face_px)
            if factor < 0.95:
                image = shrink_and_back(image, factor)
        case DetailKind.SHARPEN:
            image = unsharp(image, 0.3 + 1.1 * strength, 1.0)
        case DetailKind.BLUR:
            sigma = (0.35 + 1.25 * strength) * face_px / 170
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
        case DetailKind.JPEG:
            image = jpeg(image, round(85 - 60 * strength))
        case DetailKind.SMEAR:
            image = smear(image, strength)
        case DetailKind.NOISE:
            rng = np.random.default_rng(change.seed)
            image = add_grain(image, 1.5 + 5.0 * strength, rng)
        case DetailKind.NONE:
            pass
    if change.sharpen_after > 0:
        image = unsharp(image, change.sharpen_after, 1.0)
    return image


def shrink_and_back(
    image: Picture, factor: float, *, up: int = cv2.INTER_CUBIC, down: int = cv2.INTER_AREA
) -> Picture:
    """Shrinks a picture and brings it back: the resolution of a smaller one."""
    height, width = image.shape[:2]
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    small = cv2.resize(image, size, interpolation=down)
    return np.asarray(cv2.resize(small, (width, height), interpolation=up), np.uint8)


def unsharp(image: Picture, amount: float, sigma: float) -> Picture:
    """Sharpens by unsharp masking."""
    blurred = cv2.GaussianBlur(image, (0, 0), sigma)
    return np.asarray(cv2.addWeighted(image, 1 + amount, blurred, -amount, 0), np.uint8)


def jpeg(image: Picture, quality: int) -> Picture:
    """Compresses as JPEG and decodes."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded, np.uint8)


def smear(image: Picture, strength: float) -> Picture:
    """Flattens texture between edges, as denoisers, beauty filters and weak networks do.

    The picture's finest detail, what a small blur takes away, is kept only where it exceeds a
    threshold: wavelet shrinkage (Donoho and Johnstone, 1994) with one band.
    """
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0 + 1.2 * strength)
    band = cv2.addWeighted(image, 1.0, blurred, -1.0, 128.0)
    kept = cv2.LUT(band, _shrinkage(3.0 + 7.0 * strength))
    return np.asarray(cv2.addWeighted(blurred, 1.0, kept, 1.0, -128.0), np.uint8)


def _shrinkage(threshold: float) -> Picture:
    band = np.arange(256, dtype=np.float32) - 128.0
    kept = np.sign(band) * np.maximum(np.abs(band) - threshold, 0.0)
    return np.asarray(np.rint(kept + 128.0), np.uint8)


def add_grain(
    image: Picture, deviation: float, rng: np.random.Generator, *, size: float = 1.0
) -> Picture:
    """Adds noise that is the same in all three channels.

    Args:
        image: uint8 [height, width, 3].
        deviation: Standard deviation in grey levels.
        rng: Random generator.
        size: Size of the grains in pixels.
    """
    height, width = image.shape[:2]
    rows = max(2, round(height / size))
    columns = max(2, round(width / size))
    field = grain(rows, columns, rng)
    if field.shape != (height, width):
        field = np.asarray(
            cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR), np.float32
        )
    noise = cv2.merge([field * np.float32(deviation)] * 3)
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)


def grain(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns normal noise of deviation 1, float32 [height, width], at most 768 on a side.

    It is cut at random out of one large field: to draw it anew would cost more than all else.
    """
    height, width = min(height, _GRAIN_SIDE), min(width, _GRAIN_SIDE)
    top = int(rng.integers(_GRAIN_SIDE - height + 1))
    left = int(rng.integers(_GRAIN_SIDE - width + 1))
    cut = _grain_field()[top : top + height, left : left + width]
    return cut[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1].copy()


@functools.cache
def _grain_field() -> NDArray[np.float32]:
    field = np.random.default_rng(0).standard_normal((_GRAIN_SIDE, _GRAIN_SIDE), np.float32)
    field.setflags(write=False)
    return field
