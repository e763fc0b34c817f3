"""Pictures on the planes of a decoder, of which only those parts are converted that are looked at.

A judged frame is looked at twice: as a small copy, in which faces are found, and in the squares
round them. The small copy is shrunk plane by plane and converted then; a square is cut from the
planes and converted alone, with the same pixels as a conversion of the whole.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from dfd_edge.sources.bursts import scaler
from dfd_edge.sources.frames import MOST_PIXELS, Image, Picture, halved
from dfd_edge.sources.orientation import Orientation

if TYPE_CHECKING:
    from av.video.plane import VideoPlane


#: FFmpeg's names of the pixel formats of which a part converts to the very pixels of the whole,
#: each with the pixels of a sample of colour across and down. For others FFmpeg interpolates
#: colours, by where the file says that their samples lie.
_SAMPLES = {
    "yuv420p": (2, 2),
    "yuvj420p": (2, 2),
    "yuv422p": (2, 1),
    "yuvj422p": (2, 1),
    "yuv444p": (1, 1),
    "yuvj444p": (1, 1),
}
#: Codes of the matrices (H.273) that FFmpeg converts: BT.709, unstated, FCC, BT.470 BG, SMPTE 170M
#: and 240M, BT.2020 with constant weights.
_MATRICES = frozenset([1, 2, 4, 5, 6, 7, 9])
#: FFmpeg's codes of ranges: unstated, limited, full.
_LEVELS = frozenset([0, 1, 2])
#: A smaller picture is converted whole in the time that its parts take.
_LEAST_PIXELS = 300_000
#: Parts begin and end at multiples of this, so that vector instructions meet the same pixels.
_GRID = 16
#: A part reaches this share of its longer side further than asked: the square of a face that is
#: tracked lies a little beside that of the detection.
_MARGIN = 1 / 16
#: Where parts cover more of the picture, the whole is converted.
_WHOLE_FROM = 0.6

_Area = tuple[int, int, int, int]  # x0, y0, x1, y1


def has_parts(decoded: VideoFrame) -> bool:
    """Returns whether parts of a frame can be converted, and that saves time.

    Args:
        decoded: A frame of FFmpeg's with square pixels, SDR.
    """
    samples = _SAMPLES.get(decoded.format.name)
    return (
        samples is not None
        and decoded.width * decoded.height >= _LEAST_PIXELS
        # FFmpeg interpolates colours across an odd number of rows.
        and (samples == (1, 1) or decoded.height % 2 == 0)
        and not decoded.interlaced_frame
        and int(decoded.colorspace) in _MATRICES
        and int(decoded.color_range) in _LEVELS
        and min(plane.line_size for plane in decoded.planes) > 0
    )


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """The facts of a picture without which its planes are only bytes.

    Attributes:
        pixel_format: FFmpeg's name, one of those whose parts can be converted.
        width, height: As stored.
        matrix: Code of the matrix (H.273).
        levels: FFmpeg's code of the range.
        degrees, mirrored: As of `Orientation`.

    Raises:
        ValueError: There is no such picture.
    """

    pixel_format: str
    width: int
    height: int
    matrix: int
    levels: int
    degrees: int
    mirrored: bool

    def __post_init__(self) -> None:
        if (
            self.pixel_format not in _SAMPLES
            or min(self.width, self.height) < 1
            or self.width * self.height > MOST_PIXELS
            or self.matrix not in _MATRICES
            or self.levels not in _LEVELS
            or self.degrees not in (0, 90, 180, 270)
        ):
            raise ValueError(f"planes of {self}")

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each plane."""
        across, down = _SAMPLES[self.pixel_format]
        colour = (-(-self.height // down), -(-self.width // across))
        return [(self.height, self.width), colour, colour]

    @property
    def size(self) -> int:
        """Bytes of all planes."""
        return sum(height * width for height, width in self.shapes)


class PlanePicture(Picture):
    """A picture on the planes of a decoded frame, for which `has_parts` holds.

    Args:
        decoded: The frame; not to be changed afterwards.
        orientation: How it is stored.
        lock: Held while FFmpeg converts the frame: PyAV changes what it states meanwhile.
    """

    def __init__(
        self, decoded: VideoFrame, orientation: Orientation, lock: threading.RLock
    ) -> None:
        self._decoded = decoded
        self._orientation = orientation
        self._lock = lock
        self._image: Image | None = None
        self._parts: list[tuple[_Area, Image]] = []  # as stored
        height, width = decoded.height, decoded.width
        self.shape = (width, height, 3) if orientation.is_turned else (height, width, 3)

    def __getitem__(self, area: tuple[slice, slice]) -> Image:
        """Returns a rectangle, uint8 BGR: slices of rows and columns, in steps of one."""
        (y0, y1, _), (x0, x1, _) = (
            side.indices(length) for side, length in zip(area, self.shape, strict=False)
        )
        with self._lock:
            if self._image is None and min(x1 - x0, y1 - y0) > 0:
                asked = self._orientation.stored_area((x0, y0, x1, y1), self.shape[:2])
                part = self._part(asked)
                if part is not None:
                    return self._orientation.apply(part)
            return self.image[y0:y1, x0:x1]

    def shrunk(self, size: tuple[int, int]) -> Image:
        """Returns the picture at this width and height, each pixel the mean of those it covers.

        uint8 [height, width, 3], BGR. The same whatever else was converted before.
        """
        size = (size[1], size[0]) if self._orientation.is_turned else size
        luma, *colours = (_samples(plane) for plane in self._decoded.planes)
        luma = halved(luma, size)
        height, width = luma.shape
        full = self._decoded.format.name.startswith("yuvj")
        small = VideoFrame(width, height, "yuvj444p" if full else "yuv444p")
        with self._lock:
            small.colorspace = self._decoded.colorspace
            small.color_range = self._decoded.color_range
        # Colours at the size of the luma first: otherwise FFmpeg shifts them by where a file says
        # that their samples lie, as it does not where it converts a picture of 8 bits in its size.
        for plane, target in zip((luma, *colours), small.planes, strict=True):
            method = cv2.INTER_AREA if plane.shape[1] > width else cv2.INTER_NEAREST
            same = plane.shape == luma.shape
            pixels = plane if same else cv2.resize(plane, (width, height), interpolation=method)
            _samples(target)[:] = pixels
        return self._orientation.apply(_to_bgr(small, "small", size))

    @property
    def image(self) -> Image:
        """The whole picture, uint8 [height, width, 3], BGR; converted once."""
        with self._lock:
            if self._image is None:
                self._parts.clear()
                self._image = self._orientation.apply(_to_bgr(self._decoded, "whole"))
            return self._image

    @classmethod
    def from_planes(cls, layout: PlaneLayout, data: NDArray[np.uint8]) -> PlanePicture:
        """Returns a picture on planes that were taken out of another one.

        Args:
            layout: The other one's `layout`.
            data: uint8 [layout.size], its `planes` one behind the other; copied.
        """
        frame = VideoFrame(layout.width, layout.height, layout.pixel_format)
        frame.colorspace, frame.color_range = layout.matrix, layout.levels
        start = 0
        for plane, (height, width) in zip(frame.planes, layout.shapes, strict=True):
            _samples(plane)[:] = data[start : start + height * width].reshape(height, width)
            start += height * width
        orientation = Orientation(layout.degrees, mirrored=layout.mirrored)
        return cls(frame, orientation, threading.RLock())

    @property
    def layout(self) -> PlaneLayout:
        """The facts that belong to the planes."""
        decoded = self._decoded
        with self._lock:
            matrix, levels = int(decoded.colorspace), int(decoded.color_range)
        return PlaneLayout(
            decoded.format.name,
            decoded.width,
            decoded.height,
            matrix,
            levels,
            self._orientation.degrees,
            self._orientation.mirrored,
        )

    @property
    def planes(self) -> list[NDArray[np.uint8]]:
        """The planes as they were decoded, uint8, of the layout's shapes."""
        return [_samples(plane) for plane in self._decoded.planes]

    def _part(self, asked: _Area) -> Image | None:
        """Returns a rectangle as it is stored; None where the whole is to be converted."""
        for area, image in self._parts:
            if _holds(area, asked):
                return _within(image, area, asked)
        area = self._enlarged(asked)
        covered = sum(_pixels(other) for other, _ in self._parts) + _pixels(area)
        if covered > _WHOLE_FROM * self._decoded.width * self._decoded.height:
            return None
        image = self._converted(area)
        self._parts.append((area, image))
        return _within(image, area, asked)

    def _enlarged(self, area: _Area) -> _Area:
        x0, y0, x1, y1 = area
        more = round(_MARGIN * max(x1 - x0, y1 - y0))
        return (
            max(0, x0 - more) // _GRID * _GRID,
            max(0, y0 - more) // _GRID * _GRID,
            min(-(-(x1 + more) // _GRID) * _GRID, self._decoded.width),
            min(-(-(y1 + more) // _GRID) * _GRID, self._decoded.height),
        )

    def _converted(self, area: _Area) -> Image:
        x0, y0, x1, y1 = area
        name = self._decoded.format.name
        part = VideoFrame(x1 - x0, y1 - y0, name)
        part.colorspace = self._decoded.colorspace
        part.color_range = self._decoded.color_range
        steps = [(1, 1), _SAMPLES[name], _SAMPLES[name]]
        planes = zip(self._decoded.planes, part.planes, steps, strict=True)
        for whole, cut, (across, down) in planes:
            pixels = _samples(whole)[y0 // down :, x0 // across :]
            _samples(cut)[:] = pixels[: cut.height, : cut.width]
        return _to_bgr(part, "part")


def _to_bgr(decoded: VideoFrame, use: str, size: tuple[int, int] | None = None) -> Image:
    if size is None:
        converted = scaler(use).reformat(decoded, format="bgr24", threads=1)
    else:
        width, height = size
        converted = scaler(use).reformat(
            decoded, width=width, height=height, format="bgr24", interpolation="AREA", threads=1
        )
    return np.asarray(converted.to_ndarray(), np.uint8)


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    """Returns a plane of bytes without what fills up its lines: a view, uint8 [height, width]."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _pixels(area: _Area) -> int:
    return (area[2] - area[0]) * (area[3] - area[1])


def _holds(outer: _Area, inner: _Area) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[2] >= inner[2]
        and outer[3] >= inner[3]
    )


def _within(image: Image, area: _Area, asked: _Area) -> Image:
    """Returns a rectangle of the image of a larger one."""
    x, y = area[:2]
    return image[asked[1] - y : asked[3] - y, asked[0] - x : asked[2] - x]
