"""Degradations for evaluation: conditions of crops, and corruptions of whole frames and clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from dfd_training.augment.codecs import Codec, Coding
from dfd_training.augment.degrade import Degradation, degrade
from dfd_training.augment.synthesis.colour import ColourChange, change_colour
from dfd_training.augment.synthesis.detail import Picture

_JPEG = Degradation(jpeg=40)
_H264 = Degradation(coding=Coding(Codec.H264, loss=0.75))  # rate factor 36
PRESET = "veryfast"
"""Preset of x264; slower ones lose less at the same rate factor."""

_TICKS = 90_000


class Condition(StrEnum):
    """Condition that all crops of a file are judged under."""

    CLEAN = "clean"
    JPEG = "jpeg 40"
    HALF_SIZE = "half size"
    H264 = "h264 low"


def apply_condition(condition: Condition, pictures: Sequence[Picture]) -> list[Picture]:
    """Degrades crops as a condition says.

    Args:
        condition: `jpeg 40`: JPEG quality 40. `half size`: half the size, as if the file had half
            the resolution. `h264 low`: H.264 at a rate factor of 36.
        pictures: Square BGR crops at the file's own resolution.

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
    """Scales a picture down to a share of its size by averaging areas."""
    height, width = image.shape[:2]
    size = (max(2, round(width * share)), max(2, round(height * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class Kind(StrEnum):
    """Kinds of corruption (Hendrycks and Dietterich, ICLR 2019)."""

    CLEAN = "clean"
    JPEG = "JPEG"
    H264 = "H.264"
    RESIZE = "resize"
    BLUR = "blur"
    NOISE = "noise"
    GAMMA = "gamma"
    SHIFT = "crop shift"


@dataclass(frozen=True, slots=True)
class Corruption:
    """A corruption of one strength: a rung of the robustness ladder.

    Attributes:
        kind: Kind of corruption.
        strength: JPEG quality; x264's constant rate factor; share of the frame's size; standard
            deviation of the blur in pixels or of the noise in grey levels; exponent; share of
            the face by which the crop is displaced.
        name: Name in tables and charts.
        size: Share of the size that a re-encoded clip is shrunk to.
        most_fps: Most frames a second of a re-encoded clip; a slower one keeps its own.
    """

    kind: Kind
    strength: float
    name: str
    size: float = 1.0
    most_fps: float | None = None


CLEAN = Corruption(Kind.CLEAN, 0.0, "clean")

CORRUPTIONS = (
    CLEAN,
    Corruption(Kind.JPEG, 90, "JPEG 90"),
    Corruption(Kind.JPEG, 70, "JPEG 70"),
    Corruption(Kind.JPEG, 50, "JPEG 50"),
    Corruption(Kind.JPEG, 30, "JPEG 30"),
    Corruption(Kind.H264, 23, "H.264 CRF 23"),
    Corruption(Kind.H264, 28, "H.264 CRF 28"),
    Corruption(Kind.H264, 33, "H.264 CRF 33"),
    Corruption(Kind.H264, 42, "H.264 CRF 42"),
    Corruption(Kind.H264, 23, "H.264 CRF 23, size 1/2", size=0.5),
    Corruption(Kind.H264, 23, "H.264 CRF 23, 15 fps", most_fps=15.0),
    Corruption(Kind.H264, 30, "H.264 CRF 30, size 1/2, 30 fps (re-share)", size=0.5, most_fps=30.0),
    Corruption(Kind.RESIZE, 0.5, "size 1/2"),
    Corruption(Kind.RESIZE, 0.25, "size 1/4"),
    Corruption(Kind.BLUR, 2.0, "blur 2 px"),
    Corruption(Kind.NOISE, 8.0, "noise 8"),
    Corruption(Kind.GAMMA, 0.6, "gamma 0.6"),
    Corruption(Kind.GAMMA, 1.6, "gamma 1.6"),
    Corruption(Kind.SHIFT, 0.05, "crop shift 5 %"),
    Corruption(Kind.SHIFT, 0.10, "crop shift 10 %"),
)


def corrupt(rung: Corruption, frame: Picture, rng: np.random.Generator) -> Picture:
    """Corrupts one frame.

    Args:
        rung: The corruption; clean, H.264 of the whole clip and crop shift return the frame as
            it is.
        frame: uint8 [height, width, 3], BGR.
        rng: Source of the noise.

    Returns:
        uint8, smaller for `resize`, else the same shape.
    """
    match rung.kind:
        case Kind.JPEG:
            return degrade(frame, Degradation(jpeg=int(rung.strength)), rng)
        case Kind.BLUR:
            return degrade(frame, Degradation(blur=rung.strength), rng)
        case Kind.NOISE:
            return degrade(frame, Degradation(noise=rung.strength), rng)
        case Kind.RESIZE:
            return shrink(frame, rung.strength)
        case Kind.GAMMA:
            change = ColourChange((0.0, 0.0, 0.0), 1.0, rung.strength, 1.0, 0.0)
            return change_colour(frame, change)
    return frame


class H264Writer:
    """Writes frames as an MP4 file, 4:2:0, at a constant rate factor. A context manager.

    Args:
        path: The file.
        crf: x264's constant rate factor, 0 (best) to 51.
        rate: Nominal frames per second; the times of the frames are kept as they are.
    """

    def __init__(self, path: Path, crf: int, *, rate: float) -> None:
        self.path = path
        self.end_s = 0.0
        self._crf = crf
        self._rate = rate
        self._container = av.open(str(path), "w")
        self._stream: av.VideoStream | None = None

    def write(self, frame: Picture, time_s: float) -> None:
        """Adds a frame: uint8 [height, width, 3], BGR, all of one size; odd sides are padded."""
        height, width = frame.shape[:2]
        even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        stream = self._stream or self._open(even.shape[1], even.shape[0])
        picture = av.VideoFrame.from_ndarray(np.asarray(even, np.uint8), format="bgr24")
        picture.pts, picture.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
        self._container.mux(stream.encode(picture))
        self.end_s = time_s

    def _open(self, width: int, height: int) -> av.VideoStream:
        options = {"crf": str(self._crf), "preset": PRESET}
        rate = Fraction(self._rate).limit_denominator(1001)
        stream = self._container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = 1
        self._stream = stream
        return stream

    def __enter__(self) -> H264Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None and error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
