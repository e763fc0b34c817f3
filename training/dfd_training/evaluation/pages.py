"""What the pages of this package share: the look of the runtime's report, and its script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dfd_edge.outputs.files import written_whole
from dfd_edge.report import page as shared
from dfd_edge.report.charts import Figure

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Chart:
    """A figure of a page.

    Attributes:
        anchor: its name in the page.
        title: above it.
        words: what it shows, for those who cannot see it too.
        file: where its figures stand.
        figure: `data` and `layout` of plotly.
    """

    anchor: str
    title: str
    words: str
    file: str
    figure: Figure

    @property
    def json(self) -> str:
        """The figure as JSON."""
        return json.dumps(self.figure, allow_nan=False)


def write_html(template: str, path: Path, charts: Sequence[Chart], values: dict[str, Any]) -> None:
    """Fill in a template of this package and write the page, whole or not at all.

    Args:
        template: its file name.
        path: of the page.
        charts: all of the page; without one plotly is left out.
        values: what the template takes beside what all pages have.
    """
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    scripts = [(shared.FOLDER / "page.js").read_text("utf-8")]
    if charts:
        scripts.insert(0, str(get_plotlyjs()))
    styles = [(shared.FOLDER / "page.css"), (_FOLDER / "extra.css")]
    written = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    text = (
        shared.page_environment(_FOLDER)
        .get_template(template)
        .render(
            policy=shared.content_policy(scripts),
            css=Markup("\n".join(style.read_text("utf-8") for style in styles)),  # our own files
            scripts=[Markup(script) for script in scripts],  # ours and plotly's
            written=written,
            **values,
        )
    )
    with written_whole(path) as partial:
        partial.write_text(text, "utf-8", newline="\n")
