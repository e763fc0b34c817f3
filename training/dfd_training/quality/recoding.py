"""Whole clips through H.264, as a messenger or a video site codes them anew."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from dfd_training.augment.synthesis.detail import Picture

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
