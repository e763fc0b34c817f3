"""Two results held against each other: ratios of medians, with what chance makes of them.

The interval is a percentile bootstrap (Efron, 1979) of the ratio of medians: both sides' values are
drawn anew, with replacement, and the middle 95 % of the ratios kept. Fewer than `MIN_RUNS` values a
side cannot carry it: of 3 and 3 values, the most extreme order comes by chance once in ten.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfd_benchmarks.results.schema import Better, Figure, figures_of, read_record
from dfd_edge.errors import DfdError, UsageError

MIN_RUNS = 4
_DRAWS = 10_000
#: Arguments that say how often or on what; what then ran stands in `ran` and is reported.
_SETTINGS = {"runs", "model", "provider", "precision", "threads"}
_MACHINE = ("processor", "instructions", "cores", "memory_mb", "governor", "system", "gpus")
_START = "from dfd_benchmarks.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of two results.

    Attributes:
        name, label, unit, better: The figure's.
        a, b: Its medians.
        ratio: b / a.
        interval: 95 % interval of the ratio; None where there are too few values.
    """

    name: str
    label: str
    unit: str
    better: Better
    a: float
    b: float
    ratio: float
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        """`b is better`, `b is worse`, `no difference`, or why nothing can be said."""
        if self.interval is None:
            return f"undecided: fewer than {MIN_RUNS} values on a side"
        low, high = self.interval
        if low <= 1.0 <= high:
            return "no difference"
        if self.better == "neither":
            return "differs"
        return "b is better" if (low > 1.0) == (self.better == "higher") else "b is worse"

    def worse_beyond(self, bound: float) -> bool:
        """Returns whether the whole interval is worse by more than a share of a's median."""
        if self.interval is None or self.better == "neither":
            return False
        low, high = self.interval
        return low > 1.0 + bound if self.better == "lower" else high < 1.0 / (1.0 + bound)


def ratio_of(a: Figure, b: Figure) -> Ratio | None:
    """Returns the ratio of b to a; None where values are not all positive."""
    if min(*a.values, *b.values) <= 0:
        return None
    interval = None
    if min(len(a.values), len(b.values)) >= MIN_RUNS:
        rng = np.random.default_rng(0)
        low, high = np.percentile(_medians(b.values, rng) / _medians(a.values, rng), [2.5, 97.5])
        interval = (float(low), float(high))
    medians = a.spread.median, b.spread.median
    ratio = medians[1] / medians[0]
    return Ratio(a.name, a.label, a.unit, a.better, *medians, ratio, interval)


def compare_records(
    a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str], across: Sequence[str] = ()
) -> list[Ratio]:
    """Compares two results of one command, figure by figure.

    Args:
        a: A record by `read_record`.
        b: Another one.
        names: Their names in messages.
        across: Arguments whose difference is what is looked at.

    Raises:
        UsageError: They are of different commands or arguments, or share no figure.
    """
    if a["benchmark"] != b["benchmark"]:
        raise UsageError(
            f"{names[0]} is of `{a['benchmark']}`, {names[1]} of `{b['benchmark']}`: compare two "
            "results of one command"
        )
    left, right = a["arguments"], b["arguments"]
    for key in sorted({*left, *right} - _SETTINGS - {*across}):
        if left.get(key) != right.get(key):
            raise UsageError(
                f"{key} is {left.get(key)} in {names[0]}, {right.get(key)} in {names[1]}: they "
                f"measured different things; --across {key} compares them all the same"
            )
    return _ratios(figures_of(a, Path(names[0])), figures_of(b, Path(names[1])), names)


def _ratios(
    a: Mapping[str, Figure], b: Mapping[str, Figure], names: tuple[str, str]
) -> list[Ratio]:
    pairs = [(a[name], b[name]) for name in a if name in b and a[name].unit == b[name].unit]
    ratios = [ratio for pair in pairs if (ratio := ratio_of(*pair)) is not None]
    if not ratios:
        raise UsageError(f"{names[0]} and {names[1]} share no figure that makes a ratio")
    return ratios


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Lists the differences in what ran and in the machines, one line each."""
    lines = []
    for key in sorted({*(a["ran"] or {}), *(b["ran"] or {})}):
        left, right = (a["ran"] or {}).get(key), (b["ran"] or {}).get(key)
        if left != right:
            lines.append(f"{key}: {left} against {right}")
    left, right = a["machine"], b["machine"]
    for key in (*_MACHINE, "python", "versions"):
        if left.get(key) != right.get(key):
            lines.append(f"warning: other machine: {key}: {left.get(key)} against {right.get(key)}")
    return lines


def interleave(
    a: str, b: str, times: int, *, on_run: Callable[[], object] = lambda: None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs two commands of dfd-bench in turns, each time in a new process.

    Which comes first changes from turn to turn. A run's median counts as one value, so that what
    differs from process to process is in the interval too.

    Args:
        a: A command as typed behind `dfd-bench`.
        b: Another one.
        times: Runs of each.
        on_run: Called after each run.

    Returns:
        A record of each command, with `times` values of each figure.

    Raises:
        UsageError: A command is empty or writes to a file itself.
        DfdError: A command failed; its own message is in it.
    """
    records: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    for turn in range(times):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            records[side].append(_run((a, b)[side]))
            on_run()
    return _merged(records[0]), _merged(records[1])


def _run(command: str) -> dict[str, Any]:
    words = shlex.split(command)
    if not words or words[0] == "compare" or any(w.split("=")[0] == "--json" for w in words):
        raise UsageError(
            f"command {command!r}: give one of dfd-bench's that measures, without --json"
        )
    with tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        file = Path(folder) / "result.json"
        done = subprocess.run(
            [sys.executable, "-c", _START, *words, "--json", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not file.is_file():
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise DfdError(f"`dfd-bench {command}` failed: {said.removeprefix('error: ')}")
        return read_record(file)


def _merged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One record with a value of each figure from every record."""
    first = json.loads(json.dumps(records[0]))
    by_name = [{entry["name"]: entry for entry in record["figures"]} for record in records]
    first["figures"] = [
        {**entry, "values": [entries[entry["name"]]["median"] for entries in by_name]}
        for entry in first["figures"]
        if all(entry["name"] in entries for entries in by_name)
    ]
    return dict(first)


def _medians(values: Sequence[float], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    array = np.array(values)
    return np.asarray(np.median(array[rng.integers(0, len(array), (_DRAWS, len(array)))], axis=1))
