"""`dfd-bench compare` and `dfd-bench chart`: results held against each other, or drawn."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import JSON, prepare

if TYPE_CHECKING:
    from dfd_benchmarks.results.compare import Ratio

_COMPARE_HELP = """Compare result B with result A, or command B with command A.

A and B are files that --json wrote. Ratios are B over A, with 95 % intervals. Files hold what
varied within one process; --interleave also what varies between processes.

\b
dfd-bench compare before.json after.json --fail-if-slower 5%
dfd-bench compare --interleave 8 "gru --runs 1" "gru --runs 1 --model bundle"
"""
_CHART_HELP = """Draw figures of RESULTS, files that --json wrote, as bars; or the course of a soak.

Each bar is a median, the line in it goes from minimum to maximum, a dashed line is a bar to
reach.

\b
dfd-bench stages clip.mp4 --json stages.json
dfd-bench chart stages.json --figure '*.cpu' --out stages.png
dfd-bench chart soak.json --out soak.svg
"""


@click.command(help=_COMPARE_HELP)
@click.argument("a")
@click.argument("b")
@click.option(
    "--interleave",
    "times",
    type=click.IntRange(min=4),
    metavar="N",
    help="A and B are commands of dfd-bench, in quotes: run each N times, turn by turn.",
)
@click.option(
    "--across",
    multiple=True,
    metavar="ARGUMENT",
    help="An argument that may differ, as it stands in the files. Repeatable.",
)
@click.option(
    "--figure", "figures", multiple=True, metavar="NAME", help="Only this figure. Repeatable."
)
@click.option(
    "--fail-if-slower",
    metavar="PERCENT",
    help="Exit code 1 where the interval of a figure is wholly worse than by this, as in 5%.",
)
@JSON
def compare(
    a: str,
    b: str,
    times: int | None,
    across: tuple[str, ...],
    figures: tuple[str, ...],
    fail_if_slower: str | None,
    json_file: Path | None,
) -> None:
    """Compares two results, or runs two commands in turns and compares them."""
    from dfd_benchmarks.results.compare import compare_records, differences, interleave
    from dfd_benchmarks.results.schema import Figure, Result, read_record, write_result
    from dfd_edge.errors import UsageError

    bound = None if fail_if_slower is None else _share(fail_if_slower)
    if times is None:
        left, right = read_record(Path(a)), read_record(Path(b))
    else:
        machine = prepare()
        with click.progressbar(length=2 * times, label="measuring", file=sys.stderr) as bar:
            left, right = interleave(a, b, times, on_run=lambda: bar.update(1))
        across = (*across, *left["arguments"], *right["arguments"])
    ratios = compare_records(left, right, (a, b), across)
    if figures:
        known = {ratio.name for ratio in ratios}
        if missing := [name for name in figures if name not in known]:
            raise UsageError(f"figure {missing[0]}: there are {', '.join(sorted(known))}")
        ratios = [ratio for ratio in ratios if ratio.name in figures]
    if bound is not None and all(ratio.interval is None for ratio in ratios):
        raise UsageError(
            "--fail-if-slower: nothing can be decided from so few values: measure with --runs 4 "
            "or more, or with --interleave"
        )
    for line in differences(left, right):
        click.echo(line, err=line.startswith("warning"))
    _print(ratios)
    if json_file is not None:
        machine = prepare() if times is None else machine
        result = Result(
            benchmark="compare",
            arguments={"a": a, "b": b, "interleave": times, "across": list(across)},
            ran=None,
            figures=[Figure(r.name, r.label, "x", r.better, (r.ratio,)) for r in ratios],
            details={
                "ratios": [{**asdict(r), "verdict": r.verdict} for r in ratios],
                "a": left,
                "b": right,
            },
        )
        write_result(json_file, machine, result)
    worse = [ratio for ratio in ratios if bound is not None and ratio.worse_beyond(bound)]
    for ratio in worse:
        click.echo(f"worse by more than {fail_if_slower}: {ratio.label}", err=True)
    if worse:
        sys.exit(1)


def _print(ratios: list[Ratio]) -> None:
    width = max(44, *(len(f"{r.label}, {r.unit}") + 2 for r in ratios))
    click.echo(f"{'':{width}}{'a':>12}{'b':>12}{'b / a':>9}   95 % interval")
    for ratio in ratios:
        interval = f"{'':16}"
        if ratio.interval is not None:
            interval = "{:7.3f}-{:<8.3f}".format(*ratio.interval)
        click.echo(
            f"{f'{ratio.label}, {ratio.unit}':{width}}{ratio.a:12.5g}{ratio.b:12.5g}"
            f"{ratio.ratio:9.3f} {interval}  {ratio.verdict}"
        )


def _share(text: str) -> float:
    from dfd_edge.errors import UsageError

    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = math.nan
    if not (math.isfinite(share) and share >= 0):
        raise UsageError(f"--fail-if-slower {text}: give a percentage, as in 5%")
    return share


@click.command(help=_CHART_HELP)
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--figure",
    "figures",
    multiple=True,
    metavar="NAME",
    help="Figures, * standing for anything. Repeatable; all in one unit. Without, the course "
    "of one soak is drawn.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The picture, a PNG file; of a soak also SVG.",
)
@click.option("--title", default="", help="Title of the chart.")
def chart(results: tuple[Path, ...], figures: tuple[str, ...], out: Path, title: str) -> None:
    """Draws figures of results as bars, or the course of a soak."""
    from dfd_benchmarks.results.chart import draw_chart
    from dfd_benchmarks.soak.chart import draw_soak
    from dfd_edge.errors import UsageError

    if not figures:
        if len(results) > 1:
            raise UsageError(f"{len(results)} files without --figure: give one file of a soak")
        draw_soak(results[0], out, title=title)
        return
    draw_chart(results, figures, out, title=title)
