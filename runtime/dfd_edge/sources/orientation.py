"""Display orientation: from a container's display matrix to an upright picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.sources.frame import Image

#: What turns a stored picture upright, by the display matrix' rotation in degrees.
_ROTATIONS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


class Orientation:
    """One of the eight ways in which a picture can be stored: mirrored or not, in quarter turns.

    Args:
        degrees: Counterclockwise turn that shows the picture upright; taken to the next quarter.
        mirrored: Whether it is to be mirrored left to right before it is turned.
    """

    def __init__(self, degrees: float = 0.0, *, mirrored: bool = False) -> None:
        self.degrees = round(degrees / 90.0) % 4 * 90
        self.mirrored = mirrored

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.int32]) -> Orientation:
        """Reads the display matrix of FFmpeg: int32 [9], 16.16 fixed point, row by row.

        A matrix that says nothing sensible (a determinant of zero) leaves the picture as it is.
        """
        a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
        determinant = a * d - b * c
        if determinant == 0.0:
            return cls()
        # (x, y) goes to (a x + c y, b x + d y) with y pointing down. A mirrored matrix is a
        # mirror in x followed by a turn: undo the mirror to read the turn.
        mirrored = determinant < 0.0
        if mirrored:
            a, b = -a, -b
        return cls(float(np.degrees(np.arctan2(-b, a))), mirrored=mirrored)

    def apply(self, image: Image) -> Image:
        """Returns the picture upright, uint8 BGR; the same array where nothing is to be done."""
        if self.mirrored:
            image = np.ascontiguousarray(image[:, ::-1])
        rotation = _ROTATIONS.get(self.degrees)
        if rotation is None:
            return image
        return np.asarray(cv2.rotate(image, rotation), dtype=np.uint8)
