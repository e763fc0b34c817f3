"""`dfd-bench stages` and `dfd-bench startup`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, PROVIDER, RUNS, prepare, print_result


@click.command()
@click.argument("clip", type=click.Path(path_type=Path))
@MODEL
@PRECISION
@RUNS
@JSON
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path),
    help="Also write the figures as a page with charts.",
)
def stages(
    clip: Path,
    model: Path | None,
    precision: str,
    runs: int,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Measure the cost of each stage on CLIP, and the share of the cores that the whole uses.

    The CPU times of the stages alone, summed per judged frame, say how many frames a second the
    cores allow; Detector.analyze is held against that.
    """
    from dfd_benchmarks.results.pages import check_page
    from dfd_benchmarks.results.report import figure_lines
    from dfd_benchmarks.results.schema import Result
    from dfd_benchmarks.stages.measure import measure_stages
    from dfd_benchmarks.stages.report import (
        stage_lines,
        stage_result,
        summary_figures,
        write_stage_page,
    )

    if html_file is not None:
        check_page(html_file)
    machine = prepare()
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        report = measure_stages(
            clip, model=model, precision=precision, runs=runs, on_run=lambda: bar.update(1)
        )
    result = stage_result(report, clip=clip, precision=precision)
    totals = Result(result.benchmark, result.arguments, None, summary_figures(result))
    print_result(machine, result, json_file, [*stage_lines(result), *figure_lines(totals)])
    if html_file is not None:
        write_stage_page(html_file, machine, result)


@click.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@MODEL
@PROVIDER
@PRECISION
@RUNS
@JSON
def startup(
    clip: Path | None,
    model: Path | None,
    provider: str,
    precision: str,
    runs: int,
    json_file: Path | None,
) -> None:
    """Measure imports, loading, process start to verdict on CLIP, peak memory, size on disk.

    CLIP is 10 s of 1280x720 made of a sample by default. Every time is that of a process of its
    own, with the files in the system's cache.
    """
    from dfd_benchmarks.stages.startup import StartOptions, make_clip, measure_startup

    machine = prepare()
    with tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        if clip is None:
            clip = Path(folder) / "sample-720p-10s.mp4"
            make_clip(clip)
        options = StartOptions(model, provider, precision, runs)
        with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
            result = measure_startup(clip, options, on_run=lambda: bar.update(1))
    print_result(machine, result, json_file)
    click.echo("The files were in the system's cache: a first round was not counted.")
