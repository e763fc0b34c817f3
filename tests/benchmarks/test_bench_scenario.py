"""`dfd-bench scenario`: LoadGen runs over the models, and its faults and ours end it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.results.schema import RunInfo
from dfd_benchmarks.scenario.loadgen import Load, put_under_load
from dfd_benchmarks.scenario.measure import label_of
from dfd_edge.errors import DfdError, UsageError

pytest.importorskip("mlperf_loadgen")

RAN = RunInfo("none", "0", "cpu", "cpu", "fp32", "fp32", 1)


class Sleeping:
    """Work that takes a known time."""

    ran = RAN

    def run(self, samples: list[int], worker: int) -> None:
        time.sleep(0.01)


class Failing:
    """Work that fails after a while."""

    ran = RAN

    def __init__(self) -> None:
        self.calls = 0

    def run(self, samples: list[int], worker: int) -> None:
        self.calls += 1
        time.sleep(0.005)
        if self.calls > 20:
            raise RuntimeError("the model fell over")


class Instant:
    """Work that takes no time."""

    ran = RAN

    def run(self, samples: list[int], worker: int) -> None:
        return


class Dying:
    """Work that takes its process with it."""

    ran = RAN

    def run(self, samples: list[int], worker: int) -> None:
        os._exit(9)


@pytest.mark.parametrize("name", ["single-stream", "multi-stream", "server", "offline"])
def test_a_scenario_writes_what_it_prints(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["scenario", name, "--duration", "0.3", "--model", str(tiny_bundle)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    record = read_valid(out / "result.json")
    assert record["benchmark"] == f"scenario {name}"
    figures = {entry["name"]: entry for entry in record["figures"]}
    assert figures["rate"]["median"] > 0
    if name != "offline":
        assert 0 < figures["latency.p50"]["median"] <= figures["latency.p99.9"]["median"]
    assert "short run: not a result by MLPerf's rules" in result.stdout
    assert "LoadGen says" in result.stdout
    assert (out / "loadgen" / "run1" / "mlperf_log_summary.txt").stat().st_size


@pytest.mark.parametrize("what", ["sequence", "pipeline"])
def test_what_is_put_under_load(what: str, tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    arguments = ["scenario", "single-stream", "--what", what, "--duration", "0.3"]
    arguments += ["--samples", "4", "--model", str(tiny_bundle), "--json", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    record = read_valid(file)
    assert record["arguments"]["what"] == what
    assert record["ran"]["provider"] == "cpu"


def test_latency_is_that_of_the_work(tmp_path: Path) -> None:
    load = Load("single-stream", duration_s=0.5, runs=2)
    loaded = put_under_load(Sleeping, load, tmp_path / "logs")
    assert len(loaded.tests) == 2
    for test in loaded.tests:
        assert test.latency_ms["50.00"] >= 10.0
        assert test.rate_hz <= 100.0
        assert test.queries >= 5


def test_a_bound_that_is_not_kept_is_invalid(tmp_path: Path) -> None:
    load = Load("server", duration_s=0.5, target_qps=30.0, target_latency_ms=1.0)
    (test,) = put_under_load(Sleeping, load, tmp_path / "logs").tests
    assert not test.valid
    assert "the target latency was not kept" in test.reasons


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "server"])
def test_an_error_under_load_ends_it(scenario: str, tmp_path: Path) -> None:
    load = Load(scenario, duration_s=600.0, target_qps=200.0)
    started_s = time.monotonic()
    with pytest.raises(DfdError, match="RuntimeError: the model fell over"):
        put_under_load(Failing, load, tmp_path / "logs")
    assert time.monotonic() - started_s < 60


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(DfdError, match=r"died \(exit status 9\)"):
        put_under_load(Dying, Load("offline"), tmp_path / "logs")


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline"])
def test_more_queries_than_memory_holds_are_refused(scenario: str, tmp_path: Path) -> None:
    """LoadGen makes them all before the first is asked."""
    load = Load(scenario, duration_s=6000.0)
    with pytest.raises(UsageError, match="LoadGen makes all queries beforehand"):
        put_under_load(Instant, load, tmp_path / "logs")


def test_ctrl_c_ends_a_long_run(tiny_bundle: Path, tmp_path: Path) -> None:
    # A process that a shell started in the background ignores Ctrl-C.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from dfd_benchmarks.cli import main; main()"
    out = tmp_path / "out"
    command = [sys.executable, "-c", program, "scenario", "single-stream", "--duration", "600"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_bundle), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(6.0)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    overdue = threading.Timer(30, process.kill)
    overdue.start()
    _, errors = process.communicate()
    overdue.cancel()
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())
    deadline_s = time.monotonic() + 10  # multiprocessing's own helper ends a little later
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline_s:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.parametrize("change", [{"duration_s": 0}, {"batch": -3}, {"target_qps": -1}])
def test_values_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"is {next(iter(change.values()))}; give more than 0"):
        Load("server", **change)


def test_no_run_is_called_official() -> None:
    assert "not a result by MLPerf's rules" in label_of(599.0)
    assert "not an official MLPerf result" in label_of(600.0)


def test_a_folder_that_exists_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = ["scenario", "offline", "--model", str(tiny_bundle), "--out", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "exists" in result.stderr
