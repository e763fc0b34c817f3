"""Look-ups of files in a data set: their cells, and the files that are related to them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_training.data.readers.any_layout import FoundTable
from dfd_training.data.table import path_resolver


@dataclass(frozen=True)
class RowFacts:
    """The facts that a data set has about one file.

    Attributes:
        cells: The filled cells of its row by column, those of columns of the set's own too; only
            `path` for an original that has no row.
        listed: Whether the file has a row.
        file: Whether the file is there.
        fakes: Paths of the fakes that name it as their original.
        siblings: For a fake, paths of the other fakes of its original.
    """

    cells: dict[str, str]
    listed: bool
    file: bool
    fakes: list[str]
    siblings: list[str]


def look_up(found: FoundTable, name: str) -> list[RowFacts]:
    """Looks a file up by its path in the table, its place, its name or its stem, in that order.

    Originals that fakes name are found too, without a row.

    Args:
        found: A data set from `read_any`.
        name: The path, name or stem.

    Returns:
        The facts of every file that the name fits.

    Raises:
        UsageError: It fits none; the message gives names that are nearly the same.
    """
    rows = found.rows
    absent = sorted(set(rows["original"][rows["original_here"] == "no"]))
    paths = [*rows["path"], *absent]
    place = path_resolver(found.root)
    asked = str(Path(name).absolute())
    for fits in (
        lambda path: path == name,
        lambda path: place(path) == place(asked),
        lambda path: Path(path).name == name,
        lambda path: Path(path).stem == name,
    ):
        if matches := [i for i, path in enumerate(paths) if fits(path)]:
            return [_facts(found, paths[i], i if i < len(rows) else None) for i in matches]
    near = difflib.get_close_matches(name, {Path(path).name for path in paths}, n=3, cutoff=0.8)
    shown = f"; nearly the same: {', '.join(near)}" if near else ""
    raise UsageError(f"{name!r} is none of the {len(rows)} files, nor their original{shown}")


def _facts(found: FoundTable, path: str, number: int | None) -> RowFacts:
    rows = found.rows
    cells = {"path": path}
    if number is not None:
        # The column that names the files, whatever the set calls it, is `path` already.
        own = found.raw[
            [c for c in found.raw if c not in rows and not found.raw[c].equals(rows["path"])]
        ]
        for part in (rows, own):
            cells |= {str(column): str(text) for column, text in part.iloc[number].items() if text}
    original = cells.get("original")
    siblings = rows["path"][(rows["original"] == original) & (rows["path"] != path)]
    return RowFacts(
        cells,
        listed=number is not None,
        file=(found.root / path).is_file(),
        fakes=rows["path"][rows["original"] == path].tolist(),
        siblings=siblings.tolist(),
    )
