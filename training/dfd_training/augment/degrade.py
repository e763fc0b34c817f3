"""Degradations that go over real and fake alike.

The traces of cameras, codecs and messengers must not give a picture's label away. Both classes
therefore pass through here with parameters from the same draw, after any synthesis, in the order
in which footage meets them: light, sensor, the camera's own processing, optics, a first coding at a
size, and perhaps a second on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dfd_training.augment.codecs import Codec, Coding, code
from dfd_training.augment.synthesis.colour import ColourChange, change_colour, draw_colour
from dfd_training.augment.synthesis.detail import Picture, jpeg

_BLOCK = 16

_CODEC_SHARES = {
    Codec.H264: 0.55,
    Codec.MPEG4: 0.12,
    Codec.MPEG2: 0.1,
    Codec.VP8: 0.08,
    Codec.VP9: 0.1,
    Codec.H265: 0.05,
}


@dataclass(frozen=True, slots=True)
class Recapture:
    """A screen filmed by a camera: the screen's grid beats with the sensor's.

    Attributes:
        frequency: Waves a pixel along x and y.
        amplitude: Strength of the moire, share of the brightness.
        fade: Lift of the blacks, share of the range.
    """

    frequency: tuple[float, float]
    amplitude: float
    fade: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """The degradation of one picture, or of all frames of one clip.

    Attributes:
        colour: Change of colour, contrast and gamma, or None.
        noise: Standard deviation in grey levels; 0 for none.
        smear: Strength of a smoothing that keeps edges, as denoisers and beauty filters do,
            0 to 1.
        sharpen: Amount of unsharp masking; 0 for none.
        blur: Standard deviation in pixels; 0 for none.
        motion: Length of a motion blur in pixels, and its angle in radians; 0 for none.
        recapture: A screen filmed, or None.
        scale: The picture is shrunk by this, coded, and brought back; 1 for none.
        jpeg: Quality, or None.
        grid: X and y offset of the 8x8 block grid from the picture's corner, pixels.
        coding: A pass through a video codec instead of JPEG, or None.
        second_jpeg: Quality of a second pass on another grid, or None.
        second_coding: A second pass through a video codec, or None.
    """

    colour: ColourChange | None = None
    noise: float = 0.0
    smear: float = 0.0
    sharpen: float = 0.0
    blur: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    recapture: Recapture | None = None
    scale: float = 1.0
    jpeg: int | None = None
    grid: tuple[int, int] = (0, 0)
    coding: Coding | None = None
    second_jpeg: int | None = None
    second_coding: Coding | None = None


def draw_degradation(
    rng: np.random.Generator, *, codec_share: float = 0.4, always: bool = False
) -> Degradation:
    """Draws a degradation; about one picture in four changes in colour only.

    Args:
        rng: Random generator.
        codec_share: Share of pictures that pass a video codec; others may pass JPEG.
        always: Every picture passes a codec or JPEG.
    """
    colour = draw_colour(rng, 0.5) if rng.random() < 0.6 else None
    if rng.random() < 0.25 and not always:
        return Degradation(colour=colour)
    coded = rng.random() < codec_share
    return Degradation(
        colour=colour,
        noise=float(np.exp(rng.uniform(0.0, np.log(10.0)))) if rng.random() < 0.2 else 0.0,
        smear=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.1 else 0.0,
        sharpen=float(rng.uniform(0.2, 1.5)) if rng.random() < 0.1 else 0.0,
        blur=float(rng.uniform(0.3, 1.8)) if rng.random() < 0.12 else 0.0,
        motion=(float(rng.uniform(2, 7)), float(rng.uniform(0, np.pi)))
        if rng.random() < 0.04
        else (0.0, 0.0),
        recapture=_draw_recapture(rng) if rng.random() < 0.02 else None,
        scale=float(rng.uniform(0.35, 0.95)) if rng.random() < 0.3 else 1.0,
        jpeg=int(rng.integers(30, 96)) if not coded and (always or rng.random() < 0.6) else None,
        grid=(int(rng.integers(0, _BLOCK)), int(rng.integers(0, _BLOCK))),
        coding=draw_coding(rng) if coded else None,
        second_jpeg=int(rng.integers(40, 96)) if rng.random() < 0.12 else None,
        second_coding=draw_coding(rng) if coded and rng.random() < 0.15 else None,
    )


def draw_coding(rng: np.random.Generator) -> Coding:
    """Draws a pass through a video codec."""
    codecs = list(_CODEC_SHARES)
    shares = np.array(list(_CODEC_SHARES.values()))
    return Coding(
        codec=codecs[int(rng.choice(len(codecs), p=shares / shares.sum()))],
        loss=float(rng.beta(1.3, 2.2)),
        drift=(float(rng.normal(0, 1.5)), float(rng.normal(0, 0.8))),
    )


def _draw_recapture(rng: np.random.Generator) -> Recapture:
    return Recapture(
        frequency=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.25, 0.25))),
        amplitude=float(rng.uniform(0.01, 0.06)),
        fade=float(rng.uniform(0.0, 0.12)),
    )


def degrade(image: Picture, degradation: Degradation, rng: np.random.Generator) -> Picture:
    """Degrades a picture.

    Args:
        image: uint8 [height, width, 3], BGR.
        degradation: The degradation.
        rng: Random generator of the noise.

    Returns:
        uint8, same shape.
    """
    image = _captured(image, degradation, rng)
    height, width = image.shape[:2]
    if degradation.scale < 1.0:
        size = (
            max(16, round(width * degradation.scale)),
            max(16, round(height * degradation.scale)),
        )
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if degradation.jpeg is not None:
        image = _jpeg(image, degradation.jpeg, degradation.grid)
    if degradation.coding is not None:
        image = code(image, degradation.coding)
    if image.shape[:2] != (height, width):
        image = np.asarray(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8
        )
    if degradation.second_jpeg is not None:
        grid = (degradation.grid[1], degradation.grid[0])
        image = _jpeg(image, degradation.second_jpeg, grid)
    if degradation.second_coding is not None:
        image = code(image, degradation.second_coding)
    return image


def _captured(image: Picture, degradation: Degradation, rng: np.random.Generator) -> Picture:
    """Applies all that precedes a first coding: light, sensor, the camera's processing, optics."""
    if degradation.colour is not None:
        image = change_colour(image, degradation.colour)
    if degradation.noise > 0:
        image = _noisy(image, degradation.noise, rng)
    if degradation.smear > 0:
        spread = 15.0 + 45.0 * degradation.smear
        image = np.asarray(cv2.bilateralFilter(image, 5, spread, 3.0), np.uint8)
    if degradation.sharpen > 0:
        soft = cv2.GaussianBlur(image, (0, 0), 1.2)
        amount = degradation.sharpen
        image = np.asarray(cv2.addWeighted(image, 1 + amount, soft, -amount, 0), np.uint8)
    if degradation.blur > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), degradation.blur), np.uint8)
    if degradation.motion[0] > 1:
        image = _moving(image, *degradation.motion)
    if degradation.recapture is not None:
        image = _recaptured(image, degradation.recapture)
    return image


def _noisy(image: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Adds sensor noise, fine in brightness and coarse in colour."""
    height, width = image.shape[:2]
    fine = rng.standard_normal((height, width, 1), np.float32) * np.float32(sigma)
    coarse = rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), np.float32)
    tint = cv2.resize(coarse * np.float32(sigma / 2), (width, height))
    return (image + fine + tint).clip(0, 255).astype(np.uint8)


def _moving(image: Picture, length: float, angle: float) -> Picture:
    """Blurs along a line, as of a hand-held camera or a turning head."""
    side = int(np.ceil(length)) | 1
    kernel = np.zeros((side, side), np.uint8)
    half = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    start, end = np.round(side // 2 - half).astype(int), np.round(side // 2 + half).astype(int)
    cv2.line(kernel, start.tolist(), end.tolist(), 1)
    return np.asarray(cv2.filter2D(image, -1, kernel / max(1, int(kernel.sum()))), np.uint8)


def _recaptured(image: Picture, recapture: Recapture) -> Picture:
    height, width = image.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    phase = 2 * np.pi * (recapture.frequency[0] * x + recapture.frequency[1] * y)
    gain = (1.0 + recapture.amplitude * np.sin(phase))[:, :, None].astype(np.float32)
    lifted = 255.0 * recapture.fade + image * np.float32(1.0 - recapture.fade)
    return (lifted * gain).clip(0, 255).astype(np.uint8)


def _jpeg(image: Picture, quality: int, grid: tuple[int, int]) -> Picture:
    """Compresses as JPEG with the block grid shifted, as in a crop out of a larger picture."""
    height, width = image.shape[:2]
    left, top = grid
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REPLICATE)
    inside = jpeg(np.asarray(padded, np.uint8), quality)[top : top + height, left : left + width]
    return np.ascontiguousarray(inside, dtype=np.uint8)
