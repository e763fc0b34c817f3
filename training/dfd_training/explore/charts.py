"""Bar charts as PNG pictures, by matplotlib, and as tables."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dfd_edge.report.figures import BarChart, shortened

_NAME_LENGTH = 60
#: Share of a category's place that its bars take up.
_BARS_SHARE = 0.8
#: Width of a letter over the length of the longest bar.
_LETTER_SHARE = 0.014


def chart_table(chart: BarChart) -> pd.DataFrame:
    """Returns one row for each category, and the values and shares of each series as columns."""
    return pd.DataFrame({"category": chart.categories, **chart.columns()})


def chart_png(chart: BarChart) -> bytes:
    """Draws a chart as a PNG picture."""
    count = len(chart.categories)
    groups = 1 if chart.stacked else len(chart.series)
    tall = 3.8 if chart.upright else 1.6 + 0.26 * (count * (groups + 0.4))
    figure, axes = plt.subplots(figsize=(8.0, min(tall, 60.0)), layout="constrained")
    with plt.rc_context({"hatch.linewidth": 0.6}):
        _draw_bars(axes, chart, groups)
        names = [shortened(name, _NAME_LENGTH) for name in chart.categories]
        if chart.details and not chart.stacked:
            pairs = zip(names, chart.details, strict=True)
            names = [f"{name}\n{detail}" for name, detail in pairs]
        # A name with a dollar sign would be read as a formula.
        names = [name.replace("$", r"\$") for name in names]
        if chart.upright:
            axes.set_xticks(range(count), names, fontsize=8)
            axes.set_ylabel(chart.axis)
        else:
            axes.set_yticks(range(count), names, fontsize=8)
            axes.set_ylim(count - 0.5, -0.5)
            axes.set_xlabel(chart.axis)
        whole = all(value == int(value) for series in chart.series for value in series.values)
        lengths = axes.yaxis if chart.upright else axes.xaxis
        lengths.set_major_locator(MaxNLocator("auto", integer=whole, steps=[1, 2, 5, 10]))
        axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(chart.title, x=0.02, ha="left", fontsize=11)
        if len(chart.series) > 1:
            figure.legend(fontsize=8, frameon=False, loc="outside upper right", ncols=3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def percent(share: float) -> str:
    """Returns a share in percent, with a digit after the point where it is not whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _draw_bars(axes: Axes, chart: BarChart, groups: int) -> None:
    count = len(chart.categories)
    wide = _BARS_SHARE / groups
    base = [0.0] * count
    longest = max(map(sum, zip(*(series.values for series in chart.series), strict=True)))
    for number, series in enumerate(chart.series):
        shift = 0.0 if chart.stacked else (number - (groups - 1) / 2) * wide
        style: dict[str, Any] = {
            "bottom" if chart.upright else "left": base,
            "label": series.name,
            "color": series.colour,
            "edgecolor": "#ffffff",
            "hatch": series.pattern * 2,
        }
        draw = axes.bar if chart.upright else axes.barh
        bars = draw([place + shift for place in range(count)], series.values, wide, **style)
        texts = chart.bar_texts(series)
        if chart.stacked:
            # Texts that do not fit into their bar are left out.
            least = [0.04 if chart.upright else _LETTER_SHARE * len(text) for text in texts]
            texts = [
                text if value > share * longest else ""
                for text, value, share in zip(texts, series.values, least, strict=True)
            ]
            axes.bar_label(bars, texts, label_type="center", color="#ffffff", fontsize=8)
            base = [low + value for low, value in zip(base, series.values, strict=True)]
        else:
            axes.bar_label(bars, texts, padding=2, fontsize=8)
    # Texts behind the longest bar need a share of the width.
    room = 0.01 if chart.stacked else 0.12 if chart.upright else 0.2
    if chart.upright:
        axes.margins(y=room)
    else:
        axes.margins(x=room)
    if chart.stacked and not chart.upright and chart.details:
        for place, (end, detail) in enumerate(zip(base, chart.details, strict=True)):
            axes.annotate(
                detail,
                (end, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                annotation_clip=False,
            )
