"""Results as lines of text: the machine, what ran, a table of figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dfd_benchmarks.results.machine import Machine
from dfd_benchmarks.results.schema import Result

_LABEL_WIDTH = 44


def machine_lines(machine: Machine) -> Iterator[str]:
    """Describes the machine."""
    yield f"{machine.processor}, {machine.cores:g} cores, {machine.system}"
    for gpu in machine.gpus:
        yield f"GPU {gpu.index}: {gpu.name}, driver {gpu.driver}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"Python {machine.python}, {versions}"


def figure_lines(result: Result) -> Iterator[str]:
    """Yields what ran, then the figures as a table."""
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
