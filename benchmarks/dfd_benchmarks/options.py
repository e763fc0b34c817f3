"""Options that the commands of `dfd-bench` share, and the output of their results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dfd_benchmarks.results.machine import Machine
    from dfd_benchmarks.results.schema import Result

MODEL = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Folder of a bundle.  [default: the shipped one]",
)
PROVIDER = click.option("--provider", default="auto", show_default=True, help="As in dfd-edge.")
PRECISION = click.option(
    "--precision", default="auto", show_default=True, help="Variant of the frame graph."
)
DECODER = click.option(
    "--decoder",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Decoder of the films; cuda is refused where it does not run.",
)
RUNS = click.option(
    "--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Measurements."
)
JSON = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Also write the figures and the machine to this file.",
)


def prepare() -> Machine:
    """Describes the machine before anything is measured, and warns where it is busy.

    OpenCV is set to one thread, as `dfd-edge` sets it.
    """
    from dfd_benchmarks.results.machine import describe_machine
    from dfd_edge.inference.threads import set_opencv_threads

    set_opencv_threads(1)
    machine = describe_machine()
    if machine.warning is not None:
        click.echo(f"warning: {machine.warning}", err=True)
    return machine


def print_result(
    machine: Machine, result: Result, json_file: Path | None, lines: Iterable[str] | None = None
) -> None:
    """Prints a result and writes its file.

    Args:
        machine: The machine, from `prepare`.
        result: The result.
        json_file: Where it is written, or None.
        lines: Lines to print under the machine in place of the table of figures.
    """
    from dfd_benchmarks.results import report
    from dfd_benchmarks.results.schema import write_result

    for line in report.machine_lines(machine):
        click.echo(line)
    for line in report.figure_lines(result) if lines is None else lines:
        click.echo(line)
    if json_file is not None:
        write_result(json_file, machine, result)
