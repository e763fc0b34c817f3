"""Trees whose folders are named for classes and splits, such as `Train/Real/0.jpg`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_training.data.readers.media import SPLIT_NAMES, Imported, LabelNames, MediaRow, media_below
from dfd_training.data.table import LABELS, REAL


def read_folders(
    folder: Path,
    *,
    names: LabelNames | None = None,
    cropped: bool = False,
    by_folder: bool = False,
) -> Imported:
    """Reads every video and picture below a folder whose path names a class.

    Only whole names of folders count, without regard to case; a file's own name says nothing.

    Args:
        folder: The tree.
        names: Names of the classes; by default `REAL_NAMES` and `FAKE_NAMES`.
        cropped: The pictures are face crops already.
        by_folder: Files of one folder below a class's folder share a group, as the frames of one
            clip do.

    Raises:
        UsageError: No file lies below a class's folder, a class is empty, or a path names both
            classes or two splits.
    """
    names = names or LabelNames()
    result = Imported()
    outside: list[Path] = []
    for file in media_below(folder):
        parents = file.relative_to(folder).parts[:-1]
        label = _only(file, "classes", {found for p in parents if (found := names.label_of(p))})
        split = _only(
            file,
            "splits",
            {SPLIT_NAMES[p.casefold()] for p in parents if p.casefold() in SPLIT_NAMES},
        )
        if not label:
            outside.append(file)
            continue
        result.rows.append(
            MediaRow(
                file,
                label,
                split=split,
                keys=_keys(file, folder, parents, names) if by_folder else (),
                source=folder.resolve().name,
                cropped=cropped,
            )
        )
    counts = Counter(row.label for row in result.rows)
    if not counts:
        raise UsageError(
            f"{folder}: no video or picture below a folder named for a class; understood are "
            f"{sorted(names.real)} and {sorted(names.fake)}: give --real NAME --fake NAME"
        )
    for label in LABELS:
        if not counts[label]:
            known = sorted(names.real if label == REAL else names.fake)
            option = "--real" if label == REAL else "--fake"
            result.notes.append(
                f"no file of class {label}: no folder {known}; {option} names others"
            )
    result.note("below no folder named for a class, left out", outside)
    return result


def _only(file: Path, what: str, found: set[str]) -> str:
    if len(found) > 1:
        raise UsageError(f"{file}: its folders name two {what}, {' and '.join(sorted(found))}")
    return next(iter(found), "")


def _keys(file: Path, folder: Path, parents: tuple[str, ...], names: LabelNames) -> tuple[str, ...]:
    """Returns the folder of a file where that lies below its class's folder."""
    if names.label_of(parents[-1]):
        return ()
    return (file.parent.relative_to(folder).as_posix(),)
