"""Watches live streams whose frames are stamped, and takes the age of each verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dfd_benchmarks.results.machine import BusyCores
from dfd_benchmarks.streams.senders import FrameClock
from dfd_benchmarks.streams.stamps import read_stamp
from dfd_edge import Detector, FrameResult, SourceError
from dfd_edge.judging.watch import Watch
from dfd_edge.sources.decoder import DecoderName
from dfd_edge.sources.frames import Frame
from dfd_edge.sources.options import SourceOptions

#: ffmpeg takes a moment to listen.
_OPEN_S = 20.0
_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged frame of a stream.

    Attributes:
        out_s: `time.monotonic()` when its result was out.
        staleness_ms: Milliseconds from the sender's time of the frame to `out_s`; None where its
            stamp could not be read.
        own_ms: The runtime's own `staleness_ms`, from the decoded frame on.
        faces: Faces that were judged.
    """

    out_s: float
    staleness_ms: float | None
    own_ms: float
    faces: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Losses of a stream so far."""

    dropped: int
    gaps: int


@dataclass(eq=False)
class Receiver(threading.Thread):
    """Watches one stream through `Detector.watch`, as a program would.

    Args:
        detector: Shared by all streams.
        address: Where the stream is.
        clock: Knows when its frames were sent.
        decoder: What decodes it; a device only in this process.

    Attributes:
        verdicts: The judged frames so far.
        error: The error that ended it before `close`, or None.
    """

    detector: Detector
    address: str
    clock: FrameClock
    decoder: DecoderName = "cpu"
    verdicts: list[Verdict] = field(default_factory=list)
    error: Exception | None = None

    def __post_init__(self) -> None:
        super().__init__(name=f"dfd-bench {self.address}", daemon=True)
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self._shown: tuple[int | None, float] = (None, 0.0)

    @property
    def counts(self) -> Counts:
        """Drops and gaps so far."""
        watch = self._watch
        return Counts(0, 0) if watch is None else Counts(watch.dropped, watch.gaps)

    def run(self) -> None:
        """Judges frames until `close`."""
        try:
            self._watch = watch = self._open()
            with watch:
                for result in watch:
                    self._take(result, time.monotonic())
                    if self._closed.is_set():
                        return
            if not self._closed.is_set():
                raise SourceError(self.address, "ended before the measurement did")
        except Exception as error:
            self.error = None if self._closed.is_set() else error

    def close(self) -> None:
        """Ends it; returns at once."""
        self._closed.set()
        if self._watch is not None:
            self._watch.close()

    def _open(self) -> Watch:
        deadline_s = time.monotonic() + _OPEN_S
        apart = None if self.decoder == "cpu" else False  # a sandbox opens no device
        options = SourceOptions(decoder=self.decoder, sandbox=apart)
        while True:
            try:
                return self.detector.watch(
                    self.address, on_image=self._show, every_image=False, options=options
                )
            except SourceError:
                if time.monotonic() > deadline_s or self._closed.wait(_RETRY_S):
                    raise

    def _show(self, frame: Frame, result: FrameResult | None) -> None:
        self._shown = (read_stamp(frame.image), frame.time_s)

    def _take(self, result: FrameResult, out_s: float) -> None:
        stamp, time_s = self._shown
        staleness_ms = None
        if stamp is not None:
            staleness_ms = (out_s - self.clock.sent_s(stamp, time_s, out_s)) * 1e3
        faces = sum(person.judged for person in result.people)
        self.verdicts.append(Verdict(out_s, staleness_ms, result.staleness_ms or 0.0, faces))


@dataclass(frozen=True, slots=True)
class Received:
    """Results of one stream in the measured time."""

    verdicts: tuple[Verdict, ...]
    dropped: int
    gaps: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Cores that were kept busy in the measured time.

    Attributes:
        own: By this process and the children that decode for it.
        all: By all processes; None where it is not known.
    """

    own: float
    all: float | None


def receive(
    detector: Detector,
    sources: list[tuple[str, FrameClock]],
    *,
    settle_s: float,
    duration_s: float,
    on_second: Callable[[], object],
    sender_s: Callable[[], float],
    decoder: DecoderName = "cpu",
) -> tuple[list[Received], Busy]:
    """Watches streams together; what comes before all of them run calmly is left out.

    Args:
        detector: Judges.
        sources: Address and clock of each stream.
        settle_s: Seconds that all streams run before the measurement.
        duration_s: Seconds that are measured.
        on_second: Called once a second meanwhile.
        sender_s: Returns the CPU seconds of the processes that send, which are left out.
        decoder: What decodes them.

    Returns:
        What came of each stream, and how busy the cores were meanwhile.

    Raises:
        SourceError: A stream cannot be opened, or ended.
    """
    receivers = [Receiver(detector, address, clock, decoder) for address, clock in sources]
    for receiver in receivers:
        receiver.start()
    try:
        _wait(lambda: all(receiver.verdicts for receiver in receivers), receivers, on_second)
        settled_s = time.monotonic() + settle_s
        _wait(lambda: time.monotonic() >= settled_s, receivers, on_second)
        before = [receiver.counts for receiver in receivers]
        cores = BusyCores(sender_s)
        start_s = time.monotonic()
        _wait(lambda: time.monotonic() >= start_s + duration_s, receivers, on_second)
        end_s = time.monotonic()
        busy = Busy(cores.own(), cores.all())
        after = [receiver.counts for receiver in receivers]
        return [
            Received(
                tuple(v for v in list(receiver.verdicts) if start_s <= v.out_s < end_s),
                late.dropped - early.dropped,
                late.gaps - early.gaps,
            )
            for receiver, early, late in zip(receivers, before, after, strict=True)
        ], busy
    finally:
        for receiver in receivers:
            receiver.close()
        for receiver in receivers:
            receiver.join(1.0)


def _wait(
    done: Callable[[], bool], receivers: list[Receiver], on_second: Callable[[], object]
) -> None:
    """Waits until `done`; raises what ended a receiver."""
    deadline_s = time.monotonic() + 1.0
    while not done():
        for receiver in receivers:
            if receiver.error is not None:
                raise receiver.error
        time.sleep(0.02)
        if time.monotonic() >= deadline_s:
            deadline_s += 1.0
            on_second()
