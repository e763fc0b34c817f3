"""Equal sharpness of real and fake, so that softness alone never tells the label.

What forges a face also softens it: it is warped, shrunk and painted by a network. Real footage
is soft as well, by its lens, its codec or its size. A network that learns "soft is fake" calls
such footage fake; so the real picture of a pair is brought to the sharpness of its fake.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.box import Box, points_box
from dfd_training.synthesis.detail import Picture, shrink_and_back

VIEW_SIDE = 160
"""Sharpness is measured at about the size at which a model sees a crop, in pixels."""

_MOST_SHARPENING = 1.5
_MUCH_SHARPER = 1.5
_SIGMAS = (0.9, 1.8, 3.5)


def sharpness(picture: Picture, box: Box) -> float:
    """Mean square of the Laplacian inside a box, at the size at which a model sees the crop."""
    laplacian = _laplacian(picture, box)
    return float((laplacian * laplacian).mean()) if laplacian.size else 0.0


def match_sharpness(picture: Picture, box: Box, wanted: float, rng: np.random.Generator) -> Picture:
    """Soften or sharpen a whole picture until its sharpness inside a box is as wanted.

    The picture is mixed with a softer copy of itself. Blurring is linear, so the sharpness of
    the mixture is a quadratic in its share, and its root is the share to take.

    Args:
        picture: uint8 [height, width, 3].
        box: where sharpness is measured.
        wanted: the sharpness to reach; it is not reached where it would take strong sharpening.
        rng: chooses how the picture is softened, by a blur or by shrinking.

    Returns:
        uint8, same shape.
    """
    own = _laplacian(picture, box)
    if own.size < 64:
        return picture
    energy = float((own * own).mean())
    shrink = rng.random() < 0.5
    softer, level = picture, own
    for sigma in _SIGMAS:
        softer = _soften(picture, sigma, shrink=shrink and wanted < energy)
        level = _laplacian(softer, box)
        if float((level * level).mean()) <= wanted or wanted >= energy:
            break
    # |own + share * (level - own)|^2 = wanted
    step = level - own
    square, cross = float((step * step).mean()), float((own * step).mean())
    if square < 1e-6:
        return picture
    root = np.sqrt(max(cross * cross - square * (energy - wanted), 0.0))
    share = float(np.clip((-cross - root) / square, -_MOST_SHARPENING, 1.0))
    return np.asarray(cv2.addWeighted(picture, 1 - share, softer, share, 0), np.uint8)


def match_pair(
    real: Picture, fake: Picture, landmarks: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Picture, Picture]:
    """Bring the two faces of a pair to about equal sharpness.

    Args:
        real: uint8 [height, width, 3], BGR.
        fake: uint8, same shape.
        landmarks: float32 [468, 2] of the face, pixels.
        rng: the source of chance.

    Returns:
        The two pictures, one of them softened or sharpened as a whole.
    """
    box = points_box(landmarks, real.shape[:2])
    of_real, of_fake = sharpness(real, box), sharpness(fake, box)
    about = float(np.exp(rng.normal(-0.06, 0.3)))
    if of_fake > _MUCH_SHARPER * of_real:
        # Sharpening would show in the real picture: the fake is softened.
        return real, match_sharpness(fake, box, of_real * about, rng)
    return match_sharpness(real, box, of_fake * about, rng), fake


def _soften(picture: Picture, sigma: float, *, shrink: bool) -> Picture:
    scale = max(1.0, picture.shape[1] / VIEW_SIDE)
    if shrink:
        return shrink_and_back(picture, 1.0 / (1.0 + sigma * scale), up=cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma * scale), np.uint8)


def _laplacian(picture: Picture, box: Box) -> NDArray[np.float32]:
    part = picture[box.inside]
    if min(part.shape[:2]) < 8:
        return np.zeros((0, 0), np.float32)
    grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
    factor = VIEW_SIDE / picture.shape[1]
    if factor < 1.0:
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.Laplacian(grey, cv2.CV_32F), np.float32)
