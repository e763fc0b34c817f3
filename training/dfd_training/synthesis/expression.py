"""Synthetic changes of expression and pose: where the landmarks of a face would move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        jaw: how far the lower lip and the chin drop.
        smile: how far the corners of the mouth go outwards and up.
        brows: how far the brows rise.
        lids: how far the eyes close, in [0, 1].
        yaw: turn of the head to the side, degrees.
        pitch: nod, degrees.
        roll: tilt, degrees.
    """

    jaw: float
    smile: float
    brows: float
    lids: float
    yaw: float
    pitch: float
    roll: float


def draw_expression(rng: np.random.Generator, *, pose: bool = True) -> ExpressionChange:
    """Draw a change, one that a talking head makes within a second.

    Args:
        rng: the source of chance.
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
    """Where the landmarks lie after a change of expression and pose.

    The turns take the head for an ellipsoid: depth is not known, and small turns need little.

    Args:
        landmarks: float32 [468, 2], pixels.
        change: what moves.

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
