"""Animated WebP, which FFmpeg does not read: its frames one by one, put together on its canvas."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.closing import Closing
from dfd_edge.errors import SourceError
from dfd_edge.sources.colours import ColourCount, few_colours
from dfd_edge.sources.frame import MAX_FRAME_PIXELS, Frame, Image, check_size
from dfd_edge.sources.headers import HeaderError, riff_chunks, webp_size
from dfd_edge.sources.quiet import quiet_opencv

if TYPE_CHECKING:
    from dfd_edge.sampling import DueFrames

#: Browsers show frames of 10 ms and less for so long.
_LEAST_SHOWN_S, _SHOWN_S = 0.011, 0.1
_DISPOSE, _OVERWRITE = 1, 2
_ALPHA = 0x10
#: Bytes that a frame takes at most: its pixels as they are, and what stands before them.
_FRAME_BYTES_A_PIXEL, _LEAST_BYTES = 5, 1 << 16


class AnimatedWebP(Closing):
    """An animated WebP file, read once from start to end. Use as a context manager.

    Each frame is a still of its own in the file: it is decoded by itself and laid on the canvas, as
    the container's specification says (developers.google.com/speed/webp/docs/riff_container). The
    canvas starts black: nothing lies behind it.

    Args:
        source: The file, or an open binary file.
        name: What messages call the source.
        max_pixels: Larger canvases are refused before anything is decoded.

    Attributes:
        width, height: Size of the canvas in pixels.
        duration_s: Length in seconds.
        frame_rate: Frames per second, on average.
        complete: False once a frame turned out to be damaged or cut off.
        reason: Why `complete` is False, else None.
        notes: What a user should know of the file; nothing here.
        end_s: Time at which the last whole frame ends, in seconds.

    Raises:
        SourceError: It cannot be read, or is too large or small.
    """

    finite = True

    def __init__(
        self, source: str | Path | BinaryIO, *, name: str, max_pixels: int = MAX_FRAME_PIXELS
    ) -> None:
        self.name = name
        self.complete = True
        self.reason: str | None = None
        self.notes: tuple[str, ...] = ()
        self._colours = ColourCount()
        self.end_s = 0.0
        self._owned = isinstance(source, str | Path)
        self._file: BinaryIO = (
            Path(source).open("rb")  # noqa: SIM115 - closed in `close`
            if isinstance(source, str | Path)
            else source
        )
        try:
            self._file.seek(0)
            self.width, self.height = webp_size(self._file.read(64))
            refusal = check_size(name, self.width, self.height, max_pixels)
            if refusal:
                raise SourceError(refusal)
            self._frames = [
                (at, length) for kind, at, length in riff_chunks(self._file) if kind == b"ANMF"
            ]
            shown_s = [self._header(at)[4] for at, _ in self._frames]
            if not shown_s:
                raise HeaderError("it holds no frame")
        except (OSError, HeaderError, struct.error) as error:
            self.close()
            raise SourceError(f"{name}: the animation cannot be read ({error})") from error
        except SourceError:
            self.close()
            raise
        self.duration_s: float | None = sum(shown_s)
        self.frame_rate = len(shown_s) / self.duration_s

    def frames(self, sampler: DueFrames) -> Iterator[Frame]:
        """Yields the frames that `sampler` asks for, in order.

        Raises:
            SourceError: Not one frame could be decoded.
        """
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        cleared: tuple[slice, slice] | None = None
        decoded = 0
        for index, (at, length) in enumerate(self._frames):
            left, top, width, height, shown_s, flags = self._header(at)
            if cleared is not None:
                canvas[cleared] = 0
            area = slice(top, top + height), slice(left, left + width)
            cleared = area if flags & _DISPOSE else None
            picture = self._decode(at, length, width, height)
            time_s = self.end_s
            self.end_s += shown_s
            if picture is None:
                continue
            decoded += 1
            _lay(canvas[area], picture, overwrite=bool(flags & _OVERWRITE))
            if sampler.is_due(time_s):
                image: Image = canvas.copy()
                self._colours.add(few_colours(image))
                yield Frame(image, time_s, index)
        if not decoded:
            raise SourceError(f"{self.name}: no frame could be decoded; damaged or cut off")

    @property
    def doubt(self) -> str | None:
        """Why its pictures cannot be decided on, whatever they score, else None."""
        return self._colours.doubt

    def close(self) -> None:
        """Closes the file, if it was opened here."""
        if self._owned:
            self._file.close()

    def _header(self, at: int) -> tuple[int, int, int, int, float, int]:
        """Left, top, width, height, seconds shown and flags of the frame at this place."""
        self._file.seek(at)
        data = self._file.read(16)
        if len(data) < 16:
            raise HeaderError("cut off")
        left, top, width, height, shown_ms = (
            int.from_bytes(data[place : place + 3], "little") for place in range(0, 15, 3)
        )
        left, top, width, height = 2 * left, 2 * top, width + 1, height + 1
        if left + width > self.width or top + height > self.height:
            raise HeaderError("a frame lies outside its canvas")
        shown_s = shown_ms / 1e3 if shown_ms / 1e3 >= _LEAST_SHOWN_S else _SHOWN_S
        return left, top, width, height, shown_s, data[15]

    def _decode(self, at: int, length: int, width: int, height: int) -> NDArray[np.uint8] | None:
        """The frame's own picture, uint8 [height, width, 3 or 4]; None where it is damaged.

        It is handed to the decoder as a file of its own, whose size is known to be the frame's.
        """
        # `read` makes room for as much as is asked for, before it looks how much there is.
        most = _LEAST_BYTES + _FRAME_BYTES_A_PIXEL * width * height
        self._file.seek(at + 16)
        chunks = self._file.read(max(0, length - 16)) if length <= most else b""
        header = b""
        if chunks.startswith(b"ALPH"):  # the decoder holds the sizes against each other
            size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
            header = b"VP8X" + struct.pack("<II", 10, _ALPHA) + size
        body = b"WEBP" + header + chunks
        picture = b"RIFF" + struct.pack("<I", len(body)) + body
        try:
            if len(chunks) + 16 == length and webp_size(picture) == (width, height):
                with quiet_opencv():
                    found = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
                if found is not None:
                    return np.asarray(found, np.uint8)
        except (HeaderError, struct.error, cv2.error):
            pass
        self.complete = False
        self.reason = "frames of the animation are damaged or cut off"
        return None


def _lay(canvas: Image, picture: NDArray[np.uint8], *, overwrite: bool) -> None:
    """Puts a frame on its part of the canvas; what is transparent in it lets the canvas through."""
    if picture.shape[2] == 3:
        canvas[:] = picture
        return
    share = picture[:, :, 3:].astype(np.float32) / 255.0
    below = 0.0 if overwrite else canvas * (1.0 - share)
    canvas[:] = np.round(picture[:, :, :3] * share + below).astype(np.uint8)
