"""Folders `Real` and `Fake` of the files of a table, for programs that read labels from folders.

`keras.utils.image_dataset_from_directory` and notebooks read one folder a class. The folders appear
whole or not at all: they are filled under a temporary name and renamed at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from dfd_edge.errors import OutputError, UsageError
from dfd_training.data.table import (
    FAKE,
    REAL,
    mark_originals,
    move_rows,
    path_resolver,
    write_table,
)

CLASS_NAMES = {REAL: "Real", FAKE: "Fake"}
SPLIT_FOLDERS = {"": "Train", "train": "Train", "val": "Validation", "test": "Test"}
TABLE_NAME = "labels.csv"
# Files that Keras 3 reads; it leaves out those with any other suffix, without a message.
KERAS_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def write_class_folders(
    rows: pd.DataFrame,
    root: Path,
    out: Path,
    *,
    link: bool = False,
    by_split: bool = False,
    on_file: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Copies or links the files of a table into `Real` and `Fake`.

    Files keep their name where no other file of their folder has it; where several share one, each
    gets the names of its folders before it (`part_0__a.jpg`). Beside the folders lies labels.csv,
    the same table with the new paths. An interrupted run leaves nothing behind.

    Args:
        rows: As `read_rows` gives them, each with a label, their files all there.
        root: The folder that relative paths start from.
        out: A new folder, or an empty one.
        link: Make symbolic links to the files instead of copies.
        by_split: Put the two folders into `Train`, `Validation` and `Test`.
        on_file: Called after each file.

    Returns:
        The rows of labels.csv.

    Raises:
        UsageError: `out` is not empty, a row has no label, or a file is missing.
        OutputError: The files do not fit, or one cannot be read or written.
    """
    if (unlabelled := rows["label"] == "").any():
        first = rows["path"][unlabelled].iloc[0]
        raise UsageError(f"{unlabelled.sum()} rows have no label, first {first!r}: no class folder")
    check_new_folder(out)
    place = path_resolver(root)
    files = {path: Path(place(path)) for path in rows["path"]}
    if missing := [path for path, file in files.items() if not file.is_file()]:
        raise UsageError(
            f"{len(missing)} of {len(files)} files are missing, first {missing[0]!r}; "
            "--skip-missing leaves them out"
        )
    names = new_paths(rows, by_split=by_split)
    target = out.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        if not link:
            _check_space(files.values(), partial)
        for path, file in files.items():
            _put(file, partial / names[path], link=link)
            on_file()
        table = _renamed(rows, root, target, names)
        write_table(table, partial / TABLE_NAME)
        _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return table


def check_new_folder(out: Path) -> None:
    """Refuses a folder that holds something.

    Raises:
        UsageError: It does, or there is a file of that name.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"--out {out}: is not a folder; name a new one")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out}: is not empty, and nothing is overwritten; name a new one")


def new_paths(rows: pd.DataFrame, *, by_split: bool = False) -> dict[str, str]:
    """Returns the path of each file in the class folders, by its path in the table.

    Names are compared without regard to case, since some file systems do.
    """
    folders = [
        (f"{SPLIT_FOLDERS[split]}/" if by_split else "") + CLASS_NAMES[label]
        for split, label in zip(rows["split"], rows["label"], strict=True)
    ]
    parts = [
        [p for p in PurePosixPath(path).parts if p not in ("/", "..")] for path in rows["path"]
    ]
    lengths = [1 for _ in parts]
    while True:
        names = [
            f"{folder}/{'__'.join(own[-length:])}"
            for folder, own, length in zip(folders, parts, lengths, strict=True)
        ]
        counts = pd.Series([name.casefold() for name in names]).value_counts()
        shared = [counts[name.casefold()] > 1 for name in names]
        longer = [length < len(own) for own, length in zip(parts, lengths, strict=True)]
        grow = [both and more for both, more in zip(shared, longer, strict=True)]
        if not any(grow):
            break
        lengths = [length + int(more) for length, more in zip(lengths, grow, strict=True)]
    taken: set[str] = set()
    return {path: _free_name(name, taken) for path, name in zip(rows["path"], names, strict=True)}


def _free_name(name: str, taken: set[str]) -> str:
    """Returns a name, with a number before its suffix where another file has it."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, not a place
    free, number = name, 2
    while free.casefold() in taken:
        free, number = f"{stem}_{number}{suffix}", number + 1
    taken.add(free.casefold())
    return free


def _check_space(files: Iterable[Path], folder: Path) -> None:
    needed = sum(file.stat().st_size for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder.parent}: {needed / 1e9:.1f} GB to copy, {free / 1e9:.1f} GB free; "
            "--link copies nothing"
        )


def _put(file: Path, target: Path, *, link: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(file)
        else:
            shutil.copyfile(file, target)
    except OSError as error:
        mend = "; --copy needs no links" if link else ""
        raise OutputError(
            f"{file}: cannot be {'linked' if link else 'copied'} ({error.strerror}){mend}"
        ) from error


def _renamed(rows: pd.DataFrame, root: Path, out: Path, names: dict[str, str]) -> pd.DataFrame:
    """Returns the rows with their new paths; originals that are no rows keep their old place."""
    moved = move_rows(rows, root, out)["original"]
    known = [names.get(text, other) for text, other in zip(rows["original"], moved, strict=True)]
    return mark_originals(rows.assign(path=rows["path"].map(names), original=known))


def _put_in_place(partial: Path, out: Path) -> None:
    try:
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be put in place ({error.strerror})") from error
