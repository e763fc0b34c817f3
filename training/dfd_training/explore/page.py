"""One self-contained page of an exploration, in the look of the runtime's reports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dfd_edge.report import page as report_page
from dfd_edge.report.page import content_policy, page_environment
from dfd_edge.version import version_of
from dfd_training.explore import excerpts
from dfd_training.explore.charts import BarChart
from dfd_training.explore.detection import DetectorRow
from dfd_training.explore.detectors import DLIB_MISSING, SEARCHED_PX, dlib_is_there
from dfd_training.explore.drawing import data_uri
from dfd_training.explore.overview import percent, shortened
from dfd_training.explore.reading import MAX_SECONDS
from dfd_training.explore.sheets import Sheet

_FOLDER = Path(__file__).resolve().parent
_LISTED = 50
_MARKS = {"REAL": "●", "FAKE": "▲"}


@dataclass(frozen=True, slots=True)
class Clip:
    """An excerpt that the page plays: its file, the label, and H.264 in MP4."""

    path: str
    label: str
    mp4: bytes


@dataclass(frozen=True, slots=True, eq=False)
class PageContent:
    """What a page shows.

    Attributes:
        name: of the table's file.
        table: as `read_table` gives it.
        columns: as `summarise_columns` gives it.
        charts: by name.
        sheets: "faces REAL", "faces FAKE", "family", "drawn", "differ" and "not found", those
            that there are.
        clips: excerpts.
        detectors: figures of each detector.
        opened: files whose facts were read.
        searched: files that were searched for faces.
        unreadable: why a file could not be read, by path.
        options: of the run.
    """

    name: str
    table: pd.DataFrame
    columns: pd.DataFrame
    charts: dict[str, BarChart]
    sheets: dict[str, Sheet]
    clips: list[Clip]
    detectors: list[DetectorRow]
    opened: int
    searched: int
    unreadable: dict[str, str]
    options: dict[str, Any]


def render(content: PageContent) -> str:
    """The page as text; it says its own size."""
    scripts = [str(get_plotlyjs()), (report_page.FOLDER / "page.js").read_text("utf-8")]
    values = {
        "content": content,
        "policy": f"{content_policy(scripts)}; media-src data:",
        "css": [
            Markup((report_page.FOLDER / "page.css").read_text("utf-8")),
            Markup((_FOLDER / "page.css").read_text("utf-8")),
        ],
        "scripts": [Markup(script) for script in scripts],  # plotly's and ours
        "figures": {name: _figure(chart) for name, chart in content.charts.items()},
        "counts": content.table["label"].value_counts().to_dict(),
        "sources": content.table["source"].nunique(),
        "unreadable": sorted(content.unreadable.values())[:_LISTED],
        "dlib_missing": None if dlib_is_there() else DLIB_MISSING,
        "records": json.dumps(_records(content), allow_nan=False),
        "written": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "version": version_of("dfd-edge"),
        "marks": _MARKS,
        "searched_px": SEARCHED_PX,
        "max_seconds": MAX_SECONDS,
        "excerpts": excerpts,
    }
    template = _template()
    size = len(template.render(**values, size="00.0").encode("utf-8"))
    return template.render(**values, size=f"{size / 1e6:.1f}")


def _figure(chart: BarChart) -> dict[str, str]:
    return {"json": json.dumps(chart.figure(), allow_nan=False), "words": chart.words()}


def _records(content: PageContent) -> dict[str, Any]:
    """The figures of the page, for those who want to go on with them."""
    return {
        "table": content.name,
        "options": content.options,
        "charts": {name: chart.table().to_dict("list") for name, chart in content.charts.items()},
        "columns": content.columns.to_dict("records"),
        "detectors": [asdict(row) for row in content.detectors],
    }


def _template() -> jinja2.Template:
    environment = page_environment(_FOLDER)
    environment.filters["jpeg_uri"] = lambda encoded: data_uri(encoded, "image/jpeg")
    environment.filters["mp4_uri"] = lambda encoded: data_uri(encoded, "video/mp4")
    environment.filters["short"] = shortened
    environment.filters["percent"] = percent
    environment.filters["plain"] = lambda value: f"{value:g}"
    environment.filters["base"] = lambda path: PurePath(path).name
    return environment.get_template("page.html")
