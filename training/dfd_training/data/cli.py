"""`dfd-train data` and `dfd-train prepare`: data sets as one table, and tables as crop stores."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import UsageError
from dfd_training.data.names import CropperName
from dfd_training.data.readers.cli import COMMANDS as LAYOUT_COMMANDS

if TYPE_CHECKING:
    from dfd_training.data.lookup import RowFacts

_FOLDER = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """Bring data sets into one table; check, merge, split, sample, look up and lay out tables.

    The table is what prepare and evaluate read: path, label, original, original_here, generator,
    kind, model, group, split, source, dataset, cropped.
    """


for _layout in LAYOUT_COMMANDS:
    data.add_command(_layout)


@data.command("merge")
@click.argument("tables", nargs=-1, required=True, type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="The new table.")
def merge_command(tables: tuple[Path, ...], out: Path) -> None:
    """Make one table of several; each keeps its splits."""
    from dfd_training.data.output import finish
    from dfd_training.data.table import merge_tables

    finish(merge_tables(tables, out), out, sources=tables, one_class=True)


@data.command("split")
@click.argument("table", type=_FOLDER)
@click.option("--val", default=0.1, show_default=True, help="Share of the rows for val.")
@click.option("--test", default=0.1, show_default=True, help="Share of the rows for test.")
@click.option("--seed", default=0, show_default=True)
@click.option("--keep", is_flag=True, help="Split only the rows without a split.")
@click.option(
    "--together",
    multiple=True,
    metavar="COLUMN",
    help="Never divide rows that share this column's value, such as model; repeatable.",
)
@click.option("--out", type=_FOLDER, required=True, help="The new table.")
def split_command(
    table: Path,
    val: float,
    test: float,
    seed: int,
    keep: bool,
    together: tuple[str, ...],
    out: Path,
) -> None:
    """Deal TABLE into train, val and test: no footage and no person on two sides.

    Each split gets its share of every label in every data set, as far as that allows.
    """
    from dfd_training.data.output import finish, report_notes
    from dfd_training.data.splitting import split_table
    from dfd_training.data.table import read_moved

    rows = read_moved(table, out.parent)
    dealt = split_table(rows, val=val, test=test, seed=seed, keep=keep, together=together)
    report_notes(dealt.notes)
    finish(dealt.table, out, sources=[table], one_class=False)


@data.command("sample")
@click.argument("table", type=_FOLDER)
@click.option("--per-class", default=8000, show_default=True, help="Rows of each class.")
@click.option("--seed", default=42, show_default=True)
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), help="Sample these rows only."
)
@click.option(
    "--class-weights",
    is_flag=True,
    help="Sample nothing: print the weights that balance the rows marked train, as JSON.",
)
@click.option("--out", type=_FOLDER, help="The new table, or a JSON file for the weights.")
def sample_command(
    table: Path,
    per_class: int,
    seed: int,
    split: str | None,
    class_weights: bool,
    out: Path | None,
) -> None:
    """Draw as many reals as fakes from TABLE, fakes with their originals where it can."""
    import pandas as pd

    from dfd_training.data.output import finish, refuse_own, report_notes
    from dfd_training.data.splitting import class_weights as weights_of
    from dfd_training.data.splitting import sample_balanced
    from dfd_training.data.table import read_moved, read_table
    from dfd_training.evaluation.report import write_json

    if class_weights:
        rows = read_table(table)
        weights = weights_of(rows[rows["split"] == (split or "train")])
        click.echo(json.dumps(weights))
        if out is not None:
            refuse_own(out, [table])
            write_json(out, weights)
        return
    if out is None:
        raise UsageError("--out is missing: name the new table")
    rows = read_moved(table, out.parent)
    sides = rows["split"].where(rows["split"] != "", "train")
    inside = sides == split if split else pd.Series(True, index=rows.index)
    sampled = sample_balanced(rows[inside], per_class=per_class, seed=seed)
    report_notes(sampled.notes)
    click.echo(f"{sampled.pairs} fakes stand with their original")
    kept = pd.concat([sampled.table, rows[~inside]]).sort_index()
    finish(kept, out, sources=[table], one_class=False)


@data.command("check")
@click.argument("table", type=_FOLDER)
@click.option("--root", type=_FOLDER, help="Folder of relative paths.  [default: the table's]")
@click.option("--quick", is_flag=True, help="Look at the first bytes only; compare no contents.")
@click.option("--out", type=_FOLDER, help="A JSON file for the findings.")
@click.option("--show", default=5, show_default=True, help="Most lines of each kind.")
@click.pass_context
def check_command(
    context: click.Context, table: Path, root: Path | None, quick: bool, out: Path | None, show: int
) -> None:
    """Check TABLE against its files; exits with 1 when something must be mended.

    Rows without a file, files without a row, files that cannot be read, one content in two splits
    or under two labels, classes that are missing; and originals that fakes name but no row has,
    which costs pairs alone.
    """
    from dfd_training.data.checking import check_table
    from dfd_training.data.output import refuse_own
    from dfd_training.data.splitting import tally
    from dfd_training.data.table import read_rows, read_table
    from dfd_training.evaluation.report import write_json

    rows = read_rows(table, root=root)
    with click.progressbar(length=len(rows), label="checking", file=sys.stderr) as bar:
        found = check_table(rows, root or table.parent, quick=quick, on_file=lambda: bar.update(1))
    if out is not None:
        refuse_own(out, [table])
        write_json(out, {"check": found})
    for what, lines in (
        ("rows without a file", found.missing),
        ("unreadable files", list(found.unreadable.values())),
        ("one content in two splits or under two labels", _lists(found.duplicates, show)),
        ("one content twice in a split", _lists(found.repeated, show)),
        ("files without a row", found.superfluous),
        ("originals without a row", found.originals),
        ("classes", found.classes),
    ):
        if lines:
            click.echo(f"{what}: {len(lines)}")
            for line in lines[:show]:
                click.echo(f"  {line}")
    read_table(table, root=root)  # refuses what stands on both sides of a split
    for line in tally(rows):
        click.echo(line)
    click.echo(f"{len(rows)} rows, {found.faults} to be mended")
    context.exit(1 if found.faults else 0)


@data.command("row")
@click.argument("table", type=_FOLDER)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--root", type=_FOLDER, help="Folder of relative paths.  [default: the table's]")
@click.option("--show", default=6, show_default=True, help="Most related files to list.")
@click.option("--json", "as_json", is_flag=True, help="JSON, a line a file.")
def row_command(
    table: Path, names: tuple[str, ...], root: Path | None, show: int, as_json: bool
) -> None:
    """Look files up in TABLE: their cells, the fakes of an original, the other fakes of it.

    TABLE is a table, the metadata of DFDC or deepfake-faces, or a folder of a data set. A NAME is a
    path, the name of a file, or that name without its suffix; originals that are not in the table
    are found by the fakes that name them.
    """
    from dfd_training.data.lookup import look_up
    from dfd_training.data.readers.any_layout import read_any

    found = read_any(table, root=root)
    facts = [fact for name in names for fact in look_up(found, name)]
    for number, fact in enumerate(facts):
        if as_json:
            click.echo(
                json.dumps(
                    {
                        **fact.cells,
                        "listed": fact.listed,
                        "file": fact.file,
                        "fakes": fact.fakes,
                        "siblings": fact.siblings,
                    }
                )
            )
            continue
        if number:
            click.echo()
        _print_facts(fact, show)


def _print_facts(fact: RowFacts, show: int) -> None:
    path, *others = fact.cells.items()
    there = "" if fact.file else "  (no such file)"
    click.echo(f"{path[1]}{there}")
    if not fact.listed:
        click.echo("  not in the table")
    width = max((len(column) for column, _ in others), default=0) + 2
    for column, text in others:
        click.echo(f"  {column + ':':<{width}}{text}")
    for title, paths in (
        ("fakes of it", fact.fakes),
        ("other fakes of its original", fact.siblings),
    ):
        if paths:
            more = ", …" if len(paths) > show else ""
            click.echo(f"  {title}: {len(paths)}: {', '.join(paths[:show])}{more}")


@data.command("to-folders")
@click.argument("table", type=_FOLDER)
@click.option("--root", type=_FOLDER, help="Folder of relative paths.  [default: the table's]")
@click.option("--out", type=_FOLDER, required=True, help="A new folder, or an empty one.")
@click.option(
    "--copy/--link", default=True, help="Copy the files, or link to them.  [default: copy]"
)
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), help="Only the rows of this split."
)
@click.option("--by-split", is_flag=True, help="Train/Real, Train/Fake, Validation/Real …")
@click.option("--skip-missing", is_flag=True, help="Leave out rows whose file is missing.")
def to_folders_command(
    table: Path,
    root: Path | None,
    out: Path,
    copy: bool,
    split: str | None,
    by_split: bool,
    skip_missing: bool,
) -> None:
    """Copy or link the files of TABLE into the folders Real and Fake.

    So `keras.utils.image_dataset_from_directory` and notebooks read them. TABLE is a table or a
    folder of a data set; rows without a split count as train. Writes labels.csv beside the folders:
    the same rows with their new paths. Nothing is overwritten, and an interrupted run leaves
    nothing behind.
    """
    from dfd_training.data.class_folders import (
        KERAS_SUFFIXES,
        check_new_folder,
        write_class_folders,
    )
    from dfd_training.data.output import report_notes
    from dfd_training.data.readers.any_layout import read_any
    from dfd_training.data.splitting import tally

    check_new_folder(out)
    found = read_any(table, root=root)
    report_notes(found.notes)
    rows = found.rows
    if split is not None:
        rows = rows[rows["split"].where(rows["split"] != "", "train") == split]
    if skip_missing:
        there = rows["path"].map(lambda path: (found.root / path).is_file()).astype(bool)
        if not there.all():
            click.echo(f"left out, since their file is missing: {(~there).sum()}", err=True)
        rows = rows[there]
    if rows.empty:
        raise UsageError(f"{table}: no row is left{f' of split {split}' if split else ''}")
    if others := sum(Path(path).suffix.lower() not in KERAS_SUFFIXES for path in rows["path"]):
        click.echo(
            f"{others} of {len(rows)} files are not {', '.join(KERAS_SUFFIXES)}: "
            "image_dataset_from_directory passes over them",
            err=True,
        )
    label = "copying" if copy else "linking"
    with click.progressbar(length=len(rows), label=label, file=sys.stderr) as bar:
        written = write_class_folders(
            rows,
            found.root,
            out,
            link=not copy,
            by_split=by_split,
            on_file=lambda: bar.update(1),
        )
    click.echo(f"{len(written)} files in {out}")
    for line in tally(written):
        click.echo(f"  {line}")


@click.command("prepare")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the table's relative paths start from.  [default: the table's own]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The crop store.")
@click.option("--rate", default=5.0, show_default=True, help="Frames a second of clips.")
@click.option("--max-frames", default=100, show_default=True, help="Most frames of a clip.")
@click.option(
    "--crop-scale",
    type=click.FloatRange(0.5, 2.0),
    help="Side of the model's crop over the size of the face. Models fitted on the store carry it, "
    "and the runtime cuts faces at it.  [default: the store's, else 1.5, or 1 where every row of "
    "TABLE is cropped]",
)
@click.option(
    "--detector",
    type=click.Choice([name.value for name in CropperName]),
    default=CropperName.BLAZEFACE.value,
    show_default=True,
    help="Detector of the faces: the runtime's own, or for comparison OpenCV's Haar cascade or "
    "dlib. Models fitted on crops of the latter two cannot be exported.",
)
@click.option(
    "--workers", type=int, default=os.cpu_count() or 1, show_default=True, help="Worker processes."
)
def prepare_command(
    table: Path,
    root: Path | None,
    out: Path,
    rate: float,
    max_frames: int,
    crop_scale: float | None,
    detector: str,
    workers: int,
) -> None:
    """Cut the faces of every file of TABLE, with landmarks, into a crop store.

    TABLE is a CSV with the columns path and label (REAL or FAKE), and as far as known original,
    generator, model, group, split, source, dataset and cropped; `dfd-train data` writes it for
    public data sets. Rows marked test are left alone. An interrupted run is resumed.

    Clips are measured too, by their consecutive frames (docs/signals.md). Where a store was written
    before that, its clips are read again; photographs are kept.
    """
    from dfd_edge.faces.signals import SIGNALS_VERSION
    from dfd_training.data.prepare import (
        TIGHT_CROP_SCALE,
        Prepared,
        PrepareOptions,
        default_crop_scale,
    )
    from dfd_training.data.prepare import prepare as run_prepare
    from dfd_training.data.store import stored_crop_scale, stored_signals_version
    from dfd_training.data.table import read_table

    rows = read_table(table, root=root)
    rows = rows[rows["split"] != "test"]  # which evaluate alone reads
    if (version := stored_signals_version(out)) not in (None, SIGNALS_VERSION):
        has = f"signals of version {version}" if version else "no signals of consecutive frames"
        click.echo(
            f"{out}: has {has}, this program measures version {SIGNALS_VERSION}: its clips are "
            "read again, photographs are kept",
            err=True,
        )
    if crop_scale is None:
        crop_scale = stored_crop_scale(out) or default_crop_scale(rows)
        if crop_scale == TIGHT_CROP_SCALE:
            click.echo(f"{table}: face crops only, cut at {crop_scale:g} times the face", err=True)
    options = PrepareOptions(
        rate_hz=rate,
        max_frames=max_frames,
        crop_scale=crop_scale,
        cropper=CropperName(detector),
    )
    with click.progressbar(length=len(rows), label="preparing", file=sys.stderr) as bar:

        def advance(_: Prepared) -> None:
            bar.update(1)

        summary = run_prepare(
            rows,
            root or table.parent,
            out,
            options=options,
            workers=workers,
            on_done=advance,
        )
    done = summary.pop("done", 0)
    click.echo(f"{done} of {len(rows)} files gave crops in {out}")
    for reason, count in summary.most_common():
        click.echo(f"  skipped {count}: {reason}")


def _lists(paths: list[list[str]], show: int) -> list[str]:
    return [", ".join(same[:show]) + (", …" if len(same) > show else "") for same in paths]
