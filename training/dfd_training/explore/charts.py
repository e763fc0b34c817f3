"""Bar charts, drawn by plotly for a page and by matplotlib as PNG, and as tables."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_LONGEST_VALUE = 60


def shortened(text: str, length: int = _LONGEST_VALUE) -> str:
    """A text that is at most so long; the middle of a longer one is left out."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def percent(share: float) -> str:
    """A share in percent, with a digit after the point where it is not whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


mpl.use("Agg")


_LINE = "#8a929c"
#: Of a page's chart in pixels: a bar that lies, the line of words above it, all round the bars.
_BAR_PX, _WORDS_PX, _ROOM_PX = 20, 20, 96
_UPRIGHT_PX = 340
_NAME_LENGTH, _NAME_AND_DETAIL_LENGTH = 44, 24
_PNG_NAME_LENGTH = 60
#: Share of a category's place that its bars take up where they stand, or lie in a PNG.
_BARS_SHARE = 0.8
#: Of the longest bar, what a letter takes.
_LETTER_SHARE = 0.014


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one colour.

    Attributes:
        name: in the legend.
        values: one for each category.
        colour: "#rrggbb".
        pattern: drawn over the colour, so that it can be told without: "", "/", "x" or ".".
        texts: written at each bar; by default its value.
    """

    name: str
    values: tuple[float, ...]
    colour: str
    pattern: str = ""
    texts: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """The texts, or the values in their place."""
        return list(self.texts) or [f"{value:g}" for value in self.values]


@dataclass(frozen=True, slots=True)
class BarChart:
    """A bar chart.

    Attributes:
        name: of its files, without suffix.
        title: a line above it.
        note: a sentence below it, or "".
        categories: their names, in order.
        series: at least one.
        axis: what the length of a bar means.
        details: what else is said of each category, or nothing.
        upright: the bars stand, as in a histogram, where the categories have an order.
        stacked: the bars of a category follow one another.
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

    def table(self) -> pd.DataFrame:
        """One row a category, one column a series."""
        values = {series.name: series.values for series in self.series}
        return pd.DataFrame({"category": self.categories, **values})

    def words(self) -> str:
        """What the chart shows, for those who cannot see it."""
        shown = []
        for number, category in enumerate(self.categories[:6]):
            parts = [f"{series.name} {series.told()[number]}" for series in self.series]
            told = self.details[number] if self.details else ", ".join(parts)
            shown.append(f"{category}: {told}")
        more = len(self.categories) - len(shown)
        return f"{self.title}. {'; '.join(shown)}" + (f"; and {more} more." if more else ".")

    def figure(self) -> dict[str, Any]:
        """`data` and `layout` in plotly's schema, plain enough for `json.dumps`."""
        lengths: dict[str, Any] = {
            "title": {"text": self.axis},
            "zeroline": False,
            "rangemode": "tozero",
            "automargin": True,
        }
        if self._counts_few():
            lengths["dtick"] = 1
        layout: dict[str, Any] = {
            "barmode": "stack" if self.stacked else "group",
            "margin": {"l": 12, "r": 28, "t": 40 if len(self.series) > 1 else 16, "b": 44},
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "showlegend": len(self.series) > 1,
            "uniformtext": {"mode": "hide", "minsize": 9},
        }
        places = list(range(len(self.categories)))
        if self.upright:
            names = {"tickvals": places, "ticktext": self._names(), "automargin": True}
            layout |= {"height": _UPRIGHT_PX, "xaxis": {**names, "showgrid": False}}
            layout["yaxis"] = lengths
        else:
            # Names stand above their bars: beside them they would leave a phone no room.
            count = len(places)
            layout |= {"height": _ROOM_PX + count * self._place_px(), "xaxis": lengths}
            axis = {"range": [count - 0.5, -0.5], "showticklabels": False, "showgrid": False}
            layout["yaxis"] = {**axis, "zeroline": False, "fixedrange": True}
            layout["annotations"] = [
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
        return {"data": [self._trace(n) for n in range(len(self.series))], "layout": layout}

    def _trace(self, number: int) -> dict[str, Any]:
        series, places = self.series[number], list(range(len(self.categories)))
        values = list(series.values)
        trace: dict[str, Any] = {
            "type": "bar",
            "orientation": "v" if self.upright else "h",
            "name": series.name,
            "x": places if self.upright else values,
            "y": values if self.upright else places,
            "text": self._texts(series),
            "customdata": [_escaped(name) for name in self.categories],
            "hovertemplate": "%{customdata}: %{text}<extra>%{fullData.name}</extra>",
            "textposition": self._text_position(),
            "insidetextanchor": "middle",
            "insidetextfont": {"color": "#ffffff"},
            "textangle": 0,
            "cliponaxis": False,
            "marker": {"color": series.colour, "line": {"width": 1, "color": _LINE}},
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
            first = _WORDS_PX / self._place_px() - 0.5
            trace |= {"width": wide, "offset": first + (0 if self.stacked else number * wide)}
        return trace

    def _place_px(self) -> int:
        """Height of a category whose bars lie."""
        bars = 1 if self.stacked else len(self.series)
        return _WORDS_PX + _BAR_PX * bars + 6

    def _names(self) -> list[str]:
        length = _NAME_AND_DETAIL_LENGTH if self.details else _NAME_LENGTH
        names = [_escaped(shortened(name, length)) for name in self.categories]
        if not self.details:
            return names
        pairs = zip(names, self.details, strict=True)
        return [f"{name}: {detail}" if detail else name for name, detail in pairs]

    def _texts(self, series: Series) -> list[str]:
        """What stands at the bars; nothing at those of a stack that have no length."""
        pairs = zip(series.told(), series.values, strict=True)
        return [text if value or not self.stacked else "" for text, value in pairs]

    def _text_position(self) -> str:
        if self.stacked:
            return "inside"
        return "outside" if self.upright else "auto"

    def _counts_few(self) -> bool:
        """Whether the axis counts so few that it would be divided below 1."""
        values = [value for series in self.series for value in series.values]
        return max(values, default=0.0) <= 8 and all(value == int(value) for value in values)

    def png(self) -> bytes:
        """The chart as a PNG picture."""
        count = len(self.categories)
        tall = 3.8 if self.upright else 1.6 + 0.26 * (count * (self._groups() + 0.4))
        figure, axes = plt.subplots(figsize=(8.0, min(tall, 60.0)), layout="constrained")
        with plt.rc_context({"hatch.linewidth": 0.6}):
            self._draw_bars(axes)
            names = [shortened(name, _PNG_NAME_LENGTH) for name in self.categories]
            # A name with a dollar sign would be read as a formula.
            names = [name.replace("$", r"\$") for name in names]
            if self.upright:
                axes.set_xticks(range(count), names, fontsize=8)
                axes.set_ylabel(self.axis)
            else:
                axes.set_yticks(range(count), names, fontsize=8)
                axes.set_ylim(count - 0.5, -0.5)
                axes.set_xlabel(self.axis)
            axes.spines[["top", "right"]].set_visible(False)
            figure.suptitle(self.title, x=0.02, ha="left", fontsize=11)
            if len(self.series) > 1:
                figure.legend(fontsize=8, frameon=False, loc="outside upper right", ncols=3)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110)
        plt.close(figure)
        return buffer.getvalue()

    def _groups(self) -> int:
        return 1 if self.stacked else len(self.series)

    def _draw_bars(self, axes: Axes) -> None:
        count, groups = len(self.categories), self._groups()
        wide = _BARS_SHARE / groups
        base = [0.0] * count
        longest = max(map(sum, zip(*(series.values for series in self.series), strict=True)))
        for number, series in enumerate(self.series):
            shift = 0.0 if self.stacked else (number - (groups - 1) / 2) * wide
            style: dict[str, Any] = {
                "bottom" if self.upright else "left": base,
                "label": series.name,
                "color": series.colour,
                "edgecolor": "#ffffff",
                "hatch": series.pattern * 2,
            }
            draw = axes.bar if self.upright else axes.barh
            bars = draw([place + shift for place in range(count)], series.values, wide, **style)
            texts = self._texts(series)
            if self.stacked:
                # What would not fit into a bar of this length is left out.
                least = [0.04 if self.upright else _LETTER_SHARE * len(text) for text in texts]
                texts = [
                    text if value > share * longest else ""
                    for text, value, share in zip(texts, series.values, least, strict=True)
                ]
                axes.bar_label(bars, texts, label_type="center", color="#ffffff", fontsize=8)
                base = [low + value for low, value in zip(base, series.values, strict=True)]
            else:
                axes.bar_label(bars, texts, padding=2, fontsize=8)
        room = 0.01 if self.stacked else 0.12
        if self.upright:
            axes.margins(y=room)
        else:
            axes.margins(x=room)
        if self.stacked and not self.upright and self.details:
            for place, (end, detail) in enumerate(zip(base, self.details, strict=True)):
                axes.annotate(
                    detail,
                    (end, place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    annotation_clip=False,
                )


def _escaped(text: str) -> str:
    """A text that plotly shows as it is: it reads some HTML."""
    return html.escape(text, quote=False)
