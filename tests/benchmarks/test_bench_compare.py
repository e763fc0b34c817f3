"""`dfd-bench compare`: what chance explains is no difference, and what it does not is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_results import read_valid
from click.testing import CliRunner, Result

from dfd_benchmarks.cli import main
from dfd_benchmarks.results.compare import MIN_RUNS, ratio_of
from dfd_benchmarks.results.machine import describe_machine
from dfd_benchmarks.results.schema import Figure, write_result
from dfd_benchmarks.results.schema import Result as Measured

NOISE = (10.0, 10.4, 9.8, 10.2, 9.9, 10.1, 10.3, 9.7)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def figure(values: tuple[float, ...], better: Any = "lower") -> Figure:
    return Figure("step", "a step", "ms", better, values)


def written(
    path: Path, values: tuple[float, ...], *, better: str = "lower", **changes: object
) -> Path:
    result = Measured(
        str(changes.pop("benchmark", "gru")),
        {"steps": 100, **changes},
        None,
        [figure(values, better)],
    )
    write_result(path, describe_machine(), result)
    return path


@pytest.mark.parametrize(
    ("factor", "better", "verdict"),
    [
        (1.0, "lower", "no difference"),
        (1.3, "lower", "b is worse"),
        (1.3, "higher", "b is better"),
        (0.7, "lower", "b is better"),
        (0.7, "higher", "b is worse"),
    ],
)
def test_a_ratio_is_judged_by_its_interval(factor: float, better: str, verdict: str) -> None:
    ratio = ratio_of(figure(NOISE, better), figure(tuple(factor * v for v in NOISE[::-1]), better))
    assert ratio is not None and ratio.interval is not None
    assert ratio.verdict == verdict
    assert ratio.interval[0] <= ratio.ratio <= ratio.interval[1]
    assert ratio.ratio == pytest.approx(factor)


def test_two_draws_of_the_same_noise_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(1)
    draws = [tuple(rng.normal(10, 1, 10)) for _ in range(200)]
    ratios = [ratio_of(figure(a), figure(b)) for a, b in zip(draws[::2], draws[1::2], strict=True)]
    told_apart = sum(r is not None and r.verdict != "no difference" for r in ratios)
    assert told_apart <= 12


def test_too_few_values_decide_nothing() -> None:
    few = NOISE[: MIN_RUNS - 1]
    ratio = ratio_of(figure(few), figure(tuple(2 * v for v in few)))
    assert ratio is not None
    assert ratio.interval is None
    assert "undecided" in ratio.verdict
    assert not ratio.worse_beyond(0.05)


@pytest.mark.parametrize(
    ("factor", "better", "code"),
    [(1.2, "lower", 1), (1.02, "lower", 0), (0.8, "lower", 0), (0.8, "higher", 1)],
)
def test_slower_than_the_bound_fails(factor: float, better: str, code: int, tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", NOISE, better=better)
    b = written(tmp_path / "b.json", tuple(factor * v for v in NOISE), better=better)
    out = tmp_path / "compared.json"
    result = invoke("compare", a, b, "--fail-if-slower", "10%", "--json", out)
    assert result.exit_code == code, result.output
    assert ("worse by more than 10%: a step" in result.stderr) == bool(code)
    record = read_valid(out)
    assert record["figures"][0]["median"] == pytest.approx(factor)


def test_other_commands_and_arguments_are_refused(tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", NOISE)
    for name, change in {"benchmark": "stages", "steps": 200}.items():
        b = written(tmp_path / "b.json", NOISE, **{name: change})
        result = invoke("compare", a, b)
        assert result.exit_code == 2
        assert str(change) in result.stderr
    assert invoke("compare", a, b, "--across", "steps").exit_code == 0


def test_another_machine_is_warned_of(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.json", NOISE), written(tmp_path / "b.json", NOISE)
    assert "other machine" not in invoke("compare", a, b).stderr
    record = json.loads(b.read_text())
    record["machine"]["processor"] = "Another 9000"
    b.write_text(json.dumps(record))
    assert "other machine: processor" in invoke("compare", a, b).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [("not JSON", "cannot be read as JSON"), ("{}", "no result of dfd-bench")],
)
def test_other_files_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", NOISE)
    (tmp_path / "b.json").write_text(text)
    result = invoke("compare", a, tmp_path / "b.json")
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_a_bound_needs_enough_values(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.json", (1.0,)), written(tmp_path / "b.json", (9.0,))
    result = invoke("compare", a, b, "--fail-if-slower", "5%")
    assert result.exit_code == 2
    assert "nothing can be decided" in result.stderr


@pytest.mark.slow
def test_two_commands_run_turn_by_turn(tiny_bundle: Path, tmp_path: Path) -> None:
    command = f"gru --runs 1 --model {tiny_bundle} --steps"
    out = tmp_path / "compared.json"
    result = invoke("compare", "--interleave", 4, f"{command} 100", f"{command} 200", "--json", out)
    assert result.exit_code == 0, result.output
    details = json.loads(out.read_text())["details"]
    assert details["a"]["arguments"]["steps"] == 100
    assert details["b"]["arguments"]["steps"] == 200
    assert all(len(entry["values"]) == 4 for entry in details["b"]["figures"])


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    missing = "gru --model no/such/bundle"
    result = invoke("compare", "--interleave", 4, missing, missing)
    assert result.exit_code == 1
    assert "no/such/bundle" in result.stderr.splitlines()[-1]
