"""All pages of the project share one renderer, one base and one style sheet."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")

from dfd_edge.report.figures import BarChart, Chart, Series, line, rounded, shortened
from dfd_edge.report.html import render_page

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("runtime/dfd_edge", "training/dfd_training", "export/dfd_export", "benchmarks")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def pages(suffix: str) -> list[Path]:
    """Files of the self-contained pages, not of those that are served as folders."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob(f"*.{suffix}")]
    return [path for path in found if not {"serve", "web"} & set(path.parts)]


def test_every_template_extends_the_same_base() -> None:
    shared = {"base.html", "macros.html", "provenance.html"}
    templates = [path for path in pages("html") if path.name not in shared]
    assert len(templates) >= 5
    for path in templates:
        assert path.read_text("utf-8").startswith('{% extends "base.html" %}'), path


def test_there_is_one_style_sheet_and_one_script() -> None:
    assert [path.name for path in pages("css")] == ["page.css"]
    assert [path.name for path in pages("js")] == ["page.js"]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "small.html"
    path.write_text(
        '{% extends "base.html" %}{% from "macros.html" import charts %}'
        "{% block title %}{{ name }}{% endblock %}"
        "{% block main %}{{ name }}{{ charts(drawings) }}{% endblock %}"
    )
    return path


def render(template: Path, drawings: list[Chart]) -> str:
    values = {"name": HOSTILE, "drawings": drawings}
    records = f'{{"name": "{HOSTILE}"}}'
    return render_page(template, values, records=records, charts=bool(drawings))


def test_no_value_becomes_markup_and_only_our_scripts_run(template: Path) -> None:
    page = render(template, [])
    assert HOSTILE not in page
    assert "plotly.js v" not in page, "nothing to draw, nothing to carry"
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(page)


def test_a_chart_carries_its_data_its_words_and_its_table(template: Path) -> None:
    bars = BarChart("n", "Title", "Note.", (HOSTILE,), (Series("a", (1.5,), "#123456"),), "unit")
    page = render(template, [bars.chart(), Chart("c", "Line", "Words.", {"data": [], "layout": {
        "height": 99}}, file="c.csv")])  # fmt: skip
    assert HOSTILE not in page
    assert page.count('class="chart"') == 2
    assert "As a table" in page
    assert "the figures stand in c.csv beside this page" in page
    assert "--height: 99px" in page


def test_numbers_and_names_in_figures() -> None:
    drawn = line("a", [0, 1, 2], [0.123456, None, float("nan")], 7)
    assert drawn["y"] == [0.1235, None, None]
    assert rounded(None) is None
    assert shortened("x" * 9, 5) == "xx…xx"
