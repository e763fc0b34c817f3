"""`dfd-bench peers`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_benchmarks.options import JSON, RUNS, prepare, print_result

if TYPE_CHECKING:
    from dfd_benchmarks.peers.networks import Kind
    from dfd_benchmarks.results.schema import Result


@click.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option(
    "--network",
    type=click.Choice(["shipped", "inception"]),
    default="shipped",
    show_default=True,
    help="The shipped architecture, or InceptionV3 with two small GRUs.",
)
@click.option(
    "--keras",
    "keras_file",
    type=click.Path(path_type=Path),
    help="A frame model of `dfd-train`, *.keras, to run in place of it.",
)
@click.option(
    "--loop", is_flag=True, help="A whole clip: the notebooks' loop against Detector.analyze."
)
@click.option("--frames", type=click.IntRange(min=4), default=20, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of every engine; with --loop of the runtime, and TensorFlow has all cores.",
)
@click.option("--int8/--no-int8", default=True, show_default=True, help="Also int8.")
@RUNS
@JSON
def peers(
    clip: Path | None,
    network: Kind,
    keras_file: Path | None,
    loop: bool,
    frames: int,
    threads: int,
    int8: bool,
    runs: int,
    json_file: Path | None,
) -> None:
    """Run the same weights on the same frames of CLIP in Keras, LiteRT, OpenVINO and here.

    The networks are exported on the spot. Whatever says something else than the runtime is not
    measured. CLIP is a sample by default; its frames are cut to their middle squares. Needs
    dfd-edge[bench].
    """
    from dfd_benchmarks.peers.engines import limit_tensorflow
    from dfd_benchmarks.streams.footage import SAMPLE

    pass
    from dfd_edge.errors import SourceError, UsageError

    if clip is None and not SAMPLE.is_file():
        raise UsageError(f"the sample clips are not installed; name a CLIP of {frames} frames")
    clip = clip or SAMPLE
    machine = prepare()
    if not loop:
        limit_tensorflow(threads)

    from dfd_benchmarks.peers.frames import measure_peers, open_peers
    from dfd_benchmarks.peers.loop import measure_loop
    from dfd_benchmarks.peers.networks import build_networks, export_networks
    from dfd_training.recipes.clip_reading import first_crops

    networks = build_networks(network, keras_file=keras_file)
    crops, _ = first_crops(clip, frames=frames, size=networks.size)
    if len(crops) < frames:
        raise SourceError(clip, f"has {len(crops)} frames", "give a longer one, or fewer --frames")
    with tempfile.TemporaryDirectory() as folder:
        click.echo("exporting the networks", err=True)
        bundle = export_networks(networks, Path(folder) / "bundle", crops=crops, int8=int8)
        opened = None if loop else open_peers(networks, bundle, crops, threads=threads)
        with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
            if opened is None:
                result = measure_loop(
                    networks,
                    bundle,
                    crops,
                    clip=clip,
                    kind=network if keras_file is None else None,
                    threads=threads,
                    runs=runs,
                    on_run=lambda: bar.update(1),
                )
            else:
                result = measure_peers(
                    opened,
                    networks,
                    bundle,
                    crops,
                    clip=clip,
                    threads=threads,
                    runs=runs,
                    on_run=lambda: bar.update(1),
                )
    print_result(machine, result, json_file, _lines(result))


def _lines(result: Result) -> Iterator[str]:
    """Yields what ran and what did not, then the figures."""
    from dfd_benchmarks.results.report import figure_lines

    arguments, details = result.arguments, result.details
    yield (
        f"{arguments['network']} at {arguments['size']} px, weights: {details['weights']}; "
        f"{arguments['frames']} frames of {details['clip']}"
    )
    if arguments["loop"]:
        differences = ", ".join(f"{k} {v:.1e}" for k, v in details["logit_difference"].items())
        yield (
            f"TensorFlow's threads: {details['tensorflow_threads']}; the clip's logit differs: "
            f"{differences}"
        )
    else:
        for name, engine in details["engines"].items():
            yield (
                f"  {name} {engine['version']}, threads: {engine['threads']}, differs by "
                f"{engine['difference']:.1e}"
            )
        for name, reason in details["skipped"].items():
            yield f"  {name} left out: {reason}"
        if details["int8_instructions"]:
            yield f"  instructions for int8: {details['int8_instructions']}"
    yield from figure_lines(result)
