"""Nothing is lost, doubled or halved by SIGKILL; a Ray cluster gives the same rows."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

from archive_campaign import (
    build,
    check,
    children_of,
    command,
    committing,
    compare,
    rows_of,
    run,
    two_nodes,
)

from dfd_edge.archive.run import ArchiveRequest, run_archive
from dfd_edge.archive.settings import JudgeSettings


def seeds(media: Path) -> list[Path]:
    """One file of each kind, the broken one left out."""
    return [*sorted(media.glob("*.png")), *sorted((media / "more").glob("[fp]*"))]


def test_a_run_that_was_killed_is_resumed_without_judging_twice(media: Path, tmp_path: Path):
    """Every row is committed at once here, so that the kill comes between two commits."""
    files = build(seeds(media), tmp_path / "files", 24)
    out = tmp_path / "out"
    words = committing(0.0, tmp_path / "files", out, ["--jobs", "1", "--duration", "0.4"])
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    until_s = time.monotonic() + 120.0
    while len(list((out / "clips").glob("*.parquet"))) < 5 and time.monotonic() < until_s:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = rows_of(out)
    assert 5 <= len(before) < len(files)
    request = ArchiveRequest(
        inputs=(str(tmp_path / "files"),), out=str(out), judge=JudgeSettings(duration_s=0.4)
    )
    outcome = run_archive(request, threading.Event())
    assert outcome.before == len(before)
    after = rows_of(out)
    check(files, after)
    assert {source: row["judged"] for source, row in after.items() if source in before} == {
        source: row["judged"] for source, row in before.items()
    }


def test_workers_end_with_the_run_however_it_ends(media: Path, tmp_path: Path):
    if not Path("/proc/self/task").is_dir():
        pytest.skip("no /proc on this system")
    files = build(seeds(media), tmp_path / "files", 40)
    process = subprocess.Popen(
        command(tmp_path / "files", tmp_path / "out", ["--jobs", "2"]), stderr=subprocess.DEVNULL
    )
    workers: list[int] = []
    while len(workers) < 2 and process.poll() is None:
        workers = children_of(process.pid)
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(workers) == 2, f"{len(files)} files were judged before both had started"
    until_s = time.monotonic() + 10.0
    while any(_is_alive(pid) for pid in workers) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not any(_is_alive(pid) for pid in workers)


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_kills_at_random_moments_change_no_row(media: Path, tmp_path: Path):
    files = build(seeds(media), tmp_path / "files", 60)
    options = ["--jobs", "2", "--duration", "0.4"]
    plain = run(tmp_path / "files", tmp_path / "plain", options)
    killed = run(
        tmp_path / "files",
        tmp_path / "killed",
        options,
        kills=4,
        span_s=max(1.5, plain.wall_s / 4),
    )
    assert killed.kills.total() >= 1
    one, two = rows_of(tmp_path / "plain"), rows_of(tmp_path / "killed")
    check(files, one)
    check(files, two)
    compare(one, two)


@pytest.mark.exhaustive
def test_a_cluster_of_two_nodes_gives_the_same_rows_whatever_is_killed(media: Path, tmp_path: Path):
    pytest.importorskip("ray.data", reason="Ray Data is not installed")
    files = build(seeds(media), tmp_path / "files", 60)
    options = ["--duration", "0.4"]
    run(tmp_path / "files", tmp_path / "plain", [*options, "--jobs", "2"])
    with two_nodes() as (address, mark):
        cluster = run(
            tmp_path / "files",
            tmp_path / "ray",
            [*options, "--ray", address],
            kills=3,  # an actor, the claims, and a worker; the campaign kills the main process too
            span_s=1.0,
            mark=mark,
        )
    assert cluster.kills["actor"] >= 1
    one, two = rows_of(tmp_path / "plain"), rows_of(tmp_path / "ray")
    check(files, two)
    compare(one, two)
