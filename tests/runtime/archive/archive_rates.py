"""Measures rates of `dfd-edge` and of both engines of `dfd-edge archive`, and memory over a run.

    python tests/runtime/archive/archive_rates.py --files 1000 --clips 0 --work FOLDER
    python tests/runtime/archive/archive_rates.py --engine archive --memory PLOT --work FOLDER

The files come from the data folder (DFD_DATA), without copies. Elapsed times are worth something on
an idle machine only. The plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from archive_campaign import command, development_files, rows_of

from dfd_edge.archive.ledger import MEMORY
from dfd_edge.archive.memory import MemoryRecord, read_memory
from dfd_edge.archive.storage import Store

#: `dfd-edge`, `dfd-edge archive`, and that with a Ray cluster of this machine.
ENGINES = ("dfd-edge", "archive", "ray")
#: The rate without start and end is that of this part of the clips.
_STEADY = (0.1, 0.9)


@dataclass(frozen=True)
class Rates:
    """Rates of one run, in clips a second.

    Attributes:
        whole: Over the elapsed time of the command, its start and end included.
        steady: Over the time in which the middle four fifths of the clips came.
        wall_s: Elapsed seconds.
        processor_s: Processor time of the command; not all of it with Ray, whose own processes
            outlive the command.
    """

    whole: float
    steady: float
    wall_s: float
    processor_s: float


def rates_of(folder: Path, out: Path, engine: str, options: Sequence[str]) -> Rates:
    """Runs one command on a folder."""
    since_s, used_s = time.monotonic(), _children_s()
    if engine == "dfd-edge":
        moments = _verdict_times(
            [sys.executable, "-m", "dfd_edge", "--json", *options, str(folder)]
        )
    else:
        more = ["--ray", "local"] if engine == "ray" else []
        words = command(folder, out, [*options, *more])
        done = subprocess.run(words, check=False, capture_output=True)
        if done.returncode not in (0, 1):
            raise SystemExit(done.stderr.decode())
        moments = [row["judged"].timestamp() for row in rows_of(out).values()]
    wall_s, processor_s = time.monotonic() - since_s, _children_s() - used_s
    moments.sort()
    first, last = (int(share * (len(moments) - 1)) for share in _STEADY)
    steady = (last - first) / (moments[last] - moments[first])
    return Rates(len(moments) / wall_s, steady, wall_s, processor_s)


def _verdict_times(words: Sequence[str]) -> list[float]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    moments = [time.monotonic() for line in process.stdout if b'"verdict"' in line]
    process.wait()
    return moments


def throughput(
    sources: Sequence[Path], work: Path, options: Sequence[str], engines: Sequence[str], rounds: int
) -> dict[str, object]:
    """Rates of each engine for the same files, by turns, and ratios of the medians."""
    folder = work / "once"
    folder.mkdir(parents=True)
    mixed = random.Random(0).sample(sources, len(sources))
    for number, source in enumerate(mixed):
        (folder / f"{number:05d}{source.suffix}").symlink_to(source)
    measured: dict[str, list[Rates]] = {engine: [] for engine in engines}
    for turn in range(rounds):
        for engine, rates in measured.items():
            rates.append(rates_of(folder, work / f"{engine}{turn}", engine, options))
            print(json.dumps({engine: asdict(rates[-1])}), flush=True)

    def median(engine: str, name: str) -> float:
        return statistics.median(getattr(rates, name) for rates in measured[engine])

    ratios = {
        f"{engine} / {other}": {
            name: round(median(engine, name) / median(other, name), 3)
            for name in ("whole", "steady")
        }
        for other, engine in itertools.pairwise(engines)
    }
    return {"files": len(sources), "ratios": ratios}


def memory(record: MemoryRecord, picture: Path) -> dict[str, object]:
    """Draws the memory of a run, and returns its figures: growth over the last three quarters."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    figures: dict[str, object] = {"seconds": record.seconds[-1]}
    for name, column in (("main process", record.main_mb), ("workers", record.workers_mb)):
        axes.plot(record.seconds, column, label=name)
        quarter = len(column) // 4
        slope = statistics.linear_regression(record.seconds[quarter:], column[quarter:]).slope
        figures[name] = {
            "most_mb": max(column),
            "after_a_quarter_mb": column[quarter],
            "end_mb": column[-1],
            "growth_mb_a_minute": round(60 * slope, 2),
        }
    axes.set(xlabel="seconds", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend(loc="lower right")
    figure.savefig(picture, dpi=110)
    return figures


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Measures and prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--clips", type=float, default=0.1, help="share of clips among files")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="default: dfd-edge and archive"
    )
    parser.add_argument(
        "--memory", type=Path, metavar="PLOT", help="draw memory over a run of the engine archive"
    )
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    options = ["--jobs", str(given.jobs), "--duration", "2"]
    sources = development_files(given.files, given.clips)
    engines = given.engine or ["dfd-edge", "archive"]
    print(json.dumps(throughput(sources, given.work, options, engines, given.rounds), indent=2))
    if given.memory is not None:
        (record,) = read_memory(Store(str(given.work / "archive0")), MEMORY)
        print(json.dumps(memory(record, given.memory), indent=2))


if __name__ == "__main__":
    main()
