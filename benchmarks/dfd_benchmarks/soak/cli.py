"""`dfd-bench soak`: a million pushed frames, and an hour of live streams that are lost."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, prepare, print_result

if TYPE_CHECKING:
    from dfd_benchmarks.results.machine import Machine
    from dfd_benchmarks.results.schema import RunInfo
    from dfd_benchmarks.soak.pushed import Window
    from dfd_benchmarks.streams.senders import Protocol


@click.group()
def soak() -> None:
    """Run for long and see whether memory, threads, descriptors or latency grow.

    Ctrl-C ends a run early, with the figures so far. With --json they are in the file at any time,
    and `dfd-bench chart FILE --out soak.png` draws their course.
    """


@soak.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option("--frames", default=1_000_000, show_default=True, help="Frames to push.")
@click.option("--size", default="160x120", show_default=True, help="Size of the pictures.")
@click.option("--fps", default=25, show_default=True, help="Frames per second of video.")
@MODEL
@PRECISION
@JSON
def pushed(
    clip: Path | None,
    frames: int,
    size: str,
    fps: int,
    model: Path | None,
    precision: str,
    json_file: Path | None,
) -> None:
    """Push frames into one stream as fast as they are judged.

    Every minute of video somebody comes, with the face of CLIP, and goes again.
    """
    from dfd_benchmarks.results.schema import RunInfo
    from dfd_benchmarks.soak.pushed import PushedOptions, soak_pushed
    from dfd_edge import Detector
    from dfd_edge.sources.options import CameraOptions

    options = PushedOptions(frames, CameraOptions.size(size), fps)
    machine = prepare()
    detector = Detector.load(model, precision=precision)
    width, height = options.size
    _run(
        machine,
        "pushed",
        {"clip": _name(clip), "frames": frames, "width": width, "height": height, "fps": fps},
        RunInfo.of(detector, precision=precision),
        soak_pushed(detector, clip, options),
        length=frames,
        json_file=json_file,
    )


@soak.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option("--minutes", default=60.0, show_default=True, help="How long.")
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["http", "rtsp", "udp"]),
    multiple=True,
    default=["http", "rtsp", "udp"],
    show_default=True,
    help="One stream each. Repeatable.",
)
@click.option("--size", default="320x240", show_default=True, help="Size of the pictures.")
@click.option("--fps", default=25, show_default=True, help="Frames per second.")
@click.option("--up", default=23.0, show_default=True, help="Seconds that a sender lives.")
@click.option("--down", default=7.0, show_default=True, help="Seconds until the next one.")
@MODEL
@PRECISION
@JSON
def live(
    clip: Path | None,
    minutes: float,
    protocols: tuple[Protocol, ...],
    size: str,
    fps: int,
    up: float,
    down: float,
    model: Path | None,
    precision: str,
    json_file: Path | None,
) -> None:
    """Watch live streams whose senders are killed and started again.

    Each is lost once in --up plus --down seconds and has to be found again. Latency counts from
    the sender's clock to the result.
    """
    from dfd_benchmarks.results.schema import RunInfo
    from dfd_benchmarks.soak.live import LiveOptions, soak_live
    from dfd_edge import Detector
    from dfd_edge.sources.options import CameraOptions

    options = LiveOptions(minutes, protocols, CameraOptions.size(size), fps, up, down)
    machine = prepare()
    detector = Detector.load(model, precision=precision)
    arguments = dataclasses.asdict(options)
    width, height = arguments.pop("size")
    _run(
        machine,
        "live",
        {"clip": _name(clip), **arguments, "width": width, "height": height},
        RunInfo.of(detector, precision=precision),
        soak_live(detector, clip, options),
        length=round(minutes * 60),
        json_file=json_file,
    )


def _name(clip: Path | None) -> str | None:
    return None if clip is None else str(clip)


def _run(
    machine: Machine,
    kind: str,
    arguments: dict[str, Any],
    ran: RunInfo,
    measured: Iterator[Window],
    *,
    length: int,
    json_file: Path | None,
) -> None:
    """Measures windows until all are there or Ctrl-C is pressed, and prints each."""
    from dfd_benchmarks.results.schema import write_result
    from dfd_benchmarks.soak.pushed import MIN_WINDOWS, soak_lines, soak_result

    windows: list[Window] = []
    with (
        click.progressbar(length=length, label="soaking", file=sys.stderr) as bar,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for window in measured:
            windows.append(window)
            bar.update(window.frames - bar.pos)
            if json_file is not None and len(windows) >= MIN_WINDOWS:
                write_result(json_file, machine, soak_result(kind, arguments, ran, windows))
    result = soak_result(kind, arguments, ran, windows)
    print_result(machine, result, json_file, lines=soak_lines(result))
