"""Figures for people and for programs: a table on the terminal, JSON in a file."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfd_benchmarks.gru import CHUNK, GruReport
from dfd_benchmarks.machine import Machine
from dfd_benchmarks.memory import MemoryReport
from dfd_benchmarks.recurrent import WINDOW, RecurrentReport, ShapeCost
from dfd_benchmarks.results import Result
from dfd_benchmarks.stages import FRAME_GRAPH, StageReport
from dfd_benchmarks.streams import StreamsReport
from dfd_benchmarks.timing import Spread
from dfd_edge.outputs.files import written_whole

_LABEL_WIDTH = 44
_BENCHMARKS = {
    StageReport: "stages",
    GruReport: "gru",
    RecurrentReport: "recurrent",
    StreamsReport: "streams",
    MemoryReport: "memory",
}


def machine_lines(machine: Machine) -> Iterator[str]:
    """Describe the machine."""
    yield f"{machine.processor}, {machine.cores:g} cores, {machine.system}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"Python {machine.python}, {versions}"


def stage_lines(report: StageReport) -> Iterator[str]:
    """Tell what the stages cost."""
    yield (
        f"{report.clip}: {report.frames} judged frames, {report.crops_per_frame:.2f} judged "
        f"faces in each"
    )
    yield _header(report.efficiency.runs)
    for stage, spread in report.cpu_ms.items():
        batch = f", batch {report.frame_graph_batch}" if stage == FRAME_GRAPH else ""
        yield _row(f"{stage}{batch}, CPU ms a judged frame", spread, ".2f")
    yield _row(f"allowed by these costs on {report.cores:g} cores, 1/s", report.allowed_hz, ".1f")
    yield _row("reached by Detector.analyze, 1/s", report.reached_hz, ".1f")
    yield _row("reached over allowed", report.efficiency, ".2f")
    yield _row("seconds of video judged in a second", report.speed, ".1f")


def gru_lines(report: GruReport) -> Iterator[str]:
    """Tell what a step of the sequence graph costs."""
    yield f"bundle {report.bundle}: {report.steps} steps, the state carried"
    yield _header(report.step_us.runs)
    yield _row("one step, us", report.step_us, ".1f")
    yield _row("one crop through the frame graph, ms", report.frame_ms, ".2f")
    yield _row("step over crop", report.step_over_frame, ".5f")
    yield _row("last tenth of the steps over the first", report.last_over_first, ".3f")
    yield _row(f"a step of {CHUNK} in one call, us", report.chunk_step_us, ".1f")
    yield _row("single step over a step in one call", report.chunk_gain, ".2f")
    yield f"{'largest difference of the logits':{_LABEL_WIDTH}}{report.difference:12.1e}"


def recurrent_lines(report: RecurrentReport) -> Iterator[str]:
    """Tell how the native sequence graph compares with tf2onnx's."""
    yield (
        f"head {report.head}, {report.width} features; tf2onnx's graph has {report.loops} Loop; "
        "one thread"
    )
    yield _header(report.carried_us.runs)
    for cost in report.shapes:
        call = f"batch {cost.batch}, time {cost.time}:"
        yield _row(f"{call} native graph, us", cost.native_us, ".1f")
        yield _row(f"{call} tf2onnx's graph, us", cost.loop_us, ".1f")
        yield _row(f"{call} times faster", cost.ratio, ".2f") + _bar(cost)
    yield _row("a live step, state carried, us", report.carried_us, ".1f")
    yield _row(f"last {WINDOW} steps anew, native graph, us", report.window_us, ".1f")
    yield _row(f"last {WINDOW} steps anew, tf2onnx's graph, us", report.loop_window_us, ".1f")
    yield _row("state carried: times faster than native", report.window_over_carried, ".2f")
    yield _row("state carried: times faster than tf2onnx's", report.loop_window_over_carried, ".2f")
    difference = max(cost.difference for cost in report.shapes)
    yield f"{'largest difference of the logits':{_LABEL_WIDTH}}{difference:12.1e}"


def figure_lines(result: Result) -> Iterator[str]:
    """Tell what ran, and the figures as a table."""
    ran = result.ran
    if ran is not None:
        yield (
            f"bundle {ran.bundle} ({ran.bundle_hash}), {ran.precision} on {ran.provider}, "
            f"{ran.threads} thread{'s' if ran.threads != 1 else ''}"
        )
    width = max([_LABEL_WIDTH, *(len(f"{f.label}, {f.unit}") + 2 for f in result.figures)])
    yield f"{'':{width}}{'min':>12}{'median':>12}{'max':>12}{'runs':>6}"
    for figure in result.figures:
        spread = figure.spread
        values = "".join(f"{_short(x):>12}" for x in (spread.low, spread.median, spread.high))
        bar = ""
        if figure.bar is not None:
            bar = f"  bar {figure.bar:g}: {'reached' if figure.reached else 'MISSED'}"
        yield f"{f'{figure.label}, {figure.unit}':{width}}{values}{spread.runs:6}{bar}"


def _short(value: float) -> str:
    """Four significant digits at most, without an exponent where it can be read."""
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        return np.format_float_positional(value, precision=4, fractional=False, trim="-")
    return f"{value:.1e}"


def _bar(cost: ShapeCost) -> str:
    if cost.bar is None:
        return ""
    return f"  bar {cost.bar:g}: {'reached' if cost.ratio.median >= cost.bar else 'MISSED'}"


def write_json(
    path: Path,
    machine: Machine,
    report: StageReport | GruReport | RecurrentReport | StreamsReport | MemoryReport,
) -> None:
    """Write a report and its machine as one JSON object.

    Raises:
        UsageError: The file cannot be written.
    """
    record: dict[str, Any] = {
        "benchmark": _BENCHMARKS[type(report)],
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(machine),
        "result": dataclasses.asdict(report),
    }
    with written_whole(path) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def _header(runs: int) -> str:
    return f"{f'over {runs} runs':{_LABEL_WIDTH}}{'min':>12}{'median':>12}{'max':>12}"


def _row(label: str, spread: Spread, form: str) -> str:
    values = "".join(f"{value:12{form}}" for value in (spread.low, spread.median, spread.high))
    return f"{label:{_LABEL_WIDTH}}{values}"
