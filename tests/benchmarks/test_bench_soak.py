"""`dfd-bench soak`: short runs of both kinds, planted growth is seen, and the course is drawn."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path

import pytest
from bench_results import read_valid
from click.testing import CliRunner, Result

from dfd_benchmarks.cli import main
from dfd_benchmarks.results.machine import describe_machine
from dfd_benchmarks.results.schema import RunInfo, write_result
from dfd_benchmarks.soak.live import LiveOptions
from dfd_benchmarks.soak.pushed import PushedOptions, Window, soak_lines, soak_result
from dfd_edge import UsageError
from dfd_edge.judging.stream import Stream

RAN = RunInfo("none", "0", "cpu", "cpu", "fp32", "fp32", 1)


def soak(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["soak", *arguments])


def window(number: int, **changes: float) -> Window:
    values = {
        "frames": 1000 * number,
        "elapsed_s": 10.0 * number,
        "judged": 200,
        "people": number,
        "gaps": 0,
        "memory_mb": 180.0,
        "threads": 3,
        "descriptors": 5,
        "p50_ms": 8.0,
        "p99_ms": 16.0,
        "max_ms": 20.0,
        "cpu_ms": 8.0,
    }
    return Window(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_pushed_frames(tiny_bundle: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "soak.json", tmp_path / "soak.svg"
    done = soak(
        *("pushed", "--frames", "720", "--fps", "2", "--model", str(tiny_bundle)),
        *("--json", str(file)),
    )
    assert done.exit_code == 0, done.output
    record = read_valid(file)
    assert record["benchmark"] == "soak pushed"
    windows = record["details"]["windows"]
    assert [entry["frames"] for entry in windows] == [120, 240, 360, 480, 600, 720]
    assert all(entry["judged"] == 120 for entry in windows)
    # Somebody comes every minute, and is somebody else.
    assert [entry["people"] for entry in windows] == [1, 2, 3, 4, 5, 6]
    assert "720 frames pushed" in done.stdout
    assert "resident memory, MB" in done.stdout
    drawn = CliRunner().invoke(main, ["chart", str(file), "--out", str(out)])
    assert drawn.exit_code == 0, drawn.output
    assert out.read_text("utf-8").lstrip().startswith("<?xml")


@pytest.mark.slow
def test_what_leaks_is_seen(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[object] = []
    score = Stream.score

    def leaking(self, observations):
        if len(kept) % 20 == 0:
            kept.append(os.open(os.devnull, os.O_RDONLY))
        # Pages of their own: memory that the process has freed before would hide the growth.
        kept.append(mmap.mmap(-1, 500_000))
        kept[-1].write(bytes([1]) * 500_000)
        return score(self, observations)

    monkeypatch.setattr(Stream, "score", leaking)
    try:
        done = soak("pushed", "--frames", "600", "--fps", "2", "--model", str(tiny_bundle))
    finally:
        for entry in kept:
            if isinstance(entry, int):
                os.close(entry)
    assert done.exit_code == 0, done.output
    (memory,) = (line for line in done.stdout.splitlines() if "resident memory" in line)
    (descriptors,) = (line for line in done.stdout.splitlines() if "descriptors" in line)
    assert memory.endswith("bar 1: MISSED")
    assert descriptors.endswith("bar 0: MISSED")


@pytest.mark.slow
def test_live_streams_come_back(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    done = soak(
        *("live", "--minutes", "0.35", "--up", "5", "--down", "2", "--protocol", "http"),
        *("--fps", "15", "--model", str(tiny_bundle), "--json", str(file)),
    )
    assert done.exit_code == 0, done.output
    windows = read_valid(file)["details"]["windows"]
    assert len(windows) == 3
    assert windows[-1]["gaps"] >= 2
    assert windows[-1]["judged"] > 0
    assert all(0 < entry["p50_ms"] < 10_000 for entry in windows)


def test_growth_is_held_against_the_second_tenth() -> None:
    windows = [window(n, memory_mb=100.0 if n == 1 else 180.0 + n / 10) for n in range(1, 21)]
    figures = {figure.name: figure for figure in soak_result("pushed", {}, RAN, windows).figures}
    assert figures["memory.change"].values[0] == pytest.approx(100 * (181.95 / 180.35 - 1))
    assert figures["memory.change"].reached
    assert figures["threads.change"].values == (0.0,)
    more = [*windows[:-2], window(19, threads=4, cpu_ms=9.0), window(20, threads=4, cpu_ms=9.0)]
    figures = {figure.name: figure for figure in soak_result("pushed", {}, RAN, more).figures}
    assert figures["threads.change"].reached is False
    assert figures["cpu.change"].values[0] == pytest.approx(12.5)
    assert figures["cpu.change"].reached is False
    lines = list(soak_lines(soak_result("pushed", {}, RAN, more)))
    assert lines[0].startswith("soak pushed: 20000 frames pushed in 200 s, 4000 frames judged")


def test_what_cannot_be_run_is_said() -> None:
    with pytest.raises(UsageError, match="100 frames: give 4500 or more, 3 minutes at 25"):
        PushedOptions(100)
    with pytest.raises(UsageError, match=r"1 minutes: give 1\.5 or more"):
        LiveOptions(1.0)
    with pytest.raises(UsageError, match="give more than 0"):
        LiveOptions(down_s=0.0)
    with pytest.raises(UsageError, match="2 windows were measured, 3 are needed"):
        soak_result("pushed", {}, RAN, [window(1), window(2)])


def test_a_course_is_drawn_of_a_soak_alone(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    result = soak_result("live", {}, RAN, [window(n) for n in range(1, 5)])
    write_result(file, describe_machine(), result)

    def chart(path: Path, out: str) -> Result:
        return CliRunner().invoke(main, ["chart", str(path), "--out", str(tmp_path / out)])

    assert chart(file, "soak.png").exit_code == 0
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert "give a file that ends in .png or .svg" in chart(file, "soak.gif").stderr
    record = json.loads(file.read_text("utf-8")) | {"benchmark": "stages"}
    file.write_text(json.dumps(record), "utf-8")
    said = "a result of stages, not of soak: name figures, as in --figure '"
    assert said in chart(file, "s.png").stderr
