"""`dfd-bench recurrent` on narrow heads: both graphs agree, and the figures fit together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.sequence.gru import measure_gru
from dfd_benchmarks.sequence.recurrent import BATCHES, TIMES, Pair, measure_recurrent
from dfd_edge.errors import DfdError, UsageError
from small_bundle import build_small_bundle

WIDTH = 16


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the command prints and writes."""
    file = tmp_path_factory.mktemp("report") / "recurrent.json"
    options = ["--head", "gru_small", "--width", str(WIDTH), "--runs", "2", "--json", str(file)]
    result = CliRunner().invoke(main, ["recurrent", *options])
    assert result.exit_code == 0, result.output
    return result.stdout, read_valid(file)


def values(record: dict[str, Any]) -> dict[str, list[float]]:
    return {figure["name"]: figure["values"] for figure in record["figures"]}


def check_ratio(found: dict[str, list[float]], ratio: str, over: str, under: str) -> None:
    expected = [a / b for a, b in zip(found[over], found[under], strict=True)]
    assert found[ratio] == pytest.approx(expected)


def test_every_batch_and_time_is_measured(measured: tuple[str, dict[str, Any]]) -> None:
    record = measured[1]
    assert record["benchmark"] == "recurrent"
    assert record["arguments"] == {"head": "gru_small", "width": WIDTH}
    assert record["details"]["loops"] == 2
    shapes = [f"batch_{batch}.time_{steps}" for batch in BATCHES for steps in TIMES]
    assert list(record["details"]["difference"]) == shapes
    assert all(0 <= found <= 1e-4 for found in record["details"]["difference"].values())
    found = values(record)
    for shape in shapes:
        assert len(found[f"{shape}.native"]) == 2
        assert min(found[f"{shape}.native"]) > 0
        check_ratio(found, f"{shape}.ratio", f"{shape}.tf2onnx", f"{shape}.native")


def test_the_bars_belong_to_one_sequence(measured: tuple[str, dict[str, Any]]) -> None:
    printed, record = measured
    bars = {figure["name"]: figure["bar"] for figure in record["figures"] if figure["bar"]}
    assert bars == {"batch_1.time_1.ratio": 2.0, "batch_1.time_64.ratio": 6.0}
    for figure in record["figures"]:
        (line,) = [line for line in printed.splitlines() if line.startswith(figure["label"] + ",")]
        reached = bool(figure["bar"]) and figure["median"] >= figure["bar"]
        assert ("reached" in line) == reached


def test_a_window_is_held_against_the_carried_state(measured: tuple[str, dict[str, Any]]) -> None:
    found = values(measured[1])
    for name in ("native", "tf2onnx"):
        check_ratio(found, f"live.window.{name}.ratio", f"live.window.{name}", "live.carried")


@pytest.mark.parametrize("head", ["mean", "signals"])
def test_a_head_without_loops_has_no_bar(head: str) -> None:
    result = measure_recurrent(head=head, width=WIDTH, runs=1)
    assert result.details["loops"] == 0
    assert all(figure.bar is None for figure in result.figures)


def test_graphs_that_differ_are_not_measured() -> None:
    pair, other = Pair.build("mean", WIDTH), Pair.build("mean", WIDTH, seed=1)
    features = np.ones((2, 3, WIDTH), np.float32)
    assert pair.difference(features) <= 1e-5
    with pytest.raises(DfdError, match="batch 2, time 3: the logits of the two graphs differ"):
        dataclasses.replace(pair, loop=other.loop).difference(features)


def test_a_step_is_held_against_a_crop(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "gru.json"
    options = ["--model", str(tiny_bundle), "--runs", "2", "--steps", "200", "--json", str(file)]
    result = CliRunner().invoke(main, ["gru", *options])
    assert result.exit_code == 0, result.output
    record = read_valid(file)
    assert record["arguments"] == {"steps": 200, "precision": "auto"}
    assert record["ran"]["provider"] == "cpu"
    assert record["details"]["difference"] <= 1e-5
    found = values(record)
    crop_us = [1e3 * value for value in found["frame"]]
    expected = [step / crop for step, crop in zip(found["step"], crop_us, strict=True)]
    assert found["step_over_frame"] == pytest.approx(expected)
    check_ratio(found, "chunk_gain", "step", "chunk_step")
    bars = {figure["name"]: figure["bar"] for figure in record["figures"] if figure["bar"]}
    assert bars == {"step_over_frame": 0.01, "last_over_first": 1.1}
    # Many steps in one call share the price of the call.
    assert min(found["chunk_gain"]) > 1
    assert "last tenth of the steps over the first" in result.stdout


def test_a_step_that_takes_signals_is_measured_without_them(tmp_path: Path) -> None:
    bundle = build_small_bundle(tmp_path / "bundle", signals=True)
    result = measure_gru(model=bundle, steps=100, runs=1)
    assert result.details["difference"] <= 1e-5
    assert min(result.figures[0].values) > 0


def test_options_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="runs is 0; give 1 or more"):
        measure_recurrent(runs=0)
    result = CliRunner().invoke(main, ["recurrent", "--head", "rnn", "--width", "4"])
    assert result.exit_code == 2
    assert "head 'rnn' is unknown" in result.stderr
