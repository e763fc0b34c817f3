"""Real ffmpeg processes that encode pictures as they get them, as a camera's encoder does."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np


class Encoder:
    """One ffmpeg that encodes raw pictures from a pipe to H.264 and sends them as MPEG-TS.

    Args:
        ffmpeg: The program.
        path: Footage whose pictures are sent, over and over.
        fps: Frames per second.
        address: Where to: `udp://…`, or `http://…` to serve one receiver there.
    """

    def __init__(self, ffmpeg: str, path: Path, fps: int, address: str) -> None:
        self._pictures = _pictures(path)
        self._ready = next(self._pictures)  # decoded before it is due
        height, width = self._ready.shape[0] * 2 // 3, self._ready.shape[1]
        listen = ["-listen", "1"] if address.startswith("http") else []
        command = [ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p"]
        command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-c:v", "libx264"]
        command += ["-preset", "ultrafast", "-tune", "zerolatency", "-g", str(fps), "-crf", "23"]
        command += ["-threads", "1", "-f", "mpegts", "-flush_packets", "1"]
        command += ["-muxdelay", "0", "-muxpreload", "0", *listen, address]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._next = 0

    def send(self, number: int) -> None:
        """Hands frame `number` over; those before it that were not sent are left out.

        Raises:
            OSError: ffmpeg has ended, for its receiver has gone.
        """
        while self._next < number:
            self._advance()
        assert self._process.stdin is not None
        self._process.stdin.write(self._ready.data)
        self._advance()

    def _advance(self) -> None:
        self._ready = next(self._pictures)
        self._next += 1

    def close(self) -> None:
        """Ends ffmpeg."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _pictures(path: Path) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """The pictures of a footage without end: uint8 [3 / 2 height, width], planes of yuv420p."""
    while True:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield np.ascontiguousarray(frame.to_ndarray(), dtype=np.uint8)
