"""Which part of a face is replaced: hulls of landmarks, deformed and feathered."""

from __future__ import annotations

from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

WOBBLE_GRID = 6

# Indices into the 468-point mesh.
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
FOREHEAD = (54, 103, 67, 109, 10, 338, 297, 332, 284, 21, 251)
CHEEKS = (234, 454, 127, 356, 93, 323)
CHIN = (152, 148, 176, 149, 150, 136, 172, 58, 132, 377, 400, 378, 379, 365, 397, 288, 361)
MOUTH = (61, 291, 0, 17, 37, 267, 84, 314, 40, 270, 91, 321, 185, 409, 146, 375)
NOSE = (1, 2, 98, 327, 168, 6, 129, 358)
EYES = (33, 133, 159, 145, 263, 362, 386, 374)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178)
# Round the mouth, at the distance to which lip-sync tools paint.
JAW = (152, 176, 150, 400, 379, 50, 280, 205, 425, 2)
RING = (33, 133, 263, 362, 70, 105, 107, 336, 334, 300, 111, 340, 119, 348)


class MaskRegion(Enum):
    """The part of the face that a mask covers."""

    FACE = (*FOREHEAD, *CHEEKS, *CHIN)
    BROWS_TO_CHIN = (*BROWS, *CHEEKS, *CHIN)
    INNER = (*BROWS, *MOUTH, *NOSE, *EYES)
    LOWER = (*CHEEKS[:2], *CHIN, *NOSE[:4])
    MOUTH_REGION = (*MOUTH, *NOSE[2:4])
    MOUTH_AND_JAW = (*MOUTH, *JAW)
    EYE_REGION = RING
    NOSE_REGION = (*NOSE, 48, 278)


def soft_mask(
    landmarks: NDArray[np.float32],
    shape: tuple[int, int],
    *,
    region: MaskRegion,
    grow: float,
    wobble: NDArray[np.float32],
    feather: float,
) -> NDArray[np.float32]:
    """Draw a feathered mask of a part of a face.

    Args:
        landmarks: float32 [468, 2], pixels.
        shape: height and width of the picture.
        region: which part.
        grow: the hull is scaled by this round its centre.
        wobble: float32 [6, 6, 2], displacements of a coarse grid over the face, as shares of the
            face's size; the hull's edge follows them.
        feather: standard deviation of the blur, as a share of the face's size.

    Returns:
        float32 [height, width] in [0, 1].
    """
    height, width = shape
    size = float(np.ptp(landmarks, axis=0).max())
    sigma = max(0.5, feather * size)
    # A soft mask is drawn small and enlarged: the result is the same, for a part of the time.
    scale = min(1.0, 2.5 / sigma)
    small = (max(8, round(width * scale)), max(8, round(height * scale)))
    edge = _deformed_hull(landmarks, region, grow, wobble * size)
    edge = edge * np.array([small[0] / width, small[1] / height], np.float32)
    mask = np.zeros((small[1], small[0]), np.uint8)
    cv2.fillPoly(mask, [np.round(edge * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(mask, (0, 0), sigma * scale)
    # The blur also spreads the mask outwards; squaring it draws the edge back inside the face.
    values = cv2.LUT(soft, _SQUARES)
    if scale < 1.0:
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(values, np.float32)


_SQUARES = ((np.arange(256, dtype=np.float32) / 255.0) ** 2)[None]


def _deformed_hull(
    landmarks: NDArray[np.float32],
    region: MaskRegion,
    grow: float,
    displacement: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The convex hull, its edge moved by a coarse field over the face: float32 [n, 2]."""
    points = landmarks[list(region.value)]
    centre = points.mean(axis=0)
    hull = cv2.convexHull(((points - centre) * grow + centre).astype(np.float32))[:, 0]
    # Four points a side, so that a side can bend.
    shares = (np.arange(4, dtype=np.float32) / 4.0)[None, :, None]
    edge = (hull[:, None] + shares * (np.roll(hull, -1, axis=0) - hull)[:, None]).reshape(-1, 2)
    low, extent = landmarks.min(axis=0), np.maximum(np.ptp(landmarks, axis=0), 1e-3)
    place = np.clip((edge - low) / extent, 0, 1).astype(np.float32) * (WOBBLE_GRID - 1)
    moved = cv2.remap(displacement, place[None, :, 0], place[None, :, 1], cv2.INTER_LINEAR)
    return np.asarray(edge + moved[0], np.float32)
