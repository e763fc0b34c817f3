"""The parameters of one forgery, drawn once and drifting over the frames of a clip."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.box import Box, points_box
from dfd_training.synthesis.colour import ColourChange, draw_colour
from dfd_training.synthesis.detail import DetailChange, Picture, draw_detail
from dfd_training.synthesis.masks import WOBBLE_GRID, MaskRegion, soft_mask
from dfd_training.synthesis.transfer import ColourTransfer

_REGIONS = {
    MaskRegion.FACE: 0.3,
    MaskRegion.BROWS_TO_CHIN: 0.3,
    MaskRegion.INNER: 0.14,
    MaskRegion.LOWER: 0.08,
    MaskRegion.MOUTH_REGION: 0.05,
    MaskRegion.MOUTH_AND_JAW: 0.05,
    MaskRegion.EYE_REGION: 0.05,
    MaskRegion.NOSE_REGION: 0.03,
}
_SWAPPED = {
    MaskRegion.FACE: 0.4,
    MaskRegion.BROWS_TO_CHIN: 0.42,
    MaskRegion.INNER: 0.18,
}
_PARTS = {
    MaskRegion.MOUTH_AND_JAW: 0.35,
    MaskRegion.LOWER: 0.25,
    MaskRegion.MOUTH_REGION: 0.2,
    MaskRegion.EYE_REGION: 0.15,
    MaskRegion.NOSE_REGION: 0.05,
}
_TRANSFERS = {
    ColourTransfer.REINHARD: 0.45,
    ColourTransfer.COVARIANCE: 0.2,
    ColourTransfer.HISTOGRAM: 0.12,
    ColourTransfer.MEAN: 0.18,
    ColourTransfer.NONE: 0.05,
}
_RATIOS = (0.35, 0.5, 0.75, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0)
_SWAP_RATIOS = (0.6, 0.85, 1.0, 1.0, 1.0, 1.0)
_SHARPEST_SWAP = 0.01
_SHARPEST_EDGE, _SOFTEST_EDGE = 0.003, 0.11


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
        transfer: how a swap matches the target's colours.
        turn: rotation of the source, degrees.
        keep_shape: how far a swap keeps the donor's own shape of face, in [0, 1].
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
    transfer: ColourTransfer = ColourTransfer.REINHARD
    turn: float = 0.0
    keep_shape: float = 0.0

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

    def box(self, landmarks: NDArray[np.float32], shape: tuple[int, int]) -> Box:
        """The part of a picture of height and width `shape` outside of which the mask is 0."""
        points = landmarks[list(self.region.value)]
        size = float(np.ptp(landmarks, axis=0).max())
        grown = (self.grow - 1.0) * float(np.ptp(points, axis=0).max()) / 2
        return points_box(
            points, shape, margin=(0.09 + 2.5 * self.feather) * size + max(0.0, grown)
        )


def draw_blend(rng: np.random.Generator) -> BlendParameters:
    """Draw the parameters of one forgery."""
    region = draw_region(rng, _REGIONS)
    # In half of the forgeries the colours differ as little as careful tools leave them.
    strength = float(rng.uniform(0.5, 1.0) if rng.random() < 0.5 else rng.uniform(0.0, 0.5))
    colour = draw_colour(rng, strength)
    return BlendParameters(
        region=region,
        grow=float(rng.uniform(0.85, 1.12)),
        wobble=rng.normal(0, 0.02, (WOBBLE_GRID, WOBBLE_GRID, 2)).astype(np.float32),
        feather=float(np.exp(rng.uniform(np.log(_SHARPEST_EDGE), np.log(_SOFTEST_EDGE)))),
        ratio=float(rng.choice(_RATIOS)),
        shift=(rng.uniform(-0.03, 0.03, 2) * np.array([1.0, 0.5])).astype(np.float32),
        zoom=float(rng.uniform(0.95, 1.05)),
        colour=dataclasses.replace(colour, hue=0.5 * colour.hue),
        detail=draw_detail(rng),
        change_target=bool(rng.random() < 0.5),
        colour_share=float(rng.uniform(0.6, 1.0)),
        transfer=draw_transfer(rng),
        turn=float(rng.uniform(-3, 3)) if rng.random() < 0.5 else 0.0,
        keep_shape=float(rng.uniform(0, 0.5)) if rng.random() < 0.5 else 0.0,
    )


def draw_swap(rng: np.random.Generator) -> BlendParameters:
    """Draw the parameters of a swap of a whole face: softer and less transparent than a blend."""
    drawn = draw_blend(rng)
    return dataclasses.replace(
        drawn,
        region=draw_region(rng, _SWAPPED),
        feather=max(drawn.feather, _SHARPEST_SWAP),
        ratio=float(rng.choice(_SWAP_RATIOS)),
    )


def draw_part(rng: np.random.Generator) -> BlendParameters:
    """Draw the parameters of a swap of the mouth, the eyes or the lower face."""
    return dataclasses.replace(draw_swap(rng), region=draw_region(rng, _PARTS))


def draw_region(rng: np.random.Generator, shares: dict[MaskRegion, float]) -> MaskRegion:
    """Draw one of some regions by their shares, which add up to 1."""
    return tuple(shares)[int(rng.choice(len(shares), p=tuple(shares.values())))]


def draw_transfer(rng: np.random.Generator) -> ColourTransfer:
    """Draw a colour transfer, about as often as tools use it."""
    return tuple(_TRANSFERS)[int(rng.choice(len(_TRANSFERS), p=tuple(_TRANSFERS.values())))]


def lay_over(source: Picture, target: Picture, mask: NDArray[np.float32]) -> Picture:
    """Blend two pictures: mask x source + (1 - mask) x target, uint8 in and out."""
    # The sum of the weights is 1 but for 1e-5 that OpenCV adds: rounding hides it.
    return np.asarray(cv2.blendLinear(source, target, mask, 1.0 - mask), np.uint8)


def lay_into(source: Picture, target: Picture, mask: NDArray[np.float32], box: Box) -> Picture:
    """A copy of the target, blended inside a box with a source of the box's size."""
    result = target.copy()
    result[box.inside] = lay_over(source, box.cut(target), mask)
    return result


@dataclass(frozen=True, slots=True)
class LaidFace:
    """A face, or a part of one, as it will lie over a picture.

    Attributes:
        face: uint8 [height, width, 3], BGR, of the box's size.
        mask: float32 [height, width], its opacity.
        box: the part of the picture that it covers.
    """

    face: Picture
    mask: NDArray[np.float32]
    box: Box

    def over(self, target: Picture) -> Picture:
        """A copy of a picture with the face laid over it."""
        return lay_into(self.face, target, self.mask, self.box)

    def spread_mask(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The mask over a picture of some shape, float32 [height, width]."""
        return self.box.spread(self.mask, (shape[0], shape[1]))
