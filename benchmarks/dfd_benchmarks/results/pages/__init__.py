"""Pages of benchmarks, one self-contained file each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from dfd_benchmarks.results.machine import Machine
from dfd_benchmarks.results.schema import Result
from dfd_edge.errors import UsageError
from dfd_edge.report.figures import Chart
from dfd_edge.report.html import write_page

_FOLDER = Path(__file__).resolve().parent


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


def write_result_page(
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
        result: The measurements; they stand in the page as JSON.
        charts: Charts of the page, in order.
        values: Further values of the template.

    Raises:
        UsageError: The file cannot be written.
    """
    every = {"machine": machine, "result": result, "drawings": charts, **values}
    records = json.dumps(result.record(machine), allow_nan=False)
    write_page(path, _FOLDER / template, every, records=records, charts=bool(charts))
