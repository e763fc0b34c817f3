"""What every benchmark tells, in one form: figures with units and their values run by run.

A result says what was asked for and what ran, so that two of them can be held against each other.
The form on disk is `results.schema.json`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from dfd_benchmarks.machine import Machine
from dfd_benchmarks.timing import Spread
from dfd_edge.outputs.files import written_whole
from dfd_edge.session import Session

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity.

    Attributes:
        name: By which two results find each other's figure: words joined by `_`, parts by `.`, as
            in `frame_graph.cpu`.
        label: What people read.
        unit: `ms`, `us`, `s`, `1/s`, `MB`, `cores`, `x` for a ratio, `%`, `count`.
        better: Which way is the better one; neither for what only describes.
        values: One a run, in the order in which they were taken; at least one.
        bar: What the median has to reach, or None.
    """

    name: str
    label: str
    unit: str
    better: Better
    values: tuple[float, ...]
    bar: float | None = None

    @property
    def spread(self) -> Spread:
        """Minimum, median and maximum of the values."""
        return Spread.of(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the bar; None without a bar."""
        if self.bar is None:
            return None
        median = self.spread.median
        return median >= self.bar if self.better == "higher" else median <= self.bar


@dataclass(frozen=True, slots=True)
class Ran:
    """What was asked for, and what then ran.

    Attributes:
        bundle: Name of the bundle.
        bundle_hash: The first digits of its hash.
        requested_provider: As asked for, `auto` too.
        provider: The one that the frame graph ran on.
        requested_precision: As asked for, `auto` too.
        precision: The variant of the frame graph that ran.
        threads: Threads inside an operator of onnxruntime.
    """

    bundle: str
    bundle_hash: str
    requested_provider: str
    provider: str
    requested_precision: str
    precision: str
    threads: int

    @classmethod
    def of(cls, session: Session, *, precision: str = "auto", threads: int = 1) -> Self:
        """What a session runs, beside what was asked for."""
        bundle, report = session.bundle, session.provider
        return cls(
            bundle=bundle.manifest.name,
            bundle_hash=bundle.hash,
            requested_provider=report.requested,
            provider=report.actual,
            requested_precision=precision,
            precision=report.precision,
            threads=threads,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one benchmark.

    Attributes:
        benchmark: Name of the command, as in `stages`.
        arguments: What was asked for, in plain values; results with other arguments measured
            something else.
        ran: What ran, or None where nothing of the runtime did.
        figures: In the order in which people read them; no name twice.
        details: What else this benchmark tells, in plain values.
    """

    benchmark: str
    arguments: Mapping[str, Any]
    ran: Ran | None
    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict)

    def record(self, machine: Machine) -> dict[str, Any]:
        """The result and its machine as one JSON object, by `results.schema.json`."""
        return {
            "schema": SCHEMA_VERSION,
            "benchmark": self.benchmark,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "arguments": dict(self.arguments),
            "machine": dataclasses.asdict(machine),
            "ran": None if self.ran is None else dataclasses.asdict(self.ran),
            "figures": [
                {**dataclasses.asdict(figure), "median": figure.spread.median}
                for figure in self.figures
            ],
            "details": dict(self.details),
        }


def write_result(path: Path, machine: Machine, result: Result) -> None:
    """Write a result and its machine as one JSON object.

    Raises:
        UsageError: The file cannot be written.
    """
    with written_whole(path) as partial:
        partial.write_text(json.dumps(result.record(machine), indent=2) + "\n", "utf-8")
