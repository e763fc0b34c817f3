"""`dfd-bench startup`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from dfd_benchmarks.options import JSON, MODEL, PRECISION, PROVIDER, RUNS, start, tell


@click.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@MODEL
@PROVIDER
@PRECISION
@RUNS
@JSON
def startup(
    clip: Path | None,
    model: Path | None,
    provider: str,
    precision: str,
    runs: int,
    json_file: Path | None,
) -> None:
    """Imports, loading, process start to verdict on CLIP, peak memory, size on the disk.

    CLIP is 10 s of 1280x720 made of a sample by default. Every time is that of a process of its
    own, with the files in the system's cache.
    """
    from dfd_benchmarks.startup import StartOptions, make_clip, measure_startup

    machine = start()
    with tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        if clip is None:
            clip = Path(folder) / "sample-720p-10s.mp4"
            make_clip(clip)
        options = StartOptions(model, provider, precision, runs)
        with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
            result = measure_startup(clip, options, on_run=lambda: bar.update(1))
    tell(machine, result, json_file)
    click.echo("The files were in the system's cache: a first round was not counted.")
