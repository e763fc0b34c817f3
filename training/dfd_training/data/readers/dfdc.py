"""The Deepfake Detection Challenge's layout (Dolhansky et al., 2020): folders with metadata.json.

Each entry of `metadata.json` is `"name.mp4": {"label": "FAKE", "split": "train", "original":
"other.mp4"}`; that of a real clip has no original, or null. An original is in the same part of the
whole set; the public sample of 400 clips lacks most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfd_edge.errors import UsageError
from dfd_edge.sources.containers import VIDEO_SUFFIXES
from dfd_training.data.readers.media import SPLIT_NAMES, Imported, MediaRow, media_in
from dfd_training.data.table import FAKE, LABELS, REAL, read_csv_text

METADATA = "metadata.json"
SAMPLE = "sample_submission.csv"


def read_dfdc(
    folders: Sequence[Path], *, by_part: bool = False, missing_too: bool = False
) -> Imported:
    """Reads parts of DFDC: each folder, or the folders below it, that hold a metadata.json.

    Files that are in the folder or in metadata.json only are reported and left out. `original` and
    `split` are kept as metadata.json gives them; most originals of the public sample are in other
    parts. Fakes of one original share a group even if it is missing.

    Args:
        folders: One or more.
        by_part: Files of one part share a group. DFDC names no people; those of one part may
            appear in several of its clips.
        missing_too: Keep the files that are in metadata.json only.

    Raises:
        UsageError: There is no metadata.json, or one that is not what it should be.
    """
    parts: list[Path] = []
    for folder in folders:
        found = metadata_below(folder)
        if not found:
            raise UsageError(
                f"{folder}: no {METADATA} in it or below; --unlabelled makes a table of a test "
                "folder, for dfd-train submit"
            )
        parts += [part for part in found if part not in parts]
    result = Imported()
    for part in parts:
        _read_part(part, by_part, missing_too, result)
    return result


def metadata_below(folder: Path) -> list[Path]:
    """Returns the folders that hold a metadata.json: this one, or else all below it, sorted.

    Raises:
        UsageError: It is no folder.
    """
    if (folder / METADATA).is_file():
        return [folder]
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    return sorted(path.parent for path in folder.rglob(METADATA))


def _read_part(part: Path, by_part: bool, missing_too: bool, result: Imported) -> None:
    there = set(media_in(part))
    entries = read_metadata(part / METADATA)
    result.note(f"{part}: in {METADATA}, but not there", sorted(set(entries) - there))
    result.note(f"{part}: there, but not in {METADATA}", sorted(there - set(entries)))
    kept = set(entries) if missing_too else set(entries) & there
    rows = rows_of(entries, part, by_part=by_part)
    result.rows += [row for row in rows if row.file.name in kept]
    named = {entries[name]["original"] for name in kept} - {""}
    result.note(f"{part}: originals of fakes that are not there", sorted(named - there))


def rows_of(
    entries: dict[str, dict[str, str]], part: Path, *, by_part: bool = False
) -> list[MediaRow]:
    """Returns the rows of a metadata.json, whether their files are there or not, sorted by name.

    Args:
        entries: As `read_metadata` gives them.
        part: The folder of the files.
        by_part: See `read_dfdc`.
    """
    return [
        MediaRow(
            part / name,
            entry["label"],
            original=part / entry["original"] if entry["original"] else None,
            generator="DFDC" if entry["label"] == FAKE else "",
            keys=(f"part {part.name}",) if by_part else (entry["original"] or name,),
            split=entry["split"],
            source=part.name,
        )
        for name, entry in sorted(entries.items())
    ]


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Reads a metadata.json.

    Returns:
        By file name: `label` (REAL or FAKE), `original` and `split` (empty where not given).

    Raises:
        UsageError: It is not what it should be; the message names the entry.
    """
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise UsageError(f'{path}: not an object of "name.mp4": {{"label": "REAL" or "FAKE", …}}')
    return {name: _entry(path, name, entry) for name, entry in content.items()}


def _entry(path: Path, name: str, entry: Any) -> dict[str, str]:  # noqa: ANN401 - a JSON value
    if not isinstance(entry, dict):
        raise UsageError(f"{path}: the entry of {name!r} is {entry!r:.40}, not an object")
    label = entry.get("label")
    if label not in LABELS:
        raise UsageError(f"{path}: {name!r} has the label {label!r}; allowed are {list(LABELS)}")
    original = entry.get("original") or ""
    for file in (name, original):
        if not isinstance(file, str) or (file and file != Path(file).name):
            raise UsageError(f"{path}: {file!r} is no plain file name")
    split = str(entry.get("split") or "")
    if split and split not in SPLIT_NAMES:
        raise UsageError(
            f"{path}: {name!r} has the split {split!r}; allowed are {sorted(SPLIT_NAMES)}"
        )
    if label == REAL and original:
        raise UsageError(f"{path}: {name!r} is REAL and has an original, {original!r}")
    return {"label": label, "original": original, "split": SPLIT_NAMES.get(split, "")}


def read_unlabelled(folder: Path, sample: Path | None = None) -> Imported:
    """Reads a test folder: its videos without labels.

    Args:
        folder: The folder of the videos.
        sample: A submission file that names them and their order; by default that of `sample_of`,
            or else all, sorted.

    Raises:
        UsageError: There are no videos, or the sample is not what it should be.
    """
    names = videos_in(folder)
    result = Imported()
    sample = sample or sample_of(folder)
    if sample is not None:
        asked = read_sample(sample)
        there = set(names)
        result.note(f"in {sample}, but not in {folder}", [n for n in asked if n not in there])
        result.note(f"in {folder}, but not in {sample}", [n for n in names if n not in set(asked)])
        names = [name for name in asked if name in there]
    if not names:
        raise UsageError(f"{folder}: no video in this folder")
    result.rows = [MediaRow(folder / name, "", split="test", source=folder.name) for name in names]
    return result


def videos_in(folder: Path) -> list[str]:
    """Returns the names of the videos in a folder, by their suffix, sorted."""
    return [name for name in media_in(folder) if Path(name).suffix.lower() in VIDEO_SUFFIXES]


def sample_of(folder: Path) -> Path | None:
    """Returns the sample_submission.csv in a folder of videos, or one beside it that names one."""
    if (folder / SAMPLE).is_file():
        return folder / SAMPLE
    beside = folder.resolve().parent / SAMPLE
    if beside.is_file() and set(read_sample(beside)) & set(videos_in(folder)):
        return beside
    return None


def read_sample(path: Path) -> list[str]:
    """Returns the file names in a submission file, in its order.

    Raises:
        UsageError: It is no CSV file with the column filename, or names a file twice.
    """
    table = read_csv_text(path)
    if "filename" not in table:
        raise UsageError(f"{path}: the column 'filename' is missing; there are {list(table)}")
    names = [str(name) for name in table["filename"]]
    for name in names:
        if not name or name != Path(name).name:
            raise UsageError(f"{path}: {name!r} is no plain file name")
    if len(set(names)) < len(names):
        twice = table["filename"][table["filename"].duplicated()].iloc[0]
        raise UsageError(f"{path}: {twice!r} is named twice")
    return names
