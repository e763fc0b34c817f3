"""Detection in the frames of a stream: near the known faces, where nothing else has changed.

Most frames of a stream differ from the one before round the face and nowhere else. The detector's
model then runs on a square of its input that holds the known faces, at the same scale, for a third
of the time; the rest of the frame is compared with what it was when it was last searched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.detector import (
    INPUT_SIZE,
    WINDOW_STEP,
    Face,
    FaceDetector,
    Shrunk,
    box_overlap,
)
from dfd_edge.sources.frames import Pixels

#: The whole frame is searched again after so long, whatever it shows.
WHOLE_EVERY_S = 1.0
#: A face is looked for where it was at most so long ago.
MAX_STEP_S = 0.5
#: Sides of the squares that are searched, in pixels of the model's input. Larger ones save nothing.
_SIDES = (96, 128)
#: The square reaches this share of a face's size further than the face.
_MARGIN = 0.25
#: A face that is found again overlaps its last place by at least this.
_LEAST_OVERLAP = 0.3
#: Frames are compared in blocks of two by two cells of this side, in pixels of the model's input;
#: the smallest face that is found in a whole frame is about 14 px large.
_CELL = 8
#: Mean difference in grey levels of a colour beyond which a block has changed. On 120 clips no face
#: was missed up to 28; 13 % of the frames were searched in squares with 12, 20 % with 24.
_CHANGED = 24


@dataclass(frozen=True, slots=True)
class _Window:
    """A square of the model's input, in its pixels."""

    x: int
    y: int
    side: int

    def covers(self, x: int, y: int) -> bool:
        """Returns whether a point lies in the square."""
        return self.x <= x < self.x + self.side and self.y <= y < self.y + self.side


class FaceFollower:
    """Finds the faces of one stream's frames; not to be shared between streams.

    A frame is searched whole where no face is known, where one is not found again or another one
    with it, where a face is too large or several are too far apart for a small square, where
    something outside the square changed since the last frame that was searched whole, and
    `WHOLE_EVERY_S` after that. So the faces of a frame depend on the frames before it, and on
    nothing else.

    Args:
        detector: Searches the frames.

    Attributes:
        whole: Frames that were searched whole so far.
        near: Frames that were searched near the known faces alone.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self.whole = 0
        self.near = 0
        self._detector = detector
        self._reference: NDArray[np.uint8] | None = None  # the last frame that was searched whole
        self._shape: tuple[int, ...] = ()
        self._whole_s = -math.inf
        self._last_s = -math.inf
        self._known: list[Face] = []

    def detect(self, frame: Pixels, time_s: float, *, thorough: bool = False) -> list[Face]:
        """Finds the faces of the next frame, the largest first.

        Args:
            frame: As of `FaceDetector.detect`.
            time_s: Its time in seconds.
            thorough: As of `FaceDetector.detect`; the frame is then searched whole.
        """
        shrunk = self._detector.shrunk(frame)
        recent = 0.0 < time_s - self._last_s <= MAX_STEP_S
        due = not 0.0 <= time_s - self._whole_s < WHOLE_EVERY_S
        faces = None
        if recent and not due and not thorough and frame.shape == self._shape:
            faces = self._search_near(shrunk)
        self._last_s = time_s
        if faces is not None:
            self.near += 1
            self._known = faces
            return faces
        self.whole += 1
        search = self._detector.search(frame, shrunk, thorough=thorough)
        self._reference = shrunk.square if search.at_once else None
        self._shape, self._whole_s, self._known = frame.shape, time_s, search.faces
        return search.faces

    def _search_near(self, shrunk: Shrunk) -> list[Face] | None:
        """Returns the known faces where they are now; None where the frame is to be searched."""
        window = self._window(shrunk)
        if window is None or self._changed_outside(shrunk, window):
            return None
        found = self._detector.search_window(shrunk, (window.x, window.y), window.side)
        if len(found) != len(self._known):
            return None
        for known in self._known:
            if not any(box_overlap(known.box, face.box) >= _LEAST_OVERLAP for face in found):
                return None
        return sorted(found, key=lambda face: face.size, reverse=True)

    def _window(self, shrunk: Shrunk) -> _Window | None:
        """Returns the smallest square that holds all known faces with a margin."""
        if self._reference is None or not self._known:
            return None
        boxes = np.stack([face.box for face in self._known]) * np.float32(shrunk.scale)
        boxes += np.array([shrunk.left, shrunk.top] * 2, np.float32)
        margins = _MARGIN * (boxes[:, 2:] - boxes[:, :2])
        low = np.maximum((boxes[:, :2] - margins).min(axis=0), 0.0)
        high = np.minimum((boxes[:, 2:] + margins).max(axis=0), float(INPUT_SIZE))
        for side in _SIDES:
            last = INPUT_SIZE - side
            middle = ((low + high - side) / 2.0 / WINDOW_STEP).round() * WINDOW_STEP
            x, y = (int(min(max(0.0, corner), last)) for corner in middle)
            corner = np.array([x, y], np.float32)
            if bool((low >= corner).all() and (high <= corner + side).all()):
                return _Window(x, y, side)
        return None

    def _changed_outside(self, shrunk: Shrunk, window: _Window) -> bool:
        """Returns whether the frame changed outside a square since it was last searched whole."""
        if self._reference is None:
            return True
        apart = cv2.absdiff(shrunk.square, self._reference)
        cells = (INPUT_SIZE // _CELL, INPUT_SIZE // _CELL)
        means = cv2.resize(apart, cells, interpolation=cv2.INTER_AREA).max(axis=2)
        blocks = cv2.blur(means, (2, 2), anchor=(0, 0))[:-1, :-1]
        middles = (np.argwhere(blocks > _CHANGED) + 1) * _CELL
        return not all(window.covers(x, y) for y, x in middles.tolist())
