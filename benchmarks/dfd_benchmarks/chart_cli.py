"""`dfd-bench chart`: figures of results as a picture."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--figure",
    "figures",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Which figures, * standing for anything. Repeatable; all in one unit.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The picture, a PNG file."
)
@click.option("--title", default="", help="What stands above.")
def chart(results: tuple[Path, ...], figures: tuple[str, ...], out: Path, title: str) -> None:
    """Draw figures of RESULTS, files that --json wrote, as bars.

    Each bar is a median, the line in it goes from minimum to maximum, a dashed line is a bar to
    reach.

    \b
    dfd-bench chart stages.json --figure '*.cpu' --out stages.png
    """
    from dfd_benchmarks.chart import draw_chart

    draw_chart(results, figures, out, title=title)
