"""`dfd-bench sweep`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dfd_benchmarks.options import JSON, RUNS, prepare, print_result


@click.command()
@click.argument("clip", type=click.Path(path_type=Path), required=False)
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of a bundle; repeat it for bundles of other input sizes.  [default: the shipped "
    "one]",
)
@click.option(
    "--providers",
    default="auto",
    show_default=True,
    metavar="NAME[,NAME]",
    help="Those to try; auto tries all that run here.",
)
@click.option(
    "--precisions",
    default="auto",
    show_default=True,
    metavar="NAME[,NAME]",
    help="Variants; auto tries all of the bundle.",
)
@click.option(
    "--batches", default="1,2,4,8,16", show_default=True, metavar="N[,N]", help="Crops in a call."
)
@click.option(
    "--threads",
    default="auto",
    show_default=True,
    metavar="N[,N]",
    help="Threads inside an operator; auto tries 1 and as many as there are cores.",
)
@click.option(
    "--slice",
    "slice_s",
    type=click.FloatRange(min=0, min_open=True),
    default=0.3,
    show_default=True,
    help="Seconds that a combination is measured in each run.",
)
@RUNS
@JSON
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    help="Write the recommended settings here, for dfd-edge --settings.",
)
def sweep(
    clip: Path | None,
    models: tuple[Path, ...],
    providers: str,
    precisions: str,
    batches: str,
    threads: str,
    slice_s: float,
    runs: int,
    json_file: Path | None,
    settings_file: Path | None,
) -> None:
    """Find the quickest provider, precision, batch and threads on this machine.

    The frame graph by itself, and CLIP (a sample by default) from file to verdict. The knee is the
    largest batch that still gains more than 5 %.
    """
    from dfd_benchmarks.streams.footage import SAMPLE
    from dfd_benchmarks.sweep.measure import SweepOptions, measure_sweep, parse_counts, parse_names
    from dfd_edge.errors import UsageError

    if clip is None and not SAMPLE.is_file():
        raise UsageError("the sample clips are not installed; name a CLIP with one face in it")
    options = SweepOptions(
        models=models or (None,),
        providers=parse_names(providers),
        precisions=parse_names(precisions),
        batches=parse_counts(batches, "--batches") or (1,),
        threads=parse_counts(threads, "--threads"),
        slice_s=slice_s,
        runs=runs,
    )
    machine = prepare()
    with click.progressbar(length=runs, label="measuring", file=sys.stderr) as bar:
        report = measure_sweep(clip or SAMPLE, options, on_run=lambda: bar.update(1))
    print_result(machine, report.result, json_file, report.lines())
    if settings_file is not None:
        report.settings.write(settings_file)
        click.echo(f"written to {settings_file}: dfd-edge --settings {settings_file}")
