"""Raw frames on a pipe: no container, no codec, times by counting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dfd_edge.closing import Closing
from dfd_edge.errors import SourceError
from dfd_edge.sources.frame import Frame, Image

if TYPE_CHECKING:
    from dfd_edge.sampling import DueFrames
    from dfd_edge.sources.options import RawFormat
    from dfd_edge.sources.video import Readable

#: How OpenCV turns each format to BGR; bgr24 is BGR already.
_CONVERSIONS = {
    "rgb24": cv2.COLOR_RGB2BGR,
    "gray": cv2.COLOR_GRAY2BGR,
    "yuv420p": cv2.COLOR_YUV2BGR_I420,
    "nv12": cv2.COLOR_YUV2BGR_NV12,
}


class RawVideo(Closing):
    """Raw frames, read once from start to end. Use as a context manager.

    Args:
        stream: Gives the bytes; left open.
        raw: What they are.
        name: What messages call the source.

    Attributes:
        width, height: Size of the frames in pixels.
        duration_s: None: a pipe does not say how long it will be.
        frame_rate: Frames per second.
        complete: False once the last frame turned out to be cut off.
        reason: Why `complete` is False, else None.
        end_s: Time at which the last whole frame ends, in seconds.
        notes: None: there is a single stream.
    """

    finite = True
    notes: tuple[str, ...] = ()
    duration_s: float | None = None

    def __init__(self, stream: Readable, raw: RawFormat, *, name: str = "standard input") -> None:
        self.name = name
        self.width, self.height = raw.width, raw.height
        self.frame_rate = raw.fps
        self.complete = True
        self.reason: str | None = None
        self.end_s = 0.0
        self._stream = stream
        self._raw = raw

    def frames(self, sampler: DueFrames) -> Iterator[Frame]:
        """Yields the frames that `sampler` asks for, in order; the others are not converted.

        Raises:
            SourceError: There was not one whole frame.
        """
        index = 0
        while True:
            data = self._read_frame()
            if len(data) < self._raw.frame_bytes:
                break
            time_s = index / self.frame_rate
            self.end_s = (index + 1) / self.frame_rate
            if sampler.is_due(time_s):
                yield Frame(self._convert(data), time_s, index)
            index += 1
        if data:
            self.complete = False
            self.reason = (
                f"the last frame is cut off: {len(data)} of {self._raw.frame_bytes} bytes; "
                f"is it {self._raw}?"
            )
        if not index:
            raise SourceError(f"{self.name}: {self.reason or 'no frame came'}")

    def close(self) -> None:
        """Nothing is held."""

    def _read_frame(self) -> bytearray:
        """The bytes of the next frame; fewer at the end."""
        wanted = self._raw.frame_bytes
        data = bytearray()
        while len(data) < wanted:
            more = self._stream.read(wanted - len(data))
            if not more:
                break
            data += more
        return data

    def _convert(self, data: bytearray) -> Image:
        raw = self._raw
        packed = raw.pixel_format in ("bgr24", "rgb24")
        shape = (raw.height, raw.width, 3) if packed else (-1, raw.width)
        stored: Image = np.frombuffer(data, dtype=np.uint8).reshape(shape)
        conversion = _CONVERSIONS.get(raw.pixel_format)
        if conversion is None:
            return stored
        return np.asarray(cv2.cvtColor(stored, conversion), dtype=np.uint8)
