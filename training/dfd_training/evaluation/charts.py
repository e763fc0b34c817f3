"""The curves of an evaluation as figures that plotly's JavaScript draws.

Each is `data` and `layout` in plotly's schema, plain enough for `json.dumps`. Text and grid have no
colour yet: the page gives them that of its scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dfd_edge.report.charts import FAKE_COLOUR, REAL_COLOUR, Figure
from dfd_training.evaluation.levels import Curves, Level, histogram_of

COLOURS = ("#9061d6", "#2f9e76", "#b58105", "#3b82c4", "#d9480f", "#8a929c")
"""Of lines that stand side by side; readable on light and on dark ground."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_GREY = "#8a929c"
_POINTS = 400


def roc_chart(curves: Sequence[Curves]) -> Figure:
    """True over false positive rate."""
    lines = [
        _line(
            c.level.name,
            _thinned(c.roc)["false_positive_rate"],
            _thinned(c.roc)["true_positive_rate"],
            number,
            text=_thresholds(_thinned(c.roc)),
        )
        for number, c in enumerate(curves)
    ]
    return _square(
        [*lines, _guide([0.0, 1.0], [0.0, 1.0])], "reals called fake", "fakes called fake"
    )


def precision_recall_chart(curves: Sequence[Curves]) -> Figure:
    """Precision over recall of the fakes."""
    lines = [
        _line(
            c.level.name,
            _thinned(c.precision_recall)["recall"],
            _thinned(c.precision_recall)["precision"],
            number,
            text=_thresholds(_thinned(c.precision_recall)),
        )
        for number, c in enumerate(curves)
    ]
    return _square(lines, "recall: fakes called fake", "precision: fakes among those called fake")


def histogram_chart(level: Level, thresholds: dict[str, float]) -> Figure:
    """Shares of the reals and of the fakes by P(fake), with the bundle's thresholds."""
    bins = histogram_of(level)
    data: list[Figure] = []
    for name, colour, pattern in (("real", REAL_COLOUR, ""), ("fake", FAKE_COLOUR, "/")):
        total = int(bins[name].sum())
        data.append(
            {
                "type": "bar",
                "name": f"{name} (n = {total})",
                "x": [_digits(value) for value in (bins["low"] + bins["high"]) / 2.0],
                "y": [_digits(value / max(total, 1)) for value in bins[name]],
                "text": [str(int(value)) for value in bins[name]],
                "hovertemplate": "%{text} of " + str(total),
                "textposition": "none",
                "marker": {"color": colour, "pattern": {"shape": pattern}},
            }
        )
    layout = _layout("P(fake)", "share of the class")
    layout["barmode"] = "group"
    layout["bargap"] = 0.05
    layout["xaxis"]["range"] = [0.0, 1.0]
    layout["shapes"] = [
        {
            "type": "line",
            "yref": "paper",
            "x0": at,
            "x1": at,
            "y0": 0,
            "y1": 1,
            "line": {
                "width": 2,
                "dash": "dash" if name == "fake" else "dot",
                "color": FAKE_COLOUR if name == "fake" else REAL_COLOUR,
            },
        }
        for name, at in thresholds.items()
    ]
    return {"data": data, "layout": layout}


def reliability_chart(curves: Sequence[Curves]) -> Figure:
    """Share of fakes over the mean P(fake), bin by bin; marks grow with the rows in the bin."""
    data: list[Figure] = []
    for number, c in enumerate(curves):
        bins = [b for b in c.reliability if b.n]
        most = max(b.n for b in bins)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": c.level.name,
                "x": [_digits(b.mean_p) for b in bins],
                "y": [_digits(b.fake_share) for b in bins],
                "text": [f"{b.n} in {b.groups} groups" for b in bins],
                "hovertemplate": "P(fake) %{x:.2f}, fakes %{y:.2f}, n = %{text}",
                "marker": {"size": [round(6 + 14 * (b.n / most) ** 0.5, 1) for b in bins]},
                "line": {"color": _colour(number), "dash": _dash(number), "width": 2},
            }
        )
    return _square(
        [*data, _guide([0.0, 1.0], [0.0, 1.0])], "mean P(fake) of a bin", "share of fakes in it"
    )


def history_chart(history: pd.DataFrame, columns: dict[str, str], title: str) -> Figure:
    """Columns of a fit's history over its epochs.

    Args:
        history: one row an epoch.
        columns: what to call each column, by its name.
        title: of the vertical axis.
    """
    epochs = [int(value) + 1 for value in history["epoch"]]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": epochs,
            "y": [None if pd.isna(value) else _digits(value) for value in history[column]],
            "line": {"color": _colour(number), "dash": _dash(number), "width": 2},
        }
        for number, (column, name) in enumerate(columns.items())
    ]
    layout = _layout("epoch", title)
    layout["xaxis"]["tickformat"] = "d"
    return {"data": data, "layout": layout}


def _square(data: list[Figure], across: str, up: str) -> Figure:
    layout = _layout(across, up)
    layout["height"] = 420
    layout["xaxis"]["range"] = layout["yaxis"]["range"] = [-0.02, 1.02]
    return {"data": data, "layout": layout}


def _layout(across: str, up: str) -> Figure:
    return {
        "height": 340,
        "margin": {"l": 56, "r": 12, "t": 40, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": across}, "zeroline": False},
        "yaxis": {"title": {"text": up}, "zeroline": False},
    }


def _line(
    name: str, across: pd.Series[float], up: pd.Series[float], number: int, *, text: list[str]
) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [_digits(value) for value in across],
        "y": [_digits(value) for value in up],
        "text": text,
        "hovertemplate": "%{x:.3f}, %{y:.3f} from P(fake) %{text}",
        "line": {"color": _colour(number), "dash": _dash(number), "width": 2},
    }


def _guide(across: list[float], up: list[float]) -> Figure:
    """The line of chance, or of perfect calibration."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": across,
        "y": up,
        "showlegend": False,
        "hoverinfo": "skip",
        "line": {"color": _GREY, "dash": "dot", "width": 1},
    }


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """At most so many points as a screen can show, the first and the last among them."""
    if len(curve) <= _POINTS:
        return curve
    step = -(-len(curve) // _POINTS)
    return pd.concat([curve.iloc[::step], curve.iloc[-1:]])


def _thresholds(curve: pd.DataFrame) -> list[str]:
    return [f"{value:.3f}" for value in curve["threshold"]]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> str:
    return _DASHES[number % len(_DASHES)]


def _digits(value: Any) -> float:  # noqa: ANN401 - a number of numpy or pandas
    return round(float(value), 4)
