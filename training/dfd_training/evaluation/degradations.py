"""The rungs of the robustness ladder: what is done to whole frames before the runtime sees them."""

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

from dfd_training.codecs import Codec, Coding
from dfd_training.degrade import Degradation, degrade
from dfd_training.synthesis.colour import ColourChange, Picture, change_colour

_JPEG = Degradation(jpeg=40)
_H264 = Degradation(coding=Coding(Codec.H264, loss=0.75))  # rate factor 36


class Condition(StrEnum):
    """What is done to all crops of a file before they are judged."""

    CLEAN = "clean"
    JPEG = "jpeg 40"
    HALF_SIZE = "half size"
    H264 = "h264 low"


def under(condition: Condition, pictures: Sequence[Picture]) -> list[Picture]:
    """Put crops under a condition.

    Args:
        condition: `jpeg 40`: at JPEG quality 40. `half size`: at half the size, as if the file
            had half the resolution. `h264 low`: through H.264 at a rate factor of 36.
        pictures: square BGR crops at the file's own resolution.

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
    """Shrink a picture to a share of its size by averaging areas; the result stays small."""
    height, width = image.shape[:2]
    size = (max(2, round(width * share)), max(2, round(height * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class Kind(StrEnum):
    """Kinds of rungs."""

    CLEAN = "clean"
    JPEG = "JPEG"
    H264 = "H.264"
    RESIZE = "resize"
    BLUR = "blur"
    NOISE = "noise"
    GAMMA = "gamma"
    SHIFT = "crop shift"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung.

    Attributes:
        kind: what is done.
        strength: JPEG quality; x264's constant rate factor; share of the frame's size; standard
            deviation of the blur in pixels or of the noise in grey levels; exponent; share of
            the face by which the crop is displaced.
        name: as tables and charts show it.
    """

    kind: Kind
    strength: float
    name: str


CLEAN = Rung(Kind.CLEAN, 0.0, "clean")
LADDER = (
    CLEAN,
    Rung(Kind.JPEG, 90, "JPEG 90"),
    Rung(Kind.JPEG, 70, "JPEG 70"),
    Rung(Kind.JPEG, 50, "JPEG 50"),
    Rung(Kind.JPEG, 30, "JPEG 30"),
    Rung(Kind.H264, 23, "H.264 CRF 23"),
    Rung(Kind.H264, 30, "H.264 CRF 30"),
    Rung(Kind.H264, 36, "H.264 CRF 36"),
    Rung(Kind.H264, 42, "H.264 CRF 42"),
    Rung(Kind.RESIZE, 0.5, "size 1/2"),
    Rung(Kind.RESIZE, 0.25, "size 1/4"),
    Rung(Kind.BLUR, 2.0, "blur 2 px"),
    Rung(Kind.NOISE, 8.0, "noise 8"),
    Rung(Kind.GAMMA, 0.6, "gamma 0.6"),
    Rung(Kind.GAMMA, 1.6, "gamma 1.6"),
    Rung(Kind.SHIFT, 0.05, "crop shift 5 %"),
    Rung(Kind.SHIFT, 0.10, "crop shift 10 %"),
)


def distort(rung: Rung, frame: Picture, rng: np.random.Generator) -> Picture:
    """Do to one frame what the rung says.

    Args:
        rung: a frame that it leaves alone (clean, H.264 of the whole clip, crop shift) comes
            back as it is.
        frame: uint8 [height, width, 3], BGR.
        rng: the source of the noise.

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


PRESET = "veryfast"
"""x264's; slower ones lose less at the same rate factor."""

_TICKS = 90_000


class H264File:
    """Writes frames as an MP4 file, 4:2:0, at a constant rate factor. A context manager.

    Args:
        path: of the file.
        crf: x264's constant rate factor, 0 (best) to 51.
        rate: nominal frames a second; the times of the frames are kept as they are.
    """

    def __init__(self, path: Path, crf: int, *, rate: float) -> None:
        self.path = path
        self.end_s = 0.0
        self._crf = crf
        self._rate = rate
        self._container = av.open(str(path), "w")
        self._stream: av.VideoStream | None = None

    def write(self, frame: Picture, time_s: float) -> None:
        """Add a frame: uint8 [height, width, 3], BGR, all of one size; odd sides are padded."""
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

    def __enter__(self) -> H264File:
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
