"""Charts of HTML pages, in the schema of plotly, whose JavaScript draws them.

Figures are plain enough for `json.dumps`. Text and grid have no colour of their own: the page gives
them that of its colour scheme.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Figure = dict[str, Any]

#: Readable on light and on dark ground; people with red-green blindness can tell them apart too.
FAKE_COLOUR = "#d9480f"
REAL_COLOUR = "#3b82c4"
COLOURS = ("#9061d6", "#2f9e76", "#b58105", "#3b82c4", "#d9480f", "#8a929c")
"""Colours of series that stand side by side."""
GREY = "#8a929c"

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
#: Pixels of a horizontal bar, of the line of text above it, and around all bars.
_BAR_PX, _TEXT_PX, _MARGIN_PX = 20, 20, 96
_UPRIGHT_PX = 340
_NAME_LENGTH, _NAME_AND_DETAIL_LENGTH = 44, 24


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with the text around it.

    Attributes:
        anchor: Identifier of its data in the page.
        title: Heading above it, or "".
        caption: Text below it, or "".
        figure: `data` and `layout` of plotly.
        alternative: What it shows, for readers who cannot see it; the caption by default.
        file: File beside the page that has the same values, or "".
        table: Head and rows of the same values, shown on demand.
    """

    anchor: str
    title: str
    caption: str
    figure: Figure
    alternative: str = ""
    file: str = ""
    table: tuple[list[str], list[list[str]]] | None = None

    @property
    def json(self) -> str:
        """The figure as JSON."""
        return json.dumps(self.figure, allow_nan=False)

    @property
    def text(self) -> str:
        """The text for readers who cannot see the chart."""
        return self.alternative or self.caption


def layout(across: str, up: str, *, height: int = 340) -> Figure:
    """Returns a layout with titled axes and the legend above the plot."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 40, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": across}, "zeroline": False},
        "yaxis": {"title": {"text": up}, "zeroline": False},
    }


def line(
    name: str, x: Sequence[Any], y: Sequence[Any], number: int, *, markers: bool = False
) -> Figure:
    """Returns a line whose colour and dashes differ from those of other numbers.

    Args:
        name: In the legend.
        x: Values; four decimals are kept. None breaks the line.
        y: As many values.
        number: Number of the line in the figure.
        markers: Mark the points too.
    """
    return {
        "type": "scatter",
        "mode": "lines+markers" if markers else "lines",
        "name": name,
        "x": [rounded(value) for value in x],
        "y": [rounded(value) for value in y],
        "line": {
            "color": COLOURS[number % len(COLOURS)],
            "dash": _DASHES[number % len(_DASHES)],
            "width": 2,
        },
    }


def guide(x: Sequence[float], y: Sequence[float]) -> Figure:
    """Returns a thin grey line without a name, such as that of chance."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "showlegend": False,
        "hoverinfo": "skip",
        "line": {"color": GREY, "dash": "dot", "width": 1},
    }


def vertical(x: float, *, colour: str = GREY, dash: str = "dot", width: int = 1) -> Figure:
    """Returns a shape: a vertical line over the height of the plot."""
    style = {"width": width, "dash": dash, "color": colour}
    return {"type": "line", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": style}


def rounded(value: Any) -> float | None:  # noqa: ANN401 - a number of any library
    """Returns a number with four decimals; None where it is None or not a number."""
    number = None if value is None else float(value)
    return None if number is None or math.isnan(number) else round(number, 4)


def shortened(text: str, length: int = 60) -> str:
    """Returns a text of at most `length` characters; the middle of a longer one is left out."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one colour.

    Attributes:
        name: In the legend.
        values: One for each category.
        colour: "#rrggbb".
        pattern: Drawn over the colour, so that bars differ without it: "", "/", "x" or "-".
        texts: Written at each bar; by default its value, and its share where that is given.
        shares: Of each value, in percent, for the texts and the table, or nothing.
    """

    name: str
    values: tuple[float, ...]
    colour: str
    pattern: str = ""
    texts: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    def labels(self) -> list[str]:
        """Returns the texts, or the values in their place."""
        if self.texts or not self.shares:
            return list(self.texts) or [f"{value:g}" for value in self.values]
        pairs = zip(self.values, self.shares, strict=True)
        return [f"{value:g} ({share:g} %)" for value, share in pairs]


@dataclass(frozen=True, slots=True)
class BarChart:
    """A bar chart.

    Attributes:
        name: Name of its files and its anchor.
        title: A line above it.
        note: A sentence below it, or "".
        categories: Their names, in order.
        series: One or more series of bars.
        axis: What the length of a bar means.
        details: More about each category, or nothing.
        upright: The bars stand, as in a histogram, where the categories have an order.
        stacked: The bars of a category follow one another.
    """

    name: str
    title: str
    note: str
    categories: tuple[str, ...]
    series: tuple[Series, ...]
    axis: str
    details: tuple[str, ...] = ()
    upright: bool = False
    stacked: bool = False

    def chart(self) -> Chart:
        """Returns it for a page, with its values as a table."""
        columns = self.columns()
        head = ["", *columns]
        rows = [
            [shortened(category), *(f"{values[row]:g}" for values in columns.values())]
            for row, category in enumerate(self.categories)
        ]
        return Chart(
            f"figure-{self.name}",
            self.title,
            self.note,
            self.figure(),
            alternative=self.description(),
            table=(head, rows),
        )

    def columns(self) -> dict[str, tuple[float, ...]]:
        """Returns the values of each series by its name, and its shares as "NAME, %"."""
        columns: dict[str, tuple[float, ...]] = {}
        for series in self.series:
            columns[series.name] = series.values
            if series.shares:
                columns[f"{series.name}, %"] = series.shares
        return columns

    def description(self) -> str:
        """Returns what the chart shows in words."""
        shown = []
        for number, category in enumerate(self.categories[:6]):
            parts = [f"{series.name} {series.labels()[number]}" for series in self.series]
            values = self.details[number] if self.details else ", ".join(parts)
            shown.append(f"{category}: {values}")
        more = len(self.categories) - len(shown)
        return f"{self.title}. {'; '.join(shown)}" + (f"; and {more} more." if more else ".")

    def figure(self) -> Figure:
        """Returns `data` and `layout` in plotly's schema."""
        several = len(self.series) > 1
        lengths: Figure = {
            "title": {"text": self.axis},
            "zeroline": False,
            "rangemode": "tozero",
            "automargin": True,
        }
        if self._counts_few():
            lengths["dtick"] = 1
        drawing: Figure = {
            "barmode": "stack" if self.stacked else "group",
            "margin": {"l": 12, "r": 28, "t": 40 if several else 16, "b": 44},
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "showlegend": several,
            "uniformtext": {"mode": "hide", "minsize": 9},
        }
        places = list(range(len(self.categories)))
        if self.upright:
            names = {"tickvals": places, "ticktext": self._names(), "automargin": True}
            drawing |= {"height": _UPRIGHT_PX, "xaxis": {**names, "showgrid": False}}
            drawing["yaxis"] = lengths
        else:
            # Names stand above their bars: beside them they would leave a phone no room.
            count = len(places)
            drawing |= {"height": _MARGIN_PX + count * self._place_px(), "xaxis": lengths}
            axis = {"range": [count - 0.5, -0.5], "showticklabels": False, "showgrid": False}
            drawing["yaxis"] = {**axis, "zeroline": False, "fixedrange": True}
            drawing["annotations"] = [
                {
                    "text": name,
                    "showarrow": False,
                    "xref": "paper",
                    "x": 0,
                    "xanchor": "left",
                    "y": place - 0.5,
                    "yanchor": "top",
                    "align": "left",
                    "borderpad": 0,
                }
                for place, name in zip(places, self._names(), strict=True)
            ]
        return {"data": [self._trace(n) for n in range(len(self.series))], "layout": drawing}

    def bar_texts(self, series: Series) -> list[str]:
        """Returns the texts at the bars; none at those of a stack that have no length."""
        pairs = zip(series.labels(), series.values, strict=True)
        return [text if value or not self.stacked else "" for text, value in pairs]

    def _trace(self, number: int) -> Figure:
        series, places = self.series[number], list(range(len(self.categories)))
        values = list(series.values)
        trace: Figure = {
            "type": "bar",
            "orientation": "v" if self.upright else "h",
            "name": series.name,
            "x": places if self.upright else values,
            "y": values if self.upright else places,
            "text": self.bar_texts(series),
            "customdata": [_escaped(name) for name in self.categories],
            "hovertemplate": "%{customdata}: %{text}<extra>%{fullData.name}</extra>",
            "textposition": self._text_position(),
            "insidetextanchor": "middle",
            "insidetextfont": {"color": "#ffffff"},
            "textangle": 0,
            "cliponaxis": False,
            "marker": {"color": series.colour, "line": {"width": 1, "color": GREY}},
        }
        if series.pattern:
            trace["marker"]["pattern"] = {
                "shape": series.pattern,
                "fgcolor": "#ffffff",
                "fgopacity": 0.35,
                "size": 7,
                "fillmode": "overlay",
            }
        if not self.upright:
            wide = _BAR_PX / self._place_px()
            first = _TEXT_PX / self._place_px() - 0.5
            trace |= {"width": wide, "offset": first + (0 if self.stacked else number * wide)}
        return trace

    def _place_px(self) -> int:
        """Height of a category whose bars are horizontal."""
        bars = 1 if self.stacked else len(self.series)
        return _TEXT_PX + _BAR_PX * bars + 6

    def _names(self) -> list[str]:
        length = _NAME_AND_DETAIL_LENGTH if self.details else _NAME_LENGTH
        names = [_escaped(shortened(name, length)) for name in self.categories]
        if not self.details:
            return names
        pairs = zip(names, self.details, strict=True)
        return [f"{name}: {detail}" if detail else name for name, detail in pairs]

    def _text_position(self) -> str:
        if self.stacked:
            return "inside"
        return "outside" if self.upright else "auto"

    def _counts_few(self) -> bool:
        """Whether the axis counts so few that it would be divided below 1."""
        values = [value for series in self.series for value in series.values]
        return max(values, default=0.0) <= 8 and all(value == int(value) for value in values)


def _escaped(text: str) -> str:
    """Escapes a text that plotly would read as HTML."""
    return html.escape(text, quote=False)
