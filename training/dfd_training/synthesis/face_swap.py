"""A face swap by landmarks: one person's face warped onto another's, recoloured and blended."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

from dfd_edge.errors import UsageError
from dfd_training.synthesis.blend import BlendParameters, lay_over
from dfd_training.synthesis.colour import Picture, change_detail, transfer_colour
from dfd_training.synthesis.masks import BROWS, CHEEKS, CHIN, EYES, FOREHEAD, MOUTH, NOSE

# Enough of the 468 points for the shape of the face; all of them would only cost time.
_WARP_POINTS = sorted({*BROWS, *CHEEKS, *CHIN, *EYES, *FOREHEAD, *MOUTH, *NOSE, *range(0, 468, 9)})


def face_swap(
    target: Picture,
    target_landmarks: NDArray[np.float32],
    donor: Picture,
    donor_landmarks: NDArray[np.float32],
    parameters: BlendParameters,
    *,
    poisson: bool = False,
) -> Picture:
    """Lay a donor's face over a target's.

    The donor is warped triangle by triangle onto the target's landmarks, given the target's
    colours (Reinhard) and blended: by the feathered mask, or by Poisson blending (Perez et al.,
    "Poisson Image Editing", 2003).

    Args:
        target: uint8 [height, width, 3], BGR.
        target_landmarks: float32 [468, 2], pixels of `target`.
        donor: uint8 [any, any, 3], BGR.
        donor_landmarks: float32 [468, 2], pixels of `donor`.
        parameters: mask, opacity and change of detail.
        poisson: blend gradients instead of colours.

    Returns:
        uint8 [height, width, 3], BGR; the inputs are not changed.

    Raises:
        UsageError: when the target's landmarks span no area.
    """
    height, width = target.shape[:2]
    warped = warp_face(donor, donor_landmarks, target_landmarks, (height, width))
    mask = parameters.mask(target_landmarks, (height, width))
    # Outside the warped triangles there is no donor to show.
    covered = cv2.erode(
        np.ascontiguousarray(warped[:, :, 3]), np.ones((3, 3), np.uint8), iterations=2
    )
    covered = cv2.GaussianBlur(covered, (0, 0), 1.5)
    mask = mask * (covered.astype(np.float32) / 255.0)
    face = np.ascontiguousarray(warped[:, :, :3])
    if parameters.ratio > 0:
        face = transfer_colour(face, target, mask / parameters.ratio, parameters.colour_share)
    face = change_detail(face, parameters.detail)
    if poisson:
        cloned = _poisson(face, target, mask)
        if cloned is not None:
            return lay_over(cloned, target, np.full_like(mask, parameters.ratio))
    return lay_over(face, target, mask)


def warp_face(
    donor: Picture,
    donor_landmarks: NDArray[np.float32],
    target_landmarks: NDArray[np.float32],
    shape: tuple[int, int],
) -> NDArray[np.uint8]:
    """Warp a face onto other landmarks, piecewise affine over a Delaunay mesh.

    Returns:
        uint8 [height, width, 4]: BGR, and 255 where a triangle of the mesh lies.

    Raises:
        UsageError: when the target's landmarks span no area.
    """
    height, width = shape
    to_points = target_landmarks[_WARP_POINTS].astype(np.float64)
    from_points = donor_landmarks[_WARP_POINTS].astype(np.float64)
    try:
        triangles = Delaunay(to_points).simplices
    except QhullError as error:
        raise UsageError("the target's landmarks span no area") from error
    corners = np.concatenate([to_points[triangles], np.ones((len(triangles), 3, 1))], axis=2)
    usable = np.abs(np.linalg.det(corners)) > 1e-6
    triangles, corners = triangles[usable], corners[usable]
    matrices = np.linalg.solve(corners, from_points[triangles]).astype(np.float32)
    owner = np.full((height, width), -1, np.int16)
    fixed = np.round(to_points[triangles] * 16).astype(np.int32)
    for number, triangle in enumerate(fixed):
        cv2.fillConvexPoly(owner, triangle, number, cv2.LINE_8, shift=4)
    result = np.zeros((height, width, 4), np.uint8)
    left, top, box_width, box_height = cv2.boundingRect((owner >= 0).astype(np.uint8))
    if not box_width:
        return result
    inside = (slice(top, top + box_height), slice(left, left + box_width))
    matrix = matrices.reshape(-1, 6)[owner[inside]]  # outside the mesh: any; masked below
    x = np.arange(left, left + box_width, dtype=np.float32)[None, :]
    y = np.arange(top, top + box_height, dtype=np.float32)[:, None]
    map_x = x * matrix[:, :, 0] + y * matrix[:, :, 2] + matrix[:, :, 4]
    map_y = x * matrix[:, :, 1] + y * matrix[:, :, 3] + matrix[:, :, 5]
    result[:, :, :3][inside] = cv2.remap(
        donor, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    result[:, :, 3] = np.where(owner >= 0, 255, 0)
    return result


def _poisson(face: Picture, target: Picture, mask: NDArray[np.float32]) -> Picture | None:
    """Poisson blending; None where the mask is empty or touches the picture's border."""
    inside = (mask > 0.3).astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(inside)
    touches = x < 2 or y < 2 or x + width > mask.shape[1] - 2 or y + height > mask.shape[0] - 2
    if width < 8 or height < 8 or touches:
        return None
    # seamlessClone centres the mask's bounding box on the given point, rounding down.
    centre = (x + width // 2, y + height // 2)
    return np.asarray(cv2.seamlessClone(face, target, inside, centre, cv2.NORMAL_CLONE), np.uint8)
