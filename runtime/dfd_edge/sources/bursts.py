"""Bursts of consecutive frames, taken from a source where a frame is due."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.sources.frames import (
    BURST_FRAMES,
    BURST_SIDE,
    BURST_STEP_S,
    Burst,
    DueFrames,
    Foreseeable,
    Image,
)

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

Plane = NDArray[np.uint8]

T = TypeVar("T")

#: Steps ahead at which a sampler is asked whether a frame will be due: the next two frames, and a
#: quarter of a step for those that come late.
_STEPS_AHEAD = (1.0, 2.0, 2.25)


class _Scalers(threading.local):
    """The scalers of one thread, by use."""

    def __init__(self) -> None:
        self.by_use: dict[str, VideoReformatter] = {}


_SCALERS = _Scalers()


def scaler(use: str) -> VideoReformatter:
    """Returns this thread's scaler of FFmpeg's for one use.

    A scaler keeps the filters for the last sizes and formats. Each frame's own computes them anew,
    which takes as long as it then takes to shrink a 720p frame's luma.

    Args:
        use: Name of the use: each has sizes and formats of its own.
    """
    found = _SCALERS.by_use.get(use)
    if found is None:
        from av.video.reformatter import VideoReformatter  # noqa: PLC0415 - as `luma_of_image`

        found = _SCALERS.by_use[use] = VideoReformatter()
    return found


def shrunk_luma(decoded: VideoFrame, width: int, height: int) -> Plane:
    """Returns the luma of a frame of FFmpeg's in full range, shrunk as `Burst` has it.

    Each pixel is the mean of those that it covers, rounded once.

    Args:
        decoded: The frame, whose pixels need not be square.
        width: Its width with square pixels.
        height: Its height.

    Raises:
        av.error.FFmpegError: The frame states colours that FFmpeg does not convert.
    """
    from av.video.reformatter import Colorspace  # noqa: PLC0415 - as `luma_of_image`

    scale = min(1.0, BURST_SIDE / max(width, height))
    # FFmpeg dithers where it drops bits, which looks like noise of the frame.
    deep = decoded.format.components[0].bits > 8
    small = scaler("luma").reformat(
        decoded,
        format="gray16le" if deep else "gray",
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        # With another matrix FFmpeg converts to RGB first, and the noise of the colours gets in.
        src_colorspace=Colorspace.ITU601,
        dst_colorspace=Colorspace.ITU601,
        interpolation="AREA",
        threads=1,
    )
    luma: NDArray[Any] = small.to_ndarray()
    if deep:
        luma = cv2.convertScaleAbs(luma, alpha=255.0 / 65535.0)
    return np.ascontiguousarray(luma, np.uint8)


def luma_of_image(image: Image) -> Plane:
    """Returns the luma of an image, uint8 [height, width, 3] in BGR, shrunk as `Burst` has it."""
    from av.video.frame import VideoFrame  # noqa: PLC0415 - pushed frames need no FFmpeg before

    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = grey.shape
    if max(width, height) <= BURST_SIDE:
        return grey
    return shrunk_luma(VideoFrame.from_ndarray(grey, format="gray"), width, height)


@dataclass(slots=True, eq=False)
class _Recent(Generic[T]):
    """A frame, its time, and its luma once that was asked for."""

    frame: T
    time_s: float
    kind: Hashable
    plane: Plane | None = None


class RecentFrames(Generic[T]):
    """The last consecutive frames of a source, and the bursts that end with them.

    Frames are held as they are; only those of a burst are converted to luma, once each.

    Args:
        luma: Returns the luma of a frame as `Burst` has it, or None where it has none.
    """

    def __init__(self, luma: Callable[[T], Plane | None]) -> None:
        self._luma = luma
        self._frames: deque[_Recent[T]] = deque(maxlen=BURST_FRAMES)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: T, time_s: float, kind: Hashable = None) -> None:
        """Takes the next frame.

        Args:
            frame: The frame; not changed afterwards by anyone.
            time_s: Its time in seconds.
            kind: Its size and format; frames of two kinds are not compared.
        """
        if self._frames and self._frames[-1].kind != kind:
            self._frames.clear()
        self._frames.append(_Recent(frame, time_s, kind))

    def interrupt(self) -> None:
        """Notes that the next frame does not directly follow the last one."""
        self._frames.clear()

    def burst(self) -> Burst | None:
        """Returns the burst that ends with the last frame.

        None where fewer frames follow one another, where they are further apart than
        `BURST_STEP_S`, or where one has no luma.
        """
        if len(self._frames) < BURST_FRAMES:
            return None
        for before, after in itertools.pairwise(self._frames):
            if not 0.0 < after.time_s - before.time_s <= BURST_STEP_S:
                return None
        planes: list[Plane] = []
        for recent in self._frames:
            if recent.plane is None:
                recent.plane = self._luma(recent.frame)
            if recent.plane is None or (planes and recent.plane.shape != planes[0].shape):
                return None
            planes.append(recent.plane)
        return Burst(tuple(planes))


class ForeseenBursts:
    """Bursts of images that come one by one, of which only those are kept that a due one needs.

    Which these are is foreseen: the next images come as far apart as the last two did.

    Args:
        sampler: Says which frames are due; a copy of it is asked about frames to come.
    """

    def __init__(self, sampler: DueFrames) -> None:
        self._sampler = sampler
        self._recent: RecentFrames[Plane] = RecentFrames(lambda plane: plane)
        self._last_s = math.nan

    def wants(self, time_s: float, *, due: bool) -> bool:
        """Returns whether the next image is part of a burst; call it once per image.

        Args:
            time_s: Its time in seconds.
            due: Whether it is due; the sampler was asked already.
        """
        step_s = time_s - self._last_s
        self._last_s = time_s
        if 0.0 < step_s <= BURST_STEP_S:
            if due and len(self._recent) >= BURST_FRAMES - 1:
                return True
            if self._is_due_soon(time_s, step_s):
                return True
        self._recent.interrupt()
        return False

    def keep(self, image: Image, time_s: float) -> Burst | None:
        """Keeps the luma of a wanted image, and returns the burst that ends with it, if any.

        Args:
            image: uint8 [height, width, 3], BGR; not kept itself.
            time_s: Its time in seconds.
        """
        self._recent.add(luma_of_image(image), time_s, kind=image.shape)
        return self._recent.burst()

    def interrupt(self) -> None:
        """Notes that a wanted image did not come."""
        self._recent.interrupt()

    def _is_due_soon(self, time_s: float, step_s: float) -> bool:
        if not isinstance(self._sampler, Foreseeable):
            return True
        ahead = self._sampler.foresee()
        return any(ahead.is_due(time_s + steps * step_s) for steps in _STEPS_AHEAD)
