"""Short, small excerpts of clips that a page can hold and play."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.sources import Frame, VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_training.explore.drawing import shrunk

#: An excerpt, over which nothing is gone: seconds, frames a second, longer side, bytes.
SECONDS = 3.0
RATE_HZ = 15.0
LONGEST_PX = 320
MAX_BYTES = 250_000

_TIME_BASE = Fraction(1, 90_000)
#: Rate factors of x264, from the better to the smaller.
_QUALITIES = (28, 34, 40)


def excerpt(path: str, *, root: Path, seconds: float = SECONDS) -> bytes | None:
    """The start of a clip as H.264 in MP4, without sound.

    Args:
        path: as in the table.
        root: the folder that relative paths start from.
        seconds: how much of it.

    Returns:
        At most `MAX_BYTES`; None where the clip gives fewer than two frames or cannot be made as
        small.
    """
    frames: list[Frame] = []
    try:
        with VideoFile(root / path, threads=1) as video:
            for frame in video.frames(Sampler(RATE_HZ)):
                if frame.time_s >= seconds:
                    break
                frames.append(Frame(shrunk(frame.image, LONGEST_PX), frame.time_s, frame.index))
    except SourceError:
        pass
    if len(frames) < 2:
        return None
    for quality in _QUALITIES:
        encoded = _encoded(frames, quality)
        if len(encoded) <= MAX_BYTES:
            return encoded
    return None


def _encoded(frames: list[Frame], quality: int) -> bytes:
    buffer = io.BytesIO()
    height, width = (side // 2 * 2 for side in frames[0].image.shape[:2])
    options = {"crf": str(quality), "preset": "veryfast", "profile": "main"}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(RATE_HZ), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.thread_count = 1
        for item in frames:
            image = np.ascontiguousarray(item.image[:height, :width])
            if image.shape[:2] != (height, width):
                continue
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = round(item.time_s / _TIME_BASE)
            frame.time_base = _TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
