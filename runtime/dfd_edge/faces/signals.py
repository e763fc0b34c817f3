"""Measurements of consecutive frames: noise, motion and sharpness, region by region of a face.

From one frame to the next, 17 to 42 ms later, the noise of a camera changes everywhere alike. A
generated picture has none, or noise of its own; a pasted face has other noise than the wall behind
it; the sharpness of a swap changes from frame to frame. Forensics has used such residuals since
Lukas, Fridrich and Goljan ("Digital camera identification from sensor pattern noise", 2006) and
Popescu and Farid ("Exposing digital forgeries by detecting traces of resampling", 2005).

Only a window round the face is filtered, in whole numbers, and pixels are averaged over small
square cells before regions are formed: less than 1 ms a pair of frames of 720 by 405 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import cv2
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
"""Names of the measurements, in the order of the vector.

`noise`: mean absolute high-pass of the difference of two frames, over the calmer half of a region.
`change`: mean absolute difference of two frames. `moving`: share of pixels that differ by more than
8 grey levels. `fine_detail` and `detail`: mean absolute high-pass of the due frame itself, of
periods below about 3 and 6 pixels. `noise_correlation`: between the high-pass of one difference and
that of the next, over the calmer half of a region; near -0.5 for noise that is drawn anew for each
frame, 0 where two of the three frames are one picture. `face_contrast`: standard deviation of the
face's brightness. All but shares and correlations are natural logarithms.
"""

#: Added before a logarithm is taken, in grey levels: what is still told from nothing.
_NOISE_FLOOR = 0.02
_DETAIL_FLOOR = 0.05
_CONTRAST_FLOOR = 1.0

_UNIT_OF_REGION: Final = (
    f"ln(grey levels + {_NOISE_FLOOR:g})",
    f"ln(grey levels + {_NOISE_FLOOR:g})",
    "share of pixels, 0 to 1",
    f"ln(grey levels + {_DETAIL_FLOOR:g})",
    f"ln(grey levels + {_DETAIL_FLOOR:g})",
)

UNITS: Final[tuple[str, ...]] = (
    *(_UNIT_OF_REGION * len(REGIONS)),
    "correlation, -1 to 1",
    "correlation, -1 to 1",
    f"ln(grey levels + {_CONTRAST_FLOOR:g})",
)
"""Units of the measurements, in the order of `NAMES`; grey levels run from 0 to 255."""

_CELLS_PER_FACE = 28
#: A smaller face has too few cells, in cells.
_LEAST_FACE = 8
#: A region of fewer cells is not measured.
_LEAST_CELLS = 6
#: Two frames of which this share of pixels is alike are one picture.
_REPEATED = 0.995
#: High-pass differences are kept as whole numbers of 1 / 16 grey level.
_SCALE = 16
#: Pixels that differ by more than this many grey levels are moving.
_MOVING = 8
#: The window reaches this far from the face's centre to the sides, up and down, in face widths.
_WINDOW = (1.9, 1.6, 1.1)

Luma = NDArray[np.uint8]
Cells = NDArray[np.float32]


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
    height, width = burst.planes[-1].shape
    scale = np.array([width / shape[1], height / shape[0]], np.float64)
    window = _Window.around(
        (height, width), box.reshape(2, 2) * scale, np.asarray(keypoints, np.float64) * scale
    )
    regions = window.regions() if window is not None else None
    if window is None or regions is None:
        return None
    shown = [window.cut(plane) for plane in burst.planes]
    pairs = [_Pair.of(*two, window.cell) for two in pairwise(shown)]
    fresh = [pair for pair in pairs if not pair.repeated]
    if not fresh:
        return None
    sharpness = _sharpness(shown[-1], window.cell)
    values: list[float] = []
    for region in regions.values():
        levels = [pair.levels(region) for pair in fresh]
        values += [sum(level) / len(fresh) for level in zip(*levels, strict=True)]
        values += [math.log(region.mean(cells) + _DETAIL_FLOOR) for cells in sharpness]
    values += [_correlation(pairs, regions[name], window.cell) for name in ("face", "background")]
    values.append(math.log(regions["face"].deviation(shown[-1], window.cell) + _CONTRAST_FLOOR))
    return np.array(values, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """Cells of a window, cut to the rectangle that holds them.

    Attributes:
        rows, columns: The rectangle, in cells.
        mask: uint8 [rows, columns], 1 for the region's cells.
    """

    rows: slice
    columns: slice
    mask: NDArray[np.uint8]

    @classmethod
    def of(cls, cells: NDArray[np.bool_]) -> _Region:
        """Returns the region of these cells of the window."""
        mask = cells.view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        rows, columns = slice(y, y + height), slice(x, x + width)
        return cls(rows, columns, mask[rows, columns])

    def mean(self, cells: Cells) -> float:
        """Returns the mean of a map over the region."""
        return cv2.mean(cells[self.rows, self.columns], self.mask)[0]

    def calm(self, pair: _Pair) -> _Region:
        """Returns the half of the region in which least moves between two frames."""
        calmness = pair.calmness[self.rows, self.columns]
        values = calmness[self.mask.view(np.bool_)]
        values.sort()  # faster here than np.median
        middle = (values[(values.size - 1) // 2] + values[values.size // 2]) / 2
        mask = self.mask & (calmness <= middle + 1e-6)
        return _Region(self.rows, self.columns, mask)

    def deviation(self, frame: Luma, cell: int) -> float:
        """Returns the standard deviation of a frame's pixels in the rectangle."""
        y, x = (slice(side.start * cell, side.stop * cell) for side in (self.rows, self.columns))
        return float(cv2.meanStdDev(frame[y, x])[1][0, 0])


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """The part of the frames that is measured, a whole number of cells.

    Attributes:
        x, y: Its corner, pixels of the plane.
        rows, columns: Its size in cells.
        cell: Side of a cell, pixels.
        box: float64 [2, 2], corners of the face, in cells.
        points: float64 [6, 2], its key points, in cells.
    """

    x: int
    y: int
    rows: int
    columns: int
    cell: int
    box: NDArray[np.float64]
    points: NDArray[np.float64]

    @classmethod
    def around(
        cls, shape: tuple[int, int], box: NDArray[np.float64], points: NDArray[np.float64]
    ) -> _Window | None:
        """Returns the window round a face, all in pixels; None where it is too small."""
        if not (np.isfinite(box).all() and np.isfinite(points).all()):
            return None
        face = float(box[1, 0] - box[0, 0])
        cell = max(2, round(face / _CELLS_PER_FACE))
        if face < _LEAST_FACE * cell:
            return None
        to_sides, up, down = (share * face for share in _WINDOW)
        x, y = (float(side) for side in box.mean(axis=0))
        x0, x1 = max(0, int(x - to_sides)), min(shape[1], int(x + to_sides))
        y0, y1 = max(0, int(y - up)), min(shape[0], int(y + down))
        columns, rows = (x1 - x0) // cell, (y1 - y0) // cell
        if min(columns, rows) < _LEAST_FACE:
            return None
        corner = np.array([x0, y0], np.float64)
        return cls(x0, y0, rows, columns, cell, (box - corner) / cell, (points - corner) / cell)

    def cut(self, plane: Luma) -> Luma:
        """Returns the window of a plane."""
        height, width = self.rows * self.cell, self.columns * self.cell
        return np.ascontiguousarray(plane[self.y : self.y + height, self.x : self.x + width])

    def regions(self) -> dict[str, _Region] | None:
        """Returns the regions by name, in their order; None where one has next to no cells.

        Where the face fills the picture, the ring stands for the background.
        """
        width = self.box[1, 0] - self.box[0, 0]
        middle = self.box.mean(axis=0)
        right_eye, left_eye, _, mouth_centre = self.points[:4]
        face = self._ellipse(middle, 0.45 * width, 0.55 * width)
        eyes = self._ellipse(right_eye, 0.16 * width, 0.11 * width)
        eyes |= self._ellipse(left_eye, 0.16 * width, 0.11 * width)
        mouth = self._ellipse(mouth_centre, 0.24 * width, 0.16 * width)
        ring = self._ellipse(middle, 0.75 * width, 0.9 * width)
        ring &= ~self._ellipse(middle, 0.52 * width, 0.64 * width)
        background = ~self._ellipse(middle, 0.85 * width, 1.1 * width)
        shoulders = middle[1] + 0.8 * width
        background &= np.arange(self.rows)[:, None] + 0.5 < shoulders
        if np.count_nonzero(background) < 4 * _LEAST_CELLS:
            background = ring
        skin = face & ~eyes & ~mouth
        found = (eyes, mouth, skin, ring, background, face)
        if min(np.count_nonzero(cells) for cells in found) < _LEAST_CELLS:
            return None
        return {name: _Region.of(cells) for name, cells in zip(REGIONS, found, strict=True)}

    def _ellipse(self, centre: NDArray[np.float64], a: float, b: float) -> NDArray[np.bool_]:
        across = ((np.arange(self.columns) + 0.5 - centre[0]) / a) ** 2
        down = ((np.arange(self.rows) + 0.5 - centre[1]) / b) ** 2
        return np.asarray(across + down[:, None] < 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Two consecutive frames; maps are means over cells, in grey levels.

    Attributes:
        change: Mean absolute difference.
        calmness: `change` smoothed over neighbouring cells: the lower, the calmer.
        moving: Share of pixels that differ by more than `_MOVING`.
        noise: Mean absolute high-pass of the difference.
        residual: int16, pixels of the window, that high-pass in 1 / `_SCALE`.
        repeated: Whether both are the same picture.
    """

    change: Cells
    calmness: Cells
    moving: Cells
    noise: Cells
    residual: NDArray[np.int16]
    repeated: bool

    @classmethod
    def of(cls, before: Luma, after: Luma, cell: int) -> _Pair:
        """Returns what two frames of whole cells have between them."""
        apart = cv2.absdiff(after, before)
        scaled = np.subtract(after, before, dtype=np.int16)
        scaled *= np.int16(_SCALE)
        residual = np.asarray(cv2.blur(scaled, (3, 3)), np.int16)
        np.subtract(scaled, residual, out=residual)
        loudness = np.abs(residual, out=scaled)
        moving = cv2.threshold(apart, _MOVING, 1, cv2.THRESH_BINARY)[1]
        change = _cells(apart, cell)
        return cls(
            change=change,
            calmness=np.asarray(cv2.blur(change, (3, 3)), np.float32),
            moving=_cells(moving, cell),
            noise=_cells(loudness, cell) / np.float32(_SCALE),
            residual=residual,
            repeated=1.0 - cv2.countNonZero(apart) / apart.size >= _REPEATED,
        )

    def levels(self, region: _Region) -> tuple[float, float, float]:
        """Returns noise, change and share of moving pixels of a region."""
        noise, change = region.calm(self).mean(self.noise), region.mean(self.change)
        return (
            math.log(noise + _NOISE_FLOOR),
            math.log(change + _NOISE_FLOOR),
            region.mean(self.moving),
        )


def _sharpness(frame: Luma, cell: int) -> tuple[Cells, Cells]:
    """Returns the mean absolute high-pass of a frame at two scales, over cells."""
    fine, coarse = (cv2.absdiff(frame, cv2.blur(frame, (side, side))) for side in (3, 7))
    return _cells(fine, cell), _cells(coarse, cell)


def _cells(pixels: NDArray[Any], cell: int) -> Cells:
    """Returns the means over cells of bytes, or of int16 that are 0 or more."""
    height, width = pixels.shape
    # 16 bit hold a cell's column of bytes: planes of 720 px have cells of at most 90.
    whole = np.uint16 if pixels.dtype == np.uint8 else np.int32
    columns = np.add.reduce(pixels.reshape(-1, cell, width), axis=1, dtype=whole)
    size = (width // cell, height // cell)
    means = cv2.resize(columns.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32) / np.float32(cell)


def _correlation(pairs: list[_Pair], region: _Region, cell: int) -> float:
    """Returns the mean correlation of one difference's high-pass with the next one's."""
    found = []
    for first, second in pairwise(pairs):
        if first.repeated or second.repeated:
            continue
        calm = region.calm(first)
        where = np.repeat(np.repeat(calm.mask, cell, axis=1), cell, axis=0)
        y, x = (slice(side.start * cell, side.stop * cell) for side in (calm.rows, calm.columns))
        a, b = (cv2.copyTo(pair.residual[y, x], where) for pair in (first, second))
        # Sums of squares of whole numbers are exact; a product is half of what they differ by.
        of_a, of_b, of_both = (cv2.norm(part, cv2.NORM_L2SQR) for part in (a, b, cv2.add(a, b)))
        power = math.sqrt(of_a * of_b)
        # Less than 1 / 16 grey level is rounding.
        least = cv2.countNonZero(calm.mask) * cell**2
        found.append((of_both - of_a - of_b) / 2 / power if power > least else 0.0)
    return sum(found) / len(found) if found else 0.0
