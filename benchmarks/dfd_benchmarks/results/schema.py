"""Results of benchmarks in one form: figures with units and their values run by run.

A result says what was asked for and what ran, so that two of them can be held against each other.
The form on disk is `results.schema.json`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from dfd_benchmarks.results.machine import Machine
from dfd_benchmarks.results.timing import Spread
from dfd_edge import Detector
from dfd_edge.errors import UsageError
from dfd_edge.inference.session import Session
from dfd_edge.sinks.files import written_whole

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")

_KEYS = {"schema", "benchmark", "arguments", "machine", "ran", "figures"}

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity.

    Attributes:
        name: By which two results find each other's figure: words joined by `_`, parts by `.`, as
            in `frame_graph.cpu`.
        label: The name that people read.
        unit: `ms`, `us`, `s`, `1/s`, `MB`, `cores`, `x` for a ratio, `%`, `count`.
        better: Which way is the better one; neither for what only describes.
        values: One a run, in the order in which they were taken; at least one.
        bar: The value that the median has to reach, or None.
    """

    name: str
    label: str
    unit: str
    better: Better
    values: tuple[float, ...]
    bar: float | None = None

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"figure {self.name}: values are {self.values}; give finite ones")

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
class RunInfo:
    """The provider and precision that were asked for, and those that ran.

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
    def of(cls, session: Session | Detector, *, precision: str = "auto", threads: int = 1) -> Self:
        """Describes what a session or a detector runs, beside what was asked for."""
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
        arguments: The arguments in plain values; results with other arguments measured
            something else.
        ran: The configuration that ran, or None where nothing of the runtime did.
        figures: In the order in which people read them; no name twice.
        details: Further output of this benchmark, in plain values.
    """

    benchmark: str
    arguments: Mapping[str, Any]
    ran: RunInfo | None
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
    """Writes a result and its machine as one JSON object.

    Raises:
        UsageError: The file cannot be written.
    """
    text = json.dumps(_finite(result.record(machine)), indent=2, allow_nan=False)
    with written_whole(path) as partial:
        partial.write_text(text + "\n", "utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Reads a file of `write_result`.

    Raises:
        UsageError: The file cannot be read, or holds something else.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(record, dict) or not record.keys() >= _KEYS:
        raise UsageError(f"{path}: no result of dfd-bench: give a file that its --json wrote")
    if record["schema"] != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: written in form {record['schema']}, this program reads {SCHEMA_VERSION}: "
            "measure again with this version"
        )
    return record


def figures_of(record: Mapping[str, Any], path: Path) -> dict[str, Figure]:
    """The figures of a record by name.

    Raises:
        UsageError: One is not as the schema says.
    """
    figures = {}
    try:
        for entry in record["figures"]:
            fields = {field.name: entry[field.name] for field in dataclasses.fields(Figure)}
            values = tuple(float(value) for value in entry["values"])
            if not values:
                raise ValueError(f"{entry['name']} has no values")
            figures[str(entry["name"])] = Figure(**{**fields, "values": values})
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: its figures are damaged ({error}): measure again") from error
    return figures


def _finite(value: Any) -> Any:  # noqa: ANN401 - any plain value
    """The value with None for each number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
