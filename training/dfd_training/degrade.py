"""Degradations that go over real and fake alike.

What cameras, codecs and messengers do to a picture must not tell a network its label. Both
classes therefore pass through here with parameters from the same draw, after any synthesis.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dfd_training.synthesis.colour import ColourChange, Picture, change_colour, draw_colour

_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Degradation:
    """What happens to one picture, or to all frames of one clip.

    Attributes:
        colour: change of colour, contrast and gamma, or None.
        scale: the picture is shrunk by this and brought back; 1 for none.
        blur: standard deviation in pixels; 0 for none.
        noise: standard deviation in grey levels; 0 for none.
        jpeg: quality, or None.
        grid: x and y offset of the 8x8 block grid from the picture's corner, pixels.
        second_jpeg: quality of a second pass on another grid, or None.
    """

    colour: ColourChange | None
    scale: float
    blur: float
    noise: float
    jpeg: int | None
    grid: tuple[int, int]
    second_jpeg: int | None


def draw_degradation(rng: np.random.Generator) -> Degradation:
    """Draw a degradation; about one picture in seven stays as it is but for its colour."""
    heavy = rng.random() > 0.15
    return Degradation(
        colour=draw_colour(rng, 0.8) if rng.random() < 0.6 else None,
        scale=float(rng.uniform(0.35, 0.95)) if heavy and rng.random() < 0.35 else 1.0,
        blur=float(rng.uniform(0.3, 1.6)) if heavy and rng.random() < 0.2 else 0.0,
        noise=float(rng.uniform(1.0, 9.0)) if heavy and rng.random() < 0.25 else 0.0,
        jpeg=int(rng.integers(30, 96)) if heavy and rng.random() < 0.65 else None,
        grid=(int(rng.integers(0, _BLOCK)), int(rng.integers(0, _BLOCK))),
        second_jpeg=int(rng.integers(40, 96)) if heavy and rng.random() < 0.15 else None,
    )


def degrade(image: Picture, degradation: Degradation, rng: np.random.Generator) -> Picture:
    """Degrade a picture.

    Args:
        image: uint8 [height, width, 3], BGR.
        degradation: what to do.
        rng: the source of the noise.

    Returns:
        uint8, same shape.
    """
    height, width = image.shape[:2]
    if degradation.colour is not None:
        image = change_colour(image, degradation.colour)
    if degradation.scale < 1.0:
        size = (
            max(16, round(width * degradation.scale)),
            max(16, round(height * degradation.scale)),
        )
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if degradation.jpeg is not None:
            small = _jpeg(np.asarray(small, np.uint8), degradation.jpeg, degradation.grid)
        image = np.asarray(
            cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8
        )
    if degradation.blur > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), degradation.blur), np.uint8)
    if degradation.noise > 0:
        noise = rng.normal(0.0, degradation.noise, (height, width, 1)).astype(np.float32)
        coarse = rng.normal(0.0, degradation.noise / 2, (height // 2 + 1, width // 2 + 1, 3))
        tint = cv2.resize(coarse.astype(np.float32), (width, height))
        image = np.clip(image + noise + tint, 0, 255).astype(np.uint8)
    if degradation.jpeg is not None and degradation.scale >= 1.0:
        image = _jpeg(image, degradation.jpeg, degradation.grid)
    if degradation.second_jpeg is not None:
        grid = (degradation.grid[1], degradation.grid[0])
        image = _jpeg(image, degradation.second_jpeg, grid)
    return image


def _jpeg(image: Picture, quality: int, grid: tuple[int, int]) -> Picture:
    """Compress as JPEG with the block grid shifted, as in a crop out of a larger picture."""
    height, width = image.shape[:2]
    left, top = grid
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REPLICATE)
    _, encoded = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    inside = decoded[top : top + height, left : left + width]
    return np.ascontiguousarray(inside, dtype=np.uint8)
