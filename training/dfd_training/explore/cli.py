"""`dfd-train explore` and `preview`: pages and pictures of data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from dfd_training.explore.figures import DetectorRow


Command = TypeVar("Command", bound=Callable[..., None])


def _haar_options(command: Command) -> Command:
    """Adds the options of the Haar cascades to a command."""
    for option in (
        click.option(
            "--haar-size",
            type=int,
            help="Smallest face of the Haar cascades, in pixels of a frame at most 640 wide or "
            "tall.  [default: a twelfth of the shorter side]",
        ),
        click.option(
            "--haar-neighbours",
            default=5,
            show_default=True,
            help="Overlapping finds that make a face (minNeighbors).",
        ),
        click.option(
            "--haar-scale",
            default=1.2,
            show_default=True,
            help="Factor between two sizes of the Haar cascades' window (scaleFactor).",
        ),
    ):
        command = option(command)
    return command


@click.command("explore")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that a table's relative paths start from.  [default: the table's own]",
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
@_haar_options
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option(
    "--workers", type=int, default=os.cpu_count() or 1, show_default=True, help="Processes."
)
def explore_command(
    data: Path,
    root: Path | None,
    out: Path,
    sample: int,
    frames: int,
    probe: int,
    max_clips: int,
    with_smile: bool,
    haar_scale: float,
    haar_neighbours: int,
    haar_size: int | None,
    seed: int,
    workers: int,
) -> None:
    """Explore DATA: one page that opens offline, and its figures.

    DATA is a table (CSV), a folder of videos or pictures with or without labels, a folder of a
    public data set such as DFDC, or its metadata alone.

    Extensions, columns, label shares, originals with the most fakes, sheets of real and fake
    faces, resolutions, lengths, frame rates, and three face detectors on the same frames. Writes
    index.html into the folder, and figures, sheets and lists as PNG and CSV beside it.
    """
    from dfd_training.explore.detectors import HaarOptions
    from dfd_training.explore.explore import explore
    from dfd_training.explore.work import ExploreOptions

    options = ExploreOptions(
        sample=sample,
        frames=frames,
        probe=probe,
        max_clips=max_clips,
        with_smile=with_smile,
        haar=HaarOptions(haar_scale, haar_neighbours, haar_size),
        seed=seed,
        workers=workers,
    )
    done = explore(data, out, root=root, options=options, stage=_stage)
    for note in done.notes:
        click.echo(note, err=True)
    click.echo(
        f"{done.layout}: {done.rows} files, {done.opened} opened, {done.searched} searched for "
        f"faces, {done.unreadable} missing or unreadable, {done.without_row} without a row"
    )
    _print_detectors(done.detectors)
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
@click.option(
    "--detectors",
    is_flag=True,
    help="Search the pictures by every detector, and draw them side by side.",
)
@click.option(
    "--with-smile", is_flag=True, help="With --detectors, search for smiles too; most are wrong."
)
@_haar_options
def preview_command(
    clip: Path,
    out: Path,
    seconds: float,
    rate: float,
    size: int,
    frames: int,
    detectors: bool,
    with_smile: bool,
    haar_scale: float,
    haar_neighbours: int,
    haar_size: int | None,
) -> None:
    """Show CLIP at a glance: an animated GIF, and a contact sheet with the faces boxed.

    With --detectors a second sheet: the same frames through the Haar cascades, BlazeFace and dlib.
    A photograph has that one only.
    """
    from dfd_training.explore.detectors import HaarOptions
    from dfd_training.explore.preview import PreviewOptions, preview

    options = PreviewOptions(
        seconds=seconds,
        rate_hz=rate,
        longest_px=size,
        frames=frames,
        detectors=detectors,
        with_smile=with_smile,
        haar=HaarOptions(haar_scale, haar_neighbours, haar_size),
    )
    done = preview(clip, out, options)
    if done.gif is not None:
        click.echo(f"{done.gif} ({done.gif.stat().st_size / 1e6:.1f} MB)")
    if done.sheet is not None:
        click.echo(f"{done.sheet}: a face in {done.with_face} of {done.frames} frames")
    if done.compared is not None:
        click.echo(done.compared)
        _print_detectors(done.detectors)


def _print_detectors(rows: Sequence[DetectorRow]) -> None:
    for row in rows:
        click.echo(
            f"  {row.name:<26} in {100 * row.share:5.1f} % of {row.frames} frames, "
            f"{row.cpu_ms:6.1f} ms a frame"
        )


COMMANDS = (explore_command, preview_command)


@contextmanager
def _stage(label: str, total: int) -> Iterator[Callable[[], None]]:
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda: bar.update(1)
