"""Frames of a source, and which of them are due: sampling by timestamp.

A sequence model that was trained on steps of a fixed length has its frames picked by their time and
never by their number. Training and inference share these classes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.arguments import check_rate, check_whole
from dfd_edge.errors import UnsupportedError, UsageError

Image = NDArray[np.uint8]

#: Larger stills are refused before memory is spent on them (8192 x 8192).
MAX_PIXELS = 8192 * 8192
#: Larger frames of films are refused: several are held at once (8192 x 4096, 8K and a bit).
MAX_FRAME_PIXELS = 8192 * 4096
#: No limit may be set higher: libraries count the bytes of a picture in 32 bits.
MOST_PIXELS = 2**29
#: A picture with a shorter side than this holds no face.
MIN_SIDE = 16


BURST_FRAMES = 3
"""Consecutive frames of a burst: two differences, and how the noise of one goes with the next."""
BURST_SIDE = 720
"""Most pixels of the longer side of a burst's frames."""
BURST_STEP_S = 1.0 / 14.0
"""Most seconds between two frames of a burst: more happens in a face in longer ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Burst:
    """Consecutive frames of a source at its own rate, up to a due one, as luma.

    Attributes:
        planes: `BURST_FRAMES` arrays uint8 [height, width] of one size, the oldest first and the
            due frame last; upright, square pixels, full range (0 black, 255 white), the longer
            side at most `BURST_SIDE`.
    """

    planes: tuple[NDArray[np.uint8], ...]


class Picture(ABC):
    """An upright picture as it was decoded; only pixels that are looked at are converted to BGR.

    Sliced like an array of pixels, `picture[y0:y1, x0:x1]`, it returns uint8 [y1 - y0, x1 - x0, 3].
    It is safe to use from several threads.

    Attributes:
        shape: Height, width and 3, as an array of its pixels has them.
    """

    shape: tuple[int, int, int]

    @abstractmethod
    def __getitem__(self, area: tuple[slice, slice]) -> Image:
        """Returns a rectangle, uint8 BGR: slices of rows and columns, in steps of one."""

    @abstractmethod
    def shrunk(self, size: tuple[int, int]) -> Image:
        """Returns the picture at this width and height, each pixel the mean of those it covers.

        uint8 [height, width, 3], BGR. The same whatever else was converted before.
        """

    @property
    @abstractmethod
    def image(self) -> Image:
        """The whole picture, uint8 [height, width, 3], BGR; converted once."""


#: Frames at least this many times too large are halved first.
_HALVED_FROM = 3


def resized(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes a picture or plane of bytes to this width and height; a large one is halved first.

    OpenCV has vector instructions for the mean of two by two pixels and none for that of areas
    with fractions of pixels: 1280x720 to 192x108 takes a third of the time in two steps.
    """
    frame = halved(frame, size)
    shrinks = size[0] < frame.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size, interpolation=method), np.uint8)


def halved(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns a picture or plane of bytes, halved while it is much larger than this."""
    while min(frame.shape[1] // size[0], frame.shape[0] // size[1]) >= _HALVED_FROM:
        half = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame = np.asarray(cv2.resize(frame, half, interpolation=cv2.INTER_AREA), np.uint8)
    return frame


Pixels = Image | Picture
"""An image, uint8 [height, width, 3] in BGR, or a picture that gives one."""


def whole(pixels: Pixels) -> Image:
    """Returns the whole image, uint8 [height, width, 3], BGR; a picture is converted once."""
    return pixels.image if isinstance(pixels, Picture) else pixels


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded frame, upright.

    Attributes:
        pixels: What is judged: an image, uint8 [height, width, 3] in BGR, or a `Picture`, of which
            only parts are converted.
        time_s: Seconds since the start of the source.
        index: Number of the frame among the decoded frames of the source, from 0.
        due: Whether it is to be judged; one that is not is for display.
        burst: The frames that end with a due one; None where none was asked for or to be had: at
            the start, after a gap or a damaged frame, at low frame rates, and of stills,
            interlaced footage and HDR.
    """

    pixels: Pixels
    time_s: float
    index: int
    due: bool = True
    burst: Burst | None = None

    @property
    def image(self) -> Image:
        """The whole frame, uint8 [height, width, 3], BGR; converted when it is first asked for."""
        return whole(self.pixels)


def size_fault(
    width: int, height: int, max_pixels: int = MAX_PIXELS
) -> tuple[str, str | None] | None:
    """Returns cause and mend where a picture of this size is refused, else None."""
    if min(width, height) >= MIN_SIDE and width * height <= max_pixels:
        return None
    if min(width, height) < MIN_SIDE:
        return f"too small, {width}x{height}: both sides need {MIN_SIDE} pixels or more", None
    mend = "--max-pixels raises that" if max_pixels < MOST_PIXELS else None
    return f"too large, {width}x{height}: at most {max_pixels:,} pixels are read", mend


def check_size(source: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses pictures that are too small or too large.

    Raises:
        UnsupportedError: The picture is refused.
    """
    if (fault := size_fault(width, height, max_pixels)) is not None:
        raise UnsupportedError(source, *fault)


def check_asked_size(what: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses a size that a caller gave, as `check_size` does.

    Raises:
        UsageError: The size is refused.
    """
    if (fault := size_fault(width, height, max_pixels)) is not None:
        raise UsageError(f"{what}: {'; '.join(part for part in fault if part is not None)}")


#: A frame that comes this share of a period early still counts as on time (jitter).
EARLY_TOLERANCE = 0.1
#: Two due frames are never closer than this share of a period.
MIN_SPACING = 0.5


class DueFrames(Protocol):
    """Decides which frames are due."""

    def is_due(self, time_s: float) -> bool:
        """Returns whether the frame at this time is to be judged."""
        ...


@runtime_checkable
class Foreseeable(DueFrames, Protocol):
    """A sampler that can be copied, to ask about frames that are still to come."""

    def foresee(self) -> DueFrames:
        """Returns an independent copy."""
        ...


class AllFrames:
    """Every frame is due."""

    def is_due(self, time_s: float) -> bool:
        """Returns True."""
        del time_s
        return True

    def foresee(self) -> AllFrames:
        """Returns itself."""
        return self


class Shifted:
    """Another sampler, in a clock that is earlier by an offset.

    Args:
        sampler: The other one.
        offset_s: What is added to each time.
    """

    def __init__(self, sampler: DueFrames, offset_s: float) -> None:
        self._sampler = sampler
        self._offset_s = offset_s

    def is_due(self, time_s: float) -> bool:
        """Returns the other sampler's answer."""
        return self._sampler.is_due(time_s + self._offset_s)

    def foresee(self) -> Shifted:
        """Returns an independent copy, to ask about frames that are still to come."""
        return copy.deepcopy(self)


class Sampler:
    """Picks frames at `rate_hz` from a stream of timestamps.

    Due times lie on a grid that starts with the first frame, so the mean rate is kept exactly
    whatever the frame rate of the source. A frame up to a tenth of a period early is taken, two
    due frames are at least half a period apart, and a source slower than the rate has all its
    frames taken. After a gap, or when timestamps jump back by more than a period, the grid restarts
    with that frame; smaller steps back count as reordering and are not due.

    Args:
        rate_hz: Sampling rate in frames per second, above zero.

    Raises:
        UsageError: `rate_hz` is no number, or below 0.001 or above 1000.
    """

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = check_rate("sampling rate in Hz", rate_hz)
        self.period_s = 1.0 / self.rate_hz
        self._last_s: float | None = None
        self._next_s = 0.0

    def is_due(self, time_s: float) -> bool:
        """Returns whether the frame at `time_s` (seconds, any origin) is due, and counts it."""
        if self._last_s is None or time_s < self._last_s - self.period_s:
            self._start_grid(time_s)
            return True
        if time_s < self._next_s - EARLY_TOLERANCE * self.period_s:
            return False
        if time_s < self._last_s + MIN_SPACING * self.period_s:
            return False
        if time_s >= self._next_s + self.period_s:
            self._start_grid(time_s)
        else:
            self._last_s = time_s
            self._next_s += self.period_s
        return True

    def foresee(self) -> Sampler:
        """Returns an independent copy, to ask about frames that are still to come."""
        ahead = Sampler.__new__(Sampler)  # as `copy.copy`, in a quarter of the time
        ahead.__dict__.update(self.__dict__)
        return ahead

    @property
    def is_done(self) -> bool:
        """False: it goes on for as long as the stream does."""
        return False

    def _start_grid(self, time_s: float) -> None:
        self._last_s = time_s
        self._next_s = time_s + self.period_s


class FirstFrames:
    """Picks every frame from the first on until there are `count`, and none after them.

    Args:
        count: How many, 1 or more.
        rate_hz: Frames per second that such clips usually have; decides nothing.

    Raises:
        UsageError: A number is out of range.
    """

    def __init__(self, count: int, *, rate_hz: float = 30.0) -> None:
        self.count = check_whole("first frames", count, least=1, most=10**9)
        self.rate_hz = check_rate("frame rate in Hz", rate_hz)
        self.period_s = 1.0 / self.rate_hz
        self._taken = 0

    def is_due(self, time_s: float) -> bool:
        """Returns whether the next frame is due, whatever its time, and counts it."""
        del time_s
        due = not self.is_done
        self._taken += due
        return due

    def foresee(self) -> FirstFrames:
        """Returns an independent copy, to ask about frames that are still to come."""
        return copy.copy(self)

    @property
    def is_done(self) -> bool:
        """Whether all of them were picked."""
        return self._taken >= self.count
