"""`dfd-bench serve`: many clients at once, and a `kill -9` in the middle, lose no clip."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
CLIP = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"
CLIPS = 12


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_no_clip_is_lost_and_the_order_is_kept(tiny_bundle, tmp_path):
    file = tmp_path / "serve.json"
    arguments = ["serve", CLIP, "--clips", CLIPS, "--clients", 4, "--runs", 1]
    arguments += ["--model", tiny_bundle, "--json", file]
    result = CliRunner().invoke(main, [str(value) for value in arguments])
    assert result.exit_code == 0, result.output
    found = {figure["name"]: figure["median"] for figure in read_valid(file)["figures"]}
    assert (found["done"], found["lost"], found["in_order"]) == (CLIPS, 0, 1)
    assert found["resumed"] >= 1, "it was killed while some waited"
    # Uploads go to the disk as they come, and nothing of them is kept in memory.
    assert found["memory"] < 300
    assert found["over_command"] == found["service"] / found["command"]
    assert 0 < found["judging"] < found["command"]
    assert found["over_command_cpu"] > 0
