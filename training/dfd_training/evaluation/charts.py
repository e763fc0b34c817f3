"""The curves of an evaluation as figures for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dfd_edge.report.figures import (
    FAKE_COLOUR,
    REAL_COLOUR,
    Figure,
    guide,
    layout,
    line,
    rounded,
    vertical,
)
from dfd_training.evaluation.levels import Curves, Level, histogram_of

_POINTS = 400


def roc_chart(curves: Sequence[Curves]) -> Figure:
    """Draws the true over the false positive rate."""
    axes = ("false_positive_rate", "true_positive_rate")
    lines = [_curve(c.level.name, c.roc, *axes, number) for number, c in enumerate(curves)]
    diagonal = guide([0.0, 1.0], [0.0, 1.0])
    return _square([*lines, diagonal], "reals called fake", "fakes called fake")


def precision_recall_chart(curves: Sequence[Curves]) -> Figure:
    """Draws precision over recall of the fakes."""
    lines = [
        _curve(c.level.name, c.precision_recall, "recall", "precision", number)
        for number, c in enumerate(curves)
    ]
    return _square(lines, "recall: fakes called fake", "precision: fakes among those called fake")


def histogram_chart(level: Level, thresholds: dict[str, float]) -> Figure:
    """Draws the shares of reals and of fakes by P(fake), with the bundle's thresholds."""
    bins = histogram_of(level)
    data: list[Figure] = []
    for name, colour, pattern in (("real", REAL_COLOUR, ""), ("fake", FAKE_COLOUR, "/")):
        total = int(bins[name].sum())
        data.append(
            {
                "type": "bar",
                "name": f"{name} (n = {total})",
                "x": [rounded(value) for value in (bins["low"] + bins["high"]) / 2.0],
                "y": [rounded(value / max(total, 1)) for value in bins[name]],
                "text": [str(int(value)) for value in bins[name]],
                "hovertemplate": "%{text} of " + str(total),
                "textposition": "none",
                "marker": {"color": colour, "pattern": {"shape": pattern}},
            }
        )
    drawing = layout("P(fake)", "share of the class") | {"barmode": "group", "bargap": 0.05}
    drawing["xaxis"]["range"] = [0.0, 1.0]
    styles = {"fake": (FAKE_COLOUR, "dash"), "real": (REAL_COLOUR, "dot")}
    drawing["shapes"] = [
        vertical(at, colour=styles[name][0], dash=styles[name][1], width=2)
        for name, at in thresholds.items()
    ]
    return {"data": data, "layout": drawing}


def reliability_chart(curves: Sequence[Curves]) -> Figure:
    """Draws the share of fakes over the mean P(fake); marks grow with the rows in the bin."""
    data: list[Figure] = []
    for number, c in enumerate(curves):
        bins = [b for b in c.reliability if b.n]
        most = max(b.n for b in bins)
        x, y = [b.mean_p for b in bins], [b.fake_share for b in bins]
        data.append(
            line(c.level.name, x, y, number, markers=True)
            | {
                "text": [f"{b.n} in {b.groups} groups" for b in bins],
                "hovertemplate": "P(fake) %{x:.2f}, fakes %{y:.2f}, n = %{text}",
                "marker": {"size": [round(6 + 14 * (b.n / most) ** 0.5, 1) for b in bins]},
            }
        )
    diagonal = guide([0.0, 1.0], [0.0, 1.0])
    return _square([*data, diagonal], "mean P(fake) of a bin", "share of fakes in it")


def history_chart(history: pd.DataFrame, columns: dict[str, str], title: str) -> Figure:
    """Draws columns of a fit's history over its epochs.

    Args:
        history: One row per epoch.
        columns: The name in the legend, by column.
        title: Title of the vertical axis.
    """
    epochs = [int(value) + 1 for value in history["epoch"]]
    lines = [
        line(name, epochs, list(history[column]), number, markers=True)
        for number, (column, name) in enumerate(columns.items())
    ]
    drawing = layout("epoch", title)
    drawing["xaxis"]["tickformat"] = "d"
    return {"data": lines, "layout": drawing}


def _square(data: list[Figure], across: str, up: str) -> Figure:
    drawing = layout(across, up, height=420)
    drawing["xaxis"]["range"] = drawing["yaxis"]["range"] = [-0.02, 1.02]
    return {"data": data, "layout": drawing}


def _curve(name: str, curve: pd.DataFrame, across: str, up: str, number: int) -> dict[str, Any]:
    """Returns a line over all thresholds, thinned to as many points as a screen can show."""
    if len(curve) > _POINTS:
        step = -(-len(curve) // _POINTS)
        curve = pd.concat([curve.iloc[::step], curve.iloc[-1:]])
    return line(name, list(curve[across]), list(curve[up]), number) | {
        "text": [f"{value:.3f}" for value in curve["threshold"]],
        "hovertemplate": "%{x:.3f}, %{y:.3f} from P(fake) %{text}",
    }
