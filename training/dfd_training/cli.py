"""`dfd-train`: from labelled files to a trained, calibrated, evaluated model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dfd_edge.console import CommandGroup
from dfd_training.backbone_commands import backbones_command
from dfd_training.calibration.cli import calibrate_command
from dfd_training.clips.cli import fit_sequence_command
from dfd_training.datasets.cli import data
from dfd_training.evaluation.cli import COMMANDS as EVALUATION_COMMANDS
from dfd_training.evaluation.crops.cli import COMMANDS as CROP_COMMANDS
from dfd_training.explore.cli import COMMANDS as EXPLORE_COMMANDS
from dfd_training.fitting.cli import fit
from dfd_training.generators.cli import generate
from dfd_training.recipes.cli import recipe


@click.group(
    cls=CommandGroup, extra="train", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Train deepfake detectors: prepare, fit, calibrate, evaluate.

    The usual order is prepare, fit frame, fit sequence, calibrate; then `dfd-export bundle`;
    then evaluate.
    """
    # Both must be set before TensorFlow is imported. Its oneDNN kernels, which it leaves off on
    # processors without AVX-512, made a training step 1.4 times faster on an AVX2 machine.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


for _command in (*EVALUATION_COMMANDS, *CROP_COMMANDS, *EXPLORE_COMMANDS):
    main.add_command(_command)
main.add_command(generate)
main.add_command(data)
main.add_command(recipe)
main.add_command(backbones_command)


@main.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the table's relative paths start from.  [default: the table's own]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The crop store.")
@click.option("--rate", default=5.0, show_default=True, help="Frames a second from clips.")
@click.option("--max-frames", default=100, show_default=True, help="At most, from one clip.")
@click.option(
    "--workers", type=int, default=os.cpu_count() or 1, show_default=True, help="Processes."
)
def prepare(
    table: Path, root: Path | None, out: Path, rate: float, max_frames: int, workers: int
) -> None:
    """Cut the faces of every file of TABLE, with landmarks, into a crop store.

    TABLE is a CSV with the columns path and label (REAL or FAKE), and as far as known original,
    generator, model, group, split, source, dataset and cropped; `dfd-train data` makes it from
    public data sets. Rows marked test are left alone. A run that was broken off goes on where it
    stopped.
    """
    from dfd_training.prepare import Prepared, PrepareOptions
    from dfd_training.prepare import prepare as run_prepare
    from dfd_training.table import read_table

    rows = read_table(table, root=root)
    rows = rows[rows["split"] != "test"]  # which evaluate alone reads
    with click.progressbar(length=len(rows), label="preparing", file=sys.stderr) as bar:

        def advance(_: Prepared) -> None:
            bar.update(1)

        summary = run_prepare(
            rows,
            root or table.parent,
            out,
            options=PrepareOptions(rate_hz=rate, max_frames=max_frames),
            workers=workers,
            on_done=advance,
        )
    done = summary.pop("done", 0)
    click.echo(f"{done} of {len(rows)} files gave crops in {out}")
    for reason, count in summary.most_common():
        click.echo(f"  skipped {count}: {reason}")


fit.add_command(fit_sequence_command)
main.add_command(fit)
main.add_command(calibrate_command)
