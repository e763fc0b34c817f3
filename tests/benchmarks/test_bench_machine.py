"""The machine's description, and how several measurements are told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
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
from dfd_benchmarks.results.timing import Spread, wall_seconds
from dfd_edge.inference import processor


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


def test_elapsed_time_counts_waiting() -> None:
    import time

    assert wall_seconds(lambda: time.sleep(0.3)) >= 0.3


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


BURN = """
import subprocess, sys, time
sys.stdin.readline()
child = None
if int(sys.argv[1]):
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "0"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    child.stdin.write(b"go\\n")
    child.stdin.flush()
    child.stdout.readline()
start = time.process_time()
while time.process_time() - start < 0.3:
    pass
print("burnt", flush=True)
sys.stdin.read()
if child:
    child.communicate()
"""


def start_child(depth: int) -> subprocess.Popen[bytes]:
    """A child, with a child of its own where depth is 1; each takes 0.3 s once it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", BURN, str(depth), BURN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def burn(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    child.stdout.readline()


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs /proc")
@pytest.mark.parametrize(("depth", "least_s"), [(0, 0.25), (1, 0.55)])
def test_busy_cores_count_children_while_they_run_and_after(depth: int, least_s: float) -> None:
    child = start_child(depth)
    start_s = time.monotonic()
    cores = machine.BusyCores()
    burn(child)
    running_s = cores.own() * (time.monotonic() - start_s)
    child.communicate()
    ended_s = cores.own() * (time.monotonic() - start_s)
    assert running_s >= least_s
    assert ended_s >= running_s - 0.05


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs /proc")
def test_busy_cores_leave_out_children_that_send() -> None:
    child = start_child(1)
    start_s = time.monotonic()
    cores = machine.BusyCores(lambda: machine.tree_cpu_s(child.pid))
    burn(child)
    busy_s = cores.own() * (time.monotonic() - start_s)
    assert machine.tree_cpu_s(child.pid) >= 0.55
    assert busy_s < 0.3
    child.communicate()
