"""`dfd-train backbones`: what networks there are, and what each costs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

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
    from dfd_edge.errors import UsageError  # noqa: PLC0415
    from dfd_training.models import BACKBONES, build_frame_model, measure  # noqa: PLC0415

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
