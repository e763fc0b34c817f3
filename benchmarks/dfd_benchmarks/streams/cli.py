"""`dfd-bench streams` and `memory`: live streams, and one stream over hours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import (
    DECODER,
    JSON,
    MODEL,
    PRECISION,
    PROVIDER,
    prepare,
    print_result,
)

if TYPE_CHECKING:
    from dfd_benchmarks.streams.senders import Protocol, SenderKind
    from dfd_edge.sources.decoder import DecoderName


@click.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option("--size", default="1280x720", show_default=True, help="Size of the pictures.")
@click.option("--fps", default=30, show_default=True, help="Frames per second.")
@click.option(
    "--staleness", default=250.0, show_default=True, help="Bound on its p99, milliseconds."
)
@click.option(
    "--count", default="auto", show_default=True, help="Streams at once; auto finds the most."
)
@click.option(
    "--protocol", type=click.Choice(["http", "udp", "rtsp"]), default="http", show_default=True
)
@click.option(
    "--sender",
    type=click.Choice(["packets", "ffmpeg"]),
    help="Sender: footage encoded before, from one process, or a real ffmpeg a stream, which "
    "encodes as it sends.  [default: packets]",
)
@click.option("--duration", default=20.0, show_default=True, help="Seconds measured at each count.")
@MODEL
@PROVIDER
@PRECISION
@DECODER
@JSON
def streams(
    clip: Path | None,
    size: str,
    fps: int,
    staleness: float,
    count: str,
    protocol: Protocol,
    sender: SenderKind | None,
    duration: float,
    model: Path | None,
    provider: str,
    precision: str,
    decoder: DecoderName,
    json_file: Path | None,
) -> None:
    """Measure live streams of CLIP over loopback: staleness, and how many are carried.

    Every frame bears a stamp, so that staleness counts from the sender's clock to the result.
    CLIP shows one face; by default it is a sample. The streams of a count are carried when the
    99th percentile of staleness keeps its bound and every stream is judged at the bundle's rate.
    """
    from dfd_benchmarks.streams import report as streams_report
    from dfd_benchmarks.streams.measure import StreamsOptions, measure_streams
    from dfd_edge.sources.options import CameraOptions

    options = StreamsOptions(
        size=CameraOptions.size(size),
        fps=fps,
        limit_ms=staleness,
        count=streams_report.parse_count(count),
        protocol=protocol,
        sender=sender or "packets",
        duration_s=duration,
        decoder=decoder,
    )
    machine = prepare()
    with streams_report.Progress(options) as progress:
        result = measure_streams(
            clip,
            options,
            model=model,
            precision=precision,
            provider=provider,
            on_second=progress.second,
            on_count=progress.count,
            on_point=progress.point,
        )
    print_result(
        machine,
        streams_report.streams_result(result),
        json_file,
        lines=streams_report.streams_lines(result),
    )


@click.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option("--size", default="1280x720", show_default=True, help="Size of the pictures.")
@click.option("--minutes", default=60, show_default=True, help="Minutes of video.")
@MODEL
@PRECISION
@JSON
def memory(
    clip: Path | None,
    size: str,
    minutes: int,
    model: Path | None,
    precision: str,
    json_file: Path | None,
) -> None:
    """Measure the memory of one stream of CLIP from the first minute of video to the last.

    The video is decoded and judged as fast as the machine can, over and over.
    """
    from dfd_benchmarks.streams import report as streams_report
    from dfd_benchmarks.streams.memory import measure_memory
    from dfd_edge.sources.options import CameraOptions

    machine = prepare()
    with click.progressbar(length=minutes, label="measuring", file=sys.stderr) as bar:
        result = measure_memory(
            clip,
            size=CameraOptions.size(size),
            minutes=minutes,
            model=model,
            precision=precision,
            on_minute=lambda: bar.update(1),
        )
    print_result(
        machine,
        streams_report.memory_result(result),
        json_file,
        lines=streams_report.memory_lines(result),
    )
