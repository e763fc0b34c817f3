"""`dfd-bench startup`: processes of their own, measured and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.stages.startup import install_sizes

CLIP = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"


@pytest.mark.slow
def test_startup_measures_every_part(tiny_bundle, tmp_path):
    file = tmp_path / "startup.json"
    arguments = ["startup", CLIP, "--model", tiny_bundle, "--runs", 1, "--json", file]
    result = CliRunner().invoke(main, [str(value) for value in arguments])
    assert result.exit_code == 0, result.output
    record = read_valid(file)
    found = {figure["name"]: figure["median"] for figure in record["figures"]}
    assert found["import.package"] < found["import.libraries"]
    assert found["import.ratio"] == found["import.all"] / found["import.libraries"]
    assert found["verdict"] * 1e3 > found["load"]
    assert found["peak"] > 50
    assert os.name == "nt" or found["verdict.cpu"] > found["import.libraries"] / 1e3
    assert record["details"]["file_cache"] == "warm"
    assert record["details"]["modules"] > 20


def test_a_process_that_fails_is_told_in_one_line(tiny_bundle):
    arguments = ["startup", "missing.mp4", "--model", str(tiny_bundle), "--runs", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "missing.mp4" in result.stderr.splitlines()[-1]


def test_what_is_installed_holds_the_runtime_and_not_the_training():
    sizes = install_sizes()
    assert {"dfd-edge", "numpy", "opencv-python", "av", "click"} <= set(sizes)
    assert any(name.startswith("onnxruntime") for name in sizes)
    assert not {"tensorflow", "keras", "pandas"} & set(sizes)
    assert all(size > 0 for size in sizes.values())
