"""Measurements of consecutive frames: noise, motion and sharpness, region by region of a face."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dfd_edge.sources.frames import Burst

SIGNALS_VERSION: Final = 1
"""To be raised with every change of a value: models are fitted on one version."""

REGIONS: Final = ("eyes", "mouth", "skin", "ring", "background", "face")
"""Parts of the face, the ring round the head where pasted faces end, the background, all of it."""

_OF_REGION: Final = ("noise", "change", "moving", "fine_detail", "detail")

NAMES: Final[tuple[str, ...]] = (
    *(f"{region}_{name}" for region in REGIONS for name in _OF_REGION),
    "face_noise_correlation",
    "background_noise_correlation",
    "face_contrast",
)
"""Names of the measurements, in the order of the vector."""


def measure(
    burst: Burst, box: NDArray[np.float32], keypoints: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Measures a burst round one face.

    Args:
        burst: The frames.
        box: float32 [4], the face in the due frame, x0, y0, x1, y1, pixels of the image.
        keypoints: float32 [6, 2], as `Face.keypoints` has them.
        shape: Height and width of the image that the box and the key points belong to.

    Returns:
        float32 [len(NAMES)], finite, or None where there is nothing to measure: the frames are
        one picture repeated, or the face is too small or too near the border for its regions.
    """
    raise NotImplementedError
