"""A comparison as Markdown, CSV, JSON, a chart and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfd_edge.report.figures import COLOURS, Chart, Figure, layout, rounded, vertical
from dfd_edge.report.html import write_page
from dfd_edge.sinks.files import written_whole
from dfd_training.evaluation.compare import COMPARED, Comparison, Cost, LevelTable, Quality
from dfd_training.evaluation.pictures import draw_intervals, drawn
from dfd_training.evaluation.report import markdown, plain
from dfd_training.evaluation.statistics import METRICS, Estimate

PAGE = "comparison.html"
_TEMPLATE = Path(__file__).with_name(PAGE)
_NO_DIFFERENCE = "not significant"

_CELLS = {
    "parameters": "parameters",
    "macs": "GMACs",
    "onnx_bytes": "ONNX size",
    "latency": "latency",
}
"""Names of the fields of a cost that may be missing."""


def comparison_to_text(comparison: Comparison) -> str:
    """Returns the tables as Markdown; intervals are 95 %, over groups."""
    parts = [
        f"### Overview\n\n{markdown(*overview(comparison))}",
        f"### Costs\n\n{markdown(*cost_cells(comparison))}",
    ]
    for table in comparison.levels:
        parts.append(
            f"### {table.name[0].upper()}{table.name[1:]}\n\n{markdown(*level_cells(table))}"
        )
        if any(row.differences for row in table.rows):
            parts.append(
                f"{table.name[0].upper()}{table.name[1:]}, change from {comparison.names[0]}, "
                f"paired:\n\n{markdown(*difference_cells(table))}"
            )
    lines = [f"Note: {note}" for note in comparison.notes]
    lines += [f"{run}, {names}: {reason}" for run, names, reason in _missing(comparison)]
    return "\n\n".join([*parts, *lines]) + "\n"


def overview(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of the overview: each run with its AUCs."""
    head = ["run", "fit", "judged", *(f"AUC, {table.name}" for table in comparison.levels)]
    rows = []
    for number, cost in enumerate(comparison.costs):
        areas = [_auc(table.rows[number]) for table in comparison.levels]
        held_out = _scaled(cost.held_out_auc, 1.0, 3)
        rows.append([cost.run, cost.model or "-", cost.judged or "-", *areas, held_out])
    return [*head, "AUC, held-out fold"], rows


def cost_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of the costs."""
    head = ["run", *(name for name, _ in _COSTS)]
    return head, [[cost.run, *(tell(cost) for _, tell in _COSTS)] for cost in comparison.costs]


def level_cells(table: LevelTable) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of the figures of a level."""
    head = ["run", "n", "groups", *(METRICS[key].name for key in COMPARED)]
    rows = []
    for row in table.rows:
        if not row.figures:
            rows.append([row.run, "0", "", row.reason, *[""] * (len(COMPARED) - 1)])
            continue
        area = row.figures["auc"]
        cells = [str(row.figures[key]) for key in COMPARED]
        rows.append([row.run, str(area.n), str(area.groups), *cells])
    return head, rows


def difference_cells(table: LevelTable) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of the paired differences of a level to the first run."""
    head = ["run", "n, paired", *(METRICS[key].name for key in COMPARED)]
    rows = []
    for row in table.rows[1:]:
        if row.differences:
            cells = [difference_words(row.differences[key]) for key in COMPARED]
        else:
            cells = [row.reason, *[""] * (len(COMPARED) - 1)]
        rows.append([row.run, str(row.paired), *cells])
    return head, rows


def difference_words(figure: Estimate) -> str:
    """Returns a difference with its interval, and a remark where that contains 0."""
    return figure.signed() if figure.excludes_zero else f"{figure.signed()} {_NO_DIFFERENCE}"


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """Returns all numbers as one table, one row for each run."""
    rows: list[dict[str, Any]] = []
    for number, cost in enumerate(comparison.costs):
        row: dict[str, Any] = {"run": cost.run, "fit": cost.model, "judged": cost.judged}
        for table in comparison.levels:
            quality = table.rows[number]
            row |= dict(_numbers(table.name.replace(" ", "_"), quality))
        latency = cost.latency
        row |= {
            "parameters": cost.parameters,
            "macs": cost.macs,
            "onnx_bytes": cost.onnx_bytes,
            "latency_ms": None if latency is None else latency.median_ms,
            "latency_low_ms": None if latency is None else latency.low_ms,
            "latency_high_ms": None if latency is None else latency.high_ms,
            "latency_ratio": None if latency is None else latency.ratio,
            "fit_s": cost.fit_s,
            "epochs": cost.epochs,
            "held_out_auc": cost.held_out_auc,
        }
        rows.append(row)
    whole = ("parameters", "macs", "onnx_bytes", "epochs")
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))


def write_comparison(comparison: Comparison, out: Path) -> list[str]:
    """Writes comparison.html, .md, .csv, .json and .png into a folder.

    Returns:
        The names of the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "comparison.md": comparison_to_text(comparison),
        "comparison.csv": comparison_frame(comparison).to_csv(index=False),
        "comparison.json": json.dumps(plain(comparison), indent=1) + "\n",
    }
    for name, text in texts.items():
        with written_whole(out / name) as partial:
            partial.write_text(text, "utf-8", newline="\n")
    draw_comparison(comparison, out / "comparison.png")
    _write_page(comparison, out / PAGE, texts["comparison.json"])
    return [PAGE, "comparison.png", *texts]


def _write_page(comparison: Comparison, path: Path, records: str) -> None:
    charts = [
        Chart(
            "areas",
            "AUC",
            "With 95 % intervals over groups; right is better, the dotted line is chance.",
            area_chart(comparison),
            file="comparison.csv",
        )
    ]
    timed = [cost for cost in comparison.costs if cost.latency is not None]
    judged = comparison.levels[0] if comparison.levels else None
    if timed and judged is not None:
        charts.append(
            Chart(
                "trade",
                "Quality and latency",
                f"AUC of {judged.name} over the milliseconds that a crop takes: up and left is "
                "better.",
                trade_chart(comparison, judged),
                file="comparison.csv",
            )
        )
    if not comparison.levels:
        charts = []
    tables = [
        {
            "name": table.name,
            "figures": level_cells(table),
            "differences": difference_cells(table)
            if any(row.differences for row in table.rows)
            else None,
        }
        for table in comparison.levels
    ]
    values = {
        "title": f"{len(comparison.names)} runs",
        "first": comparison.names[0],
        "overview": overview(comparison),
        "costs": cost_cells(comparison),
        "tables": tables,
        "drawings": charts,
        "notes": comparison.notes,
        "no_difference": _NO_DIFFERENCE,
        "missing": _missing(comparison),
    }
    write_page(path, _TEMPLATE, values, records=records, charts=bool(charts))


def _missing(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Returns run, cells and reason of missing values; cells with the same reason together."""
    cells: dict[tuple[str, str], list[str]] = {}
    for cost in comparison.costs:
        for name, reason in cost.missing.items():
            cells.setdefault((cost.run, reason), []).append(_CELLS[name])
    return [(run, " and ".join(names), reason) for (run, reason), names in cells.items()]


def _numbers(level: str, quality: Quality) -> Iterator[tuple[str, float | int]]:
    """Yields the figures and differences of a run at a level, by column."""
    yield f"{level}_n", quality.figures["auc"].n if quality.figures else 0
    for kind, figures in (("", quality.figures), ("_change", quality.differences)):
        for key in COMPARED:
            figure = figures.get(key)
            for part in ("value", "low", "high"):
                name = f"{level}_{key}{kind}" + ("" if part == "value" else f"_{part}")
                yield name, math.nan if figure is None else float(getattr(figure, part))


def _auc(quality: Quality) -> str:
    return str(quality.figures["auc"]) if quality.figures else f"- ({quality.reason})"


def _latency(cost: Cost) -> str:
    if cost.latency is None:
        return "-"
    return f"{cost.latency.median_ms:.2f} ({cost.latency.precision}; x{cost.latency.ratio:.2f})"


def _scaled(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


_COSTS: Sequence[tuple[str, Callable[[Cost], str]]] = (
    ("parameters, M", lambda cost: _scaled(cost.parameters, 1e6, 3)),
    ("GMACs", lambda cost: _scaled(cost.macs, 1e9, 3)),
    ("ONNX, MB", lambda cost: _scaled(cost.onnx_bytes, 1e6, 2)),
    ("ms a crop", _latency),
    ("fit, min", lambda cost: _scaled(cost.fit_s, 60.0, 1)),
    ("epochs", lambda cost: "-" if cost.epochs is None else str(cost.epochs)),
)


def area_chart(comparison: Comparison) -> Figure:
    """Draws the AUC of every run and level with its interval."""
    names = comparison.names
    data: list[Figure] = []
    for number, table in enumerate(comparison.levels):
        known = [(i, row) for i, row in enumerate(table.rows) if row.figures]
        figures = [row.figures["auc"] for _, row in known]
        shift = 0.2 * (number - (len(comparison.levels) - 1) / 2)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": table.name,
                "x": [rounded(figure.value) for figure in figures],
                "y": [round(i + shift, 3) for i, _ in known],
                "text": [row.run for _, row in known],
                "hovertemplate": "%{text}: %{x:.3f}",
                "error_x": _whiskers(figures),
                "marker": {"size": 9, "color": COLOURS[number], "symbol": number},
            }
        )
    drawing = layout("AUC", "", height=140 + 70 * len(names))
    drawing["xaxis"]["range"] = [0.0, 1.02]
    drawing["yaxis"] |= {
        "automargin": True,
        "range": [len(names) - 0.5, -0.5],
        "tickvals": list(range(len(names))),
        "ticktext": names,
    }
    drawing["shapes"] = [vertical(0.5)]
    return {"data": data, "layout": drawing}


def trade_chart(comparison: Comparison, table: LevelTable) -> Figure:
    """Draws the AUC of a level over the latency of a crop, for runs that have both."""
    data: list[Figure] = []
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
                "y": [rounded(area.value)],
                "error_y": _whiskers([area]),
                "marker": {"size": 11, "color": COLOURS[number % len(COLOURS)], "symbol": number},
            }
        )
    drawing = layout("ms a crop, one thread", f"AUC, {table.name}") | {"showlegend": True}
    drawing["xaxis"]["rangemode"] = "tozero"
    drawing["yaxis"]["range"] = [0.0, 1.02]
    return {"data": data, "layout": drawing}


def _whiskers(figures: Sequence[Estimate]) -> Figure:
    """Returns error bars from the lower to the upper end of intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [rounded(max(figure.high - figure.value, 0.0)) for figure in figures],
        "arrayminus": [rounded(max(figure.value - figure.low, 0.0)) for figure in figures],
    }


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draws the AUCs with their intervals, and the costs beside them."""
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
            points = [(i + shift, figure) for i, figure in known]
            colour = COLOURS[number % len(COLOURS)]
            draw_intervals(axes[0, 0], points, label=table.name, colour=colour)
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
