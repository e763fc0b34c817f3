"""Starts and ends the processes that send, and knows when each frame was due at the sender."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from dfd_benchmarks.results.machine import tree_cpu_s
from dfd_benchmarks.streams.footage import Footage
from dfd_benchmarks.streams.sender import SenderOptions
from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError, UsageError

Protocol = Literal["http", "udp", "rtsp"]
SenderKind = Literal["packets", "ffmpeg"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class SenderCost:
    """The cost of sending, over all its processes.

    Attributes:
        cores: CPU seconds in a second.
        late_p99_ms: How late frames were sent, in milliseconds; 99 of 100 were less.
    """

    cores: float
    late_p99_ms: float


class Senders(Closing):
    """A process that sends footage in so many streams. Use as a context manager.

    Args:
        footage: The footage to send.
        count: Number of streams.
        protocol: `http` and `udp` carry MPEG-TS, `rtsp` carries RTP.
        kind: `packets` sends what was encoded before, `ffmpeg` encodes each stream anew with a
            real ffmpeg, which is given the pictures in real time.
        ports: Where the streams are to be, one each; free ones by default.

    Attributes:
        addresses: Where the streams are, one each.
        starts_s: `time.monotonic()` of the first frame of each.

    Raises:
        UsageError: ffmpeg is not installed, or does not serve the protocol.
        DfdError: The process does not start.
    """

    def __init__(
        self,
        footage: Footage,
        count: int,
        *,
        protocol: Protocol,
        kind: SenderKind = "packets",
        ports: Sequence[int] | None = None,
    ) -> None:
        if kind == "ffmpeg" and protocol == "rtsp":
            raise UsageError("ffmpeg serves no RTSP; use --sender packets, or http or udp")
        if ports is None:
            ports = [_free_port() if protocol == "udp" else 0 for _ in range(count)]
        ffmpeg = _ffmpeg() if kind == "ffmpeg" else None
        orders = SenderOptions(str(footage.path), footage.fps, protocol, count, [*ports], ffmpeg)
        command = [sys.executable, "-m", "dfd_benchmarks.streams.sender"]
        self._process = subprocess.Popen(
            [*command, json.dumps(dataclasses.asdict(orders))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._footage = footage
        self.cost: SenderCost | None = None
        self._cpu_s = 0.0
        message = self._read_line()
        self.addresses: list[str] = message["addresses"]
        self.starts_s: list[float] = message["starts_s"]

    def clock(self, index: int) -> FrameClock:
        """Returns the clock of stream `index`: when frames were due at the sender."""
        return FrameClock(self.starts_s[index], self._footage.fps, self._footage.frames)

    def cpu_s(self) -> float:
        """Returns the CPU seconds of the process and its children so far."""
        if self._process.poll() is None:
            self._cpu_s = max(self._cpu_s, tree_cpu_s(self._process.pid))
        return self._cpu_s

    def close(self) -> None:
        """Ends the process; `cost` then says what it took. Safe to call twice."""
        if self._process.poll() is not None:
            return
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
            message = self._read_line()
            late_ms: Sequence[float] = message["late_ms"]
            self.cost = SenderCost(
                cores=message["cpu_s"] / message["elapsed_s"],
                late_p99_ms=float(np.percentile(late_ms, 99)) if late_ms else 0.0,
            )
            self._process.wait(_END_S)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def kill(self) -> None:
        """Ends the process at once, as when a camera loses its power."""
        self.cpu_s()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise DfdError("the sending process ended by itself; its own words stand above")
        message: dict[str, Any] = json.loads(line)
        return message


class FrameClock:
    """From stamps to the sender's times.

    A stamp repeats with the footage. Which turn of it a frame belongs to follows from the frame's
    own time and the frame before it; the first is taken for the newest that it can be.

    Args:
        start_s: `time.monotonic()` of frame 0.
        fps: Frames per second.
        frames: Number of stamps.
    """

    def __init__(self, start_s: float, fps: int, frames: int) -> None:
        self._start_s = start_s
        self._fps = fps
        self._frames = frames
        self._last: tuple[int, float] | None = None

    def sent_s(self, stamp: int, time_s: float, now_s: float) -> float:
        """`time.monotonic()` at which the frame was due at the sender.

        Args:
            stamp: The stamp that was read from the frame.
            time_s: The frame's time in its source's clock, in seconds.
            now_s: `time.monotonic()`; no frame is from the future.
        """
        newest = int((now_s - self._start_s) * self._fps)
        expected = newest
        if self._last is not None:
            number, before_s = self._last
            expected = number + round((time_s - before_s) * self._fps) + self._frames // 2
        expected = min(expected, newest)
        number = expected - (expected - stamp) % self._frames
        self._last = (number, time_s)
        return self._start_s + number / self._fps


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg  # noqa: PLC0415 - wanted by few
    except ModuleNotFoundError:
        raise UsageError(
            "no ffmpeg to send with: pip install imageio-ffmpeg, or use --sender packets"
        ) from None
    return str(imageio_ffmpeg.get_ffmpeg_exe())
