"""`dfd-bench stages`: every stage is there, figures fit together, and a slow stage shows."""

from __future__ import annotations

import html
import re
import time
from pathlib import Path
from typing import Any

import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.stages.measure import STAGES
from dfd_edge.faces.tracker import Tracker

CLIP = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"
SLOW_S = 0.03


def run(tiny_bundle: Path, folder: Path, *, runs: int = 2) -> tuple[str, dict[str, Any], str]:
    file, page = folder / "stages.json", folder / "stages.html"
    arguments = ["stages", CLIP, "--model", tiny_bundle, "--runs", runs, "--json", file]
    result = CliRunner().invoke(main, [str(value) for value in [*arguments, "--html", page]])
    assert result.exit_code == 0, result.output
    return result.stdout, read_valid(file), page.read_text("utf-8")


@pytest.fixture(scope="module")
def stages(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], str]:
    return run(tiny_bundle, tmp_path_factory.mktemp("stages"))


def figures(record: dict[str, Any]) -> dict[str, list[float]]:
    return {figure["name"]: figure["values"] for figure in record["figures"]}


def test_every_stage_costs_something(stages):
    found = figures(stages[1])
    for stage in STAGES:
        for column in ("cpu", "wall", "wall_p50", "wall_p95"):
            assert all(value > 0 for value in found[f"{stage}.{column}"]), (stage, column)
        for low, high in zip(found[f"{stage}.wall_p50"], found[f"{stage}.wall_p95"], strict=True):
            assert low <= high
    assert stages[1]["details"]["frames"] == 20  # 4 s at the bundle's 5 Hz


def test_shares_and_the_bound_follow_from_the_costs(stages):
    found, cores = figures(stages[1]), stages[1]["details"]["cores"]
    for turn in range(2):
        whole = sum(found[f"{stage}.cpu"][turn] for stage in STAGES)
        assert sum(found[f"{stage}.share"][turn] for stage in STAGES) == pytest.approx(100)
        assert found["allowed"][turn] == pytest.approx(cores * 1e3 / whole)
        ratio = found["reached"][turn] / found["allowed"][turn]
        assert found["reached_over_allowed"][turn] == pytest.approx(ratio)


@pytest.mark.slow
def test_a_slow_stage_is_the_one_that_shows(tiny_bundle, tmp_path, monkeypatch, stages):
    assert stages[1]["details"]["dearest"] != "track"
    update = Tracker.update

    def slow(self, *arguments):
        until = time.thread_time() + SLOW_S
        while time.thread_time() < until:
            pass
        return update(self, *arguments)

    monkeypatch.setattr(Tracker, "update", slow)
    printed, record, page = run(tiny_bundle, tmp_path, runs=1)
    assert record["details"]["dearest"] == "track"
    assert min(figures(record)["track.cpu"]) >= SLOW_S * 1e3
    assert "Most goes to track" in printed
    assert "Most goes to track" in page


def test_the_page_holds_its_charts_and_loads_nothing(stages):
    page = stages[2]
    assert page.count('class="chart"') == 3
    assert "default-src 'none'" in html.unescape(page)
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http://" not in markup
    assert "https://" not in markup


@pytest.mark.parametrize(("name", "message"), [("page.txt", ".html")])
def test_a_page_of_another_kind_is_refused_at_once(tiny_bundle, tmp_path, name, message):
    arguments = ["stages", str(CLIP), "--model", str(tiny_bundle), "--html", str(tmp_path / name)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
