"""Which part of a face is replaced: hulls of landmarks, deformed and feathered."""

from __future__ import annotations

from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

MASK_SIZE = 128
WOBBLE_GRID = 6

# Indices into the 468-point mesh.
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
FOREHEAD = (54, 103, 67, 109, 10, 338, 297, 332, 284, 21, 251)
CHEEKS = (234, 454, 127, 356, 93, 323)
CHIN = (152, 148, 176, 149, 150, 136, 172, 58, 132, 377, 400, 378, 379, 365, 397, 288, 361)
MOUTH = (61, 291, 0, 17, 37, 267, 84, 314, 40, 270, 91, 321, 185, 409, 146, 375)
NOSE = (1, 2, 98, 327, 168, 6, 129, 358)
EYES = (33, 133, 159, 145, 263, 362, 386, 374)


class MaskRegion(Enum):
    """The part of the face that a mask covers."""

    FACE = (*FOREHEAD, *CHEEKS, *CHIN)
    BROWS_TO_CHIN = (*BROWS, *CHEEKS, *CHIN)
    INNER = (*BROWS, *MOUTH, *NOSE, *EYES)
    LOWER = (*CHEEKS[:2], *CHIN, *NOSE[:4])
    MOUTH_REGION = (*MOUTH, *NOSE[2:4])


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
        wobble: float32 [6, 6, 2], displacements of a coarse grid over the picture, as shares of
            the face's size; the hull's edge follows them.
        feather: standard deviation of the blur, as a share of the face's size.

    Returns:
        float32 [height, width] in [0, 1].
    """
    height, width = shape
    to_mask = np.array([MASK_SIZE / width, MASK_SIZE / height], np.float32)
    points = landmarks[list(region.value)] * to_mask
    centre = points.mean(axis=0)
    hull = cv2.convexHull(((points - centre) * grow + centre).astype(np.float32))
    size = float(np.ptp(landmarks, axis=0).max()) * float(to_mask.min())
    mask = np.zeros((MASK_SIZE, MASK_SIZE), np.uint8)
    cv2.fillConvexPoly(mask, np.round(hull * 16).astype(np.int32), 255, cv2.LINE_AA, shift=4)
    field = cv2.resize(wobble * size, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_CUBIC)
    grid_y, grid_x = np.mgrid[0:MASK_SIZE, 0:MASK_SIZE].astype(np.float32)
    moved = cv2.remap(mask, grid_x + field[:, :, 0], grid_y + field[:, :, 1], cv2.INTER_LINEAR)
    sigma = max(0.4, feather * size)
    soft = cv2.GaussianBlur(moved, (0, 0), sigma)
    # The blur also spreads the mask outwards; squaring it draws the edge back inside the face.
    values = (soft.astype(np.float32) / 255.0) ** 2
    resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)
