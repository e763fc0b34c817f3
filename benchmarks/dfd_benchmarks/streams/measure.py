"""Staleness of live verdicts, and the number of streams that a machine carries within a bound.

Real streams over loopback, a stamp in each frame, the sender's clock: the age of a verdict counts
from the moment at which a camera would have taken the frame, through encoder, network, demuxer,
decoder and models, to the result in the caller's hands.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfd_benchmarks.results.schema import RunInfo
from dfd_benchmarks.streams.footage import Footage, make_footage
from dfd_benchmarks.streams.receiver import Busy, Received, receive
from dfd_benchmarks.streams.senders import Protocol, SenderCost, SenderKind, Senders
from dfd_edge import Detector
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.inference.processor import usable_cores
from dfd_edge.sources.decoder import DecoderName, choose_decoder

#: A stream keeps up when it judges this share of the frames that are due.
MIN_RATE_SHARE = 0.98
#: A count that fails is measured so often before it counts as too many.
_TRIES = 2
_MOST = 256
_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of milliseconds over all verdicts of all streams."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> Percentiles:
        """Summarises values; not a number where there are none."""
        if not values:
            return cls(*[float("nan")] * 4)
        return cls(*(float(v) for v in np.percentile(values, [50, 90, 99, 100])))


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """Measurements of a number of streams at once.

    Attributes:
        count: Number of streams.
        staleness_ms: From the sender's time of a frame to its result.
        worst_p99_ms: The highest 99th percentile among the streams.
        own_staleness_ms: The runtime's own figure, from the decoded frame on.
        rate_hz: Judged frames per second of a stream, the mean.
        worst_rate_hz: The same of the slowest stream.
        verdicts: Judged frames in all.
        with_face: Share of them with a judged face.
        unreadable: Judged frames whose stamp was damaged.
        dropped: Due frames that were not judged.
        gaps: Losses of a stream.
        receiver_cores, sender_cores: Cores kept busy by either side.
        other_cores: Cores kept busy by the rest of the machine, which makes figures worse; None
            where the system does not say.
        sender_late_ms: How late frames were sent; 99 of 100 were less. Counts as staleness.
        carried: Whether staleness and rate were kept.
        why_not: The bounds that were not kept; empty where all were.
    """

    count: int
    staleness_ms: Percentiles
    worst_p99_ms: float
    own_staleness_ms: Percentiles
    rate_hz: float
    worst_rate_hz: float
    verdicts: int
    with_face: float
    unreadable: int
    dropped: int
    gaps: int
    receiver_cores: float
    sender_cores: float
    other_cores: float | None
    sender_late_ms: float
    carried: bool
    why_not: str


@dataclass(frozen=True, slots=True)
class StreamsReport:
    """Live streams on this machine.

    Attributes:
        clip: The clip that was sent.
        width, height: Size of the pictures in pixels.
        fps: Frames per second.
        bitrate_kbps: Bit rate of a stream in 1000 bits per second.
        protocol: How it was sent.
        sender: Kind of sender: `packets` or `ffmpeg`.
        decoder: What decoded the streams.
        ran: The bundle, provider and precision that ran.
        due_hz: Frames per second of a stream that are to be judged.
        limit_ms: Bound on the 99th percentile of staleness.
        duration_s: Seconds measured at each count.
        cores: Cores that the process may use, the sender's included.
        points: Every measurement, in the order taken.
        capacity: The most streams that were carried; None where one count was asked for.
    """

    clip: str
    width: int
    height: int
    fps: int
    bitrate_kbps: float
    protocol: str
    sender: str
    decoder: str
    ran: RunInfo
    due_hz: float
    limit_ms: float
    duration_s: float
    cores: float
    points: tuple[LoadPoint, ...]
    capacity: int | None


@dataclass(frozen=True, slots=True)
class StreamsOptions:
    """Options of a measurement of live streams.

    Attributes:
        size: Width and height of the pictures in pixels.
        fps: Frames per second.
        limit_ms: Bound on the 99th percentile of staleness, in milliseconds.
        count: Number of streams; None looks for the most that are carried.
        protocol: `http`, `udp` or `rtsp`.
        sender: `packets` or `ffmpeg`.
        duration_s: Seconds measured at each count.
        decoder: Decoder of the streams; "cuda" never falls back.

    Raises:
        UsageError: A value out of range.
    """

    size: tuple[int, int] = (1280, 720)
    fps: int = 30
    limit_ms: float = 250.0
    count: int | None = 1
    protocol: Protocol = "http"
    sender: SenderKind = "packets"
    duration_s: float = 20.0
    decoder: DecoderName = "cpu"

    def __post_init__(self) -> None:
        if self.count is not None and not 1 <= self.count <= _MOST:
            raise UsageError(f"count is {self.count}; give 1 to {_MOST}, or auto")
        if not self.limit_ms > 0:
            raise UsageError(f"staleness is {self.limit_ms:g} ms; give more than 0")
        if not self.duration_s >= 1:
            raise UsageError(f"duration is {self.duration_s:g} s; give 1 or more")


def measure_streams(
    clip: Path | None,
    options: StreamsOptions,
    *,
    model: Path | None = None,
    precision: str = "auto",
    provider: str = "auto",
    on_second: Callable[[], object] = lambda: None,
    on_count: Callable[[int], object] = lambda count: None,
    on_point: Callable[[LoadPoint], object] = lambda point: None,
) -> StreamsReport:
    """Send, receive and judge streams of a clip.

    Args:
        clip: A video with one face in it; the sample where None.
        options: Sizes, counts and bounds.
        model: A bundle; the shipped one by default.
        precision: A variant of the frame graph.
        provider: The frame graph's provider.
        on_second: Called once a second while streams run.
        on_count: Called before so many streams are measured.
        on_point: Called with each measurement.

    Raises:
        UsageError: An option is out of range.
        SourceError: The clip cannot be read or shows no face that can be judged, or a stream
            cannot be opened or ended.
        ProviderError: The provider or the decoder asked for cannot run.
    """
    choose_decoder(options.decoder)  # refuses one that cannot run, before anything is sent
    detector = Detector.load(model, provider=provider, precision=precision)
    manifest = detector.bundle.manifest
    due_hz = min(manifest.sequence.rate_hz, options.fps)
    points: list[LoadPoint] = []
    with tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        footage = make_footage(
            clip, Path(folder) / "footage.ts", size=options.size, fps=options.fps
        )

        def measure(count: int) -> bool:
            on_count(count)
            point = _measure(
                detector, footage, count, options=options, due_hz=due_hz, on_second=on_second
            )
            points.append(point)
            on_point(point)
            return point.carried

        if options.count is not None:
            measure(options.count)
            capacity = None
        else:
            capacity = most_carried(measure)
    return StreamsReport(
        clip=footage.clip,
        width=footage.width,
        height=footage.height,
        fps=footage.fps,
        bitrate_kbps=footage.bitrate_kbps,
        protocol=options.protocol,
        sender=options.sender,
        decoder=options.decoder,
        ran=RunInfo.of(detector, precision=precision),
        due_hz=due_hz,
        limit_ms=options.limit_ms,
        duration_s=options.duration_s,
        cores=usable_cores(),
        points=tuple(points),
        capacity=capacity,
    )


def most_carried(carries: Callable[[int], bool], *, most: int = _MOST) -> int:
    """The largest count that is carried, by doubling and then by bisection; 0 where none is.

    A count that fails is tried once more, since other work on a machine can fail any count.
    """

    def holds(count: int) -> bool:
        return any(carries(count) for _ in range(_TRIES))

    carried, broken = 0, 1
    while broken <= most and holds(broken):
        carried, broken = broken, broken * 2
    broken = min(broken, most + 1)
    while broken - carried > 1:
        middle = (carried + broken) // 2
        if holds(middle):
            carried = middle
        else:
            broken = middle
    return carried


def _measure(
    detector: Detector,
    footage: Footage,
    count: int,
    *,
    options: StreamsOptions,
    due_hz: float,
    on_second: Callable[[], object],
) -> LoadPoint:
    senders = Senders(footage, count, protocol=options.protocol, kind=options.sender)
    with senders:
        received, busy = receive(
            detector,
            [(address, senders.clock(i)) for i, address in enumerate(senders.addresses)],
            settle_s=_SETTLE_S,
            duration_s=options.duration_s,
            on_second=on_second,
            sender_s=senders.cpu_s,
            decoder=options.decoder,
        )
    assert senders.cost is not None
    point = load_point(
        received,
        busy,
        senders.cost,
        duration_s=options.duration_s,
        due_hz=due_hz,
        limit_ms=options.limit_ms,
    )
    if point.verdicts and not point.with_face:
        raise SourceError(footage.clip, "no face in it that can be judged", "give a clip with one")
    return point


def load_point(
    received: list[Received],
    busy: Busy,
    sender: SenderCost,
    *,
    duration_s: float,
    due_hz: float,
    limit_ms: float,
) -> LoadPoint:
    """Sums up what came of all streams and says whether they were carried."""
    verdicts = [verdict for stream in received for verdict in stream.verdicts]
    ages_ms = [
        [v.staleness_ms for v in stream.verdicts if v.staleness_ms is not None]
        for stream in received
    ]
    rates_hz = [len(stream.verdicts) / duration_s for stream in received]
    staleness_ms = Percentiles.of([age for ages in ages_ms for age in ages])
    gaps = sum(stream.gaps for stream in received)
    faults = []
    if not staleness_ms.p99 <= limit_ms:
        faults.append(f"staleness p99 {staleness_ms.p99:.0f} ms")
    # A window of whole seconds may hold one due frame less than it is long.
    if min(rates_hz) < MIN_RATE_SHARE * due_hz - 1.0 / duration_s:
        faults.append(f"{min(rates_hz):.2f} frames a second judged instead of {due_hz:g}")
    if gaps:
        faults.append(f"{gaps} gaps")
    return LoadPoint(
        count=len(received),
        staleness_ms=staleness_ms,
        worst_p99_ms=max(Percentiles.of(ages).p99 for ages in ages_ms),
        own_staleness_ms=Percentiles.of([verdict.own_ms for verdict in verdicts]),
        rate_hz=sum(rates_hz) / len(rates_hz),
        worst_rate_hz=min(rates_hz),
        verdicts=len(verdicts),
        with_face=sum(v.faces > 0 for v in verdicts) / max(1, len(verdicts)),
        unreadable=sum(verdict.staleness_ms is None for verdict in verdicts),
        dropped=sum(stream.dropped for stream in received),
        gaps=gaps,
        receiver_cores=busy.own,
        sender_cores=sender.cores,
        other_cores=None if busy.all is None else max(0.0, busy.all - busy.own - sender.cores),
        sender_late_ms=sender.late_p99_ms,
        carried=not faults,
        why_not="; ".join(faults),
    )
