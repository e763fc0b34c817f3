"""Faces brought to one place and size, as swap tools train on them, and back into the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.store import StoredCrop
from dfd_training.synthesis.detail import Picture
from dfd_training.synthesis.warp import similarity

# Contours in the 468-point mesh.
_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_NOSE = ((168, 6, 197, 195, 5, 4, 1), (98, 97, 2, 326, 327))

_ANCHORS = ((33, 133), (263, 362), (61, 291))
_TEMPLATE = np.array([[0.33, 0.30], [0.67, 0.30], [0.5, 0.67]], np.float32)
"""Eyes and mouth as shares of the aligned square: brows, cheeks and chin lie inside it."""


@dataclass(frozen=True)
class AlignedFace:
    """A face in the aligned square.

    Attributes:
        image: uint8 [side, side, 3], BGR.
        landmarks: float32 [468, 2], pixels of `image`.
        matrix: float64 [2, 3], from pixels of the crop to pixels of `image`.
    """

    image: Picture
    landmarks: NDArray[np.float32]
    matrix: NDArray[np.float64]


def align(crop: StoredCrop, side: int) -> AlignedFace:
    """Turn, scale and shift a crop so that eyes and mouth lie where the template has them.

    Args:
        crop: with landmarks.
        side: of the aligned square, pixels.
    """
    assert crop.landmarks is not None
    anchors = np.stack([crop.landmarks[list(pair)].mean(axis=0) for pair in _ANCHORS])
    matrix = similarity(anchors, _TEMPLATE * side)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    image = crop.image
    if scale < 0.6:
        # Bilinear sampling alone would alias.
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.uint8)
    face = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    landmarks = crop.landmarks @ matrix[:, :2].T + matrix[:, 2]
    return AlignedFace(np.asarray(face, np.uint8), landmarks.astype(np.float32), matrix)


def place_back(
    face: Picture, matrix: NDArray[np.float64], side: int, *, kernel: int = cv2.INTER_CUBIC
) -> tuple[Picture, NDArray[np.float32]]:
    """Bring an aligned face back to where it was in the crop.

    Returns:
        The face, uint8 [side, side, 3], and where the aligned square lies in the crop, float32
        [side, side], falling off towards the square's border.
    """
    inverse = cv2.invertAffineTransform(matrix)
    placed = cv2.warpAffine(
        face, inverse, (side, side), flags=kernel, borderMode=cv2.BORDER_REPLICATE
    )
    size = face.shape[0]
    inside = np.zeros((size, size), np.float32)
    border = max(2, size // 24)
    inside[border:-border, border:-border] = 1.0
    soft = cv2.GaussianBlur(inside, (0, 0), border / 2)
    covered = cv2.warpAffine(soft, inverse, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, np.uint8), np.asarray(covered, np.float32)


def geometry_map(landmarks: NDArray[np.float32], side: int, map_side: int) -> NDArray[np.uint8]:
    """Draw the contours of face, nose, eyes, brows and mouth.

    Args:
        landmarks: float32 [468, 2], pixels of a square of `side`.
        side: of the square.
        map_side: of the drawing.

    Returns:
        uint8 [map_side, map_side, 3]: face and nose; eyes and brows; lips and open mouth.
    """
    points = np.round(landmarks * (map_side / side) * 16).astype(np.int32)
    planes = [np.zeros((map_side, map_side), np.uint8) for _ in range(3)]

    def fill(plane: int, contour: tuple[int, ...], level: int) -> None:
        cv2.fillPoly(planes[plane], [points[list(contour)]], level, cv2.LINE_AA, shift=4)

    fill(0, _OVAL, 128)
    for line in _NOSE:
        cv2.polylines(planes[0], [points[list(line)]], False, 255, 1, cv2.LINE_AA, shift=4)
    for brow in _BROWS:
        fill(1, brow, 128)
    for eye in _EYES:
        fill(1, eye, 255)
    fill(2, _LIPS, 128)
    fill(2, _MOUTH, 255)
    return np.stack(planes, axis=2)


def loss_weights(landmarks: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """What a pixel counts in the loss: uint8 [side, side], the face 80, eyes and mouth 255."""
    points = np.round(landmarks * 16).astype(np.int32)
    weights = np.full((side, side), 20, np.uint8)
    cv2.fillConvexPoly(weights, cv2.convexHull(points), 80, cv2.LINE_AA, shift=4)
    for contour in (*_EYES, _LIPS):
        grown = cv2.convexHull(points[list(contour)])
        cv2.fillConvexPoly(weights, grown, 255, cv2.LINE_AA, shift=4)
        cv2.polylines(weights, [grown], True, 255, max(2, side // 24), cv2.LINE_AA, shift=4)
    return weights


def random_warp(image: Picture, rng: np.random.Generator) -> Picture:
    """Deform a face by a random grid, as Faceswap does, so that the encoder learns no outline."""
    side = image.shape[0]
    grid = np.linspace(0, side - 1, 5, dtype=np.float32)
    places = np.stack(np.meshgrid(grid, grid), axis=2)
    places += rng.normal(0, 0.02 * side, places.shape).astype(np.float32)
    field = cv2.resize(places, (side, side), interpolation=cv2.INTER_CUBIC)
    warped = cv2.remap(
        image, field[..., 0], field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)
