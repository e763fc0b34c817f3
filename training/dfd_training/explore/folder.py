"""The files of the folder that a table describes: by extension, and those without a row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfd_training.data.readers.media import MEDIA_SUFFIXES, files_below, listed
from dfd_training.data.table import path_resolver


@dataclass(frozen=True, slots=True, eq=False)
class FolderFiles:
    """The files of a folder.

    Attributes:
        extensions: One row for each suffix in small letters, the most frequent first; columns
            `with a row` and `without a row`, numbers of files.
        without_row: Videos and pictures that no row names, relative to the folder of the table
            where they lie below it, sorted.
    """

    extensions: pd.DataFrame
    without_row: list[str]


def read_folder(paths: Iterable[str], root: Path) -> FolderFiles:
    """Reads the folder that the files of a table have in common, and all below it.

    Where they have none below the table's own, only the folders that hold them are read. Hidden
    files, bundles, evaluations and explorations are left out.

    Args:
        paths: Paths of the files that are there, as in the table; at least one.
        root: The folder that relative paths start from.

    Raises:
        UsageError: A folder cannot be read.
    """
    place = path_resolver(root)
    named = {place(path) for path in paths}
    folders = sorted({os.path.dirname(file) for file in named})  # noqa: PTH120 - paths are text here
    top, base = _common(folders), os.path.realpath(root)
    whole = top is not None and Path(top).is_relative_to(base)
    files = files_below(Path(top)) if top is not None and whole else _directly_in(folders)
    counts: dict[str, list[int]] = {}
    without_row = []
    for file in files:
        suffix = file.suffix.lower() or "none"
        has_row = place(str(file)) in named
        counts.setdefault(suffix, [0, 0])[0 if has_row else 1] += 1
        if not has_row and suffix in MEDIA_SUFFIXES:
            below = file.is_relative_to(base)
            without_row.append(file.relative_to(base).as_posix() if below else str(file))
    columns = ["with a row", "without a row"]
    extensions = pd.DataFrame.from_dict(counts, orient="index", columns=columns)
    order = extensions.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return FolderFiles(extensions.loc[order], sorted(without_row))


def _common(folders: list[str]) -> str | None:
    try:
        return os.path.commonpath(folders)
    except ValueError:  # on two drives
        return None


def _directly_in(folders: list[str]) -> Iterator[Path]:
    for folder in folders:
        yield from (
            Path(folder, name) for name in listed(Path(folder)) if Path(folder, name).is_file()
        )
