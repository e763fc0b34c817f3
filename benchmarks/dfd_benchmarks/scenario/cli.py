"""`dfd-bench scenario`: MLPerf's load generator over the models and the pipeline."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, PROVIDER, prepare, print_result

if TYPE_CHECKING:
    from dfd_benchmarks.results.schema import Result
    from dfd_benchmarks.scenario.loadgen import Scenario
    from dfd_benchmarks.scenario.measure import Workload


@click.command()
@click.argument("name", type=click.Choice(["single-stream", "multi-stream", "server", "offline"]))
@click.option(
    "--what",
    type=click.Choice(["frame", "sequence", "pipeline"]),
    default="frame",
    show_default=True,
    help="The frame model on crops in memory, a step of the sequence model, or a decoded frame "
    "from face detection to its scores.",
)
@click.option(
    "--clip", type=click.Path(path_type=Path), help="Frames for the pipeline.  [default: a sample]"
)
@click.option(
    "--duration",
    type=float,
    default=10.0,
    show_default=True,
    help="Seconds of a run, at least; 600 by MLPerf's rules.",
)
@click.option("--runs", type=int, default=1, show_default=True, help="Tests of LoadGen.")
@click.option(
    "--samples", type=int, default=64, show_default=True, help="Samples in LoadGen's library."
)
@click.option("--batch", type=int, default=8, show_default=True, help="Most samples of a call.")
@click.option(
    "--streams", type=int, default=8, show_default=True, help="Samples of a multi-stream query."
)
@click.option(
    "--workers", type=int, help="Threads that work.  [default: one a core; single-stream: 1]"
)
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of an operator.")
@click.option(
    "--target-qps", type=float, help="Queries a second of server.  [default: half of one thread's]"
)
@click.option(
    "--target-latency",
    type=float,
    metavar="MS",
    help="Limit of p99 for server and multi-stream, milliseconds.  [default: server's 100]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="New folder for result.json and LoadGen's own logs.",
)
@MODEL
@PROVIDER
@PRECISION
@JSON
def scenario(
    name: Scenario,
    what: Workload,
    clip: Path | None,
    duration: float,
    runs: int,
    samples: int,
    batch: int,
    streams: int,
    workers: int | None,
    threads: int,
    target_qps: float | None,
    target_latency: float | None,
    out: Path | None,
    model: Path | None,
    provider: str,
    precision: str,
    json_file: Path | None,
) -> None:
    """Run a scenario of MLPerf Inference, with its own load generator.

    Latencies, rate and LoadGen's own VALID or INVALID with its reasons. Never an official MLPerf
    result. Needs dfd-edge[bench].
    """
    from dfd_benchmarks.results.schema import write_result
    from dfd_benchmarks.scenario.loadgen import Load
    from dfd_benchmarks.scenario.measure import Subject, measure_scenario
    from dfd_edge.errors import UsageError
    from dfd_edge.inference.processor import usable_cores

    if out is not None and out.exists():
        raise UsageError(f"--out {out}: exists; name a new folder")
    if workers is None or name == "single-stream":
        workers = 1 if name == "single-stream" else max(1, int(usable_cores()))
    load = Load(
        scenario=name,
        duration_s=duration,
        runs=runs,
        samples=samples,
        batch=batch,
        streams=streams,
        workers=workers,
        target_qps=target_qps,
        target_latency_ms=target_latency,
    )
    subject = Subject(what, clip, model, provider, precision, threads)
    machine = prepare()
    with tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        logs = Path(folder) / "result" / "loadgen"
        with click.progressbar(
            length=round(duration * runs), label="measuring", file=sys.stderr
        ) as bar:
            result = measure_scenario(
                subject, load, logs, on_poll=lambda s: bar.update(max(0, int(s) - bar.pos))
            )
        if out is not None:
            write_result(logs.parent / "result.json", machine, result)
            _move(logs.parent, out)
    print_result(machine, result, json_file, lines=_lines(result))


def _move(folder: Path, out: Path) -> None:
    """Puts a finished folder in its place, whole."""
    from dfd_edge.errors import UsageError

    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.copytree(folder, partial)
        partial.rename(out)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lines(result: Result) -> Iterator[str]:
    from dfd_benchmarks.results import report

    yield f"{result.benchmark} of {result.arguments['what']}: {result.details['label']}"
    yield from report.figure_lines(result)
    for number, test in enumerate(result.details["tests"], 1):
        said = "VALID" if test["valid"] else "INVALID"
        why = "".join(f"; {reason}" for reason in test["reasons"])
        yield f"run {number}: LoadGen says {said}, {test['queries']} answered{why}"
