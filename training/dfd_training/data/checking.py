"""Checks of a table against the files that it names."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources import SourceItem, SourceKind, VideoFile, read_image
from dfd_edge.sources.containers import IMAGE_SUFFIXES, is_image, read_head
from dfd_edge.sources.frames import Sampler
from dfd_training.data.readers.media import media_below, media_in
from dfd_training.data.table import check_classes, path_resolver, with_defaults

_FIRST_FRAME_HZ = 1.0


@dataclass
class TableCheck:
    """The findings of a check.

    Attributes:
        missing: Rows whose file is not there.
        unreadable: Faults of files that are there, by path.
        superfluous: Media files below the table's folder that no row names.
        duplicates: Paths of files of one content that stand in two splits or under two labels.
        repeated: Paths of files of one content within one split and label.
        originals: Files that fakes name as their original and that no row names.
        classes: Faults of the classes of a split.
    """

    missing: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    superfluous: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    repeated: list[list[str]] = field(default_factory=list)
    originals: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Number of faults to mend; `superfluous`, `repeated` and `originals` are none."""
        return len(self.missing) + len(self.unreadable) + len(self.duplicates) + len(self.classes)


def check_table(
    rows: pd.DataFrame,
    root: Path,
    *,
    quick: bool = False,
    on_file: Callable[[], None] = lambda: None,
) -> TableCheck:
    """Checks a table against its files.

    Pictures are decoded; of videos the first frame is, by the runtime's own readers. Contents are
    compared by SHA-256 where files have one size.

    Args:
        rows: As `read_rows` gives them.
        root: The folder that relative paths start from.
        quick: Look at the first bytes of each file only, and compare no contents.
        on_file: Called after each row.

    Returns:
        The findings.
    """
    found = TableCheck()
    place = path_resolver(root)
    file_of = {path: place(path) for path in rows["path"]}
    readable: list[str] = []
    for path, file in file_of.items():
        if not Path(file).exists():
            found.missing.append(path)
        elif fault := fault_of(Path(file), quick=quick):
            found.unreadable[path] = fault
        else:
            readable.append(path)
        on_file()
    if not quick:
        _compare_contents(rows, {path: file_of[path] for path in readable}, found)
    found.originals = sorted(set(rows["original"][rows["original_here"] == "no"]))
    found.superfluous = sorted(_unnamed(set(file_of.values()), root))
    for per_split in (False, True):
        try:
            check_classes("classes", rows, per_split=per_split)
        except UsageError as error:
            found.classes = [str(error).removeprefix("classes: ")]
            break
    return found


def fault_of(file: Path, *, quick: bool = False) -> str:
    """Returns the fault of a media file in one line; empty where it can be read."""
    try:
        if quick:
            head = read_head(file)
            if file.suffix.lower() in IMAGE_SUFFIXES and not is_image(head):
                return f"{file}: its first bytes are not those of a picture"
            return ""
        if SourceItem.of(file).kind is SourceKind.IMAGE:
            read_image(file)
            return ""
        with VideoFile(file, threads=1) as video:
            if next(iter(video.frames(Sampler(_FIRST_FRAME_HZ))), None) is None:
                return f"{file}: no frame can be decoded"
    except SourceError as error:
        return str(error)
    return ""


def _compare_contents(rows: pd.DataFrame, files: dict[str, str], found: TableCheck) -> None:
    sides = with_defaults(rows).set_index("path")[["split", "label"]]
    by_size: dict[int, list[str]] = defaultdict(list)
    for path, file in files.items():
        by_size[os.stat(file).st_size].append(path)  # noqa: PTH116 - paths are text here
    by_content: dict[str, list[str]] = defaultdict(list)
    for paths in by_size.values():
        for path in paths if len(paths) > 1 else []:
            by_content[_sha256(files[path])].append(path)
    for paths in by_content.values():
        if len(paths) > 1:
            apart = len(sides.loc[paths].drop_duplicates()) > 1
            (found.duplicates if apart else found.repeated).append(paths)


def _sha256(file: str) -> str:
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unnamed(files: set[str], root: Path) -> Iterator[str]:
    """Yields media files that no row names: below the root, if a row is, and beside the rows'."""
    top = os.path.realpath(root)
    below = [file for file in files if file.startswith(top.rstrip(os.sep) + os.sep)]
    place = path_resolver(Path(top))
    if below:
        for path in media_below(Path(top)):
            if place(str(path)) not in files:
                yield path.relative_to(top).as_posix()
    for parent in {str(Path(file).parent) for file in files.difference(below)}:
        if Path(parent).is_dir():
            for name in media_in(Path(parent)):
                path = Path(parent, name)
                if str(path) not in files:
                    yield str(path)
