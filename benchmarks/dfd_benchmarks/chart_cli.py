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
    metavar="NAME",
    help="Which figures, * standing for anything. Repeatable; all in one unit. Without, the course "
    "of one soak is drawn.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The picture, a PNG file; of a soak also SVG.",
)
@click.option("--title", default="", help="What stands above.")
def chart(results: tuple[Path, ...], figures: tuple[str, ...], out: Path, title: str) -> None:
    """Draw figures of RESULTS, files that --json wrote, as bars; or the course of a soak.

    Each bar is a median, the line in it goes from minimum to maximum, a dashed line is a bar to
    reach.

    \b
    dfd-bench chart stages.json --figure '*.cpu' --out stages.png
    dfd-bench chart soak.json --out soak.svg
    """
    from dfd_benchmarks.chart import draw_chart
    from dfd_benchmarks.soak_chart import draw_soak
    from dfd_edge.errors import UsageError

    if not figures:
        if len(results) > 1:
            raise UsageError(f"{len(results)} files without --figure: give one file of a soak")
        draw_soak(results[0], out, title=title)
        return
    draw_chart(results, figures, out, title=title)
