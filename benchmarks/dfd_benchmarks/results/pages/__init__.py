"""Pages of benchmarks: one self-contained file each, in the look of `dfd-edge --report`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from dfd_benchmarks.results.machine import Machine
from dfd_benchmarks.results.schema import Result
from dfd_edge.errors import UsageError
from dfd_edge.outputs.files import written_whole
from dfd_edge.report import page as shared
from dfd_edge.report.charts import Figure as Drawing

_FOLDER = Path(__file__).resolve().parent
_COLOURS = ("#3b82c4", "#d9480f", "#2f9e76", "#9061d6")
_BAR_PX = 17


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of a page.

    Attributes:
        anchor: Its name in the page.
        title: Above it.
        words: Description of the chart, for those who cannot see it too.
        drawing: `data` and `layout` in plotly's schema.
    """

    anchor: str
    title: str
    words: str
    drawing: Drawing

    @property
    def json(self) -> str:
        """The drawing as JSON."""
        return json.dumps(self.drawing, allow_nan=False)


def bar_chart(names: Sequence[str], series: Mapping[str, Sequence[float]], unit: str) -> Drawing:
    """Lying bars, the first name on top, values written at their ends.

    Args:
        names: Names of the places.
        series: Values of each place, by what they are called.
        unit: Unit of the axis.
    """
    longest = max(max(values) for values in series.values())
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": list(names),
                "x": [round(value, 4) for value in values],
                "text": [f"{value:.3g}" for value in values],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": colour},
                "hovertemplate": "%{y}: %{x}<extra>%{fullData.name}</extra>",
            }
            for (name, values), colour in zip(series.items(), _COLOURS, strict=False)
        ],
        "layout": {
            "height": 110 + len(names) * (_BAR_PX * len(series) + 10),
            "barmode": "group",
            "margin": {"l": 8, "r": 12, "t": 40, "b": 44},
            "showlegend": len(series) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {
                "title": {"text": unit},
                "range": [0, longest * 1.15 or 1.0],
                "zeroline": False,
            },
            "yaxis": {"autorange": "reversed", "automargin": True, "ticksuffix": " "},
        },
    }


def line_chart(
    places: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    *,
    across: str,
    unit: str,
) -> Drawing:
    """Lines with markers over a few places, all of which stand on the axis.

    Args:
        places: Along the axis across, each twice the one before or so.
        series: Values at each place, by what they are called; None where there is none.
        across: Label of the horizontal axis.
        unit: Unit of the vertical axis.
    """
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [f"{place:g}" for place in places],
                "y": [None if value is None else round(value, 4) for value in values],
                "line": {"width": 2, "color": _COLOURS[number % len(_COLOURS)]},
                "marker": {"size": 7, "symbol": number},
            }
            for number, (name, values) in enumerate(series.items())
        ],
        "layout": {
            "height": 340 + 18 * len(series),
            "margin": {"l": 56, "r": 12, "t": 24 + 18 * len(series), "b": 44},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {"title": {"text": across}, "type": "category"},
            "yaxis": {"title": {"text": unit}, "rangemode": "tozero", "zeroline": False},
        },
    }


def check_page(path: Path) -> None:
    """Refuses a page that would not be opened as one, before anything is measured.

    Raises:
        UsageError: Its suffix is not that of a page.
        ModuleNotFoundError: jinja2 or plotly is not installed.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--html: {path}: give a name that ends in .html")
    for library in ("jinja2", "plotly"):
        import_module(library)


def write_page(
    template: str,
    path: Path,
    machine: Machine,
    result: Result,
    *,
    charts: Sequence[Chart],
    values: Mapping[str, Any],
) -> None:
    """Fills in a template of this folder and writes the page, whole or not at all.

    Args:
        template: Its file name.
        path: Path of the page.
        machine: The machine that was measured.
        result: The result; it stands in the page as JSON.
        charts: The page's charts, in order.
        values: Values of the template beside those of all pages.

    Raises:
        UsageError: The file cannot be written.
    """
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    scripts = [str(get_plotlyjs()), (shared.FOLDER / "page.js").read_text("utf-8")]
    styles = [shared.FOLDER / "page.css", _FOLDER / "extra.css"]
    text = (
        shared.page_environment(_FOLDER)
        .get_template(template)
        .render(
            policy=shared.content_policy(scripts),
            css=Markup("\n".join(style.read_text("utf-8") for style in styles)),  # our own files
            scripts=[Markup(script) for script in scripts],  # plotly's and ours
            written=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            machine=machine,
            result=result,
            charts=charts,
            records=json.dumps(result.record(machine), allow_nan=False),
            **values,
        )
    )
    with written_whole(path) as partial:
        partial.write_text(text, "utf-8", newline="\n")
