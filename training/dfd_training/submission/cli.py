"""`dfd-train submit`: a submission file of the Deepfake Detection Challenge."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import PRECISION_CHOICES

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
    type=click.Choice(PRECISION_CHOICES),
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
    from dfd_training.submission.asked import submission_files
    from dfd_training.submission.submitting import submit

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
