"""The machine's description, and how several measurements are told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from dfd_benchmarks.results import machine
from dfd_benchmarks.results.schema import (
    SCHEMA_FILE,
    Figure,
    Result,
    figures_of,
    read_record,
    write_result,
)
from dfd_benchmarks.results.timing import Spread, cpu_seconds, wall_seconds
from dfd_edge import processor


def test_machine_says_what_matters() -> None:
    found = machine.describe_machine()
    assert found.processor
    assert found.cores > 0
    assert {"onnxruntime", "numpy", "av"} <= set(found.versions)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("150000 100000\n", 1.5), ("max 100000\n", 64.0), ("", 64.0), ("6400000 100000", 64.0)],
)
def test_a_container_gets_the_cores_of_its_quota(
    limit: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    monkeypatch.setattr(processor, "_CGROUP_LIMIT", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert processor.usable_cores() == expected


@pytest.mark.parametrize(("load", "warned"), [(None, False), (0.1, False), (1.9, True)])
def test_a_busy_machine_is_warned_of(load: float | None, warned: bool) -> None:
    found = dataclasses.replace(machine.describe_machine(), load=load)
    assert (found.warning is not None) == warned


def test_spread_is_minimum_median_and_maximum() -> None:
    assert Spread.of([3.0, 1.0, 10.0, 2.0]) == Spread(1.0, 2.5, 10.0, 4)


def test_cpu_time_counts_work_and_not_waiting() -> None:
    import time

    def wait() -> None:
        time.sleep(0.3)

    assert cpu_seconds(wait) < 0.2
    assert wall_seconds(wait) >= 0.3
    assert cpu_seconds(lambda: sum(range(3_000_000))) > 0.005


CPUINFO = """processor\t: 0
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx avx2 avx512_vnni amx_int8

processor\t: 1
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx avx2 avx512_vnni amx_int8

processor\t: 2
physical id\t: 1
core id\t\t: 0
flags\t\t: fpu avx avx2 avx512_vnni amx_int8
"""


def test_instructions_and_cores_are_read() -> None:
    assert machine.instructions_of(CPUINFO) == ("avx", "avx2", "avx512_vnni", "amx_int8")
    assert machine.physical_cores_of(CPUINFO) == 2
    assert machine.instructions_of("Features\t: fp asimd i8mm sve") == ("asimd", "i8mm", "sve")
    assert machine.instructions_of("") == ()
    assert machine.physical_cores_of("") is None


def test_a_written_result_keeps_the_schema(tmp_path: Path) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    figure = Figure("step", "a step", "us", "lower", (3.0, 1.0), bar=2.0)
    file = tmp_path / "result.json"
    found = machine.describe_machine()
    write_result(file, found, Result("gru", {}, None, [figure], {"gap": float("nan")}))
    record = read_record(file)
    jsonschema.validate(record, schema)
    assert record["details"]["gap"] is None
    assert figures_of(record, file) == {"step": figure}
    with pytest.raises(ValueError, match="give finite ones"):
        Figure("step", "a step", "us", "lower", (float("nan"),))
