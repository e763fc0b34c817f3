"""The table of labelled files that every training command reads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole

REQUIRED = ("path", "label")
OPTIONAL = (
    "original",
    "original_here",
    "generator",
    "kind",
    "model",
    "group",
    "split",
    "source",
    "dataset",
    "cropped",
)
COLUMNS = (*REQUIRED, *OPTIONAL)
REAL, FAKE = "REAL", "FAKE"
LABELS = (REAL, FAKE)
SPLITS = ("train", "val", "test")
CROPPED = ("yes", "no", "")


def read_table(path: Path, *, root: Path | None = None, unlabelled: bool = False) -> pd.DataFrame:
    """Reads and checks a table of labelled files (CSV), and fills in what it leaves out.

    Columns: `path` (relative to the table's folder, or absolute) and `label` (REAL or FAKE);
    optional `original` (for a fake, the file it was made from, which need not be in the table),
    `generator`, `kind` (of a fake, such as swap, lip sync or talking head), `model`, `group` (files
    that share footage or a person; by default the group of the original, or the file itself),
    `split` (train, val or test; by default train), `source` (by default the parent folder, for a
    fake its original's), `dataset` and `cropped` (yes where the picture is a face crop already).
    `original_here` (yes or no) is worked out anew, whatever the file says: see `mark_originals`.

    Args:
        path: The table.
        root: The folder that relative paths start from; by default the table's own.
        unlabelled: Rows may be without a label, which is right for judging only.

    Returns:
        One row a file, in the table's order, all columns present as text.

    Raises:
        UsageError: For a missing file or column, an unknown label or split, a file listed twice
            (also once by its absolute and once by its relative path), a fake whose original stands
            in another split, or a group on both sides of a split.
    """
    table = with_defaults(read_rows(path, root=root, unlabelled=unlabelled))
    check_sides(str(path), table)
    return table


def read_rows(path: Path, *, root: Path | None = None, unlabelled: bool = False) -> pd.DataFrame:
    """Reads and checks a table as it is: what it leaves out stays empty.

    Args:
        path: The table.
        root: The folder that relative paths start from; by default the table's own.
        unlabelled: Rows may be without a label.

    Returns:
        One row a file, in the table's order, all columns present as text.

    Raises:
        UsageError: As `read_table` does, apart from what stands on both sides of a split.
    """
    table = read_csv_text(path)
    if missing := [name for name in REQUIRED if name not in table]:
        raise UsageError(f"{path}: columns {missing} are missing; there are {list(table)}")
    for name in OPTIONAL:
        if name not in table:
            table[name] = ""
    table = table[list(COLUMNS)]
    return check_rows(str(path), table, root or path.parent, unlabelled=unlabelled)


def read_csv_text(path: Path) -> pd.DataFrame:
    """Reads a CSV file with every cell as text: "0" and "REAL " stay what they are.

    Raises:
        UsageError: The file is missing or no CSV table.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such table")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{path}: not a CSV table: {cause}") from error


def check_rows(
    name: str, table: pd.DataFrame, root: Path, *, unlabelled: bool = False
) -> pd.DataFrame:
    """Checks rows with all columns of a table.

    Args:
        name: Name of the table in errors.
        table: All of `COLUMNS`, as text.
        root: The folder that relative paths start from.
        unlabelled: Rows may be without a label.

    Returns:
        The rows, each `original` spelt as the `path` of its row where it has one; one that has none
        stays as it is.

    Raises:
        UsageError: As `read_rows` does.
    """
    if table.empty:
        raise UsageError(f"{name}: the table has no rows")
    _check_values(name, table, unlabelled=unlabelled)
    place = path_resolver(root)
    places = table["path"].map(place)
    twice = places.duplicated()
    if twice.any():
        second = table["path"][twice].iloc[0]
        first = table["path"][places == place(second)].iloc[0]
        spelt = "" if first == second else f", also written {first!r}"
        raise UsageError(f"{name}: {twice.sum()} files are listed twice, first {second!r}{spelt}")
    path_of = dict(zip(places, table["path"], strict=True))
    known = set(table["path"])
    spelling = {
        original: original if original in known else path_of.get(place(original), original)
        for original in set(table["original"]) - {""}
    }
    return mark_originals(
        table.assign(original=table["original"].map(lambda text: spelling.get(text, "")))
    )


def mark_originals(table: pd.DataFrame) -> pd.DataFrame:
    """Fills in `original_here`: whether the original that a row names is a row of the table.

    A data set may name footage that it does not contain, as most fakes of DFDC's sample do. What
    compares a fake with its original can use the rows marked "yes" only.

    Args:
        table: Columns `path` and `original`, spelt alike.

    Returns:
        The rows with "yes" or "no", and "" where a row names no original.
    """
    named = table["original"] != ""
    here = table["original"].isin(set(table["path"])).map({True: "yes", False: "no"})
    return table.assign(original_here=here.where(named, "").astype(object))


def _check_values(name: str, table: pd.DataFrame, *, unlabelled: bool) -> None:
    if (empty := table["path"].str.strip() == "").any():
        raise UsageError(f"{name}: row {_row_number(empty)} names no file")
    labels = (*LABELS, "") if unlabelled else LABELS
    for column, allowed, mend in (
        ("label", labels, "; dfd-train data table --real NAME --fake NAME translates others"),
        ("split", (*SPLITS, ""), ""),
        ("cropped", CROPPED, ""),
    ):
        unknown = ~table[column].isin(allowed)
        if not unknown.any():
            continue
        value, row = table[column][unknown].iloc[0], _row_number(unknown)
        if column == "label" and not value:
            raise UsageError(
                f"{name}: row {row} has no label; only dfd-train submit takes rows without one"
            )
        shown = [text for text in allowed if text]
        raise UsageError(
            f"{name}: unknown {column} {value!r} in row {row}; allowed are {shown}{mend}"
        )


def _row_number(where: pd.Series[bool]) -> int:
    """Returns the line of the first marked row in the file, whose first line is the header."""
    return int(np.argmax(where.to_numpy())) + 2


def with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    """Fills in the split, source and group of rows that leave them out; see `read_table`."""
    table = table.copy()
    table["split"] = table["split"].where(table["split"] != "", "train")
    # A fake comes from where its original comes from: pairs are drawn inside a source.
    footage = table["original"].where(table["original"] != "", table["path"])
    parents = footage.map(lambda text: Path(text).parent.as_posix())
    table["source"] = table["source"].where(table["source"] != "", parents)
    # A fake belongs to the group of its original, whatever that is called.
    named = table[(table["group"] != "") & (table["original"] == "")]
    group_of = dict(zip(named["path"], named["group"], strict=True))
    fallback = footage.map(lambda text: group_of.get(text, text))
    table["group"] = table["group"].where(table["group"] != "", fallback)
    return table


def check_sides(name: str, table: pd.DataFrame) -> None:
    """Refuses groups and pairs that stand on both sides of a split.

    Args:
        name: Name of the table in errors.
        table: Filled in.

    Raises:
        UsageError: There is one.
    """
    per_group = table.groupby("group")["split"].nunique()
    if (per_group > 1).any():
        group = per_group.index[per_group > 1][0]
        raise UsageError(f"{name}: group {group!r} stands on both sides of the split")
    split_of = dict(zip(table["path"], table["split"], strict=True))
    made = table[table["original"].isin(split_of.keys())]
    apart = made["original"].map(split_of) != made["split"]
    if apart.any():
        row = made[apart].iloc[0]
        raise UsageError(
            f"{name}: {row['path']!r} is marked {row['split']}, its original "
            f"{split_of[row['original']]}: a pair must stand on one side"
        )


def path_resolver(root: Path) -> Callable[[str], str]:
    """Returns a function from a path in a table to the absolute one, by which files are compared.

    Links among the folders are followed (each looked at once), the file itself is not touched.
    """
    base = os.path.abspath(root)  # noqa: PTH100 - Path.absolute keeps ".."
    parents: dict[str, str] = {}

    def place(path: str) -> str:
        parent, name = os.path.split(os.path.normpath(os.path.join(base, path)))  # noqa: PTH118
        if parent not in parents:
            parents[parent] = os.path.realpath(parent)
        return os.path.join(parents[parent], name)  # noqa: PTH118

    return place


def path_namer(folder: Path) -> Callable[[Path | str], str]:
    """Returns a function that names files for a table: relative below its folder, else absolute."""
    base = os.path.abspath(folder).rstrip(os.sep) + os.sep  # noqa: PTH100 - absolute() keeps ".."

    def name(file: Path | str) -> str:
        path = os.path.abspath(file)  # noqa: PTH100
        return path.removeprefix(base).replace(os.sep, "/")

    return name


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a table as CSV, whole or not at all; its folder is made where it is missing.

    Raises:
        UsageError: It cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    with written_whole(path) as partial:
        table.to_csv(partial, index=False)


def is_fake(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Returns which rows are fakes: bool [n].

    Raises:
        UsageError: For any label but REAL and FAKE, numbers included: compared with "FAKE", a
            column of numbers would make every row real.
    """
    unknown = ~table["label"].isin(LABELS)
    if unknown.any():
        value = table["label"][unknown].tolist()[0]
        raise UsageError(f"unknown label {value!r}; allowed are {list(LABELS)}")
    return (table["label"] == FAKE).to_numpy(np.bool_)


def check_classes(name: str, table: pd.DataFrame, *, per_split: bool = False) -> None:
    """Refuses rows that lack a class.

    Args:
        name: Name of the table in errors.
        table: Rows with a label.
        per_split: Look at each split by itself; rows without one count as train.

    Raises:
        UsageError: There is no REAL or no FAKE row, in all or in a split.
    """
    sides = [("the table", table)]
    if per_split:
        splits = table["split"].where(table["split"] != "", "train")
        sides += [(f"split {split}", table[splits == split]) for split in sorted(set(splits))]
    for what, rows in sides:
        fake = is_fake(rows)
        if fake.all() or not fake.any():
            lacking, there = (FAKE, REAL) if not fake.any() else (REAL, FAKE)
            raise UsageError(f"{name}: {what} holds {len(rows)} {there} rows and no {lacking} row")


def merge_tables(paths: Sequence[Path], out: Path) -> pd.DataFrame:
    """Merges tables into one that lies in another folder.

    Paths are made relative to the new table where the file lies below its folder, else absolute.
    Splits are kept as they are. A table without the column `dataset` counts as a set of its own,
    named after its file or folder. Groups and sources of one name in two sets are kept apart by
    the set's name; two tables of one set share theirs.

    Args:
        paths: The tables.
        out: The new table.

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
    """Returns the rows of a table as a table in another folder would name them."""
    return move_rows(read_rows(path, root=root), root or path.parent, folder)


def move_rows(rows: pd.DataFrame, root: Path, folder: Path) -> pd.DataFrame:
    """Returns rows whose paths start from `root`, named as a table in `folder` would name them."""
    place, spelt = path_resolver(root), path_namer(folder.resolve())

    def moved(text: str) -> str:
        return spelt(place(text)) if text else ""

    return rows.assign(path=rows["path"].map(moved), original=rows["original"].map(moved))


def _read(path: Path, name: str, folder: Path) -> pd.DataFrame:
    rows = read_moved(path, folder)
    return rows.assign(dataset=rows["dataset"].where(rows["dataset"] != "", name))


def _names(paths: Sequence[Path]) -> list[str]:
    """Returns a name for each table, of its file, with its folder where that is not enough."""
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
