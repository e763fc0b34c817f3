"""`dfd-train explore` and `preview`: pages and pictures of data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@click.command("explore")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the table's relative paths start from.  [default: the table's own]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--sample", default=100, show_default=True, help="Files searched for faces.")
@click.option("--frames", default=4, show_default=True, help="Searched frames of each clip.")
@click.option(
    "--probe",
    default=5000,
    show_default=True,
    help="Files opened for their resolution, length and frame rate.",
)
@click.option("--max-clips", default=6, show_default=True, help="Excerpts on the page, at most 24.")
@click.option("--with-smile", is_flag=True, help="Search for smiles too; most are wrong.")
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option(
    "--workers", type=int, default=os.cpu_count() or 1, show_default=True, help="Processes."
)
def explore_command(
    table: Path,
    root: Path | None,
    out: Path,
    sample: int,
    frames: int,
    probe: int,
    max_clips: int,
    with_smile: bool,
    seed: int,
    workers: int,
) -> None:
    """Explore the files of TABLE: one page that opens offline, and its figures.

    Extensions, columns, label shares, originals with the most fakes, sheets of real and fake
    faces, resolutions, lengths, frame rates, and three face detectors on the same frames. Writes
    index.html into the folder, and figures, sheets and lists as PNG and CSV beside it.
    """
    from dfd_training.explore.explore import ExploreOptions, explore

    options = ExploreOptions(
        sample=sample,
        frames=frames,
        probe=probe,
        max_clips=max_clips,
        with_smile=with_smile,
        seed=seed,
        workers=workers,
    )
    done = explore(table, out, root=root, options=options, stage=_stage)
    click.echo(
        f"{done.rows} files in the table, {done.opened} opened, {done.searched} searched for "
        f"faces, {done.unreadable} missing or unreadable"
    )
    for row in done.detectors:
        click.echo(
            f"  {row.name:<26} in {100 * row.share:5.1f} % of {row.frames} frames, "
            f"{row.cpu_ms:6.1f} ms a frame"
        )
    click.echo(f"{done.page} ({done.page_bytes / 1e6:.1f} MB)")


@click.command("preview")
@click.argument("clip", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder for the two files.  [default: this one]",
)
@click.option("--seconds", default=6.0, show_default=True, help="Shown length of the clip's start.")
@click.option("--rate", default=8.0, show_default=True, help="Frames a second of the GIF.")
@click.option("--size", default=320, show_default=True, help="Longer side of the GIF, pixels.")
@click.option("--frames", default=12, show_default=True, help="Pictures on the contact sheet.")
def preview_command(
    clip: Path, out: Path, seconds: float, rate: float, size: int, frames: int
) -> None:
    """Show CLIP at a glance: an animated GIF, and a contact sheet with the faces boxed."""
    from dfd_training.explore.preview import PreviewOptions, preview

    options = PreviewOptions(seconds=seconds, rate_hz=rate, longest_px=size, frames=frames)
    done = preview(clip, out, options)
    click.echo(f"{done.gif} ({done.gif.stat().st_size / 1e6:.1f} MB)")
    click.echo(f"{done.sheet}: a face in {done.with_face} of {done.frames} frames")


COMMANDS = (explore_command, preview_command)


@contextmanager
def _stage(label: str, total: int) -> Iterator[Callable[[], None]]:
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda: bar.update(1)
