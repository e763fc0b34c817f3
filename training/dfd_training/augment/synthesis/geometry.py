"""Geometry of forgeries: masks of a face's parts, warps onto other landmarks, boxes."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

from dfd_edge.errors import UsageError
from dfd_training.augment.synthesis.detail import Picture

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
    """Draws a feathered mask of a part of a face: a hull of landmarks, deformed.

    Args:
        landmarks: float32 [468, 2], pixels.
        shape: Height and width of the picture.
        region: The part of the face.
        grow: The hull is scaled by this round its centre.
        wobble: float32 [6, 6, 2], displacements of a coarse grid over the face, as shares of the
            face's size; the hull's edge follows them.
        feather: Standard deviation of the blur, as a share of the face's size.

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
    """Returns the convex hull, its edge moved by a coarse field over the face: float32 [n, 2]."""
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
    """Warps a face onto other landmarks, piecewise affine over a Delaunay mesh.

    Returns:
        The face, uint8 [height, width, 3], BGR, and 255 where it lies, uint8 [height, width];
        Elsewhere the picture means nothing.

    Raises:
        UsageError: When the target's landmarks span no area.
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
    """Returns triangles inside a picture, int32 [n, 3], and their maps, float32 [n, 3, 2]."""
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
    """Spreads the moves of some points smoothly over a picture.

    Args:
        points: float32 [n, 2], pixels.
        moves: float32 [n, 2], pixels.
        shape: Height and width of the picture.
        reach: Standard deviation of the weights of a point, pixels; small keeps neighbouring
            points apart, such as the two lips.
        fade: Distance from the nearest points over which the moves fall to nothing, pixels.

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
    """Moves a picture by a smooth field.

    Args:
        image: uint8 [any, any, 3].
        field: float32 [rows, columns, 2] over the result: where each place takes its colour
            from, relative to itself, in pixels.
        shape: Height and width of the result.
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
    """Returns the turn, scale and shift that bring points nearest to others, float64 [2, 3].

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
    """Maps points by a matrix [2, 3]: float32 [n, 2]."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


class Box(NamedTuple):
    """A part of a picture, pixels; the last row and column are not in it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def inside(self) -> tuple[slice, slice]:
        """The index of the part in a picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def cut(self, picture: Picture) -> Picture:
        """Returns a copy of the part."""
        return np.ascontiguousarray(picture[self.inside])

    def points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the picture's points, float32 [n, 2], in pixels of the part."""
        return points - np.array([self.left, self.top], np.float32)

    def spread(self, mask: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Returns a mask of the part as one of a whole picture of height and width `shape`."""
        whole = np.zeros(shape, np.float32)
        whole[self.inside] = mask
        return whole


def points_box(points: NDArray[np.float32], shape: tuple[int, int], *, margin: float = 0.0) -> Box:
    """Returns the bounding box of points, wider by a margin in pixels, inside a picture of `shape`.

    Where the points lie outside the picture, it is the nearest pixel.
    """
    low = np.floor(points.min(axis=0) - margin).astype(int)
    high = np.ceil(points.max(axis=0) + margin).astype(int) + 1
    left = int(np.clip(low[0], 0, shape[1] - 1))
    top = int(np.clip(low[1], 0, shape[0] - 1))
    return Box(
        left=left,
        top=top,
        right=int(np.clip(high[0], left + 1, shape[1])),
        bottom=int(np.clip(high[1], top + 1, shape[0])),
    )
