"""A face swap by landmarks: one person's face warped onto another's, recoloured and blended."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.blend import BlendParameters, LaidFace, lay_into
from dfd_training.synthesis.detail import Picture, change_detail
from dfd_training.synthesis.transfer import transfer_colour
from dfd_training.synthesis.warp import move_points, similarity, warp_face

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
    """Lay a donor's face over a target's.

    The donor is warped triangle by triangle onto the target's landmarks, given the target's
    colours and blended: by the feathered mask, or by Poisson blending (Perez et al., "Poisson
    Image Editing", 2003).

    Args:
        target: uint8 [height, width, 3], BGR.
        target_landmarks: float32 [468, 2], pixels of `target`.
        donor: uint8 [any, any, 3], BGR.
        donor_landmarks: float32 [468, 2], pixels of `donor`.
        parameters: mask, opacity, transfer of colour and change of detail.
        poisson: blend gradients instead of colours.

    Returns:
        uint8 [height, width, 3], BGR; the inputs are not changed.

    Raises:
        UsageError: when the target's landmarks span no area.
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
    """Bring a donor's face to the place, the colours and the detail in which it will lie.

    Raises:
        UsageError: when the target's landmarks span no area.
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
    """The target's landmarks, moved towards the donor's shape by a share or a little distance."""
    if share <= 0:
        return target
    away = move_points(donor, similarity(donor, target)) - target
    limit = _FARTHEST_SHAPE * size / max(float(np.abs(away).mean()), 1e-6)
    return target + np.float32(min(share, limit)) * away


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
