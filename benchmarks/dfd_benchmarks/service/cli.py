"""`dfd-bench serve`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import JSON, MODEL, RUNS, prepare, print_result

if TYPE_CHECKING:
    from dfd_benchmarks.results.schema import Figure
    from dfd_benchmarks.service.load import LoadReport, Overhead


@click.command("serve")
@click.argument("clip", type=click.Path(path_type=Path, exists=True), required=False)
@click.option(
    "--clips", type=click.IntRange(min=2), default=50, show_default=True, help="Clips handed in."
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Clients that hand them in at once.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="As there.")
@MODEL
@RUNS
@JSON
def serve(
    clip: Path | None,
    clips: int,
    clients: int,
    jobs: int,
    model: Path | None,
    runs: int,
    json_file: Path | None,
) -> None:
    """Load `dfd-edge serve`, kill it with -9 in the middle, and hold it against the command line.

    CLIP is an MP4 file; by default 10 s of the sample with one face, 1280x720.
    """
    from dfd_benchmarks.results.schema import Result
    from dfd_benchmarks.service.load import compare, load_service
    from dfd_benchmarks.stages.startup import make_clip

    machine = prepare()
    options = [] if model is None else ["--model", str(model)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        film = clip or work / "clip.mp4"
        if clip is None:
            make_clip(film)
        overhead = compare(work / "compared", film, runs=runs, options=options)
        load = load_service(
            work / "loaded",
            film.read_bytes(),
            clips=clips,
            clients=clients,
            options=[*options, "--jobs", str(jobs)],
        )
    arguments = {"clip": None if clip is None else clip.name, "clips": clips, "clients": clients}
    arguments |= {"jobs": jobs, "runs": runs, "model": None if model is None else str(model)}
    result = Result("serve", arguments, None, [*_compared(overhead), *_loaded(load)])
    print_result(machine, result, json_file)


def _compared(overhead: Overhead) -> list[Figure]:
    from dfd_benchmarks.results.schema import Figure

    pairs = list(zip(overhead.service, overhead.command, overhead.judging, strict=True))
    return [
        Figure("service", "service, warm", "s", "lower", overhead.service),
        Figure("command", "dfd-edge: process start to end", "s", "lower", overhead.command),
        Figure("judging", "dfd-edge: of that, judging", "s", "lower", overhead.judging),
        Figure(
            "over_command",
            "service / dfd-edge",
            "x",
            "lower",
            tuple(service / command for service, command, _ in pairs),
            1.05,
        ),
        Figure(
            "over_judging",
            "service / judging without the start",
            "x",
            "lower",
            tuple(service / judging for service, _, judging in pairs),
        ),
        Figure(
            "over_command_cpu",
            "service / dfd-edge, processor time",
            "x",
            "lower",
            tuple(a / b for a, b in zip(overhead.service_cpu, overhead.command_cpu, strict=True)),
        ),
    ]


def _loaded(load: LoadReport) -> list[Figure]:
    from dfd_benchmarks.results.schema import Better, Figure

    def one(name: str, label: str, unit: str, better: Better, value: float) -> Figure:
        return Figure(name, label, unit, better, (float(value),))

    return [
        one("done", "load: clips judged", "count", "higher", load.done),
        one("lost", "load: clips lost over kill -9", "count", "lower", load.lost),
        one("resumed", "load: waiting at the kill", "count", "neither", load.resumed),
        one("in_order", "load: begun in order (1 yes)", "count", "higher", load.in_order),
        one("took", "load: first clip to last verdict", "s", "lower", load.took_s),
        one("memory", "load: the service's memory, most", "MB", "lower", max(load.memory_mb)),
        one("workers", "load: of its children, most", "MB", "lower", max(load.workers_mb)),
    ]
