"""Progress and figures of live streams, and of their memory, for people."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator

from dfd_benchmarks.results.schema import Figure, Result
from dfd_benchmarks.streams.measure import LoadPoint, StreamsOptions, StreamsReport
from dfd_benchmarks.streams.memory import MAX_GROWTH, MAX_MB, MemoryReport
from dfd_edge.closing import Closing
from dfd_edge.errors import UsageError

_HEADER = (
    f"{'streams':>7}{'p50':>7}{'p90':>7}{'p99':>7}{'max':>7}{'own p99':>9}{'worst 1/s':>11}"
    f"{'drops':>7}{'gaps':>6}{'cores':>7}{'sender':>8}{'others':>8}  "
)


def parse_count(text: str) -> int | None:
    """The number of streams; None for `auto`.

    Raises:
        UsageError: It is neither.
    """
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"count {text!r}: give a number of streams, or auto")
    return int(text)


def streams_lines(report: StreamsReport) -> Iterator[str]:
    """Yields how stale the verdicts were and how many streams were carried."""
    yield (
        f"{report.clip} as {report.width}x{report.height} at {report.fps} frames a second, "
        f"{report.bitrate_kbps:.0f} kbit/s, over {report.protocol}, sent by "
        + ("one process" if report.sender == "packets" else "an ffmpeg a stream")
    )
    yield (
        f"bundle {report.ran.bundle}, {report.ran.precision} on {report.ran.provider}, decoded by "
        f"{report.decoder}; "
        f"{report.duration_s:g} s at each count; staleness in ms, from the sender's clock"
    )
    yield _HEADER.rstrip()
    for point in report.points:
        yield _row(point)
    if report.capacity is not None:
        yield (
            f"carried on {report.cores:g} cores with p99 <= {report.limit_ms:g} ms and all due "
            f"frames judged: {report.capacity} streams"
        )


def memory_lines(report: MemoryReport) -> Iterator[str]:
    """Yields how much memory a stream took, and whether it grew."""
    yield (
        f"{report.clip} as {report.width}x{report.height}; bundle {report.ran.bundle}, "
        f"{report.ran.precision}; {report.judged} frames judged"
    )
    first, last = report.minutes_mb[0], report.minutes_mb[-1]
    largest, minutes = max(report.minutes_mb), len(report.minutes_mb)
    kept = {True: "reached", False: "MISSED"}
    yield f"loaded, MB{report.loaded_mb:40.1f}"
    yield f"first minute, MB{first:34.1f}"
    yield f"minute {minutes}, MB{last:{41 - len(str(minutes))}.1f}"
    yield (f"largest, MB{largest:39.1f}  bar {MAX_MB:g}: {kept[largest <= MAX_MB]}")
    yield (
        f"growth, %{100 * report.growth:41.2f}  bar {100 * MAX_GROWTH:g}: "
        f"{kept[report.growth <= MAX_GROWTH]}"
    )


def streams_result(report: StreamsReport) -> Result:
    """The report as every benchmark writes it; each measurement stands in its details."""
    figures = []
    if report.capacity is not None:
        label = "streams that are carried"
        figures.append(Figure("capacity", label, "count", "higher", (float(report.capacity),)))
    for point in report.points if report.capacity is None else ():
        ages = dataclasses.asdict(point.staleness_ms)
        figures += [
            Figure(
                f"staleness.{name}",
                f"staleness, {name}",
                "ms",
                "lower",
                (age,),
                report.limit_ms if name == "p99" else None,
            )
            for name, age in ages.items()
            if math.isfinite(age)
        ]
        figures += [
            Figure("rate", "judged a second, the mean", "1/s", "higher", (point.rate_hz,)),
            Figure("worst_rate", "judged a second, worst", "1/s", "higher", (point.worst_rate_hz,)),
            Figure("cores", "cores kept busy", "cores", "lower", (point.receiver_cores,)),
        ]
    return Result(
        benchmark="streams",
        arguments={
            "clip": report.clip,
            "width": report.width,
            "height": report.height,
            "fps": report.fps,
            "protocol": report.protocol,
            "sender": report.sender,
            "decoder": report.decoder,
            "staleness_ms": report.limit_ms,
            "duration_s": report.duration_s,
            "count": report.points[0].count if report.capacity is None else None,
        },
        ran=report.ran,
        figures=figures,
        details={key: v for key, v in dataclasses.asdict(report).items() if key != "ran"},
    )


def memory_result(report: MemoryReport) -> Result:
    """The report as every benchmark writes it; the minutes stand in its details."""
    minutes_mb = report.minutes_mb
    growth = 100 * report.growth
    figures = [
        Figure("loaded", "loaded", "MB", "lower", (report.loaded_mb,)),
        Figure("first_minute", "first minute", "MB", "lower", (minutes_mb[0],)),
        Figure("last_minute", "last minute", "MB", "lower", (minutes_mb[-1],)),
        Figure("largest", "largest", "MB", "lower", (max(minutes_mb),), MAX_MB),
        Figure("growth", "growth", "%", "lower", (growth,), 100 * MAX_GROWTH),
    ]
    return Result(
        benchmark="memory",
        arguments={
            "clip": report.clip,
            "width": report.width,
            "height": report.height,
            "minutes": len(minutes_mb),
        },
        ran=report.ran,
        figures=figures,
        details={"judged": report.judged, "minutes_mb": list(minutes_mb)},
    )


def _row(point: LoadPoint) -> str:
    ages = point.staleness_ms
    return (
        f"{point.count:7}{ages.p50:7.0f}{ages.p90:7.0f}{ages.p99:7.0f}{ages.max:7.0f}"
        f"{point.own_staleness_ms.p99:9.0f}{point.worst_rate_hz:11.2f}{point.dropped:7}"
        f"{point.gaps:6}{point.receiver_cores:7.2f}{point.sender_cores:8.2f}"
        + (f"{'':>8}" if point.other_cores is None else f"{point.other_cores:8.2f}")
        + "  "
        + (point.why_not or "carried")
    )


class Progress(Closing):
    """Reports progress on standard error; in place where that is a terminal."""

    def __init__(self, options: StreamsOptions) -> None:
        self._duration_s = options.duration_s
        self._terminal = sys.stderr.isatty()
        self._count = 0
        self._seconds = 0

    def count(self, count: int) -> None:
        """So many streams are measured next."""
        self._count, self._seconds = count, 0
        if not self._terminal:
            print(f"{count} streams: measuring", file=sys.stderr, flush=True)

    def second(self) -> None:
        """A second has passed."""
        self._seconds += 1
        if self._terminal:
            text = f"\r{self._count} streams: {self._seconds} s"
            print(text, end="", file=sys.stderr, flush=True)

    def point(self, point: LoadPoint) -> None:
        """So many streams were measured."""
        self.close()
        said = point.why_not or "carried"
        text = f"{point.count} streams: p99 {point.staleness_ms.p99:.0f} ms, {said}"
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal's line empty."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
