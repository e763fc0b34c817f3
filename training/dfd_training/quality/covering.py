"""Crops with the face hidden: what is left must not tell a fake from its original."""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_training.augment.synthesis.detail import Picture
from dfd_training.data.store import StoredCrop

GROWTH = 0.12
"""By how much the hull of the landmarks is grown, over the size of the face: masks of swaps
reach beyond the landmarks."""

_GREY = 127
_BLUR_SHARE = 0.15
_FEATHER_SHARE = 0.02


class Cover(StrEnum):
    """What is done to the face."""

    NOTHING = "whole crop"
    GREY = "border only"
    BLUR = "face blurred away"


def face_area(crop: StoredCrop) -> NDArray[np.bool_]:
    """The hull of the landmarks, grown: bool [height, width], True on the face."""
    assert crop.landmarks is not None
    size = float(np.ptp(crop.landmarks, axis=0).max())
    mask = np.zeros(crop.image.shape[:2], np.uint8)
    hull = cv2.convexHull(crop.landmarks.astype(np.float32))
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 255)
    reach = 2 * max(1, round(GROWTH * size)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return np.asarray(cv2.dilate(mask, kernel) > 0)


def covered(crop: StoredCrop, cover: Cover) -> Picture:
    """A crop with its face hidden.

    Args:
        crop: with landmarks.
        cover: `GREY` fills the grown hull with mid-grey; `BLUR` leaves of it what a Gaussian of
            0.15 face sizes leaves, with a soft edge.

    Returns:
        uint8, as `crop.image`.
    """
    if cover is Cover.NOTHING:
        return crop.image
    area = face_area(crop)
    if cover is Cover.GREY:
        return np.where(area[:, :, None], np.uint8(_GREY), crop.image)
    assert crop.landmarks is not None
    size = float(np.ptp(crop.landmarks, axis=0).max())
    soft = cv2.GaussianBlur(crop.image, (0, 0), _BLUR_SHARE * size).astype(np.float32)
    edge = cv2.GaussianBlur(area.astype(np.float32), (0, 0), max(0.5, _FEATHER_SHARE * size))
    # The area itself is hidden wholly: the edge is feathered outwards only.
    weight = np.maximum(edge, area)[:, :, None]
    return np.asarray(np.round(crop.image * (1.0 - weight) + soft * weight), np.uint8)
