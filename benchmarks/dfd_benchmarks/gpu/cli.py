"""`dfd-bench gpu`: the frame model on an NVIDIA GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import DECODER, JSON, MODEL, PRECISION, RUNS, prepare, print_result

if TYPE_CHECKING:
    from dfd_benchmarks.results.schema import Result
    from dfd_edge.sources.decoder import DecoderName


@click.command()
@MODEL
@click.option(
    "--provider",
    type=click.Choice(["cuda", "auto"]),
    default="cuda",
    show_default=True,
    help="auto is refused where it ends on something else than a GPU.",
)
@PRECISION
@click.option("--device", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--max-batch", type=int, default=256, show_default=True, help="The sweep doubles from 1 to it."
)
@DECODER
@RUNS
@JSON
def gpu(
    model: Path | None,
    provider: str,
    precision: str,
    device: int,
    max_batch: int,
    decoder: DecoderName,
    runs: int,
    json_file: Path | None,
) -> None:
    """Measure the frame model on a GPU: transfer, compute, IO binding, CUDA graphs, batches.

    Clocks, utilisation, memory, temperature and power are sampled beside the run. With --decoder
    cuda, decoding a 720p film there and on the CPU is measured too. Where the CPU ran instead, no
    figure is given: exit code 4.
    """
    from dfd_benchmarks.gpu.measure import measure_gpu

    machine = prepare()
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        result = measure_gpu(
            model=model,
            provider=provider,
            precision=precision,
            device=device,
            max_batch=max_batch,
            decoder=decoder,
            runs=runs,
            on_run=lambda: bar.update(1),
        )
    print_result(machine, result, json_file, lines=_lines(result))


def _lines(result: Result) -> Iterator[str]:
    from dfd_benchmarks.results import report
    from dfd_benchmarks.results.nvidia import SAMPLED

    yield from report.figure_lines(result)
    for name, spread in result.details["gpu_meanwhile"].items():
        unit = SAMPLED[name]
        yield f"{name}: {spread['low']:g} to {spread['high']:g}, median {spread['median']:g} {unit}"
    if not result.details["gpu_meanwhile"]:
        yield "nvidia-smi gave no samples: clocks and load of the GPU are not known"
    if not result.details["cuda_graphs"]:
        yield "CUDA graphs: onnxruntime refuses them for this graph"
    if result.details["left_out"] is not None:
        yield result.details["left_out"]
