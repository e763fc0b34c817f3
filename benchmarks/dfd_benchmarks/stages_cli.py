"""`dfd-bench stages`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, RUNS, start, tell


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
    """What each stage costs on CLIP, and how much of the cores the whole makes use of.

    The CPU times of the stages alone, summed per judged frame, say how many frames a second the
    cores allow; Detector.analyze is held against that.
    """
    from dfd_benchmarks.pages import check_page
    from dfd_benchmarks.report import figure_lines
    from dfd_benchmarks.results import Result
    from dfd_benchmarks.stages import measure_stages
    from dfd_benchmarks.stages_report import (
        stage_lines,
        stage_result,
        summary_figures,
        write_stage_page,
    )

    if html_file is not None:
        check_page(html_file)
    machine = start()
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        report = measure_stages(
            clip, model=model, precision=precision, runs=runs, on_run=lambda: bar.update(1)
        )
    result = stage_result(report, clip=clip, precision=precision)
    totals = Result(result.benchmark, result.arguments, None, summary_figures(result))
    tell(machine, result, json_file, [*stage_lines(result), *figure_lines(totals)])
    if html_file is not None:
        write_stage_page(html_file, machine, result)
