"""`dfd-train compare`: runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dfd_edge.errors import UsageError


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
    from dfd_training.evaluation.compare import (
        ROUNDS,
        WARM_UP,
        Comparison,
        Latency,
        compare_quality,
        cost_of,
        measure_latency,
        notes_on,
        precision_of,
    )
    from dfd_training.evaluation.compare_report import PAGE, comparison_to_text, write_comparison
    from dfd_training.evaluation.runs import read_runs

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


_PATH = click.Path(path_type=Path)


@click.command("submit")
@click.argument("source", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The submission, a CSV file.")
@click.option(
    "--sample",
    type=_PATH,
    help="Names the files and their order.  [default: "
    "sample_submission.csv in SOURCE or beside it]",
)
@click.option("--bundle", type=_PATH, help="Bundle to judge with.  [default: shipped]")
@click.option("--provider", default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
)
def submit_command(
    source: Path,
    out: Path,
    sample: Path | None,
    bundle: Path | None,
    provider: str,
    precision: str,
) -> None:
    """Judge the videos of SOURCE, a folder or a table, and write a DFDC submission file.

    Columns filename and label, the latter P(fake). A video that cannot be judged gets 0.5 and is
    told. A run that was broken off goes on where it stopped.
    """
    from dfd_edge import Detector
    from dfd_training.evaluation.submission import submission_files, submit

    files = submission_files(source, sample)
    if out.resolve() in {path.resolve() for _, path in files} | {source.resolve()}:
        raise UsageError(f"--out {out}: would replace a file that is read; give another name")
    detector = Detector.load(bundle, provider=provider, precision=precision)
    with click.progressbar(length=len(files), label="judging", file=sys.stderr) as bar:
        judged = submit(detector, files, out, on_file=lambda: bar.update(1))
    failed = [line for line in judged if line.reason]
    for line in failed:
        click.echo(f"0.5 for {line.filename}: {line.reason}", err=True)
    click.echo(f"{len(judged)} videos in {out}, {len(failed)} of them not judged")
