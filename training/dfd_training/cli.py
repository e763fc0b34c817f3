"""`dfd-train`: from labelled files to a trained, calibrated, evaluated model."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from dfd_edge.cli.group import CommandGroup
from dfd_training.augment.generators.cli import generate
from dfd_training.calibration.cli import calibrate_command
from dfd_training.data.cli import data, prepare_command
from dfd_training.evaluation.cli import COMMANDS as EVALUATION_COMMANDS
from dfd_training.evaluation.crops.cli import COMMANDS as CROP_COMMANDS
from dfd_training.explore.cli import COMMANDS as EXPLORE_COMMANDS
from dfd_training.fitting.cli import average_command, fit
from dfd_training.recipes.cli import recipe
from dfd_training.sequence.cli import fit_sequence_command

if TYPE_CHECKING:
    from dfd_training.models import Backbone, ModelCost


_COLUMNS = (
    ("backbone", "<"),
    ("input", ">"),
    ("parameters", ">"),
    ("GMACs", ">"),
    ("features", ">"),
    ("map", ">"),
    ("ImageNet weights", "<"),
    ("licence", "<"),
)


@click.command("backbones")
@click.argument("names", nargs=-1, metavar="[BACKBONES]...")
@click.option(
    "--input-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Side of the crops.  [default: what each backbone was designed for]",
)
def backbones_command(names: tuple[str, ...], input_size: int | None) -> None:
    """List the backbones that `fit frame --backbone` takes: size, cost, weights.

    Parameters and multiply-accumulates are those of the whole frame model for one crop.
    """
    from dfd_edge.errors import UsageError
    from dfd_training.models import BACKBONES, build_frame_model, measure

    for name in names:
        if name not in BACKBONES:
            known = ", ".join(sorted(BACKBONES))
            raise UsageError(f"backbone {name!r} is unknown; known are {known}")
    rows = [[title for title, _ in _COLUMNS]]
    with click.progressbar(names or BACKBONES, label="building", file=sys.stderr) as bar:
        for name in bar:
            entry = BACKBONES[name]
            size = input_size or entry.input_size
            model = build_frame_model(backbone=name, input_size=size, weights="none")
            evidence = model.output.get("evidence")
            side = "-" if evidence is None else f"{evidence.shape[1]}x{evidence.shape[2]}"
            rows.append(_row(name, size, entry, measure(model), side))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, _COLUMNS, strict=True)
        line = "  ".join(f"{cell:{align}{width}}" for cell, width, (_, align) in cells)
        click.echo(line.rstrip())


def _row(name: str, size: int, entry: Backbone, cost: ModelCost, side: str) -> list[str]:
    return [
        name,
        str(size),
        f"{cost.parameters:,}",
        f"{cost.macs / 1e9:.3f}",
        str(entry.feature_width),
        side,
        "-" if entry.weights is None else entry.weights.source,
        "-" if entry.weights is None else entry.weights.licence,
    ]


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
main.add_command(prepare_command)
main.add_command(recipe)
main.add_command(backbones_command)


fit.add_command(fit_sequence_command)
main.add_command(fit)
main.add_command(average_command)
main.add_command(calibrate_command)
