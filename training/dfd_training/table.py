"""The table of labelled files that every training command reads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dfd_edge.errors import UsageError

REQUIRED = ("path", "label")
OPTIONAL = ("original", "generator", "model", "group", "split", "source")
LABELS = ("REAL", "FAKE")
SPLITS = ("train", "val")


def read_table(path: Path) -> pd.DataFrame:
    """Read and check a table of labelled files (CSV).

    Columns: `path` (relative to the table's folder, or absolute) and `label` (REAL or FAKE);
    optional `original` (for a fake, the file it was made from), `generator`, `model`, `group`
    (files that share footage or a person; by default the original or the file itself), `split`
    (train or val; by default train) and `source` (by default the parent folder,
    for a fake its original's).

    Returns:
        One row a file, in the table's order, all columns present as text.

    Raises:
        UsageError: for a missing file or column, an unknown label or split, a file listed twice,
            a fake without its original in the table, or a group on both sides of the split.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such table")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV table: {error}") from error
    if missing := [name for name in REQUIRED if name not in table]:
        raise UsageError(f"{path}: columns {missing} are missing; there are {list(table)}")
    for name in OPTIONAL:
        if name not in table:
            table[name] = ""
    table["split"] = table["split"].where(table["split"] != "", "train")
    # A fake comes from where its original comes from: pairs are drawn inside a source.
    footage = table["original"].where(table["original"] != "", table["path"])
    parents = footage.map(lambda text: Path(text).parent.as_posix())
    table["source"] = table["source"].where(table["source"] != "", parents)
    fallback = table["original"].where(table["original"] != "", table["path"])
    table["group"] = table["group"].where(table["group"] != "", fallback)
    _check(path, table)
    return table[[*REQUIRED, *OPTIONAL]]


def _check(path: Path, table: pd.DataFrame) -> None:
    if table.empty:
        raise UsageError(f"{path}: the table has no rows")
    for name, allowed in (("label", LABELS), ("split", SPLITS)):
        if unknown := sorted(set(table[name]) - set(allowed)):
            raise UsageError(f"{path}: unknown {name} {unknown[0]!r}; allowed are {list(allowed)}")
    twice = table["path"][table["path"].duplicated()]
    if len(twice):
        raise UsageError(f"{path}: {len(twice)} files are listed twice, first {twice.iloc[0]!r}")
    per_group = table.groupby("group")["split"].nunique()
    if (per_group > 1).any():
        group = per_group.index[per_group > 1][0]
        raise UsageError(f"{path}: group {group!r} stands on both sides of the split")
    originals = set(table["original"]) - {""}
    if orphans := sorted(originals - set(table["path"])):
        raise UsageError(f"{path}: original {orphans[0]!r} is not in the table")
