"""`dfd-bench gru` and `dfd-bench recurrent`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, RUNS, prepare, print_result


@click.command()
@MODEL
@PRECISION
@click.option("--steps", default=10_000, show_default=True, help="Steps of a run.")
@RUNS
@JSON
def gru(model: Path | None, precision: str, steps: int, runs: int, json_file: Path | None) -> None:
    """Measure the cost of a step of the sequence graph beside the frame graph, first to last."""
    from dfd_benchmarks.sequence.gru import gru_lines, measure_gru

    machine = prepare()
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        result = measure_gru(
            model=model,
            steps=steps,
            precision=precision,
            runs=runs,
            on_run=lambda: bar.update(1),
        )
    print_result(machine, result, json_file, gru_lines(result))


@click.command()
@click.option("--head", default="gru", show_default=True, help="A head of `dfd-train`.")
@click.option(
    "--width", type=click.IntRange(min=1), help="Features of a step.  [default: the shipped ones]"
)
@RUNS
@JSON
def recurrent(head: str, width: int | None, runs: int, json_file: Path | None) -> None:
    """Compare the native sequence graph with tf2onnx's graph of the same model, with its loops.

    Both are checked for saying the same before anything is measured. Needs dfd-edge[bench].
    """
    from dfd_benchmarks.sequence.recurrent import measure_recurrent, recurrent_lines

    machine = prepare()
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        result = measure_recurrent(head=head, width=width, runs=runs, on_run=lambda: bar.update(1))
    print_result(machine, result, json_file, recurrent_lines(result))
