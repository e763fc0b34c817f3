"""`dfd-train compare`: runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command("compare")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A folder for the page, the tables and the chart.  [default: the tables are printed only]",
)
@click.option("--names", metavar="A,B,...", help="What to call the runs.  [default: their folders]")
@click.option(
    "--latency/--no-latency",
    default=True,
    show_default=True,
    help="Time the frame graphs of runs with a bundle, here and now, on one thread.",
)
@click.option(
    "--draws",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Bootstrap samples.",
)
def compare_command(
    runs: tuple[Path, ...], out: Path | None, names: str | None, latency: bool, draws: int
) -> None:
    """Put RUNs side by side: quality, size, latency, and what their fits took.

    A RUN is a folder that `fit frame` or `evaluate` wrote, or one that holds a fit or a bundle/
    with an evaluation/ beside. Differences are to the first RUN.
    """
    from dfd_training.results.comparison import (
        Comparison,
        compare_quality,
        cost_of,
        notes_on,
        precision_of,
    )
    from dfd_training.results.comparison_report import PAGE, comparison_to_text, write_comparison
    from dfd_training.results.costs import ROUNDS, WARM_UP, Latency, measure_latency
    from dfd_training.results.runs import read_runs

    found = read_runs(runs, None if names is None else [n.strip() for n in names.split(",")])
    bundles = {
        run.name: (run.bundle, precision)
        for run in found
        if run.bundle is not None and (precision := precision_of(run)) is not None
    }
    timed: dict[str, Latency] = {}
    if latency and bundles:
        with click.progressbar(length=WARM_UP + ROUNDS, label="timing", file=sys.stderr) as bar:
            timed = measure_latency(bundles, on_round=lambda: bar.update(1))
    with click.progressbar(length=2 * len(found), label="comparing", file=sys.stderr) as bar:
        levels = compare_quality(found, draws=draws, on_run=lambda: bar.update(1))
        costs = []
        for run in found:
            costs.append(cost_of(run, timed.get(run.name), "left out by --no-latency"))
            bar.update(1)
    comparison = Comparison([run.name for run in found], levels, costs, notes_on(found, levels))
    click.echo(comparison_to_text(comparison))
    if out is not None:
        write_comparison(comparison, out)
        click.echo(f"page: {out / PAGE}")
