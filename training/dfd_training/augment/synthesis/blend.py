"""Blends of one face over another: self-blended images, and face swaps by landmarks.

The parameters of a forgery are drawn once and drift over the frames of a clip.

Self-blending lays a face over a changed copy of itself (Shiohara and Yamasaki, "Detecting Deepfakes
with Self-Blended Images", CVPR 2022). Visible remains the border between two versions of one
face: a network that finds such borders finds them in swaps by tools that it has never seen.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.augment.synthesis.colour import (
    ColourChange,
    ColourTransfer,
    change_colour,
    draw_colour,
    transfer_colour,
)
from dfd_training.augment.synthesis.detail import DetailChange, Picture, change_detail, draw_detail
from dfd_training.augment.synthesis.geometry import (
    WOBBLE_GRID,
    Box,
    MaskRegion,
    move_points,
    points_box,
    similarity,
    soft_mask,
    warp_face,
)

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
    """The parameters with which a source face is laid over a target face.

    Attributes:
        region: The part of the face that is replaced.
        grow: Scale of the mask round its centre.
        wobble: float32 [6, 6, 2], deformation of the mask, shares of the face's size.
        feather: Blur of the mask's edge, share of the face's size.
        ratio: Opacity of the source inside the mask, in (0, 1].
        shift: float32 [2], displacement of the source, shares of the face's size.
        zoom: Scale of the source.
        colour: Change of colour between the two.
        detail: Change of sharpness and scale between the two.
        change_target: True when the target's copy is changed instead of the source's.
        colour_share: Share of a swap's match of the target's colours, in [0, 1].
        transfer: Method of a swap's match of the target's colours.
        turn: Rotation of the source, degrees.
        keep_shape: Share of the donor's own shape of face that a swap keeps, in [0, 1].
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
        """Returns the parameters one frame later: place and edge of the mask wander a little."""
        return dataclasses.replace(
            self,
            wobble=(0.9 * self.wobble + rng.normal(0, 0.006, self.wobble.shape)).astype(np.float32),
            shift=(0.9 * self.shift + rng.normal(0, 0.004, 2)).astype(np.float32),
            zoom=float(1.0 + 0.9 * (self.zoom - 1.0) + rng.normal(0, 0.004)),
        )

    def mask(self, landmarks: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Returns the opacity of the source, float32 [height, width] in [0, ratio]."""
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
        """Returns the part of a picture of this height and width outside which the mask is 0."""
        points = landmarks[list(self.region.value)]
        size = float(np.ptp(landmarks, axis=0).max())
        grown = (self.grow - 1.0) * float(np.ptp(points, axis=0).max()) / 2
        return points_box(
            points, shape, margin=(0.09 + 2.5 * self.feather) * size + max(0.0, grown)
        )


def draw_blend(rng: np.random.Generator) -> BlendParameters:
    """Draws the parameters of one forgery."""
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
    """Draws the parameters of a swap of a whole face: softer and less transparent than a blend."""
    drawn = draw_blend(rng)
    return dataclasses.replace(
        drawn,
        region=draw_region(rng, _SWAPPED),
        feather=max(drawn.feather, _SHARPEST_SWAP),
        ratio=float(rng.choice(_SWAP_RATIOS)),
    )


def draw_part(rng: np.random.Generator) -> BlendParameters:
    """Draws the parameters of a swap of the mouth, the eyes or the lower face."""
    return dataclasses.replace(draw_swap(rng), region=draw_region(rng, _PARTS))


def draw_region(rng: np.random.Generator, shares: dict[MaskRegion, float]) -> MaskRegion:
    """Draws one of some regions by their shares, which add up to 1."""
    return tuple(shares)[int(rng.choice(len(shares), p=tuple(shares.values())))]


def draw_transfer(rng: np.random.Generator) -> ColourTransfer:
    """Draws a colour transfer, about as often as tools use it."""
    return tuple(_TRANSFERS)[int(rng.choice(len(_TRANSFERS), p=tuple(_TRANSFERS.values())))]


def lay_over(source: Picture, target: Picture, mask: NDArray[np.float32]) -> Picture:
    """Blends two pictures: mask x source + (1 - mask) x target, uint8 in and out."""
    # The sum of the weights is 1 but for 1e-5 that OpenCV adds: rounding hides it.
    return np.asarray(cv2.blendLinear(source, target, mask, 1.0 - mask), np.uint8)


def lay_into(source: Picture, target: Picture, mask: NDArray[np.float32], box: Box) -> Picture:
    """Returns a copy of the target, blended inside a box with a source of the box's size."""
    result = target.copy()
    result[box.inside] = lay_over(source, box.cut(target), mask)
    return result


@dataclass(frozen=True, slots=True)
class LaidFace:
    """A face, or a part of one, as it will lie over a picture.

    Attributes:
        face: uint8 [height, width, 3], BGR, of the box's size.
        mask: float32 [height, width], its opacity.
        box: The part of the picture that it covers.
    """

    face: Picture
    mask: NDArray[np.float32]
    box: Box

    def over(self, target: Picture) -> Picture:
        """Returns a copy of a picture with the face laid over it."""
        return lay_into(self.face, target, self.mask, self.box)

    def spread_mask(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the mask over a picture of some shape, float32 [height, width]."""
        return self.box.spread(self.mask, (shape[0], shape[1]))


def self_blend(
    image: Picture, landmarks: NDArray[np.float32], parameters: BlendParameters
) -> Picture:
    """Makes a fake of one face by blending two copies of it.

    Args:
        image: uint8 [height, width, 3], BGR.
        landmarks: float32 [468, 2], pixels.
        parameters: The forgery.

    Returns:
        uint8 [height, width, 3], BGR; the input is not changed.
    """
    if parameters.change_target:
        changed = changed_copy(image, landmarks, parameters)
        return laid_copy(image, landmarks, parameters, change=False).over(changed)
    return laid_copy(image, landmarks, parameters).over(image)


def laid_copy(
    source: Picture,
    landmarks: NDArray[np.float32],
    parameters: BlendParameters,
    *,
    change: bool = True,
) -> LaidFace:
    """Returns the face of a copy, moved a little, as it will lie over another.

    Args:
        source: uint8 [height, width, 3], BGR.
        landmarks: float32 [468, 2], pixels.
        parameters: The forgery.
        change: False if `source` has the changes already.
    """
    box = parameters.box(landmarks, source.shape[:2])
    points = box.points(landmarks)
    part = box.cut(source)
    if change:
        part = changed_copy(part, points, parameters)
    mask = parameters.mask(points, box.shape)
    return LaidFace(move_copy(part, points, parameters), mask, box)


def changed_copy(
    image: Picture, landmarks: NDArray[np.float32], parameters: BlendParameters
) -> Picture:
    """Returns the copy with the forgery's changes of colour and detail over the whole picture."""
    size = float(np.ptp(landmarks, axis=0).max())
    coloured = change_colour(image, parameters.colour)
    return change_detail(coloured, parameters.detail, face_px=size)


def move_copy(
    image: Picture, landmarks: NDArray[np.float32], parameters: BlendParameters
) -> Picture:
    """Returns the copy shifted, turned and scaled by the forgery's small amounts."""
    size = float(np.ptp(landmarks, axis=0).max())
    x, y = (float(value) for value in landmarks.mean(axis=0))
    move = cv2.getRotationMatrix2D((x, y), parameters.turn, parameters.zoom)
    move[:, 2] = move[:, 2] + size * parameters.shift
    moved = cv2.warpAffine(
        image, move, (image.shape[1], image.shape[0]), borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


_FARTHEST_SHAPE = 0.02
"""How far landmarks are moved at most on average, share of the face's size."""


def face_swap(
    target: Picture,
    target_landmarks: NDArray[np.float32],
    donor: Picture,
    donor_landmarks: NDArray[np.float32],
    parameters: BlendParameters,
    *,
    poisson: bool = False,
) -> Picture:
    """Lays a donor's face over a target's.

    The donor is warped triangle by triangle onto the target's landmarks, given the target's
    colours and blended: by the feathered mask, or by Poisson blending (Perez et al., "Poisson
    Image Editing", 2003).

    Args:
        target: uint8 [height, width, 3], BGR.
        target_landmarks: float32 [468, 2], pixels of `target`.
        donor: uint8 [any, any, 3], BGR.
        donor_landmarks: float32 [468, 2], pixels of `donor`.
        parameters: Mask, opacity, transfer of colour and change of detail.
        poisson: Blend gradients instead of colours.

    Returns:
        uint8 [height, width, 3], BGR; the inputs are not changed.

    Raises:
        UsageError: When the target's landmarks span no area.
    """
    laid = laid_face(target, target_landmarks, donor, donor_landmarks, parameters)
    if poisson:
        part = laid.box.cut(target)
        cloned = _poisson(laid.face, part, laid.mask)
        if cloned is not None:
            opacity = np.full_like(laid.mask, parameters.ratio)
            return lay_into(cloned, target, opacity, laid.box)
    return laid.over(target)


def laid_face(
    target: Picture,
    target_landmarks: NDArray[np.float32],
    donor: Picture,
    donor_landmarks: NDArray[np.float32],
    parameters: BlendParameters,
) -> LaidFace:
    """Brings a donor's face to the place, colours and detail in which it will lie.

    Raises:
        UsageError: When the target's landmarks span no area.
    """
    size = float(np.ptp(target_landmarks, axis=0).max())
    onto = _own_shape(target_landmarks, donor_landmarks, parameters.keep_shape, size)
    box = parameters.box(onto, target.shape[:2])
    onto = box.points(onto)
    face, covered = warp_face(donor, donor_landmarks, onto, box.shape)
    # Outside the warped triangles there is no donor to show.
    covered = np.asarray(cv2.erode(covered, np.ones((3, 3), np.uint8), iterations=3), np.uint8)
    covered = np.asarray(cv2.GaussianBlur(covered, (0, 0), 1.2), np.uint8)
    mask = np.asarray(
        cv2.multiply(
            parameters.mask(onto, box.shape), covered, scale=1.0 / 255.0, dtype=cv2.CV_32F
        ),
        np.float32,
    )
    if parameters.ratio > 0:
        face = transfer_colour(
            face,
            box.cut(target),
            mask / parameters.ratio,
            parameters.colour_share,
            method=parameters.transfer,
        )
    return LaidFace(change_detail(face, parameters.detail, face_px=size), mask, box)


def _own_shape(
    target: NDArray[np.float32], donor: NDArray[np.float32], share: float, size: float
) -> NDArray[np.float32]:
    """Moves the target's landmarks towards the donor's shape, by a share or a short distance."""
    if share <= 0:
        return target
    away = move_points(donor, similarity(donor, target)) - target
    limit = _FARTHEST_SHAPE * size / max(float(np.abs(away).mean()), 1e-6)
    return target + np.float32(min(share, limit)) * away


def _poisson(face: Picture, target: Picture, mask: NDArray[np.float32]) -> Picture | None:
    """Blends gradients; None where the mask is empty or touches the picture's border."""
    inside = (mask > 0.3).astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(inside)
    touches = x < 2 or y < 2 or x + width > mask.shape[1] - 2 or y + height > mask.shape[0] - 2
    if width < 8 or height < 8 or touches:
        return None
    # seamlessClone centres the mask's bounding box on the given point, rounding down.
    centre = (x + width // 2, y + height // 2)
    return np.asarray(cv2.seamlessClone(face, target, inside, centre, cv2.NORMAL_CLONE), np.uint8)
