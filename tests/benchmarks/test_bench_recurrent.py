"""`dfd-bench recurrent` on narrow heads: both graphs agree, and the figures fit together."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.recurrent import BATCHES, TIMES, Pair, measure_recurrent
from dfd_edge.errors import DfdError, UsageError

WIDTH = 16


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the command prints and writes."""
    file = tmp_path_factory.mktemp("report") / "recurrent.json"
    options = ["--head", "gru_small", "--width", str(WIDTH), "--runs", "2", "--json", str(file)]
    result = CliRunner().invoke(main, ["recurrent", *options])
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads(file.read_text())


def test_every_batch_and_time_is_measured(measured: tuple[str, dict[str, Any]]) -> None:
    record = measured[1]
    assert record["benchmark"] == "recurrent"
    result = record["result"]
    assert (result["head"], result["width"], result["loops"]) == ("gru_small", WIDTH, 2)
    shapes = [(cost["batch"], cost["time"]) for cost in result["shapes"]]
    assert shapes == [(batch, steps) for batch in BATCHES for steps in TIMES]
    for cost in result["shapes"]:
        assert 0 <= cost["difference"] <= 1e-4
        native, loop, ratio = cost["native_us"], cost["loop_us"], cost["ratio"]
        assert 0 < native["low"] <= native["high"]
        assert ratio["low"] >= loop["low"] / native["high"] * 0.999
        assert ratio["high"] <= loop["high"] / native["low"] * 1.001
        assert ratio["runs"] == 2


def test_the_bars_belong_to_one_sequence(measured: tuple[str, dict[str, Any]]) -> None:
    printed, record = measured
    bars = {(c["batch"], c["time"]): c["bar"] for c in record["result"]["shapes"] if c["bar"]}
    assert bars == {(1, 1): 2.0, (1, 64): 6.0}
    for cost in record["result"]["shapes"]:
        start = f"batch {cost['batch']}, time {cost['time']}: times faster"
        (line,) = [line for line in printed.splitlines() if line.startswith(start)]
        assert f"{cost['ratio']['median']:.2f}" in line
        reached = cost["bar"] is not None and cost["ratio"]["median"] >= cost["bar"]
        assert ("reached" in line) == reached


def test_a_window_is_held_against_the_carried_state(measured: tuple[str, dict[str, Any]]) -> None:
    result = measured[1]["result"]
    carried = result["carried_us"]
    for name in ("window", "loop_window"):
        window, ratio = result[f"{name}_us"], result[f"{name}_over_carried"]
        assert ratio["low"] >= window["low"] / carried["high"] * 0.999
        assert ratio["high"] <= window["high"] / carried["low"] * 1.001


def test_a_head_without_loops_has_no_bar() -> None:
    result = measure_recurrent(head="mean", width=WIDTH, runs=1)
    assert result.loops == 0
    assert all(cost.bar is None for cost in result.shapes)


def test_graphs_that_differ_are_not_measured() -> None:
    pair, other = Pair.build("mean", WIDTH), Pair.build("mean", WIDTH, seed=1)
    features = np.ones((2, 3, WIDTH), np.float32)
    assert pair.difference(features) <= 1e-5
    with pytest.raises(DfdError, match="batch 2, time 3: the logits of the two graphs differ"):
        dataclasses.replace(pair, loop=other.loop).difference(features)


def test_options_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="runs is 0; give 1 or more"):
        measure_recurrent(runs=0)
    result = CliRunner().invoke(main, ["recurrent", "--head", "rnn", "--width", "4"])
    assert result.exit_code == 2
    assert "head 'rnn' is unknown" in result.stderr
