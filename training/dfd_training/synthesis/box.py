"""A part of a picture, so that work is done only where a forgery shows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.detail import Picture


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
        """A copy of the part."""
        return np.ascontiguousarray(picture[self.inside])

    def points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the picture, float32 [n, 2], in pixels of the part."""
        return points - np.array([self.left, self.top], np.float32)

    def spread(self, mask: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """A mask of the part as one of a whole picture of height and width `shape`."""
        whole = np.zeros(shape, np.float32)
        whole[self.inside] = mask
        return whole


def points_box(points: NDArray[np.float32], shape: tuple[int, int], *, margin: float = 0.0) -> Box:
    """The box of some points, wider by a margin in pixels, inside a picture of `shape`.

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
