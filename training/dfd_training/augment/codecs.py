"""Video codecs over single pictures, as a crop out of a coded clip shows them.

A picture is coded as the last of a few frames that drift towards it, so that it carries what
prediction between frames leaves: skipped blocks, coarse residuals, smeared texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_RATE = 25


class Codec(StrEnum):
    """Codecs that footage arrives in."""

    H264 = "h264"
    H265 = "h265"
    VP8 = "vp8"
    VP9 = "vp9"
    MPEG2 = "mpeg2"
    MPEG4 = "mpeg4"


@dataclass(frozen=True, slots=True)
class _Coder:
    encoder: str
    decoder: str
    options: dict[str, str]
    quantisers: tuple[str, ...]  # the options that set the quality
    range: tuple[int, int]  # from the best quality to the worst


_CODERS: dict[Codec, _Coder] = {
    Codec.H264: _Coder(
        "libx264", "h264", {"preset": "veryfast", "tune": "zerolatency"}, ("crf",), (18, 42)
    ),
    Codec.H265: _Coder(
        "libx265",
        "hevc",
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x265-params": "log-level=none:pools=none:frame-threads=1",
        },
        ("crf",),
        (20, 42),
    ),
    Codec.VP8: _Coder(
        "libvpx",
        "vp8",
        {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
        ("qmin", "qmax", "crf"),
        (6, 62),
    ),
    Codec.VP9: _Coder(
        "libvpx-vp9",
        "vp9",
        {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "b": "0"},
        ("crf",),
        (24, 60),
    ),
    Codec.MPEG2: _Coder("mpeg2video", "mpeg2video", {}, ("qmin", "qmax"), (2, 20)),
    Codec.MPEG4: _Coder("mpeg4", "mpeg4", {}, ("qmin", "qmax"), (2, 20)),
}


@dataclass(frozen=True, slots=True)
class Coding:
    """One pass through a codec.

    Attributes:
        codec: The codec.
        loss: 0 for the best quality of the codec's usual range, 1 for the worst.
        drift: Motion of the picture from frame to frame, pixels right and down.
        frames: Frames coded, the picture the last of them.
    """

    codec: Codec
    loss: float
    drift: tuple[float, float] = (0.0, 0.0)
    frames: int = 2


def code(picture: Picture, coding: Coding) -> Picture:
    """Sends a picture through a codec, 4:2:0.

    Args:
        picture: uint8 [height, width, 3], BGR; odd sides are padded for coding.
        coding: Codec, quality and motion.

    Returns:
        uint8, same shape.
    """
    height, width = picture.shape[:2]
    padded = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    even = np.asarray(padded, np.uint8)
    coder = _CODERS[coding.codec]
    encoder = _encoder(coder, coding.loss, (even.shape[1], even.shape[0]))
    packets: list[av.Packet[Any]] = []
    for number in range(coding.frames):
        left = coding.frames - 1 - number
        frame = av.VideoFrame.from_ndarray(_moved(even, coding.drift, left), format="bgr24")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(coder.decoder, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.extradata = encoder.extradata
    decoded: list[av.VideoFrame] = []
    for packet in (*packets, None):
        decoded += decoder.decode(packet)
    shown = decoded[-1].to_ndarray(format="bgr24")
    return np.ascontiguousarray(shown[:height, :width], np.uint8)


def _encoder(coder: _Coder, loss: float, size: tuple[int, int]) -> VideoCodecContext:
    encoder = av.CodecContext.create(coder.encoder, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, _RATE)
    encoder.framerate = Fraction(_RATE, 1)
    encoder.thread_count = 1
    best, worst = coder.range
    quantiser = str(round(best + loss * (worst - best)))
    encoder.options = {**coder.options, **dict.fromkeys(coder.quantisers, quantiser)}
    return encoder


def _moved(picture: Picture, drift: tuple[float, float], steps: int) -> Picture:
    if not steps or drift == (0.0, 0.0):
        return picture
    move = np.array([[1, 0, drift[0] * steps], [0, 1, drift[1] * steps]], np.float64)
    size = (picture.shape[1], picture.shape[0])
    moved = cv2.warpAffine(picture, move, size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)
