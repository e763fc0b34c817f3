"""Live streams whose senders are killed and started again, for as long as it takes."""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_benchmarks.soak.pushed import MIN_WINDOWS, Recording, Window
from dfd_benchmarks.streams.footage import Footage, make_footage
from dfd_benchmarks.streams.senders import PROTOCOLS, Protocol, Senders
from dfd_benchmarks.streams.stamps import read_stamp
from dfd_edge import Detector, FrameResult
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.judging.watch import Watch
from dfd_edge.sources.frames import Frame

_TICK_S = 0.25
_PORTS = range(20_000, 30_000)
#: A sender is started and opened within this time.
_OPEN_S = 20.0


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Streams that are lost and come back.

    Attributes:
        minutes: How long.
        protocols: One stream each.
        size: Width and height in pixels.
        fps: Frames per second.
        up_s: Seconds that a sender runs.
        down_s: Seconds until the next one of that stream; more than five, after which a silent
            `udp` is given up as lost, too.

    Raises:
        UsageError: A value out of range.
    """

    minutes: float = 60.0
    protocols: tuple[Protocol, ...] = PROTOCOLS
    size: tuple[int, int] = (320, 240)
    fps: int = 25
    up_s: float = 23.0
    down_s: float = 7.0

    def __post_init__(self) -> None:
        if not self.up_s > 0 < self.down_s:
            raise UsageError(f"up {self.up_s:g} s, down {self.down_s:g} s: give more than 0")
        if self.minutes * 60.0 < MIN_WINDOWS * self.cycle_s:
            least = MIN_WINDOWS * self.cycle_s / 60.0
            raise UsageError(f"{self.minutes:g} minutes: give {least:g} or more")

    @property
    def cycle_s(self) -> float:
        """Seconds from one start of a sender to the next."""
        return self.up_s + self.down_s


def soak_live(detector: Detector, clip: Path | None, options: LiveOptions) -> Iterator[Window]:
    """Watches streams over loopback whose senders are killed and started again, in turns.

    Latency counts from the sender's clock to the result, by a stamp in each frame. A window is one
    life of a sender and the pause after it.

    Args:
        detector: Judges.
        clip: A video with one face in it; the sample where None.
        options: The streams.

    Raises:
        UsageError: A value out of range, or a system that does not tell what a process holds.
        SourceError: The clip cannot be read, or a stream ended.
    """
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="dfd-bench-")))
        footage = make_footage(clip, folder / "footage.ts", size=options.size, fps=options.fps)
        cameras: list[_Camera] = []
        recording = Recording(lambda: sum(camera.cpu_s() for camera in cameras))
        viewers: list[_Viewer] = []
        shares = [number / len(options.protocols) for number in range(len(options.protocols))]
        both: list[_Camera | _Viewer] = []
        for protocol, share in zip(options.protocols, shares, strict=True):
            camera = _Camera(footage, protocol, share, options)
            opened.callback(camera.close)
            cameras.append(camera)
            viewers.append(_Viewer(detector, camera, recording))
            opened.callback(viewers[-1].close)
            both += [camera, viewers[-1]]
        for thread in both:
            thread.start()
        recording.begin()
        start_s = time.monotonic()
        for number in range(1, int(options.minutes * 60.0 / options.cycle_s) + 1):
            while time.monotonic() < start_s + number * options.cycle_s:
                for thread in both:
                    if thread.error is not None:
                        raise thread.error
                recording.look()
                time.sleep(_TICK_S)
            if recording.is_empty:  # a machine that is busy with other work: a longer window
                continue
            yield recording.end_window(
                round(time.monotonic() - start_s),
                people=sum(viewer.people for viewer in viewers),
                gaps=sum(viewer.gaps for viewer in viewers),
            )


class _Camera(threading.Thread):
    """A sender at one address that loses its power once a cycle.

    Attributes:
        address: Where it is.
        start_s: `time.monotonic()` of the first frame of its present life.
        footage: The footage that it sends.
        error: The error that ended it before `close`, or None.
    """

    def __init__(
        self, footage: Footage, protocol: Protocol, share: float, options: LiveOptions
    ) -> None:
        super().__init__(name=f"dfd-bench {protocol} sender", daemon=True)
        self.footage = footage
        self.error: Exception | None = None
        self._protocol, self._options = protocol, options
        self._first_s = options.up_s * (1.0 - share)
        self._port = _own_port()
        self._closed = threading.Event()
        self._lives: list[Senders] = []
        self._senders = self._turn_on()

    def cpu_s(self) -> float:
        """Returns the CPU seconds of all its senders so far."""
        return sum(senders.cpu_s() for senders in list(self._lives))

    def _turn_on(self) -> Senders:
        senders = Senders(self.footage, 1, protocol=self._protocol, ports=[self._port])
        self._lives.append(senders)
        (self.address,), (self.start_s,) = senders.addresses, senders.starts_s
        return senders

    def run(self) -> None:
        """Turns it off and on until `close`."""
        up_s = self._first_s
        try:
            while not self._closed.wait(up_s):
                self._senders.kill()
                if self._closed.wait(self._options.down_s):
                    return
                self._senders = self._turn_on()
                up_s = self._options.up_s
        except Exception as error:
            self.error = error

    def close(self) -> None:
        """Ends it."""
        self._closed.set()
        if self.is_alive():
            self.join(_OPEN_S)
        self._senders.kill()


def _own_port() -> int:
    """A port of 127.0.0.1 that nobody takes while the sender is away.

    It lies below those that the system gives to connections: a viewer that tries a port of that
    kind is given it for its own end sooner or later, and so is connected to itself.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise UsageError(f"no port is free in {_PORTS.start}..{_PORTS.stop - 1}")


class _Viewer(threading.Thread):
    """Watches a camera as a program would, and takes the age of each result.

    Attributes:
        error: The error that ended it before `close`, or None.
    """

    def __init__(self, detector: Detector, camera: _Camera, recording: Recording) -> None:
        super().__init__(name=f"dfd-bench {camera.address}", daemon=True)
        self.error: Exception | None = None
        self._camera = camera
        self._recording = recording
        self._closed = threading.Event()
        self._age_s: float | None = None
        self._watch = self._open(detector)

    @property
    def people(self) -> int:
        """Number of people distinguished so far."""
        return len(self._watch.verdict().people)

    @property
    def gaps(self) -> int:
        """Losses so far."""
        return self._watch.gaps

    def run(self) -> None:
        """Judges until `close`."""
        try:
            with self._watch as watch:
                for _ in watch:
                    if self._age_s is not None:
                        self._recording.judged(self._age_s * 1e3)
            if not self._closed.is_set():
                raise SourceError(self._camera.address, "ended before the soak did")
        except Exception as error:
            self.error = error

    def close(self) -> None:
        """Ends it."""
        self._closed.set()
        self._watch.close()
        if self.is_alive():
            self.join(_OPEN_S)

    def _open(self, detector: Detector) -> Watch:
        until_s = time.monotonic() + _OPEN_S
        while True:
            try:
                return detector.watch(
                    self._camera.address,
                    on_image=self._take_age,
                    every_image=False,
                )
            except SourceError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(_TICK_S)

    def _take_age(self, frame: Frame, result: FrameResult | None) -> None:
        stamp, footage = read_stamp(frame.image), self._camera.footage
        self._age_s = None
        if stamp is not None:
            sent_s = self._camera.start_s + stamp / footage.fps
            # Stamps begin anew with each turn of the footage.
            self._age_s = (time.monotonic() - sent_s) % (footage.frames / footage.fps)
