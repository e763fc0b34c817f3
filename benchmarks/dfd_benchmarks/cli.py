"""`dfd-bench`: what this machine can carry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, PROVIDER, RUNS
from dfd_edge.console import CommandGroup

if TYPE_CHECKING:
    from dfd_benchmarks.senders import Protocol, SenderKind


@click.group(
    cls=CommandGroup, extra="bench", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Measure what this machine can carry.

    Figures are taken several times and given as minimum, median and maximum. Ratios compare two
    things measured in the same run. Leave the machine idle meanwhile.
    """


@main.command()
@click.argument("clip", type=click.Path(path_type=Path))
@MODEL
@PRECISION
@RUNS
@JSON
def stages(
    clip: Path, model: Path | None, precision: str, runs: int, json_file: Path | None
) -> None:
    """CPU time of each stage on CLIP, and how much of the cores the whole makes use of.

    The costs of the stages alone, summed per judged frame, say how many frames a second the
    cores allow; Detector.analyze is held against that.
    """
    from dfd_benchmarks import report
    from dfd_benchmarks.machine import describe_machine
    from dfd_benchmarks.stages import measure_stages

    machine = describe_machine()
    _warn(machine.warning)
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        result = measure_stages(
            clip, model=model, precision=precision, runs=runs, on_run=lambda: bar.update(1)
        )
    _print(report.machine_lines(machine))
    _print(report.stage_lines(result))
    if json_file is not None:
        report.write_json(json_file, machine, result)


@main.command()
@MODEL
@click.option("--steps", default=10_000, show_default=True, help="Steps of a run.")
@RUNS
@JSON
def gru(model: Path | None, steps: int, runs: int, json_file: Path | None) -> None:
    """Cost of a step of the sequence graph beside the frame graph, from the first to the last."""
    from dfd_benchmarks import report
    from dfd_benchmarks.gru import measure_gru
    from dfd_benchmarks.machine import describe_machine

    machine = describe_machine()
    _warn(machine.warning)
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        result = measure_gru(model=model, steps=steps, runs=runs, on_run=lambda: bar.update(1))
    _print(report.machine_lines(machine))
    _print(report.gru_lines(result))
    if json_file is not None:
        report.write_json(json_file, machine, result)


@main.command()
@click.option("--head", default="gru", show_default=True, help="A head of `dfd-train`.")
@click.option(
    "--width", type=click.IntRange(min=1), help="Features of a step.  [default: the shipped ones]"
)
@RUNS
@JSON
def recurrent(head: str, width: int | None, runs: int, json_file: Path | None) -> None:
    """The native sequence graph against tf2onnx's graph of the same model, with its loops.

    Both are checked for saying the same before anything is measured. Needs dfd-edge[bench].
    """
    from dfd_benchmarks import report
    from dfd_benchmarks.machine import describe_machine
    from dfd_benchmarks.recurrent import measure_recurrent

    machine = describe_machine()
    _warn(machine.warning)
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        result = measure_recurrent(head=head, width=width, runs=runs, on_run=lambda: bar.update(1))
    _print(report.machine_lines(machine))
    _print(report.recurrent_lines(result))
    if json_file is not None:
        report.write_json(json_file, machine, result)


@main.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option("--size", default="1280x720", show_default=True, help="Of the pictures.")
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
    help="What sends: footage encoded before, from one process, or a real ffmpeg a stream, which "
    "encodes as it sends.  [default: packets]",
)
@click.option("--duration", default=20.0, show_default=True, help="Seconds measured at each count.")
@MODEL
@PROVIDER
@PRECISION
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
    json_file: Path | None,
) -> None:
    """Live streams of CLIP over loopback: how stale the answers are, how many are carried.

    Every frame bears a stamp, so that staleness counts from the sender's clock to the result.
    CLIP shows one face; by default it is a sample. The streams of a count are carried when the
    99th percentile of staleness keeps its bound and every stream is judged at the bundle's rate.
    """
    from dfd_benchmarks import report, streams_report
    from dfd_benchmarks.machine import describe_machine
    from dfd_benchmarks.streams import StreamsOptions, measure_streams
    from dfd_edge.sources.options import CameraOptions

    options = StreamsOptions(
        size=CameraOptions.size(size),
        fps=fps,
        limit_ms=staleness,
        count=streams_report.parse_count(count),
        protocol=protocol,
        sender=sender or "packets",
        duration_s=duration,
    )
    machine = describe_machine()
    _warn(machine.warning)
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
    _print(report.machine_lines(machine))
    _print(streams_report.streams_lines(result))
    if json_file is not None:
        report.write_json(json_file, machine, result)


@main.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option("--size", default="1280x720", show_default=True, help="Of the pictures.")
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
    """Memory of one stream of CLIP from the first minute of video to the last.

    The video is decoded and judged as fast as the machine can, over and over.
    """
    from dfd_benchmarks import report, streams_report
    from dfd_benchmarks.machine import describe_machine
    from dfd_benchmarks.memory import measure_memory
    from dfd_edge.sources.options import CameraOptions

    with click.progressbar(length=minutes, label="measuring", file=sys.stderr) as bar:
        result = measure_memory(
            clip,
            size=CameraOptions.size(size),
            minutes=minutes,
            model=model,
            precision=precision,
            on_minute=lambda: bar.update(1),
        )
    machine = describe_machine()
    _print(report.machine_lines(machine))
    _print(streams_report.memory_lines(result))
    if json_file is not None:
        report.write_json(json_file, machine, result)


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


def _warn(text: str | None) -> None:
    if text is not None:
        click.echo(f"warning: {text}", err=True)
