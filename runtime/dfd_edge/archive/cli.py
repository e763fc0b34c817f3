"""`dfd-edge archive`: judges an archive of clips, and compares two such runs."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dfd_edge.cli.group import CommandGroup
from dfd_edge.cli.options import provenance_flags, provider_flags
from dfd_edge.errors import DfdError, UsageError

_MOST_JOBS = 1024


class _ArchiveGroup(CommandGroup):
    """A group whose first command needs no name: `archive INPUT...` is `archive run INPUT...`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self.commands["run"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_ArchiveGroup, extra="archive", context_settings={"help_option_names": ["-h", "--help"]}
)
def archive() -> None:
    """Judge archives of clips with many processes, exactly once each.

    `dfd-edge archive INPUT... --out RESULTS` is short for `dfd-edge archive run`.
    """


def _shard(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(f"{text!r}: give NUMBER/COUNT such as 1/4")
    return int(number), int(count)


def _since(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: give a date or a time such as 2026-01-31 or 2026-01-31T18:00+01:00"
        ) from None


@archive.command("run")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--out", required=True, metavar="RESULTS", help="Folder or address of object storage."
)
@click.option("--column", metavar="NAME", help="Column of addresses in manifests.")
@click.option("--label-column", metavar="NAME", help="Column of expected labels in manifests.")
@click.option(
    "--since",
    "since_s",
    callback=_since,
    metavar="DATE",
    help="Leave out clips that were not changed since.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Judge at most N clips.")
@click.option(
    "--shard",
    callback=_shard,
    metavar="I/N",
    help="Judge part I of N, by the address of each clip.",
)
@click.option("--retry-failed", is_flag=True, help="Judge clips again that failed.")
@click.option(
    "--dry-run", is_flag=True, help="Judge a few clips only, and estimate time and cost of all."
)
@click.option(
    "--sample",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Clips that --dry-run judges.",
)
@click.option(
    "--price",
    type=click.FloatRange(min=0),
    metavar="PRICE",
    help="Price of this machine for an hour, for --dry-run.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1, max=_MOST_JOBS),
    metavar="N",
    help="Worker processes; one for each core by default.",
)
@click.option("--ray", metavar="ADDRESS", help="Judge on a Ray cluster: its address, or auto.")
@click.option(
    "--actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --ray: most workers; by default as many as the cluster's processors have room for.",
)
@click.option(
    "--actor-cpus",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="N",
    help="With --ray: processors that each worker reserves.",
)
@click.option(
    "--actor-gpus",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="N",
    help="With --ray: GPUs that each worker reserves, such as 0.25.",
)
@click.option(
    "--clip-time",
    "clip_time_s",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Give up a clip after this long.",
)
@click.option(
    "--clip-memory",
    "memory_mb",
    default=4096,
    show_default=True,
    type=click.IntRange(min=512),
    metavar="MB",
    help="Memory that a worker may allocate; on Linux, with the provider cpu.",
)
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="BUNDLE", help="Folder of the bundle."
)
@provider_flags
@click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Frames judged per second.")
@click.option(
    "--duration", "duration_s", type=float, metavar="S", help="Judge only the first S seconds."
)
@click.option(
    "--frames", "max_frames", type=int, metavar="N", help="Judge films at N moments each."
)
@click.option("--scan", is_flag=True, help="Search films for passages that look fake.")
@click.option("--faces", default="all", show_default=True, metavar="all|largest|N")
@click.option("--cropped", is_flag=True, help="Images are face crops already.")
@click.option("--max-pixels", type=int, metavar="N", help="Refuse larger pictures and frames.")
@click.option(
    "--sandbox", is_flag=True, help="Decode in a further child process, as `dfd-edge --sandbox`."
)
@provenance_flags
@click.option(
    "--frame-rows", is_flag=True, help="Write a row for each person in each judged frame too."
)
@click.option(
    "--thumbnails", is_flag=True, help="Keep a picture of each clip's most suspicious crop."
)
@click.option(
    "--reports",
    default=0,
    type=click.IntRange(min=0),
    metavar="N",
    help="Write the reports of the N most suspicious clips too.",
)
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Folder for copies of clips from object storage.  [default: the system's]",
)
@click.option("-v", "--verbose", is_flag=True, help="Print more on standard error.")
def run_command(verbose: bool, **options: Any) -> None:  # noqa: ANN401 - each is typed in the request
    """Judge the clips that INPUTs stand for, and write a Parquet data set to RESULTS.

    INPUTs are files, folders, globs, addresses such as s3://bucket/folder, and manifests (.csv,
    .parquet, .jsonl) with a column of addresses. A run that was ended is resumed by the same
    command.
    """
    from dfd_edge.archive.page import write_index
    from dfd_edge.archive.run import run_archive
    from dfd_edge.archive.storage import Store
    from dfd_edge.cli.judge import stopped_by_signals

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="dfd-edge: %(message)s")
    reports, dry_run = options.pop("reports"), options.pop("dry_run")
    sample, price = options.pop("sample"), options.pop("price")
    cluster = {name: options.pop(name) for name in ("ray", "actors", "actor_cpus", "actor_gpus")}
    request = _request(options)
    if dry_run:
        from dfd_edge.archive.estimate import estimate

        click.echo(estimate(request, sample=sample, price=price))
        return
    stop = threading.Event()
    with stopped_by_signals(stop):
        if cluster["ray"] is None:
            outcome = run_archive(request, stop, note=_note)
        else:
            from dfd_edge.archive.cluster import ClusterSettings, RayEngine

            settings = ClusterSettings(
                address=cluster["ray"],
                actors=cluster["actors"],
                cpus=cluster["actor_cpus"],
                gpus=cluster["actor_gpus"],
                scratch=request.scratch,
            )
            with RayEngine(request.judge, request.worker, settings) as engine:
                outcome = run_archive(request, stop, engine=lambda ledger: engine, note=_note)
    page = write_index(Store(request.out), request.judge, reports=reports, note=_note)
    words = [
        f"{outcome.judged:,} clips judged",
        f"{outcome.failed:,} failed",
        f"{outcome.duplicates:,} copies",
        f"{outcome.before:,} done before",
    ]
    if outcome.stopped:
        words.append("stopped: the same command resumes")
    click.echo(", ".join(words))
    click.echo(f"page: {page}")
    sys.exit(1 if outcome.failed else 0)


def _request(options: dict[str, Any]) -> Any:  # noqa: ANN401 - its type is imported late
    """Returns the request of the command's options.

    Raises:
        UsageError: An option is out of range, or does not go with another.
    """
    from dfd_edge.archive.inputs import ManifestColumns, Selection
    from dfd_edge.archive.run import ArchiveRequest
    from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
    from dfd_edge.arguments import check_number, check_rate
    from dfd_edge.cli.options import check_provenance_flags, take_provider_flags
    from dfd_edge.inference.processor import usable_cores

    provider = take_provider_flags(options)
    if options["rate_hz"] is not None:
        check_rate("--rate", options["rate_hz"])
    if options["duration_s"] is not None:
        check_number("--duration", options["duration_s"], above=0.0)
    if options["scan"] and options["max_frames"] is not None:
        raise UsageError("--scan chooses its frames itself: leave --frames out")
    trust_list = options["trust_list"]
    check_provenance_flags(provenance=options["provenance"], trust_list=trust_list)
    judge = JudgeSettings(
        trust_list=None if trust_list is None else str(trust_list.resolve()),
        model=None if options["model"] is None else str(options["model"].resolve()),
        **{
            name: options[name]
            for name in (
                *("precision", "rate_hz", "duration_s", "max_frames", "scan", "faces", "cropped"),
                *("max_pixels", "sandbox", "frame_rows", "thumbnails", "provenance"),
            )
        },
    )
    judge.faces_option()
    cache = provider.engine_cache
    device = provider.device
    worker = WorkerSettings(
        provider=options["provider"],
        threads=options["threads"],
        device=None if device is None else str(device),
        gpu_memory_limit_mb=provider.gpu_memory_limit_mb,
        cuda_graphs=provider.cuda_graphs,
        engine_cache=None if cache is None else str(cache),
        clip_time_s=options["clip_time_s"],
        memory_mb=options["memory_mb"],
    )
    shard, shards = options["shard"]
    return ArchiveRequest(
        inputs=options["inputs"],
        out=options["out"],
        columns=ManifestColumns(options["column"], options["label_column"]),
        selection=Selection(options["since_s"], shard, shards),
        limit=options["limit"],
        judge=judge,
        worker=worker,
        jobs=options["jobs"] or max(1, int(usable_cores())),
        scratch=options["scratch"],
        retry_failed=options["retry_failed"],
    )


@archive.command("compare")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--depth",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Folders below the common one that make a source of their own.",
)
@click.option(
    "--shown",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Clips with the largest changes to print.",
)
def compare_command(before: str, after: str, depth: int, shown: int) -> None:
    """Compare the results A and B: changed labels, and shifts of scores by source.

    Clips are matched by their contents.
    """
    from dfd_edge.archive.compare import compare
    from dfd_edge.archive.storage import Store

    click.echo(compare(Store(before), Store(after), depth=depth, shown=shown))


def _note(text: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    click.echo(f"dfd-edge archive: {text:<78}{end}", err=True, nl=False)


def main() -> None:
    """Entry point: `dfd-edge archive`."""
    try:
        archive(args=sys.argv[2:], prog_name="dfd-edge archive")
    except DfdError as error:  # raised while options are read
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
