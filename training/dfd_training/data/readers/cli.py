"""`dfd-train data`: the commands that read the layouts of data sets, each into one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_edge.errors import UsageError

if TYPE_CHECKING:
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


@click.command("dfdc")
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


@click.command("deepfake-faces")
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


@click.command("folders")
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


@click.command("faceforensics")
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


@click.command("celeb-df")
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


@click.command("table")
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
    from dfd_training.data.output import finish
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
    finish(moved.assign(dataset=named), out, sources=[file], one_class=one_class)


def _write(found: Imported, out: Path, name: str, *, one_class: bool) -> None:
    from dfd_training.data.output import finish, report_notes
    from dfd_training.data.readers.media import to_table

    report_notes(found.notes)
    table = to_table(str(out), found.rows, out.parent, name)
    finish(table, out, sources=[row.file for row in found.rows], one_class=one_class)


COMMANDS = (
    dfdc_command,
    deepfake_faces_command,
    folders_command,
    faceforensics_command,
    celeb_df_command,
    table_command,
)
