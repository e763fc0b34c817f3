"""Results as one bar chart: the median of each figure, with a line from minimum to maximum."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_benchmarks.results.schema import Figure, figures_of, read_record
from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole

_COLOURS = ("#2f6db0", "#d98632", "#4b9a63", "#8a5aa8", "#8c8c8c")
_BAR_INCHES = 0.34
_WIDTH_INCHES = 8.0
_DPI = 110


@dataclass(frozen=True, slots=True)
class ChartRow:
    """One bar.

    Attributes:
        label: The label beside it.
        group: Number of the result that it comes from.
        figure: The figure that it shows.
    """

    label: str
    group: int
    figure: Figure


def chart_rows(paths: Sequence[Path], patterns: Sequence[str]) -> tuple[list[ChartRow], list[str]]:
    """Picks the figures of results by name.

    Args:
        paths: Files that `--json` wrote.
        patterns: Names of figures, `*` standing for anything; a figure is shown once.

    Returns:
        The rows, file by file, and what each file is called.

    Raises:
        UsageError: A file cannot be read, no figure has such a name, or units differ.
    """
    rows: list[ChartRow] = []
    names = []
    for group, path in enumerate(paths):
        record = read_record(path)
        names.append(f"{record['benchmark']}: {path.stem}")
        for name, figure in figures_of(record, path).items():
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                rows.append(ChartRow(figure.label, group, figure))
    if not rows:
        known = sorted({name for path in paths for name in figures_of(read_record(path), path)})
        raise UsageError(
            f"no figure is called {' or '.join(patterns)}: there are {', '.join(known)}"
        )
    if len(units := sorted({row.figure.unit for row in rows})) > 1:
        raise UsageError(
            f"figures in {', '.join(units)} do not share an axis: ask for those of one unit, as in "
            f"--figure '{rows[0].figure.name}'"
        )
    return rows, names


def draw_chart(
    paths: Sequence[Path], patterns: Sequence[str], out: Path, *, title: str = ""
) -> None:
    """Draws figures of results as horizontal bars, with their bars to reach as dashed lines.

    Args:
        paths: Files that `--json` wrote; each has a colour.
        patterns: Names of the figures; see `chart_rows`.
        out: A PNG file.
        title: The title.

    Raises:
        UsageError: See `chart_rows`; or the file cannot be written.
    """
    rows, names = chart_rows(paths, patterns)
    import matplotlib as mpl  # noqa: PLC0415 - only drawing needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    height = 1.2 + _BAR_INCHES * len(rows)
    figure, axes = plt.subplots(figsize=(_WIDTH_INCHES, height), layout="constrained")
    for place, row in enumerate(rows):
        _draw_bar(axes, place, row)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(rows[0].figure.unit)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left")
    if len(names) > 1:
        patches = [Patch(color=_colour(group), label=name) for group, name in enumerate(names)]
        axes.legend(handles=patches, frameon=False, loc="best")
    try:
        with written_whole(out) as partial:
            figure.savefig(partial, format="png", dpi=_DPI)
    finally:
        plt.close(figure)


def _draw_bar(axes: Any, place: int, row: ChartRow) -> None:  # noqa: ANN401 - matplotlib's axes
    spread = row.figure.spread
    axes.barh(place, spread.median, color=_colour(row.group), height=0.7)
    axes.plot([spread.low, spread.high], [place, place], color="#222222", linewidth=1.2)
    axes.annotate(
        f"{spread.median:.3g}",
        (max(spread.high, spread.median), place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    if row.figure.bar is not None:
        axes.plot([row.figure.bar] * 2, [place - 0.42, place + 0.42], color="#b02f2f", ls="--")


def _colour(group: int) -> str:
    return _COLOURS[group % len(_COLOURS)]
