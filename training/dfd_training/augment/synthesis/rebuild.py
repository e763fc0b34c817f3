"""Rebuilt pictures: chains that leave the traces of networks which paint a whole picture.

A decoder leaves not softness, which lenses and codecs leave as well, but the period of its
upsampling (Zhang, Karaman and Chang, "Detecting and Simulating Artifacts in GAN Fake
Images", WIFS 2019), skin without texture between edges that are sharp, and grain that no sensor
made or none at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.augment.synthesis.detail import Picture, add_grain, smear, unsharp


class Upsampling(Enum):
    """Upsampling of a small picture."""

    NONE = "none"
    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"
    TRANSPOSED = "transposed convolution"


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Parameters of the rebuilding of a picture.

    Attributes:
        side: Side of the rendered picture, share of the picture's.
        upsampling: Upsampling of the last layer, by 2.
        grid: float32 [period, period, 3], gains of the phases of the grid, about 1; of period 1
            where there is no grid.
        smear: Loss of texture, from 0 (none) to 1.
        sharpen: Amount of unsharp masking after it.
        grain: Deviation of the painted grain, grey levels; 0 for none.
        grain_px: Size of its grains, pixels.
        chroma: Scale at which colour is kept.
        fringe: float [2], displacement of the colours, pixels.
    """

    side: float
    upsampling: Upsampling
    grid: NDArray[np.float32]
    smear: float
    sharpen: float
    grain: float
    grain_px: float
    chroma: float
    fringe: tuple[float, float]


_SIDES_PX = (128, 160, 192, 256, 256, 320)
_SMALLEST_UPSAMPLED_PX = 176


def draw_rebuild(rng: np.random.Generator, width: int) -> Rebuild:
    """Draws parameters for a picture of some width, always with a grid or flattened skin."""
    side = min(1.0, float(rng.choice(_SIDES_PX)) / width)
    upsampling = tuple(Upsampling)[int(rng.choice(5, p=(0.2, 0.2, 0.15, 0.15, 0.3)))]
    if side * width < _SMALLEST_UPSAMPLED_PX:
        # Half of it would be a mosaic rather than a face.
        upsampling = Upsampling.NONE
    period = int(rng.choice((2, 4, 8, 16), p=(0.3, 0.3, 0.25, 0.15)))
    traced = upsampling in (Upsampling.NEAREST, Upsampling.TRANSPOSED)
    with_grid = rng.random() < 0.6
    smeared = rng.random() < 0.6 or not (with_grid or traced)
    return Rebuild(
        side=side,
        upsampling=upsampling,
        grid=_draw_grid(rng, period) if with_grid else np.ones((1, 1, 3), np.float32),
        smear=float(rng.uniform(0.15, 0.9)) if smeared else 0.0,
        sharpen=float(rng.uniform(0.4, 1.8)) if smeared or rng.random() < 0.3 else 0.0,
        grain=float(rng.uniform(0.8, 4.0)) if rng.random() < 0.35 else 0.0,
        grain_px=float(rng.uniform(1.0, 2.5)),
        chroma=float(rng.uniform(0.15, 0.6)) if rng.random() < 0.4 else 1.0,
        fringe=(float(rng.normal(0, 0.5)), float(rng.normal(0, 0.5)))
        if rng.random() < 0.25
        else (0.0, 0.0),
    )


def _draw_grid(rng: np.random.Generator, period: int) -> NDArray[np.float32]:
    amplitude = float(np.exp(rng.uniform(np.log(0.004), np.log(0.018))))
    if rng.random() < 0.5:
        # Overlaps of a transposed convolution: rows and columns weigh alike.
        rows, columns = rng.normal(0, 0.7, (2, period))
        pattern = rows[:, None] + columns[None, :]
    else:
        pattern = rng.normal(0, 1.0, (period, period))
    pattern = pattern[:, :, None] + rng.normal(0, 0.3, (period, period, 3))
    gains = 1.0 + amplitude * (pattern - pattern.mean(axis=(0, 1)))
    return np.asarray(gains, np.float32)


def rebuild(image: Picture, parameters: Rebuild, rng: np.random.Generator) -> Picture:
    """Rebuilds a whole picture.

    Args:
        image: uint8 [height, width, 3], BGR.
        parameters: How.
        rng: The source of the grain.

    Returns:
        uint8, same shape; the input is not changed.
    """
    height, width = image.shape[:2]
    side = (max(32, round(width * parameters.side)), max(32, round(height * parameters.side)))
    painted = _decode(image, side, parameters.upsampling)
    if parameters.smear > 0:
        painted = smear(painted, parameters.smear)
    if parameters.sharpen > 0:
        painted = unsharp(painted, parameters.sharpen, 0.9)
    if parameters.chroma < 1.0 or parameters.fringe != (0.0, 0.0):
        painted = _recolour(painted, parameters.chroma, parameters.fringe)
    if parameters.grid.shape[0] > 1:
        painted = _with_grid(painted, parameters.grid)
    if parameters.grain > 0:
        painted = add_grain(painted, parameters.grain, rng, size=parameters.grain_px)
    if painted.shape[:2] != (height, width):
        painted = np.asarray(
            cv2.resize(painted, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8
        )
    return painted


def _decode(image: Picture, side: tuple[int, int], upsampling: Upsampling) -> Picture:
    """Returns the picture at the network's output side, after a last upsampling by 2."""
    if upsampling is Upsampling.NONE:
        return np.asarray(cv2.resize(image, side, interpolation=cv2.INTER_AREA), np.uint8)
    half = (-(-side[0] // 2), -(-side[1] // 2))
    small = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    if upsampling is Upsampling.LINEAR:
        painted = cv2.resize(small, side, interpolation=cv2.INTER_LINEAR)
    elif upsampling is Upsampling.CUBIC:
        painted = cv2.resize(small, side, interpolation=cv2.INTER_CUBIC)
    elif upsampling is Upsampling.NEAREST:
        painted = cv2.resize(small, side, interpolation=cv2.INTER_NEAREST)
        painted = cv2.GaussianBlur(painted, (3, 3), 0.6)
    else:
        sparse = np.zeros((half[1] * 2, half[0] * 2, 3), np.uint8)
        sparse[::2, ::2] = small
        # The taps that meet a pixel add up to 1 on even and to a little more on odd rows.
        taps = np.array([0.5, 1.0, 0.53])
        painted = cv2.sepFilter2D(sparse, cv2.CV_8U, taps, taps)
        painted = painted[: side[1], : side[0]]
    return np.ascontiguousarray(painted, np.uint8)


def _with_grid(image: Picture, grid: NDArray[np.float32]) -> Picture:
    height, width = image.shape[:2]
    period = grid.shape[0]
    tiled = np.tile(grid, (height // period + 1, width // period + 1, 1))[:height, :width]
    scaled = cv2.multiply(image, np.ascontiguousarray(tiled), dtype=cv2.CV_8U)
    return np.asarray(scaled, np.uint8)


def _recolour(image: Picture, scale: float, fringe: tuple[float, float]) -> Picture:
    """Keeps colour at a lower resolution than brightness, and a little beside it."""
    height, width = image.shape[:2]
    luma, *chroma = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb))
    planes = cv2.merge(chroma)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(planes, size, interpolation=cv2.INTER_AREA)
    move = np.array(
        [[size[0] / width, 0, fringe[0] * scale], [0, size[1] / height, fringe[1] * scale]]
    )
    planes = cv2.warpAffine(
        small,
        move,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    joined = cv2.merge([luma, *cv2.split(planes)])
    return np.asarray(cv2.cvtColor(joined, cv2.COLOR_YCrCb2BGR), np.uint8)
