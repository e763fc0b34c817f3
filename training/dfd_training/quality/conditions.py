"""The conditions that crops are judged under: as they are, and degraded."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import cv2
import numpy as np

from dfd_training.augment.codecs import Codec, Coding
from dfd_training.augment.degrade import Degradation, degrade
from dfd_training.augment.synthesis.detail import Picture

_JPEG = Degradation(jpeg=40)
_H264 = Degradation(coding=Coding(Codec.H264, loss=0.75))  # rate factor 36


class Condition(StrEnum):
    """What is done to all crops of a file before they are judged."""

    CLEAN = "clean"
    JPEG = "jpeg 40"
    HALF_SIZE = "half size"
    H264 = "h264 low"


def under(condition: Condition, pictures: Sequence[Picture]) -> list[Picture]:
    """Put crops under a condition.

    Args:
        condition: `jpeg 40`: at JPEG quality 40. `half size`: at half the size, as if the file
            had half the resolution. `h264 low`: through H.264 at a rate factor of 36.
        pictures: square BGR crops at the file's own resolution.

    Returns:
        As many pictures; those of `half size` are smaller.
    """
    if condition is Condition.HALF_SIZE:
        return [shrink(picture, 0.5) for picture in pictures]
    if condition is Condition.CLEAN:
        return list(pictures)
    rng = np.random.default_rng(0)
    degradation = _JPEG if condition is Condition.JPEG else _H264
    return [degrade(picture, degradation, rng) for picture in pictures]


def shrink(image: Picture, share: float) -> Picture:
    """Shrink a picture to a share of its size by averaging areas; the result stays small."""
    height, width = image.shape[:2]
    size = (max(2, round(width * share)), max(2, round(height * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
