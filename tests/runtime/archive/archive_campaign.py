"""Judges one archive undisturbed, under SIGKILL and on a Ray cluster, and compares the rows.

    python tests/runtime/archive/archive_campaign.py --files 2000 --kills 10 --ray --work FOLDER

Runs that are killed commit every second, so that most kills come after a commit. The files come
from the data folder (DFD_DATA): clips and face crops, copies under other names, and damaged ones.
Needs the extras `archive` and, for --ray, `archive-ray`.
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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parents[1] / "fuzz")]

from mutations import mutate  # noqa: E402

COPIES, BROKEN, CLIPS = 0.2, 0.05, 0.1
#: Rows of two runs may differ by this.
TOLERANCE = 1e-5
#: Killed runs commit so often.
_COMMIT_S = 1.0
_COMPARED = ("label", "complete", "frames", "failure", "sha256", "expected")


@dataclass(frozen=True)
class Run:
    """One run to its end.

    Attributes:
        wall_s: Seconds.
        processor_s: Processor time of all processes that ended with it.
        kills: Processes that were killed on the way, by their kind.
        resumed: Starts that found rows of an earlier one.
    """

    wall_s: float
    processor_s: float
    kills: Counter[str]
    resumed: int


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
    return [sys.executable, "-m", "dfd_edge", *arguments(inputs, out, options)]


def arguments(inputs: Path, out: Path, options: Sequence[str]) -> list[str]:
    """The arguments of `dfd-edge` for a run."""
    return ["archive", str(inputs), "--out", str(out), *options]


def committing(commit_s: float, inputs: Path, out: Path, options: Sequence[str]) -> list[str]:
    """The command of a run that commits its rows after so many seconds."""
    program = (
        f"import sys; from dfd_edge.archive import run; run._COMMIT_S = {commit_s}\n"
        "run._COMMIT_SHARE = 0.0; sys.argv[0] = 'dfd-edge'\n"
        "from dfd_edge.cli import main; main()"
    )
    return [sys.executable, "-c", program, *arguments(inputs, out, options)]


def run(
    inputs: Path,
    out: Path,
    options: Sequence[str],
    *,
    kills: int = 0,
    span_s: float = 10.0,
    seed: int = 0,
    mark: str | None = None,
) -> Run:
    """Runs to the end; on the way processes are killed at random moments, and the run resumed.

    Args:
        inputs: The folder to judge.
        out: The results.
        options: More options of the command.
        kills: Processes to kill, by turns of each kind that `victims` knows.
        span_s: A kill comes within this after workers are there again.
        seed: Chooses moments and victims.
        mark: Variable that all processes of a Ray cluster have; None for the local engine.
    """
    random_ = random.Random(seed)
    killed: Counter[str] = Counter()
    resumed = 0
    began_s, used_s = time.monotonic(), _children_s()
    words = committing(_COMMIT_S, inputs, out, options) if kills else command(inputs, out, options)
    while True:
        resumed += any((out / "clips").glob("*.parquet"))
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        due_s: float | None = None
        while process.poll() is None:
            time.sleep(0.05)
            if killed.total() >= kills or (due_s is not None and time.monotonic() < due_s):
                continue
            there = victims(process.pid, mark)
            kind = list(there)[killed.total() % len(there)]
            if due_s is None:
                due_s = time.monotonic() + random_.uniform(0.0, span_s) if there["worker"] else None
            elif there[kind]:
                os.kill(random_.choice(there[kind]), signal.SIGKILL)
                killed[kind] += 1
                due_s = None
        if process.returncode in (0, 1):  # 1: a clip failed
            wall_s = time.monotonic() - began_s
            return Run(wall_s, _children_s() - used_s, killed, resumed)
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the run ended with {process.returncode}")


def victims(main: int, mark: str | None) -> dict[str, list[int]]:
    """The processes of a run by their kind.

    Args:
        main: The main process.
        mark: Variable that all processes of a Ray cluster have; None for the local engine.
    """
    if mark is None:
        return {"main process": [main], "worker": children_of(main)}
    kinds = {"actor": b"MapWorker", "claims": b"ray::Claims", "worker": b"dfd_edge.archive.child"}
    found: dict[str, list[int]] = {**{kind: [] for kind in kinds}, "main process": [main]}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            kind = next((kind for kind, word in kinds.items() if word in words), None)
            if kind is None or mark.encode() not in (folder / "environ").read_bytes():
                continue
        except OSError:
            continue
        found[kind].append(int(folder.name))
    return found


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
def two_nodes(cpus: int = 1) -> Iterator[tuple[str, str]]:
    """A Ray cluster of two nodes on this machine; gives its address and its mark for `run`."""
    from ray.cluster_utils import Cluster

    # By default actors make room for everything else on the machine. Workers inherit variables
    # that begin with ORT_.
    mark = f"ORT_ARCHIVE_TEST={os.getpid()}"
    os.environ.update([mark.split("="), ("RAY_worker_niceness", "0")])
    memory = {"object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, **memory})
    try:
        cluster.add_node(num_cpus=cpus, **memory)
        yield cluster.address, mark
    finally:
        cluster.shutdown()


def children_of(pid: int) -> list[int]:
    """The worker processes of a run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        text = " ".join(task.joinpath("children").read_text() for task in tasks)
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def figures_of(run: Run, rows: dict[str, dict[str, object]], plain: object) -> dict[str, object]:
    """Figures of a run, beside the rows of the undisturbed one."""
    return {
        "wall_s": round(run.wall_s, 1),
        "kills": run.kills,
        "resumed": run.resumed,
        "rows": len(rows),
        "largest_difference": None if plain is None else compare(plain, rows),
    }


def main() -> None:
    """Runs the campaign and prints its figures as JSON, one run a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ray", action="store_true", help="run on two nodes of Ray too")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument("--clips", type=float, default=CLIPS, help="share of clips among files")
    given = parser.parse_args()
    work: Path = given.work
    files = build(development_files(given.files, given.clips), work / "files", given.files)
    options = ["--jobs", str(given.jobs), "--duration", "2"]
    rows: dict[str, dict[str, object]] | None = None

    def judged(name: str, more: Sequence[str], **settings: Any) -> Run:
        nonlocal rows
        done = run(work / "files", work / name, [*options, *more], **settings)
        there = rows_of(work / name)
        check(files, there)
        print(json.dumps({name: figures_of(done, there, rows)}), flush=True)
        rows = rows or there
        return done

    plain = judged("local", [])
    span_s = max(1.0, plain.wall_s / max(1, given.kills))
    judged("local killed", [], kills=given.kills, span_s=span_s)
    if given.ray:
        with two_nodes() as (address, mark):
            cluster = judged("ray", ["--ray", address])
            span_s = max(1.0, cluster.wall_s / max(1, given.kills))
            more = {"kills": given.kills, "span_s": span_s, "mark": mark}
            judged("ray killed", ["--ray", address], **more)
    assert rows is not None
    labels = Counter(str(row["label"]) for row in rows.values())
    copies = sum(row["duplicate_of"] is not None for row in rows.values())
    print(json.dumps({"labels": labels, "copies": copies}))


if __name__ == "__main__":
    main()
