"""The costs of the stages, as figures, as a table and as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfd_benchmarks.results.pages import write_result_page
from dfd_benchmarks.results.schema import Better, Figure, Result, RunInfo
from dfd_benchmarks.results.timing import StageTimes
from dfd_benchmarks.stages.measure import STAGES, StageReport, StageRun
from dfd_edge.report.figures import FAKE_COLOUR, REAL_COLOUR, BarChart, Chart, Series

if TYPE_CHECKING:
    from dfd_benchmarks.results.machine import Machine

#: Share of the frames that the stages' costs allow which the whole has to reach.
BAR = 0.85

_COLUMNS: dict[str, tuple[str, Callable[[StageTimes], float]]] = {
    "cpu": ("CPU", lambda times: times.cpu_mean_ms),
    "cpu_p50": ("CPU p50", lambda times: float(np.percentile(times.cpu_ms, 50))),
    "cpu_p95": ("CPU p95", lambda times: float(np.percentile(times.cpu_ms, 95))),
    "wall": ("wall", lambda times: times.wall_mean_ms),
    "wall_p50": ("wall p50", lambda times: float(np.percentile(times.wall_ms, 50))),
    "wall_p95": ("wall p95", lambda times: float(np.percentile(times.wall_ms, 95))),
}


def stage_result(report: StageReport, *, clip: Path, precision: str) -> Result:
    """The figures of the stages and of the whole.

    Args:
        report: The measurements.
        clip: The clip, as it was named.
        precision: As asked for.
    """
    runs, frames, cores = report.runs, report.bench.frames, report.cores
    figures: list[Figure] = []

    def add(  # noqa: PLR0917
        name: str,
        label: str,
        unit: str,
        better: Better,
        value: Callable[[StageRun], float],
        bar: float | None = None,
    ) -> None:
        figures.append(Figure(name, label, unit, better, tuple(map(value, runs)), bar))

    for stage, label in STAGES.items():
        for column, (words, of) in _COLUMNS.items():
            add(f"{stage}.{column}", f"{label}, {words}", "ms", "lower", _of(stage, of))
        add(
            f"{stage}.share",
            f"{label}, share of the CPU time",
            "%",
            "neither",
            _of(stage, lambda times: times.cpu_mean_ms, share=True),
        )
    add("stages.cpu", "all stages, CPU", "ms", "lower", lambda run: run.cpu_ms)
    add(
        "whole.cpu",
        "Detector.analyze, CPU",
        "ms",
        "lower",
        lambda run: run.whole.cpu_s * 1e3 / frames,
    )
    add(
        "whole.cpu_over_stages",
        "its CPU time over the stages'",
        "x",
        "lower",
        lambda run: run.whole.cpu_s * 1e3 / frames / run.cpu_ms,
    )
    add(
        "allowed",
        f"judged frames allowed by the stages on {cores:g} cores",
        "1/s",
        "higher",
        lambda run: cores * 1e3 / run.cpu_ms,
    )
    add(
        "reached",
        "judged frames of Detector.analyze",
        "1/s",
        "higher",
        lambda run: frames / run.whole.elapsed_s,
    )
    add(
        "reached_over_allowed",
        "reached over allowed",
        "x",
        "higher",
        lambda run: frames / run.whole.elapsed_s * run.cpu_ms / (cores * 1e3),
        BAR,
    )
    add(
        "speed",
        "video judged in a second",
        "s",
        "higher",
        lambda run: run.whole.seen_s / run.whole.elapsed_s,
    )
    if all(run.whole.others is not None for run in runs):
        add(
            "others",
            "kept busy by other processes meanwhile",
            "cores",
            "neither",
            lambda run: run.whole.others or 0.0,
        )
    result = Result(
        benchmark="stages",
        arguments={"clip": str(clip), "precision": precision, "runs": len(runs)},
        ran=RunInfo.of(report.bench.session, precision=precision),
        figures=figures,
    )
    return Result(
        result.benchmark,
        result.arguments,
        result.ran,
        figures,
        {**report.facts, "dearest": costliest_stage(result)},
    )


def costliest_stage(result: Result) -> str:
    """The stage that takes most of the CPU time."""
    by_name = medians(result)
    return max(STAGES, key=lambda stage: by_name[f"{stage}.cpu"])


def medians(result: Result) -> dict[str, float]:
    """The median of each figure, by its name."""
    return {figure.name: figure.spread.median for figure in result.figures}


def stage_lines(result: Result) -> Iterator[str]:
    """Yields the costs of the stages, a line a stage."""
    ran, facts = result.ran, result.details
    if ran is not None:
        yield f"bundle {ran.bundle} ({ran.bundle_hash}), {ran.precision} on {ran.provider}"
    yield (
        f"{result.arguments['clip']}, {facts['width']}x{facts['height']}: {facts['frames']} judged "
        f"frames, {facts['crops_per_frame']:.2f} judged faces in each"
    )
    yield ""
    yield f"ms a judged frame; medians of {result.arguments['runs']} runs"
    yield f"{'':26}" + "".join(f"{words:>10}" for words, _ in _COLUMNS.values()) + f"{'share':>9}"
    by_name = medians(result)
    for stage, label in STAGES.items():
        batch = f", batch {facts['frame_model_batch']}" if stage == "frame_model" else ""
        cells = "".join(f"{by_name[f'{stage}.{column}']:10.3f}" for column in _COLUMNS)
        yield f"{label + batch:26}{cells}{by_name[f'{stage}.share']:7.1f} %"
    yield costliest_text(result)
    yield ""


def costliest_text(result: Result) -> str:
    """Names the stage that takes most."""
    name = result.details["dearest"]
    return f"Most goes to {STAGES[name]}: {medians(result)[f'{name}.share']:.0f} % of the CPU time"


def summary_figures(result: Result) -> list[Figure]:
    """The figures that belong to no single stage."""
    stages = tuple(f"{stage}." for stage in STAGES)
    return [figure for figure in result.figures if not figure.name.startswith(stages)]


def write_stage_page(path: Path, machine: Machine, result: Result) -> None:
    """Writes the page of a result.

    Raises:
        UsageError: The file cannot be written, or jinja2 or plotly is missing.
    """
    by_name = medians(result)
    labels = list(STAGES.values())

    def values(column: str) -> list[float]:
        return [by_name[f"{stage}.{column}"] for stage in STAGES]

    charts = [
        _bars(
            "costs",
            "What each stage takes",
            f"{costliest_text(result)}. Milliseconds a judged frame, CPU time and elapsed time.",
            categories=labels,
            series={"CPU time": values("cpu"), "elapsed": values("wall")},
            axis="ms a judged frame",
        ),
        _bars(
            "spread",
            "From frame to frame",
            "Elapsed milliseconds of a judged frame: the median and the slowest twentieth.",
            categories=labels,
            series={"p50": values("wall_p50"), "p95": values("wall_p95")},
            axis="ms a judged frame",
        ),
        _bars(
            "bound",
            "Allowed and reached",
            f"The stages' costs allow {by_name['allowed']:.1f} judged frames a second on "
            f"{result.details['cores']:g} cores; the whole reaches {by_name['reached']:.1f}.",
            categories=["allowed", "reached"],
            series={"judged frames": [by_name["allowed"], by_name["reached"]]},
            axis="judged frames a second",
        ),
    ]
    rows: list[dict[str, Any]] = [
        {
            "label": label,
            "cells": [by_name[f"{stage}.{column}"] for column in _COLUMNS],
            "share": by_name[f"{stage}.share"],
            "most": stage == result.details["dearest"],
        }
        for stage, label in STAGES.items()
    ]
    write_result_page(
        "stages.html",
        path,
        machine,
        result,
        charts=charts,
        values={
            "summary": costliest_text(result),
            "columns": [words for words, _ in _COLUMNS.values()],
            "rows": rows,
            "totals": summary_figures(result),
        },
    )


def _bars(
    name: str,
    title: str,
    caption: str,
    *,
    categories: Sequence[str],
    series: Mapping[str, Sequence[float]],
    axis: str,
) -> Chart:
    """Builds a chart of horizontal bars with three digits at each."""
    colours = (REAL_COLOUR, FAKE_COLOUR)
    bars = tuple(
        Series(label, tuple(values), colour, texts=tuple(f"{value:.3g}" for value in values))
        for (label, values), colour in zip(series.items(), colours, strict=False)
    )
    return BarChart(name, title, caption, tuple(categories), bars, axis).chart()


def _of(
    stage: str, value: Callable[[StageTimes], float], *, share: bool = False
) -> Callable[[StageRun], float]:
    """A value of one stage of a run; as share, in percent of the CPU time of all."""

    def of(run: StageRun) -> float:
        number = value(run.stages[stage])
        return 100.0 * number / run.cpu_ms if share else number

    return of
