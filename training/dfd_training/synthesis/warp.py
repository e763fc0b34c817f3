"""Warps of faces: triangle by triangle onto other landmarks, and smoothly as a whole."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

from dfd_edge.errors import UsageError
from dfd_training.synthesis.detail import Picture
from dfd_training.synthesis.masks import BROWS, CHEEKS, CHIN, EYES, FOREHEAD, MOUTH, NOSE

# Enough of the 468 points for the shape of the face; all of them would only cost time.
WARP_POINTS = sorted({*BROWS, *CHEEKS, *CHIN, *EYES, *FOREHEAD, *MOUTH, *NOSE, *range(0, 468, 9)})
_FIELD_SIDE = 32
_MAP_STEP = 3
_NO_MAP = np.empty(0, np.float32)


def warp_face(
    donor: Picture,
    donor_landmarks: NDArray[np.float32],
    target_landmarks: NDArray[np.float32],
    shape: tuple[int, int],
) -> tuple[Picture, NDArray[np.uint8]]:
    """Warp a face onto other landmarks, piecewise affine over a Delaunay mesh.

    Returns:
        The face, uint8 [height, width, 3], BGR, and 255 where it lies, uint8 [height, width];
        elsewhere the picture means nothing.

    Raises:
        UsageError: when the target's landmarks span no area.
    """
    height, width = shape
    to_points = target_landmarks[WARP_POINTS].astype(np.float64)
    triangles, matrices = _triangles(
        to_points, donor_landmarks[WARP_POINTS].astype(np.float64), shape
    )
    if not len(triangles):
        return np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    # The map is linear inside each triangle: every third pixel of it is enough.
    rows, columns = height // _MAP_STEP + 1, width // _MAP_STEP + 1
    owner = np.full((rows, columns), -1, np.int16)
    fixed = np.round(to_points[triangles] * (16 / _MAP_STEP)).astype(np.int32)
    for number, triangle in enumerate(fixed):
        cv2.fillConvexPoly(owner, triangle, number, cv2.LINE_8, shift=4)
    matrix = matrices.reshape(-1, 6)[owner]  # outside the mesh: any; masked below
    x = np.arange(0, columns * _MAP_STEP, _MAP_STEP, dtype=np.float32)[None, :]
    y = np.arange(0, rows * _MAP_STEP, _MAP_STEP, dtype=np.float32)[:, None]
    coarse = np.stack(
        [
            x * matrix[:, :, 0] + y * matrix[:, :, 2] + matrix[:, :, 4],
            x * matrix[:, :, 1] + y * matrix[:, :, 3] + matrix[:, :, 5],
        ],
        axis=2,
    )
    fine = cv2.warpAffine(
        coarse,
        np.array([[1 / _MAP_STEP, 0, 0], [0, 1 / _MAP_STEP, 0]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    face = cv2.remap(donor, fine, _NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    covered = np.zeros((height, width), np.uint8)
    hull = np.round(cv2.convexHull(to_points.astype(np.float32)) * 16).astype(np.int32)
    cv2.fillConvexPoly(covered, hull, 255, cv2.LINE_8, shift=4)
    return np.asarray(face, np.uint8), covered


def _triangles(
    to_points: NDArray[np.float64], from_points: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Triangles of the mesh inside a picture, int32 [n, 3], and their maps, float32 [n, 3, 2]."""
    try:
        triangles = Delaunay(to_points).simplices
    except QhullError as error:
        raise UsageError("the target's landmarks span no area") from error
    placed = to_points[triangles]
    seen = (placed.max(axis=1) >= 0) & (placed.min(axis=1) < (shape[1], shape[0]))
    triangles = triangles[seen.all(axis=1)]
    corners = np.concatenate([to_points[triangles], np.ones((len(triangles), 3, 1))], axis=2)
    usable = np.abs(np.linalg.det(corners)) > 1e-6
    triangles, corners = triangles[usable], corners[usable]
    matrices = np.linalg.solve(corners, from_points[triangles]).astype(np.float32)
    return triangles, matrices


def smooth_field(
    points: NDArray[np.float32],
    moves: NDArray[np.float32],
    shape: tuple[int, int],
    *,
    reach: float,
    fade: float,
) -> NDArray[np.float32]:
    """Spread the moves of some points smoothly over a picture.

    Args:
        points: float32 [n, 2], pixels.
        moves: float32 [n, 2], pixels.
        shape: height and width of the picture.
        reach: standard deviation of the weights of a point, pixels; small keeps neighbouring
            points apart, such as the two lips.
        fade: distance from the nearest points over which the moves fall to nothing, pixels.

    Returns:
        float32 [32, 32, 2] over the whole picture, pixels: bring it to size by `cv2.resize`.
    """
    height, width = shape
    side = _FIELD_SIDE
    x = (np.arange(side, dtype=np.float32) + 0.5) * (width / side) - 0.5
    y = (np.arange(side, dtype=np.float32) + 0.5) * (height / side) - 0.5
    square_x = (x[:, None] - points[:, 0]) ** 2
    square_y = (y[:, None] - points[:, 1]) ** 2
    square = square_y[:, None] + square_x[None]  # [side, side, n]
    nearest = square.min(axis=2, keepdims=True)
    # Relative to the nearest point, so that far from all points weights do not vanish.
    weights = np.exp((nearest - square) / (2 * reach**2))
    field = (weights @ moves) / weights.sum(axis=2, keepdims=True)
    field *= np.exp(-nearest / (2 * fade**2))
    return np.asarray(field, np.float32)


def sample_field(
    image: Picture,
    field: NDArray[np.float32],
    shape: tuple[int, int],
    *,
    matrix: NDArray[np.float64] | None = None,
) -> Picture:
    """Move a picture by a smooth field.

    Args:
        image: uint8 [any, any, 3].
        field: float32 [rows, columns, 2] over the result: where each place takes its colour
            from, relative to itself, in pixels.
        shape: height and width of the result.
        matrix: float64 [2, 3], from the result's pixels to those of `image`; None where they
            are the same.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = shape
    places: NDArray[np.float32] = np.asarray(
        cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.float32
    )
    places[:, :, 0] += np.arange(width, dtype=np.float32)[None, :]
    places[:, :, 1] += np.arange(height, dtype=np.float32)[:, None]
    if matrix is not None:
        places = np.asarray(cv2.transform(places, matrix), np.float32)
    moved = cv2.remap(image, places, _NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def similarity(
    from_points: NDArray[np.float32], to_points: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The turn, scale and shift that bring points nearest to others, float64 [2, 3].

    Least squares (Umeyama, 1991), in complex numbers.
    """
    here = from_points.astype(np.float64) @ (1, 1j)
    there = to_points.astype(np.float64) @ (1, 1j)
    centre_here, centre_there = here.mean(), there.mean()
    spread = float((np.abs(here - centre_here) ** 2).sum())
    turn = (np.conj(here - centre_here) * (there - centre_there)).sum() / max(spread, 1e-9)
    shift = centre_there - turn * centre_here
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def move_points(points: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points under a map [2, 3], float32 [n, 2]."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)
