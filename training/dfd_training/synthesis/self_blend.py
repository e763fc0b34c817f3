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

from dfd_training.synthesis.blend import BlendParameters, lay_over
from dfd_training.synthesis.colour import Picture, change_colour, change_detail


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
    height, width = image.shape[:2]
    changed = change_detail(change_colour(image, parameters.colour), parameters.detail)
    source, target = (image, changed) if parameters.change_target else (changed, image)
    size = float(np.ptp(landmarks, axis=0).max())
    centre = landmarks.mean(axis=0)
    move = np.array([[parameters.zoom, 0, 0], [0, parameters.zoom, 0]], np.float64)
    move[:, 2] = centre * (1.0 - parameters.zoom) + parameters.shift * size
    moved = cv2.warpAffine(
        source, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    mask = parameters.mask(landmarks, (height, width))
    return lay_over(np.asarray(moved, np.uint8), target, mask)
