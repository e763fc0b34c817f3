"""Orientation of stored pictures: turns and mirrors, by the display matrix of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from numpy.typing import NDArray

from dfd_edge.sources.frames import Image

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

#: OpenCV's rotations by the degrees of the display matrix.
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

    @property
    def is_turned(self) -> bool:
        """Whether the sides of the upright picture are those of the stored one, swapped."""
        return self.degrees in (90, 270)

    def stored_area(
        self, area: tuple[int, int, int, int], shape: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        """Returns where a rectangle of the upright picture is stored.

        Args:
            area: x0, y0, x1, y1 in pixels of the upright picture.
            shape: Its height and width.

        Returns:
            x0, y0, x1, y1 in pixels of the picture as it is stored.
        """
        x0, y0, x1, y1 = area
        height, width = shape
        if self.degrees == 90:
            x0, y0, x1, y1 = height - y1, x0, height - y0, x1
        elif self.degrees == 180:
            x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
        elif self.degrees == 270:
            x0, y0, x1, y1 = y0, width - x1, y1, width - x0
        if self.mirrored:
            stored_width = height if self.is_turned else width
            x0, x1 = stored_width - x1, stored_width - x0
        return x0, y0, x1, y1

    def apply(self, image: Image) -> Image:
        """Returns the picture upright, uint8 BGR or luma; the same array where nothing is done."""
        if self.mirrored:
            image = np.ascontiguousarray(image[:, ::-1])
        rotation = _ROTATIONS.get(self.degrees)
        if rotation is None:
            return image
        return np.asarray(cv2.rotate(image, rotation), dtype=np.uint8)


def orientation_of(decoded: VideoFrame) -> Orientation:
    """Returns the orientation of a decoded frame, by its display matrix."""
    # `decoded.side_data` would make a reference cycle, and a frame that lives on until the garbage
    # is collected keeps its buffer from the decoder, which then allocates more, and keeps them.
    found: Mapping[str, bytes] = SideDataContainer.__new__(SideDataContainer)
    try:
        found.__init__(decoded)  # type: ignore[misc]
    except ValueError:
        # FFmpeg has more kinds of side data than this PyAV, which stops at the first that it has no
        # name for: those before it are there, and from those behind it the turn, without a mirror.
        known = False
    else:
        known = True
    try:
        data = bytes(found["DISPLAYMATRIX"])
    except (KeyError, TypeError):  # the latter where nothing could be listed
        return Orientation() if known else Orientation(decoded.rotation)
    if len(data) < 36:
        return Orientation()
    return Orientation.from_matrix(np.frombuffer(data, dtype=np.int32, count=9))
