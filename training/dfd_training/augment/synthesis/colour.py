"""Colours of forgeries: changes of a copy, and transfers of a scene's colours to a face."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.augment.synthesis.detail import Picture


@dataclass(frozen=True, slots=True)
class ColourChange:
    """A change of colour.

    Attributes:
        offset: Added to blue, green and red, in grey levels.
        contrast: Factor round mid-grey.
        gamma: Exponent.
        saturation: Factor.
        hue: Shift in degrees.
    """

    offset: tuple[float, float, float]
    contrast: float
    gamma: float
    saturation: float
    hue: float


def draw_colour(rng: np.random.Generator, strength: float = 1.0) -> ColourChange:
    """Draws a change of colour; `strength` 1 is about what SBI uses."""
    blue, green, red = rng.uniform(-18, 18, 3) * strength
    return ColourChange(
        offset=(float(blue), float(green), float(red)),
        contrast=float(1.0 + rng.uniform(-0.15, 0.15) * strength),
        gamma=float(np.exp(rng.uniform(-0.25, 0.25) * strength)),
        saturation=float(1.0 + rng.uniform(-0.3, 0.3) * strength),
        hue=float(rng.uniform(-12, 12) * strength),
    )


def change_colour(image: Picture, change: ColourChange) -> Picture:
    """Applies a change of colour to a BGR picture (uint8)."""
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


_SAMPLE_SIDE = 96
_MIN_SAMPLES = 16


class ColourTransfer(Enum):
    """Transfer of a target's colours to a source face, as swap tools do it.

    `REINHARD`: mean and deviation of each channel in CIELAB (Reinhard et al., "Color Transfer
    between Images", 2001). `COVARIANCE`: mean and covariance of the three channels, a linear
    transfer. `HISTOGRAM`: the histogram of each channel. `MEAN`: mean of each channel.
    """

    NONE = "none"
    MEAN = "mean"
    REINHARD = "reinhard"
    COVARIANCE = "covariance"
    HISTOGRAM = "histogram"


def transfer_colour(
    source: Picture,
    target: Picture,
    mask: NDArray[np.float32],
    share: float = 1.0,
    *,
    method: ColourTransfer = ColourTransfer.REINHARD,
) -> Picture:
    """Gives the source the target's colours inside a mask.

    Args:
        source: uint8 [height, width, 3], BGR.
        target: uint8, same shape.
        mask: float32 [height, width]; statistics are taken where it exceeds 0.5.
        share: 0 leaves the source as it is, 1 matches it wholly.
        method: The statistics that are matched.

    Returns:
        uint8, same shape; the source itself when the mask is all but empty.
    """
    if method is ColourTransfer.NONE or share <= 0:
        return source
    # The statistics of a face need no more than a few thousand of its pixels.
    step = max(1, round(max(source.shape[:2]) / _SAMPLE_SIDE))
    inside = mask[::step, ::step] > 0.5
    if int(inside.sum()) < _MIN_SAMPLES:
        return source
    if method is ColourTransfer.REINHARD:
        return _reinhard(source, target, inside, step, share)
    here = source[::step, ::step][inside].astype(np.float64)
    there = target[::step, ::step][inside].astype(np.float64)
    if method is ColourTransfer.COVARIANCE:
        return _covariance(source, here, there, share)
    levels = np.arange(256, dtype=np.float64)
    columns = []
    for channel in range(3):
        if method is ColourTransfer.MEAN:
            matched = levels + there[:, channel].mean() - here[:, channel].mean()
        else:
            matched = _histogram(here[:, channel], there[:, channel])
        columns.append(levels + share * (matched - levels))
    table = np.clip(np.stack(columns, axis=1), 0, 255).round().astype(np.uint8)[None]
    return np.asarray(cv2.LUT(source, table), np.uint8)


def _reinhard(
    source: Picture, target: Picture, inside: NDArray[np.bool_], step: int, share: float
) -> Picture:
    lab = cv2.cvtColor(source, cv2.COLOR_BGR2LAB)
    here = lab[::step, ::step][inside].astype(np.float32)
    sample = np.ascontiguousarray(target[::step, ::step])
    there = cv2.cvtColor(sample, cv2.COLOR_BGR2LAB)[inside].astype(np.float32)
    gain = np.clip(there.std(axis=0) / np.maximum(here.std(axis=0), 1.0), 0.5, 2.0)
    levels = np.arange(256, dtype=np.float32)[:, None]
    matched = (levels - here.mean(axis=0)) * gain + there.mean(axis=0)
    table = np.clip(levels + share * (matched - levels), 0, 255).round().astype(np.uint8)[None]
    return np.asarray(cv2.cvtColor(cv2.LUT(lab, table), cv2.COLOR_LAB2BGR), np.uint8)


def _covariance(
    source: Picture, here: NDArray[np.float64], there: NDArray[np.float64], share: float
) -> Picture:
    """Matches the covariance by its symmetric roots, the directions limited in gain."""
    root_there = _root(np.cov(there.T), 0.5)
    matrix = root_there @ _root(np.cov(here.T), -0.5)
    left, gains, right = np.linalg.svd(matrix)
    matrix = left @ np.diag(np.clip(gains, 0.6, 1.6)) @ right
    matrix = (1.0 - share) * np.eye(3) + share * matrix
    shift = share * there.mean(axis=0) + (1.0 - share) * here.mean(axis=0)
    shift = shift - matrix @ here.mean(axis=0)
    return np.asarray(cv2.transform(source, np.hstack([matrix, shift[:, None]])), np.uint8)


def _root(covariance: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance + 4.0 * np.eye(3))
    root: NDArray[np.float64] = (vectors * values**exponent) @ vectors.T
    return root


def _histogram(here: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the level of equal rank; smoothed, since an exact match would tear gradients."""
    levels = np.arange(257) - 0.5
    ranks = np.concatenate([[0], np.cumsum(np.histogram(here, levels)[0])]) / len(here)
    others = np.concatenate([[0], np.cumsum(np.histogram(there, levels)[0])]) / len(there)
    others = others + np.arange(257) * 1e-9
    matched = np.interp(0.5 * (ranks[1:] + ranks[:-1]), others, levels)
    padded = np.pad(matched, 6, mode="edge")
    return np.convolve(padded, np.ones(13) / 13, mode="valid")
