"""The parameters of one forgery, drawn once and drifting over the frames of a clip."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.colour import (
    ColourChange,
    DetailChange,
    Picture,
    draw_colour,
    draw_detail,
)
from dfd_training.synthesis.masks import WOBBLE_GRID, MaskRegion, soft_mask

_REGIONS = (
    MaskRegion.FACE,
    MaskRegion.BROWS_TO_CHIN,
    MaskRegion.INNER,
    MaskRegion.LOWER,
    MaskRegion.MOUTH_REGION,
)
_REGION_SHARES = (0.35, 0.35, 0.15, 0.1, 0.05)
_VISIBLE = 1.0 / 512.0
_RATIOS = (0.3, 0.5, 0.75, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class BlendParameters:
    """How a source face is laid over a target face.

    Attributes:
        region: which part of the face is replaced.
        grow: scale of the mask round its centre.
        wobble: float32 [6, 6, 2], deformation of the mask, shares of the face's size.
        feather: blur of the mask's edge, share of the face's size.
        ratio: opacity of the source inside the mask, in (0, 1].
        shift: float32 [2], displacement of the source, shares of the face's size.
        zoom: scale of the source.
        colour: change of colour between the two.
        detail: change of sharpness and scale between the two.
        change_target: True when the target's copy is changed instead of the source's.
        colour_share: how far a swap matches the target's colours, in [0, 1].
    """

    region: MaskRegion
    grow: float
    wobble: NDArray[np.float32]
    feather: float
    ratio: float
    shift: NDArray[np.float32]
    zoom: float
    colour: ColourChange
    detail: DetailChange
    change_target: bool
    colour_share: float

    def drifted(self, rng: np.random.Generator) -> BlendParameters:
        """The parameters a frame later: place and edge of the mask wander a little."""
        return dataclasses.replace(
            self,
            wobble=(0.9 * self.wobble + rng.normal(0, 0.006, self.wobble.shape)).astype(np.float32),
            shift=(0.9 * self.shift + rng.normal(0, 0.004, 2)).astype(np.float32),
            zoom=float(1.0 + 0.9 * (self.zoom - 1.0) + rng.normal(0, 0.004)),
        )

    def mask(self, landmarks: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """The opacity of the source, float32 [height, width] in [0, ratio]."""
        mask = soft_mask(
            landmarks,
            shape,
            region=self.region,
            grow=self.grow,
            wobble=self.wobble,
            feather=self.feather,
        )
        return mask * np.float32(self.ratio)


def draw_blend(rng: np.random.Generator) -> BlendParameters:
    """Draw the parameters of one forgery."""
    return BlendParameters(
        region=_REGIONS[int(rng.choice(len(_REGIONS), p=_REGION_SHARES))],
        grow=float(rng.uniform(0.85, 1.12)),
        wobble=rng.normal(0, 0.02, (WOBBLE_GRID, WOBBLE_GRID, 2)).astype(np.float32),
        feather=float(np.exp(rng.uniform(np.log(0.008), np.log(0.09)))),
        ratio=float(rng.choice(_RATIOS)),
        shift=(rng.uniform(-0.03, 0.03, 2) * np.array([1.0, 0.5])).astype(np.float32),
        zoom=float(rng.uniform(0.95, 1.05)),
        colour=draw_colour(rng),
        detail=draw_detail(rng),
        change_target=bool(rng.random() < 0.5),
        colour_share=float(rng.uniform(0.5, 1.0)),
    )


def lay_over(source: Picture, target: Picture, mask: NDArray[np.float32]) -> Picture:
    """Blend two pictures: mask x source + (1 - mask) x target, uint8 in and out."""
    left, top, width, height = cv2.boundingRect((mask > _VISIBLE).astype(np.uint8))
    inside = (slice(top, top + height), slice(left, left + width))
    base = target[inside].astype(np.float32)
    blended = base + mask[inside][:, :, None] * (source[inside] - base)
    result = target.copy()
    result[inside] = np.rint(blended).clip(0, 255)
    return result
