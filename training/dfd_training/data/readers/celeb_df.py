"""Celeb-DF, version 1 and 2 (Li et al., CVPR 2020).

```
Celeb-real/idA_NNNN.mp4   Celeb-synthesis/idA_idB_NNNN.mp4   YouTube-real/NNNNN.mp4
List_of_testing_videos.txt     a line a clip: `1 YouTube-real/00170.mp4`, and 1 is **real**
```

`idA_idB_NNNN` was made from `idA_NNNN` with the face of idB.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_training.data.readers.media import (
    Imported,
    MediaRow,
    media_in,
    subfolder,
    without_shared_people,
)
from dfd_training.data.table import FAKE, LABELS, REAL

CELEBS, FAKES, YOUTUBE = "Celeb-real", "Celeb-synthesis", "YouTube-real"
TEST_LIST = "List_of_testing_videos.txt"

_REAL = re.compile(r"(id\d+)_(\d+)")
_FAKE = re.compile(r"(id\d+)_(id\d+)_(\d+)")


def read_celeb_df(folder: Path, *, use_list: bool = True, by_footage: bool = False) -> Imported:
    """Reads the three folders, and the published list of test clips.

    The list divides clips, not people: training files with a person, or footage, of a test clip
    are left out and counted.

    Args:
        folder: Holds the three folders.
        use_list: Mark the clips of List_of_testing_videos.txt as test.
        by_footage: Keep footage, not people, on one side of the split, as in the figures
            that are published for this set.

    Raises:
        UsageError: There are no clips, or the list is not what it should be.
    """
    rows: dict[str, MediaRow] = {}
    strange: list[str] = []
    lost: list[str] = []
    originals = _stems(folder, CELEBS)
    for part in (CELEBS, FAKES, YOUTUBE):
        for stem, file in _stems(folder, part).items():
            row = _row(part, stem, file, originals, by_footage)
            if row is None:
                strange.append(f"{part}/{file.name}")
                continue
            if part == FAKES and row.original is None:
                lost.append(f"{part}/{file.name}")
            rows[f"{part}/{file.name}"] = row
    if not rows:
        raise UsageError(f"{folder}: no clip in {CELEBS}, {FAKES} or {YOUTUBE}")
    result = Imported()
    result.note("named otherwise, left out", strange)
    result.note("fakes whose original is not there", lost)
    path = folder / TEST_LIST
    if not use_list or not path.is_file():
        result.rows = list(rows.values())
        return result
    listed = _read_list(path)
    result.note(f"in {TEST_LIST}, but not there", [name for name in listed if name not in rows])
    result.rows = [
        replace(row, split="test" if name in listed else "") for name, row in rows.items()
    ]
    return _without_shared(result)


def _without_shared(result: Imported) -> Imported:
    clean = without_shared_people(result)
    for label in LABELS:
        lost = not any(row.label == label and not row.split for row in clean.rows)
        if lost and any(row.label == label and not row.split for row in result.rows):
            raise UsageError(
                f"{TEST_LIST}: every {label} clip beside it shares a person with a test clip: "
                "--by-footage keeps footage apart instead of people, --no-list leaves the list "
                "out, so that dfd-train data split can keep people apart"
            )
    return clean


def _stems(folder: Path, part: str) -> dict[str, Path]:
    place = subfolder(folder, part)
    return {} if place is None else {Path(name).stem: place / name for name in media_in(place)}


def _row(
    part: str, stem: str, file: Path, originals: dict[str, Path], by_footage: bool
) -> MediaRow | None:
    if part == YOUTUBE:
        return MediaRow(file, REAL, keys=(f"YouTube {stem}",), source=YOUTUBE)
    match = (_FAKE if part == FAKES else _REAL).fullmatch(stem)
    if match is None:
        return None
    if part == CELEBS:
        keys = (stem,) if by_footage else (match[1],)
        return MediaRow(file, REAL, keys=keys, source="Celeb")
    target, source, number = match.groups()
    footage = f"{target}_{number}"
    return MediaRow(
        file,
        FAKE,
        original=originals.get(footage),
        generator="Celeb-DF",
        model=source,
        keys=(footage,) if by_footage else (target, source),
        source="Celeb",
    )


def _read_list(path: Path) -> set[str]:
    """Returns the names of the test clips; the list's own label must agree with the folder."""
    names: set[str] = set()
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split()
        where = f"{path}, line {number}"
        if len(words) != 2 or words[0] not in {"0", "1"}:
            raise UsageError(f"{where}: {line!r:.60} is not '1 FOLDER/FILE' or '0 FOLDER/FILE'")
        part = words[1].partition("/")[0]
        if part not in {CELEBS, FAKES, YOUTUBE}:
            raise UsageError(f"{where}: the folder {part!r} is none of {[CELEBS, FAKES, YOUTUBE]}")
        if (words[0] == "1") == (part == FAKES):
            raise UsageError(
                f"{where}: {words[1]} is marked {words[0]}; in this list 1 is real and 0 is fake"
            )
        names.add(words[1])
    if not names:
        raise UsageError(f"{path}: names no clip")
    return names
