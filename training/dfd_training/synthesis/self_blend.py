"""Self-blended images: a face laid over a changed copy of itself.

Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022. What remains
of a forgery when everything else is perfect is the border between two pictures of different
colour, sharpness and scale; a network trained on such borders finds them in swaps made by tools
that it has never seen.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.blend import BlendParameters, LaidFace
from dfd_training.synthesis.colour import change_colour
from dfd_training.synthesis.detail import Picture, change_detail


def self_blend(
    image: Picture, landmarks: NDArray[np.float32], parameters: BlendParameters
) -> Picture:
    """Make a fake of one face by blending two copies of it.

    Args:
        image: uint8 [height, width, 3], BGR.
        landmarks: float32 [468, 2], pixels.
        parameters: the forgery.

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
    """The face of a copy, moved a little, as it will lie over another.

    Args:
        source: uint8 [height, width, 3], BGR.
        landmarks: float32 [468, 2], pixels.
        parameters: the forgery.
        change: False where `source` is already as it shall be.
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
    """The copy with the forgery's change of colour and of detail, over the whole picture."""
    size = float(np.ptp(landmarks, axis=0).max())
    coloured = change_colour(image, parameters.colour)
    return change_detail(coloured, parameters.detail, face_px=size)


def move_copy(
    image: Picture, landmarks: NDArray[np.float32], parameters: BlendParameters
) -> Picture:
    """The copy shifted, turned and scaled by the forgery's little amounts."""
    size = float(np.ptp(landmarks, axis=0).max())
    x, y = (float(value) for value in landmarks.mean(axis=0))
    move = cv2.getRotationMatrix2D((x, y), parameters.turn, parameters.zoom)
    move[:, 2] = move[:, 2] + size * parameters.shift
    moved = cv2.warpAffine(
        image, move, (image.shape[1], image.shape[0]), borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)
