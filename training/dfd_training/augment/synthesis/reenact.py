"""Reenactment by warping: a face moved as a whole onto the landmarks of another expression.

Head reenactment by motion fields (Siarohin et al., "First Order Motion Model for Image
Animation", NeurIPS 2019, and what followed it) moves the pixels of one picture by a smooth dense
warp, paints what came into sight, and renders everything once more at the network's resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.augment.synthesis.detail import Picture, shrink_and_back, smear, unsharp
from dfd_training.augment.synthesis.geometry import (
    INNER_LIPS,
    WARP_POINTS,
    sample_field,
    smooth_field,
)

# Indices into the 468-point mesh.
_TOP, _CHIN = 10, 152
_RIGHT_CHEEK, _LEFT_CHEEK = 234, 454
_NOSE_TIP = 1
_LIP_LINE = (13, 14)
CORNERS = (61, 78, 291, 308)
UPPER_LIP = (185, 40, 39, 37, 0, 267, 269, 270, 409, 191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375, 95, 88, 178, 87, 14, 317, 402, 318, 324)
BROW_POINTS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 336, 296, 334, 293, 300, 285, 295, 282)
UPPER_LIDS = ((159, 160, 158, 161, 157), (386, 385, 387, 384, 388))
LOWER_LIDS = ((145, 144, 153, 163, 154), (374, 380, 373, 381, 390))

_HALF_WIDTH, _HALF_HEIGHT, _DEPTH = 0.46, 0.62, 0.42


@dataclass(frozen=True, slots=True)
class ExpressionChange:
    """A change of expression and pose; lengths are shares of the face's height.

    Attributes:
        jaw: Drop of the lower lip and the chin.
        smile: Motion of the corners of the mouth, outwards and up.
        brows: Rise of the brows.
        lids: Closing of the eyes, in [0, 1].
        yaw: Turn of the head to the side, degrees.
        pitch: Nod, degrees.
        roll: Tilt, degrees.
    """

    jaw: float
    smile: float
    brows: float
    lids: float
    yaw: float
    pitch: float
    roll: float


def draw_expression(rng: np.random.Generator, *, pose: bool = True) -> ExpressionChange:
    """Draws a change, one that a talking head makes within a second.

    Args:
        rng: Random generator.
        pose: False leaves the head where it is.
    """
    turns = rng.normal(0.0, (5.0, 3.5, 3.0)) * (pose and rng.random() < 0.75)
    return ExpressionChange(
        jaw=float(min(abs(rng.normal(0.0, 0.04)), 0.09)) if rng.random() < 0.7 else 0.0,
        smile=float(rng.normal(0.0, 0.018)),
        brows=float(rng.normal(0.0, 0.02)),
        lids=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.3 else 0.0,
        yaw=float(turns[0]),
        pitch=float(turns[1]),
        roll=float(turns[2]),
    )


def express(landmarks: NDArray[np.float32], change: ExpressionChange) -> NDArray[np.float32]:
    """Returns the landmarks after a change of expression and pose.

    The turns take the head for an ellipsoid: depth is not known, and small turns need little.

    Args:
        landmarks: float32 [468, 2], pixels.
        change: The change.

    Returns:
        float32 [468, 2].
    """
    down = landmarks[_CHIN] - landmarks[_TOP]
    height = max(float(np.hypot(*down)), 1.0)
    down = down / height
    axes = np.stack([np.array([down[1], -down[0]]), down]).astype(np.float32)  # right, down
    centre = landmarks.mean(axis=0)
    local = (landmarks - centre) @ axes.T / height
    moved = _moved_features(local, change)
    moved = _turned(moved, change)
    return np.asarray(moved @ axes * height + centre, np.float32)


def _moved_features(local: NDArray[np.float32], change: ExpressionChange) -> NDArray[np.float32]:
    moved = local.copy()
    line = local[list(_LIP_LINE)].mean(axis=0)
    # The jaw drops as a whole, the cheeks beside it less.
    below = 1.0 / (1.0 + np.exp(-(local[:, 1] - line[1] - 0.06) / 0.025))
    below *= np.exp(-(((local[:, 0] - line[0]) / 0.4) ** 2))
    below[list(UPPER_LIP)] = -0.12
    below[list(LOWER_LIP)] = 1.0
    below[list(CORNERS)] = 0.3
    # Along a lip the drop grows from the corners to the middle.
    lips = [*UPPER_LIP, *LOWER_LIP]
    half = max(float(np.ptp(local[list(CORNERS), 0])) / 2, 1e-3)
    below[lips] *= np.sqrt(np.clip(1.0 - ((local[lips, 0] - line[0]) / half) ** 2, 0.05, 1.0))
    moved[:, 1] += change.jaw * below
    near = np.exp(-((local - line) ** 2 / (0.16**2, 0.07**2)).sum(axis=1))
    outwards = np.clip((local[:, 0] - line[0]) / half, -1.0, 1.0)
    moved[:, 0] += change.smile * near * outwards
    moved[:, 1] -= 0.6 * change.smile * near * np.abs(outwards)
    moved[list(BROW_POINTS), 1] -= change.brows
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        gap = local[list(lower), 1] - local[list(upper), 1]
        moved[list(upper), 1] += change.lids * 0.85 * gap
    return np.asarray(moved, np.float32)


def _turned(local: NDArray[np.float32], change: ExpressionChange) -> NDArray[np.float32]:
    across, along = local[:, 0], local[:, 1]
    round_part = 1.0 - (across / _HALF_WIDTH) ** 2 - (along / _HALF_HEIGHT) ** 2
    depth = _DEPTH * np.sqrt(np.clip(round_part, 0.0, 1.0))
    depth += 0.08 * np.exp(-((local - local[_NOSE_TIP]) ** 2).sum(axis=1) / 0.06**2)
    yaw, pitch, roll = np.deg2rad((change.yaw, change.pitch, change.roll))
    turned = np.stack(
        [
            across * np.cos(yaw) + depth * np.sin(yaw),
            along * np.cos(pitch) + depth * np.sin(pitch),
        ],
        axis=1,
    )
    cosine, sine = np.cos(roll), np.sin(roll)
    return np.asarray(turned @ np.array([[cosine, sine], [-sine, cosine]]), np.float32)


_POINTS = sorted(
    {*WARP_POINTS, *INNER_LIPS, *UPPER_LIDS[0], *UPPER_LIDS[1], *LOWER_LIDS[0], *LOWER_LIDS[1]}
)
# Sides of the squares that head models render, pixels, and how much wider than the face these are.
_RENDERED_SIDES = (192, 256, 256, 256, 384, 512)
_RENDERED_MARGIN = 1.7
_GAPE = 0.02


@dataclass(frozen=True, slots=True)
class Reenactment:
    """Parameters of the motion of a face.

    Attributes:
        reach: Reach of a landmark's own motion, share of the face's size.
        fade: Reach of the motion beyond the face, share of the face's size.
        repair: Strength with which torn places are painted over, in [0, 1].
        rendered_side: Side of the rendered square in pixels.
        smear: Loss of texture, from 0 (none) to 1.
        sharpen: Amount of unsharp masking at the end.
        inside_mouth: Brightness of a mouth that is opened, share of its surroundings'.
    """

    reach: float
    fade: float
    repair: float
    rendered_side: int
    smear: float
    sharpen: float
    inside_mouth: float


def draw_reenactment(rng: np.random.Generator) -> Reenactment:
    """Draws the motion's parameters; in half of the draws the whole head comes along."""
    whole_head = rng.random() < 0.5
    return Reenactment(
        reach=float(rng.uniform(0.03, 0.07)),
        fade=float(rng.uniform(0.5, 1.5) if whole_head else rng.uniform(0.12, 0.3)),
        repair=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.6 else 0.0,
        rendered_side=int(rng.choice(_RENDERED_SIDES)),
        smear=float(rng.uniform(0.0, 0.6)) if rng.random() < 0.4 else 0.0,
        sharpen=float(rng.uniform(0.2, 1.2)) if rng.random() < 0.5 else 0.0,
        inside_mouth=float(rng.uniform(0.35, 0.9)),
    )


def reenact(
    image: Picture,
    landmarks: NDArray[np.float32],
    driven: NDArray[np.float32],
    reenactment: Reenactment,
    *,
    placed: tuple[NDArray[np.float64], tuple[int, int]] | None = None,
) -> Picture:
    """Moves a face from its landmarks onto others.

    Args:
        image: uint8 [height, width, 3], BGR.
        landmarks: float32 [468, 2] of the face in pixels of the result.
        driven: float32 [468, 2], the new landmarks in pixels of the result.
        reenactment: How.
        placed: The map [2, 3] from pixels of the result to those of `image`, and the result's
            height and width; None when the two are the same.

    Returns:
        uint8 [height, width, 3], BGR; the input is not changed.
    """
    shape = placed[1] if placed else (image.shape[0], image.shape[1])
    size = float(np.ptp(driven, axis=0).max())
    field = smooth_field(
        driven[_POINTS],
        (landmarks - driven)[_POINTS],
        shape,
        reach=reenactment.reach * size,
        fade=reenactment.fade * size,
    )
    if placed is None:
        field *= _border_window(field.shape[0])
    moved = sample_field(image, field, shape, matrix=placed[0] if placed else None)
    if reenactment.repair > 0:
        moved = _repair(moved, field, reenactment.repair, size)
    moved = _paint_mouth(moved, landmarks, driven, reenactment.inside_mouth, size)
    factor = reenactment.rendered_side / (_RENDERED_MARGIN * size)
    if factor < 0.95:
        moved = shrink_and_back(moved, factor)
    if reenactment.smear > 0:
        moved = smear(moved, reenactment.smear)
    if reenactment.sharpen > 0:
        moved = unsharp(moved, reenactment.sharpen, 1.0)
    return moved


def _border_window(side: int) -> NDArray[np.float32]:
    """Returns 1 inside, falling to 0 at the border, so that nothing is drawn in from outside."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / side
    edge = np.clip(np.minimum(place, 1.0 - place) / 0.12, 0.0, 1.0)
    edge = edge * edge * (3.0 - 2.0 * edge)
    return np.asarray(np.minimum(edge[:, None], edge[None, :])[:, :, None], np.float32)


def _repair(image: Picture, field: NDArray[np.float32], strength: float, size: float) -> Picture:
    """Paints softly over places where the field tears or squeezes the picture."""
    height, width = image.shape[:2]
    cell = width / field.shape[1]
    slope_y, slope_x = np.gradient(field, cell, axis=(0, 1))
    torn = np.abs(slope_x).sum(axis=2) + np.abs(slope_y).sum(axis=2)
    torn = np.clip((torn - 0.25) * 2.5, 0.0, 1.0) * strength
    if torn.max() < 0.1:
        return image
    share = cv2.resize(torn.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(image, (0, 0), max(0.8, 0.015 * size))
    return np.asarray(cv2.blendLinear(soft, image, share, 1.0 - share), np.uint8)


def _paint_mouth(
    image: Picture,
    landmarks: NDArray[np.float32],
    driven: NDArray[np.float32],
    brightness: float,
    size: float,
) -> Picture:
    """Darkens the inside of a mouth that the motion opened: no pixel of the picture shows it."""
    lips = driven[list(INNER_LIPS)]
    opened = float(
        np.hypot(*(driven[14] - driven[13])) - np.hypot(*(landmarks[14] - landmarks[13]))
    )
    if opened < _GAPE * size:
        return image
    low = np.maximum(lips.min(axis=0).astype(int) - 4, 0)
    high = np.minimum(lips.max(axis=0).astype(int) + 5, (image.shape[1], image.shape[0]))
    if (high - low).min() < 4:
        return image
    inside = (slice(low[1], high[1]), slice(low[0], high[0]))
    mask = np.zeros(tuple((high - low)[::-1]), np.uint8)
    outline = cv2.convexHull((lips - low).astype(np.float32))
    cv2.fillConvexPoly(mask, np.round(outline * 16).astype(np.int32), 255, cv2.LINE_AA, shift=4)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.7, 0.12 * opened))
    part = np.ascontiguousarray(image[inside])
    soft = cv2.GaussianBlur(part, (0, 0), max(1.0, 0.3 * opened))
    # Reddish: the blue and green of a mouth's inside are darker than its red.
    dark = soft * (np.array([0.8, 0.75, 1.0], np.float32) * brightness)
    share = mask.astype(np.float32) / 255.0
    result = image.copy()
    result[inside] = np.rint(part + share[:, :, None] * (dark - part)).astype(np.uint8)
    return result
