"""`dfd-train data` and `dfd-train prepare`: data sets as one table, and tables as crop stores."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_edge.errors import UsageError
from dfd_training.data.croppers import CropperName

if TYPE_CHECKING:
    import pandas as pd

    from dfd_training.data.readers.media import Imported

_FOLDER = click.Path(path_type=Path)
_Command = Callable[..., Any]


def _to_table(command: _Command) -> _Command:
    """Adds the options of every command that makes a table from a layout."""
    for option in (
        click.option("--one-class", is_flag=True, help="Accept real footage or fakes alone."),
        click.option("--name", default="", help="Name of the data set.  [default: the folder's]"),
        click.option("--out", type=_FOLDER, required=True, help="The table, a CSV file."),
    ):
        command = option(command)
    return command


def _class_names(command: _Command) -> _Command:
    """Adds the options that name the classes."""
    for label in ("fake", "real"):
        command = click.option(
            f"--{label}",
            f"{label}_names",
            multiple=True,
            metavar="NAME",
            help=f"Name of the class {label.upper()}, instead of the known ones; repeatable.",
        )(command)
    return command


@click.group()
def data() -> None:
    """Bring data sets into one table; check, merge, split and sample tables.

    Every command writes the table that prepare and evaluate read: path, label, original,
    generator, model, group, split, source, dataset, cropped.
    """


@data.command("dfdc")
@click.argument("folders", nargs=-1, required=True, type=_FOLDER)
@click.option("--by-part", is_flag=True, help="Never divide the files of a part.")
@click.option(
    "--unlabelled",
    is_flag=True,
    help="FOLDERS are test folders without labels: a table for `dfd-train submit` only.",
)
@_to_table
def dfdc_command(
    folders: tuple[Path, ...],
    by_part: bool,
    unlabelled: bool,
    out: Path,
    name: str,
    one_class: bool,
) -> None:
    """Deepfake Detection Challenge: FOLDERS with a metadata.json, or folders of such parts."""
    from dfd_training.data.readers.dfdc import read_dfdc, read_unlabelled
    from dfd_training.data.readers.media import Imported

    if not unlabelled:
        found = read_dfdc(folders, by_part=by_part)
    else:
        tests = [read_unlabelled(folder) for folder in folders]
        found = Imported([r for t in tests for r in t.rows], [n for t in tests for n in t.notes])
    _write(found, out, name or "DFDC", one_class=one_class or unlabelled)


@data.command("deepfake-faces")
@click.argument("folder", type=_FOLDER)
@click.option("--pictures", default="faces_224", show_default=True, help="Folder of the pictures.")
@_class_names
@_to_table
def deepfake_faces_command(
    folder: Path,
    pictures: str,
    real_names: tuple[str, ...],
    fake_names: tuple[str, ...],
    out: Path,
    name: str,
    one_class: bool,
) -> None:
    """deepfake-faces: FOLDER with metadata.csv beside faces_224, pictures that are face crops."""
    from dfd_training.data.readers.deepfake_faces import read_deepfake_faces
    from dfd_training.data.readers.media import LabelNames

    names = LabelNames.exactly().replaced(real_names, fake_names)
    found = read_deepfake_faces(folder, pictures=pictures, names=names)
    _write(found, out, name or "deepfake-faces", one_class=one_class)


@data.command("folders")
@click.argument("folder", type=_FOLDER)
@click.option("--cropped", is_flag=True, help="The pictures are face crops.")
@click.option("--by-folder", is_flag=True, help="Each folder below a class is a group.")
@_class_names
@_to_table
def folders_command(
    folder: Path,
    cropped: bool,
    by_folder: bool,
    real_names: tuple[str, ...],
    fake_names: tuple[str, ...],
    out: Path,
    name: str,
    one_class: bool,
) -> None:
    """Trees of folders named for classes and splits, such as Train/Real and Train/Fake.

    Understood, in any case, as whole names of folders: real, original, genuine, authentic,
    pristine; fake, deepfake, manipulated, forged, synthetic, synthesis, generated, swapped; their
    plurals; and for splits train, training, val, valid, validation, test, testing. Not 0 and 1,
    which mean either: give --real 0 --fake 1.
    """
    from dfd_training.data.readers.folders import read_folders
    from dfd_training.data.readers.media import LabelNames

    names = LabelNames().replaced(real_names, fake_names)
    found = read_folders(folder, names=names, cropped=cropped, by_folder=by_folder)
    _write(found, out, name or folder.resolve().name, one_class=one_class)


@data.command("faceforensics")
@click.argument("folder", type=_FOLDER)
@click.option(
    "--compression",
    "compressions",
    type=click.Choice(["raw", "c0", "c23", "c40"]),
    multiple=True,
    help="Clips to take; repeatable.  [default: all that are there]",
)
@click.option("--splits", type=_FOLDER, help="Folder with train.json, val.json and test.json.")
@_to_table
def faceforensics_command(
    folder: Path,
    compressions: tuple[str, ...],
    splits: Path | None,
    out: Path,
    name: str,
    one_class: bool,
) -> None:
    """FaceForensics++ and DeepFakeDetection: original_sequences and manipulated_sequences."""
    from dfd_training.data.readers.faceforensics import read_faceforensics

    found = read_faceforensics(folder, compressions=compressions, splits=splits)
    _write(found, out, name or "FaceForensics++", one_class=one_class)


@data.command("celeb-df")
@click.argument("folder", type=_FOLDER)
@click.option("--no-list", is_flag=True, help="Ignore List_of_testing_videos.txt.")
@click.option(
    "--by-footage",
    is_flag=True,
    help="Keep footage apart instead of people, as published figures for this set do.",
)
@_to_table
def celeb_df_command(
    folder: Path, no_list: bool, by_footage: bool, out: Path, name: str, one_class: bool
) -> None:
    """Celeb-DF: Celeb-real, Celeb-synthesis, YouTube-real and List_of_testing_videos.txt."""
    from dfd_training.data.readers.celeb_df import read_celeb_df

    found = read_celeb_df(folder, use_list=not no_list, by_footage=by_footage)
    _write(found, out, name or "Celeb-DF", one_class=one_class)


@data.command("table")
@click.argument("file", type=_FOLDER)
@click.option("--root", type=_FOLDER, help="Folder of relative paths.  [default: the table's]")
@_class_names
@_to_table
def table_command(
    file: Path,
    root: Path | None,
    real_names: tuple[str, ...],
    fake_names: tuple[str, ...],
    out: Path,
    name: str,
    one_class: bool,
) -> None:
    """A table of one's own, FILE: checked, its labels translated, its paths fit for --out."""
    from dfd_training.data.readers.media import LabelNames
    from dfd_training.data.table import COLUMNS, REQUIRED, check_rows, move_rows, read_csv_text

    rows = read_csv_text(file)
    if missing := [column for column in REQUIRED if column not in rows]:
        raise UsageError(f"{file}: columns {missing} are missing; there are {list(rows)}")
    if real_names or fake_names:
        names = LabelNames.exactly().replaced(real_names, fake_names)
        where = [f"{file}, row {line}" for line in range(2, len(rows) + 2)]
        rows["label"] = list(map(names.read, where, rows["label"]))
    rows = rows.reindex(columns=list(COLUMNS), fill_value="")
    rows = check_rows(str(file), rows, root or file.parent)
    moved = move_rows(rows, root or file.parent, out.parent)
    named = moved["dataset"].where(moved["dataset"] != "", name or file.stem)
    _finish(moved.assign(dataset=named), out, sources=[file], one_class=one_class)


@data.command("merge")
@click.argument("tables", nargs=-1, required=True, type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="The new table.")
def merge_command(tables: tuple[Path, ...], out: Path) -> None:
    """Make one table of several; each keeps its splits."""
    from dfd_training.data.table import merge_tables

    _finish(merge_tables(tables, out), out, sources=tables, one_class=True)


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
    from dfd_training.data.splitting import split_table
    from dfd_training.data.table import read_moved

    rows = read_moved(table, out.parent)
    dealt = split_table(rows, val=val, test=test, seed=seed, keep=keep, together=together)
    _tell(dealt.notes)
    _finish(dealt.table, out, sources=[table], one_class=False)


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

    from dfd_training.data.splitting import class_weights as weights_of
    from dfd_training.data.splitting import sample_balanced
    from dfd_training.data.table import read_moved, read_table
    from dfd_training.evaluation.report import write_json

    if class_weights:
        rows = read_table(table)
        weights = weights_of(rows[rows["split"] == (split or "train")])
        click.echo(json.dumps(weights))
        if out is not None:
            _refuse_own(out, [table])
            write_json(out, weights)
        return
    if out is None:
        raise UsageError("--out is missing: name the new table")
    rows = read_moved(table, out.parent)
    sides = rows["split"].where(rows["split"] != "", "train")
    inside = sides == split if split else pd.Series(True, index=rows.index)
    sampled = sample_balanced(rows[inside], per_class=per_class, seed=seed)
    _tell(sampled.notes)
    click.echo(f"{sampled.pairs} fakes stand with their original")
    kept = pd.concat([sampled.table, rows[~inside]]).sort_index()
    _finish(kept, out, sources=[table], one_class=False)


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
    or under two labels, classes that are missing.
    """
    from dfd_training.data.checking import check_table
    from dfd_training.data.splitting import tally
    from dfd_training.data.table import read_rows, read_table
    from dfd_training.evaluation.report import write_json

    rows = read_rows(table, root=root)
    with click.progressbar(length=len(rows), label="checking", file=sys.stderr) as bar:
        found = check_table(rows, root or table.parent, quick=quick, on_file=lambda: bar.update(1))
    if out is not None:
        _refuse_own(out, [table])
        write_json(out, {"check": found})
    for what, lines in (
        ("rows without a file", found.missing),
        ("unreadable files", list(found.unreadable.values())),
        ("one content in two splits or under two labels", _lists(found.duplicates)),
        ("one content twice in a split", _lists(found.repeated)),
        ("files without a row", found.superfluous),
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
    help="What finds the faces: the runtime's detector, or for comparison OpenCV's Haar cascade or "
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


def _write(found: Imported, out: Path, name: str, *, one_class: bool) -> None:
    from dfd_training.data.readers.media import to_table

    _tell(found.notes)
    table = to_table(str(out), found.rows, out.parent, name)
    _finish(table, out, sources=[row.file for row in found.rows], one_class=one_class)


def _finish(
    table: pd.DataFrame, out: Path, *, sources: list[Path] | tuple[Path, ...], one_class: bool
) -> None:
    from dfd_training.data.splitting import tally
    from dfd_training.data.table import check_classes, check_sides, with_defaults, write_table

    _refuse_own(out, sources)
    if not one_class:
        try:
            check_classes(str(out), table)
        except UsageError as error:
            raise UsageError(f"{error}; --one-class accepts that") from error
    check_sides(str(out), with_defaults(table))
    write_table(table, out)
    click.echo(f"{len(table)} rows in {out}")
    for line in tally(table):
        click.echo(f"  {line}")


def _refuse_own(out: Path, sources: list[Path] | tuple[Path, ...]) -> None:
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name a file")
    if out.resolve() in {source.resolve() for source in sources if source.name == out.name}:
        raise UsageError(f"--out {out}: would replace a file that is read; give another name")


def _tell(notes: list[str]) -> None:
    for note in notes:
        click.echo(note, err=True)


def _lists(paths: list[list[str]]) -> list[str]:
    return [", ".join(same) for same in paths]
