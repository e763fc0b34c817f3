"""Media files of a data set, as readers return them, and the names of its classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_edge.sources.containers import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from dfd_training.data.splitting import related_groups, shares_with_later
from dfd_training.data.table import COLUMNS, FAKE, REAL, check_rows, path_namer

MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class MediaRow:
    """One file of a data set.

    Attributes:
        file: Its path.
        label: REAL or FAKE; empty where it is not known.
        original: For a fake, the file that it was made from, as far as the set names it; the file
            need not be there.
        generator: The tool that made it.
        model: The identity that it was given.
        keys: People or footage that it shares with other files; by default itself.
        split: Train, val or test; empty where the set does not say.
        source: Where the footage comes from; by default its folder.
        cropped: Whether it is a face crop already.
    """

    file: Path
    label: str
    original: Path | None = None
    generator: str = ""
    model: str = ""
    keys: tuple[str, ...] = ()
    split: str = ""
    source: str = ""
    cropped: bool = False


@dataclass
class Imported:
    """The files of a data set, and notes about them.

    Attributes:
        rows: Its files.
        notes: Missing, superfluous and left-out files, a line each.
    """

    rows: list[MediaRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, what: str, names: Sequence[object]) -> None:
        """Adds a note about files, if there are any: how many, and the first."""
        if names:
            self.notes.append(f"{what}: {len(names)}, first {str(names[0])!r}")


def without_shared_people(found: Imported) -> Imported:
    """Leaves out training files that show people, or footage, of a published test or val split."""
    shared = shares_with_later([row.keys for row in found.rows], [row.split for row in found.rows])
    out = [row.file for row, left in zip(found.rows, shared, strict=True) if left]
    kept = [row for row, left in zip(found.rows, shared, strict=True) if not left]
    result = Imported(kept, list(found.notes))
    result.note("left out, since they share people or footage with another split", out)
    return result


def to_table(name: str, rows: Iterable[MediaRow], folder: Path, dataset: str) -> pd.DataFrame:
    """Makes a table of files.

    Files below the table's folder are named relative to it, others by their absolute path.

    Args:
        name: Name of the table in errors.
        rows: The files.
        folder: Where the table will lie.
        dataset: Name of the set, for the column `dataset`.

    Returns:
        All columns of a table, as text, checked.

    Raises:
        UsageError: There are no rows, or a file stands twice.
    """
    listed = list(rows)
    spelt = path_namer(folder)
    groups = related_groups([row.keys or (spelt(row.file),) for row in listed])
    cells = [
        (
            spelt(row.file),
            row.label,
            "" if row.original is None else spelt(row.original),
            "",  # original_here, which check_rows fills in
            row.generator,
            "",
            row.model,
            group if row.keys else "",
            row.split,
            row.source,
            dataset,
            "yes" if row.cropped else "",
        )
        for row, group in zip(listed, groups, strict=True)
    ]
    table = pd.DataFrame(cells, columns=list(COLUMNS), dtype=str)
    return check_rows(name, table, folder, unlabelled=True)


def subfolder(folder: Path, name: str) -> Path | None:
    """Returns a folder in a folder by its name in any case; None where there is none."""
    for entry in sorted(listed(folder)):
        if entry.casefold() == name.casefold() and (folder / entry).is_dir():
            return folder / entry
    return None


def listed(folder: Path) -> list[str]:
    """Returns the names in a folder, hidden ones left out, sorted.

    Raises:
        UsageError: It is no folder, or cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror})") from error


def media_in(folder: Path) -> list[str]:
    """Returns the names of the videos and pictures in a folder, by their suffix, sorted."""
    return [name for name in listed(folder) if Path(name).suffix.lower() in MEDIA_SUFFIXES]


def media_below(folder: Path) -> Iterator[Path]:
    """Yields the videos and pictures in a folder and below it, by their suffix, sorted.

    Raises:
        UsageError: It is no folder, or a folder in it cannot be read.
    """
    listed(folder)

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror})") from error

    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in MEDIA_SUFFIXES:
                yield Path(parent, name)


REAL_NAMES = ("real", "reals", "original", "originals", "genuine", "authentic", "pristine")
FAKE_NAMES = (
    "fake",
    "fakes",
    "deepfake",
    "deepfakes",
    "manipulated",
    "forged",
    "synthetic",
    "synthesis",
    "generated",
    "swapped",
)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class LabelNames:
    """Names of the two classes, compared without regard to case.

    Numbers are not among the defaults: in some sets 1 is fake, in others real.

    Attributes:
        real: Names of REAL.
        fake: Names of FAKE.
    """

    real: frozenset[str] = frozenset(REAL_NAMES)
    fake: frozenset[str] = frozenset(FAKE_NAMES)

    @classmethod
    def exactly(cls) -> LabelNames:
        """Returns REAL and FAKE alone."""
        return cls(frozenset(["real"]), frozenset(["fake"]))

    def replaced(self, real: Iterable[str], fake: Iterable[str]) -> LabelNames:
        """Returns the names with those replaced that are given.

        Raises:
            UsageError: A name stands for both classes, or is empty.
        """
        new = LabelNames(
            frozenset(name.casefold() for name in real) or self.real,
            frozenset(name.casefold() for name in fake) or self.fake,
        )
        if both := sorted(new.real & new.fake):
            raise UsageError(f"--real and --fake: {both[0]!r} stands for both classes")
        if "" in new.real | new.fake:
            raise UsageError("--real and --fake: give a name, not an empty one")
        return new

    def label_of(self, name: str) -> str | None:
        """Returns REAL, FAKE, or None where the name is neither's."""
        folded = name.casefold()
        if folded in self.real:
            return REAL
        return FAKE if folded in self.fake else None

    def read(self, where: str, value: str) -> str:
        """Returns the label that a cell stands for.

        Args:
            where: Name of the cell's place in errors.
            value: The cell, as the text that it is.

        Raises:
            UsageError: The name is unknown.
        """
        label = self.label_of(value)
        if label is None:
            allowed = [*sorted(self.real), *sorted(self.fake)]
            raise UsageError(
                f"{where}: unknown label {value!r}; allowed are {allowed}; "
                "--real NAME and --fake NAME say what others stand for"
            )
        return label
