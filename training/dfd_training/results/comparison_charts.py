"""A comparison of runs as charts: for the page, and as PNG."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dfd_edge.report.charts import Figure
from dfd_training.results.charts import COLOURS
from dfd_training.results.comparison import Comparison, Cost, LevelTable
from dfd_training.results.pictures import drawn


def area_chart(comparison: Comparison) -> Figure:
    """AUC of every run and level with its interval."""
    data = []
    for number, table in enumerate(comparison.levels):
        known = [(i, row) for i, row in enumerate(table.rows) if row.figures]
        figures = [row.figures["auc"] for _, row in known]
        shift = 0.2 * (number - (len(comparison.levels) - 1) / 2)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": table.name,
                "x": [round(figure.value, 4) for figure in figures],
                "y": [round(i + shift, 3) for i, _ in known],
                "text": [row.run for _, row in known],
                "hovertemplate": "%{text}: %{x:.3f}",
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_gap(figure.high, figure.value) for figure in figures],
                    "arrayminus": [_gap(figure.value, figure.low) for figure in figures],
                },
                "marker": {"size": 9, "color": COLOURS[number], "symbol": number},
            }
        )
    layout: Figure = {
        "height": 140 + 70 * len(comparison.names),
        "margin": {"l": 12, "r": 12, "t": 40, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "AUC"}, "range": [0.0, 1.02], "zeroline": False},
        "yaxis": {
            "automargin": True,
            "range": [len(comparison.names) - 0.5, -0.5],
            "tickvals": list(range(len(comparison.names))),
            "ticktext": comparison.names,
            "zeroline": False,
        },
        "shapes": [
            {
                "type": "line",
                "yref": "paper",
                "x0": 0.5,
                "x1": 0.5,
                "y0": 0,
                "y1": 1,
                "line": {"width": 1, "dash": "dot", "color": COLOURS[-1]},
            }
        ],
    }
    return {"data": data, "layout": layout}


def trade_chart(comparison: Comparison, table: LevelTable) -> Figure:
    """AUC of a level over the latency of a crop, for runs that have both."""
    data = []
    for number, (cost, row) in enumerate(zip(comparison.costs, table.rows, strict=True)):
        if cost.latency is None or not row.figures:
            continue
        area = row.figures["auc"]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": cost.run,
                "x": [round(cost.latency.median_ms, 3)],
                "y": [round(area.value, 4)],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_gap(area.high, area.value)],
                    "arrayminus": [_gap(area.value, area.low)],
                },
                "marker": {"size": 11, "color": COLOURS[number % len(COLOURS)], "symbol": number},
            }
        )
    layout = {
        "height": 340,
        "margin": {"l": 56, "r": 12, "t": 40, "b": 48},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "ms a crop, one thread"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"AUC, {table.name}"}, "range": [0.0, 1.02]},
    }
    return {"data": data, "layout": layout}


def _gap(above: float, below: float) -> float | None:
    gap = above - below
    return None if math.isnan(gap) else round(max(gap, 0.0), 4)


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw the AUCs with their intervals, and next to them what each run costs."""
    names = comparison.names
    places = np.arange(len(names))
    bars = [
        (name, values) for name, values in _bars(comparison) if not all(map(math.isnan, values))
    ]
    panels = 1 + len(bars)
    size = (3.4 * panels + 1.4, 0.6 * len(names) + 1.9)
    with drawn(path, 1, panels, size=size) as axes:
        for number, table in enumerate(comparison.levels):
            shift = 0.16 * (number - (len(comparison.levels) - 1) / 2)
            known = [(i, row.figures["auc"]) for i, row in enumerate(table.rows) if row.figures]
            values = np.array([figure.value for _, figure in known])
            ends = np.array([(figure.low, figure.high) for _, figure in known]).T
            spread = np.nan_to_num(np.maximum(np.abs(ends - values), 0.0))
            axes[0, 0].errorbar(
                values,
                [i + shift for i, _ in known],
                xerr=spread,
                fmt="o",
                markersize=4,
                capsize=2,
                color=COLOURS[number % len(COLOURS)],
                label=table.name,
            )
        axes[0, 0].axvline(0.5, color="0.4", linewidth=1, linestyle=":")
        axes[0, 0].set(title="AUC, 95 % over groups", xlim=(0.0, 1.02))
        if comparison.levels:
            axes[0, 0].legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.12),
                ncols=len(comparison.levels),
                frameon=False,
                fontsize=8,
            )
        for place, (title, widths) in zip(axes[0, 1:], bars, strict=True):
            place.barh(places, np.nan_to_num(widths), color=COLOURS[3], height=0.55)
            place.set(title=title)
            for i, value in enumerate(widths):
                text = "not known" if math.isnan(value) else f"{value:.3g}"
                place.annotate(
                    text,
                    (0.0 if math.isnan(value) else value, i),
                    textcoords="offset points",
                    xytext=(4, 0),
                    va="center",
                    fontsize=8,
                )
            place.margins(x=0.25)
        for number, place in enumerate(axes[0]):
            place.set_yticks(places, names if number == 0 else [""] * len(names))
            place.set_ylim(len(names) - 0.5, -0.5)
            place.grid(axis="x", alpha=0.3)


def _bars(comparison: Comparison) -> list[tuple[str, list[float]]]:
    costs = comparison.costs

    def of(value: Callable[[Cost], float | None]) -> list[float]:
        found = [value(cost) for cost in costs]
        return [math.nan if number is None else float(number) for number in found]

    return [
        ("ms a crop, one thread", of(lambda c: c.latency.median_ms if c.latency else None)),
        ("GMACs a crop", of(lambda c: None if c.macs is None else c.macs / 1e9)),
        ("ONNX, MB", of(lambda c: None if c.onnx_bytes is None else c.onnx_bytes / 1e6)),
    ]
