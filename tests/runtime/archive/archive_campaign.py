"""Judges one archive undisturbed, under SIGKILL and on a Ray cluster, and compares the rows.

    python tests/runtime/archive/archive_campaign.py --files 2000 --kills 10 --ray --work FOLDER

The files come from the data folder (DFD_DATA): clips and face crops, copies under other names, and
damaged ones. Needs the extras `archive` and, for --ray, `archive-ray`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parents[1] / "fuzz")]

from mutations import mutate  # noqa: E402

COPIES, BROKEN, CLIPS = 0.2, 0.05, 0.1
#: Rows of two runs may differ by this.
TOLERANCE = 1e-5
_SAMPLE_S = 1.0
_COMPARED = ("label", "complete", "frames", "failure", "sha256", "expected")


@dataclass(frozen=True)
class Run:
    """One run to its end.

    Attributes:
        wall_s: Seconds.
        processor_s: Processor time of all processes that ended with it.
        kills: Processes that were killed on the way.
        memory: Seconds since the start and resident megabytes of the main process.
    """

    wall_s: float
    processor_s: float
    kills: int
    memory: list[tuple[float, float]]


def build(sources: Sequence[Path], folder: Path, files: int, seed: int = 0) -> list[Path]:
    """Fills a folder with files: as many of the sources as it takes, copies, and damaged ones."""
    random_ = random.Random(seed)
    folder.mkdir(parents=True)
    broken, copies = round(BROKEN * files), round(COPIES * files)
    plain = list(sources)[: files - broken - copies]
    copies = files - broken - len(plain)
    built: list[Path] = []
    for number in range(files):
        if number < len(plain):
            source, contents = plain[number], plain[number].read_bytes()
        elif number < len(plain) + copies:
            source = random_.choice(plain)
            contents = source.read_bytes()
        else:
            source, other = random_.choice(plain), random_.choice(plain)
            contents = mutate(source.read_bytes(), other.read_bytes(), random_)
        target = folder / f"part{number % 10}" / f"{number:05d}{source.suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(contents)
        built.append(target)
    random_.shuffle(built)
    return built


def development_files(files: int, clips_share: float = CLIPS) -> list[Path]:
    """Short clips and face crops of the data folder."""
    root = Path(os.environ["DFD_DATA"])
    with (root / "labels.csv").open(newline="") as table:
        paths = [root / row["path"] for row in csv.DictReader(table)]
    clips = [path for path in paths if path.suffix in (".mp4", ".mov", ".mkv", ".webm")]
    clips = sorted(clips, key=lambda path: path.stat().st_size)[: round(clips_share * files)]
    crops = [path for path in paths if path.suffix in (".jpg", ".png")]
    random.Random(0).shuffle(crops)
    return clips + crops[: files - len(clips)]


def command(inputs: Path, out: Path, options: Sequence[str]) -> list[str]:
    """The command of a run."""
    return [sys.executable, "-m", "dfd_edge", "archive", str(inputs), "--out", str(out), *options]


def run(
    inputs: Path,
    out: Path,
    options: Sequence[str],
    *,
    kills: int = 0,
    span_s: float = 10.0,
    seed: int = 0,
) -> Run:
    """Runs to the end; on the way processes are killed at random moments, and the run resumed.

    Args:
        inputs: The folder to judge.
        out: The results.
        options: More options of the command.
        kills: Processes to kill: every other time the main one, otherwise a worker.
        span_s: A kill comes within this after the last one, or after the start.
        seed: Chooses moments and workers.
    """
    random_ = random.Random(seed)
    memory: list[tuple[float, float]] = []
    killed = 0
    began_s, used_s = time.monotonic(), _children_s()
    while True:
        process = subprocess.Popen(command(inputs, out, options), stderr=subprocess.DEVNULL)
        due_s = time.monotonic() + random_.uniform(1.0, span_s)
        while process.poll() is None:
            time.sleep(0.05)
            now_s = time.monotonic()
            if not memory or now_s - began_s - memory[-1][0] >= _SAMPLE_S:
                memory.append((now_s - began_s, _resident_mb(process.pid)))
            if killed < kills and now_s >= due_s:
                workers = children_of(process.pid)
                main = killed % 2 == 0 or not workers
                victim = process.pid if main else random_.choice(workers)
                os.kill(victim, signal.SIGKILL)
                killed += 1
                due_s = now_s + random_.uniform(1.0, span_s)
        if process.returncode in (0, 1):  # 1: a clip failed
            wall_s = time.monotonic() - began_s
            return Run(wall_s, _children_s() - used_s, killed, memory)
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the run ended with {process.returncode}")


def rows_of(out: Path) -> dict[str, dict[str, object]]:
    """The rows by their source.

    Raises:
        AssertionError: A source has two.
    """
    import pyarrow.parquet as pq

    rows: dict[str, dict[str, object]] = {}
    for part in sorted((out / "clips").glob("*.parquet")):
        for row in pq.read_table(part).to_pylist():
            assert row["source"] not in rows, f"two rows: {row['source']}"
            rows[row["source"]] = row
    return rows


def check(files: Sequence[Path], rows: dict[str, dict[str, object]]) -> None:
    """Makes sure that each file has one whole row, and each contents one judgement.

    Raises:
        AssertionError: A row is missing, half, or of no file.
    """
    wanted = {str(path) for path in files}
    assert set(rows) == wanted, f"{len(wanted - set(rows))} missing, {len(set(rows) - wanted)} more"
    judged: set[object] = set()
    for source, row in rows.items():
        assert (row["label"] is None) == (row["error"] is not None), source
        if row["duplicate_of"] is None:
            assert row["sha256"] not in judged, f"judged twice: {source}"
            judged.add(row["sha256"])
        else:
            first = rows[str(row["duplicate_of"])]
            assert first["sha256"] == row["sha256"], source
            assert first["p_fake"] == row["p_fake"], source


def compare(one: dict[str, dict[str, object]], two: dict[str, dict[str, object]]) -> float:
    """The largest difference of P(fake); everything else is the same.

    Raises:
        AssertionError: It is not.
    """
    largest = 0.0
    for source, row in one.items():
        other = two[source]
        for name in _COMPARED:
            assert row[name] == other[name], f"{source}: {name} {row[name]} and {other[name]}"
        before, after = row["p_fake"], other["p_fake"]
        assert (before is None) == (after is None), source
        if isinstance(before, float) and isinstance(after, float):
            largest = max(largest, abs(before - after))
    assert largest <= TOLERANCE, largest
    return largest


@contextmanager
def two_nodes(cpus: int = 1) -> Iterator[str]:
    """A Ray cluster of two nodes on this machine; gives its address."""
    from ray.cluster_utils import Cluster

    # By default actors make room for everything else on the machine.
    os.environ.update({"RAY_worker_niceness": "0"})
    memory = {"object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, **memory})
    try:
        cluster.add_node(num_cpus=cpus, **memory)
        yield cluster.address
    finally:
        cluster.shutdown()


def throughput(sources: Sequence[Path], work: Path, options: Sequence[str], rounds: int) -> object:
    """Processor time of `dfd-edge` and of `dfd-edge archive` for the same files, by turns."""
    folder = work / "once"
    folder.mkdir(parents=True)
    for number, source in enumerate(sources):
        (folder / f"{number:05d}{source.suffix}").symlink_to(source)
    used: dict[str, list[float]] = {"dfd-edge": [], "dfd-edge archive": []}
    for turn in range(rounds):
        for name, seconds in used.items():
            since_s = _children_s()
            if name == "dfd-edge":
                words = [sys.executable, "-m", "dfd_edge", "--json", *options, str(folder)]
            else:
                words = command(folder, work / f"once{turn}", options)
            subprocess.run(words, check=False, capture_output=True)
            seconds.append(round(_children_s() - since_s, 2))
    plain, archived = (sum(seconds) for seconds in used.values())
    return {"processor_s": used, "throughput_ratio": round(plain / archived, 3)}


def children_of(pid: int) -> list[int]:
    """The worker processes of a run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        text = " ".join(task.joinpath("children").read_text() for task in tasks)
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Runs the campaign and prints its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ray", action="store_true", help="run on two nodes of Ray too")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--throughput", action="store_true", help="only compare with dfd-edge, copies left out"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of --throughput")
    parser.add_argument("--clips", type=float, default=CLIPS, help="share of clips among files")
    given = parser.parse_args()
    work: Path = given.work
    if given.throughput:
        options = ["--jobs", str(given.jobs), "--duration", "2"]
        sources = development_files(given.files, given.clips)
        print(json.dumps(throughput(sources, work, options, given.rounds), indent=2))
        return
    files = build(development_files(given.files, given.clips), work / "files", given.files)
    options = ["--jobs", str(given.jobs), "--duration", "2"]
    plain = run(work / "files", work / "plain", options)
    rows = rows_of(work / "plain")
    check(files, rows)
    labels = [row["label"] for row in rows.values()]
    figures: dict[str, object] = {
        "files": len(files),
        "labels": {str(label): labels.count(label) for label in dict.fromkeys(labels)},
        "copies": sum(row["duplicate_of"] is not None for row in rows.values()),
        "local": {"wall_s": round(plain.wall_s, 1), "processor_s": round(plain.processor_s, 1)},
    }
    with (work / "memory.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["seconds", "resident_mb"])
        writer.writerows((f"{at:.1f}", f"{mb:.1f}") for at, mb in plain.memory)
    print(json.dumps(figures), flush=True)
    killed = run(
        work / "files",
        work / "killed",
        options,
        kills=given.kills,
        span_s=max(2.0, plain.wall_s / given.kills),
    )
    again = rows_of(work / "killed")
    check(files, again)
    figures["killed"] = {
        "kills": killed.kills,
        "largest_difference": compare(rows, again),
        "processor_s": round(killed.processor_s, 1),
    }
    print(json.dumps(figures), flush=True)
    if given.ray:
        with two_nodes() as address:
            cluster = run(work / "files", work / "ray", [*options, "--ray", address])
        there = rows_of(work / "ray")
        check(files, there)
        figures["ray"] = {
            "wall_s": round(cluster.wall_s, 1),
            "largest_difference": compare(rows, there),
        }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
