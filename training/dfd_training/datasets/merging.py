"""Several tables as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_training.table import check_rows, placing, portable, read_rows


def merge_tables(paths: Sequence[Path], out: Path) -> pd.DataFrame:
    """Merge tables into one that lies in another folder.

    Paths are made relative to the new table where the file lies below its folder, else absolute.
    Splits are kept as they are. A table without the column `dataset` counts as a set of its own,
    named after its file or folder. Groups and sources of one name in two sets are kept apart by
    the set's name; two tables of one set share theirs.

    Args:
        paths: of the tables.
        out: of the new table.

    Returns:
        The rows in the tables' order, all columns, checked; what the tables leave out stays empty.

    Raises:
        UsageError: A table is refused, or a file stands in two of them.
    """
    names = _names(paths)
    parts = [_read(path, name, out.parent) for path, name in zip(paths, names, strict=True)]
    file_in: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        for file in part["path"]:
            if file in file_in:
                raise UsageError(f"{path}: {file!r} stands in {file_in[file]} too")
        file_in |= dict.fromkeys(part["path"], path)
    merged = pd.concat(parts, ignore_index=True)
    for column in ("group", "source"):
        sets = merged.groupby(column)["dataset"].nunique()
        clashing = merged[column].isin(set(sets.index[sets > 1]) - {""})
        apart = merged["dataset"] + ": " + merged[column]
        merged[column] = merged[column].where(~clashing, apart)
    return check_rows(str(out), merged, out.parent)


def read_moved(path: Path, folder: Path, *, root: Path | None = None) -> pd.DataFrame:
    """The rows of a table as a table in another folder would name them."""
    return move_rows(read_rows(path, root=root), root or path.parent, folder)


def move_rows(rows: pd.DataFrame, root: Path, folder: Path) -> pd.DataFrame:
    """Rows whose paths start from `root`, named as a table in `folder` would name them."""
    place, spelt = placing(root), portable(folder.resolve())

    def moved(text: str) -> str:
        return spelt(place(text)) if text else ""

    return rows.assign(path=rows["path"].map(moved), original=rows["original"].map(moved))


def _read(path: Path, name: str, folder: Path) -> pd.DataFrame:
    rows = read_moved(path, folder)
    return rows.assign(dataset=rows["dataset"].where(rows["dataset"] != "", name))


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each table, of its file, with its folder where that is not enough."""
    stems = Counter(path.stem for path in paths)
    names = [
        path.stem if stems[path.stem] == 1 else f"{path.resolve().parent.name}/{path.stem}"
        for path in paths
    ]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else str(path.resolve().with_suffix(""))
        for name, path in zip(names, paths, strict=True)
    ]
