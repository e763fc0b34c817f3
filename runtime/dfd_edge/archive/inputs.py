"""Clips that the arguments stand for: folders, globs, manifests and object storage.

Listings are streamed: no list of all clips is held.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dfd_edge.archive.rows import Clip
from dfd_edge.archive.storage import is_remote, modified_s, open_filesystem, retried
from dfd_edge.errors import SourceNotFoundError, UsageError
from dfd_edge.sources.containers import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from dfd_edge.text import valid_text

MANIFEST_SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")
#: Names of the column of addresses, where none is given.
ADDRESS_COLUMNS = ("address", "path", "source", "file", "url")
#: Labels of a manifest: words, or numbers as in most tables of deepfakes.
_LABELS = {"real": "real", "fake": "fake", "0": "real", "1": "fake"}
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ManifestColumns:
    """Columns of manifests.

    Attributes:
        address: The column of addresses; None for the first of `ADDRESS_COLUMNS` that is there.
        label: The column of expected labels; None for none.
    """

    address: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of the clips that a run is for.

    Attributes:
        since_s: Clips changed before this are left out, in seconds since 1970.
        shard: Number of this part, from 1.
        shards: Parts; a clip belongs to one of them by its address.
    """

    since_s: float | None = None
    shard: int = 1
    shards: int = 1

    def __contains__(self, clip: Clip) -> bool:
        if self.shards > 1:
            number = int.from_bytes(source_key(clip.source)[:8], "big")
            if number % self.shards != self.shard - 1:
                return False
        if self.since_s is None:
            return True
        changed_s = clip.modified_s
        if changed_s is None and not is_remote(clip.source):
            try:
                changed_s = Path(clip.source).stat().st_mtime
            except OSError:
                return True  # its row will say what is wrong
        return changed_s is None or changed_s >= self.since_s


def source_key(source: str) -> bytes:
    """Returns 16 bytes that identify a source, from its name as the results spell it."""
    return hashlib.blake2b(valid_text(source).encode(), digest_size=16).digest()


def clips_of(
    inputs: Iterable[str],
    columns: ManifestColumns = ManifestColumns(),
    selection: Selection = Selection(),
) -> Iterator[Clip]:
    """Lists clips, each once by its address.

    Args:
        inputs: Folders, globs, manifests, single files, and addresses of object storage.
        columns: Columns of the manifests.
        selection: Clips outside of it are left out.

    Raises:
        UsageError: A manifest lacks a column, or has a label that is none.
        SourceNotFoundError: An input stands for nothing.
        UnreachableError: A listing fails.
    """
    seen: set[bytes] = set()
    for text in inputs:
        found = False
        for clip in _clips_of_one(text, columns):
            found = True
            key = source_key(clip.source)
            if key in seen or clip not in selection:
                continue
            seen.add(key)
            yield clip
        if not found:
            raise SourceNotFoundError(text, "stands for no video, no picture and no row")


def _clips_of_one(text: str, columns: ManifestColumns) -> Iterator[Clip]:
    if text.lower().endswith(MANIFEST_SUFFIXES) and not glob.has_magic(text):
        return _manifest(text, columns)
    return _remote(text) if is_remote(text) else _local(text)


def _local(text: str) -> Iterator[Clip]:
    path = Path(text)
    if path.is_dir():
        return _below(text)
    if path.exists():
        return iter([Clip(text)])
    if glob.has_magic(text):
        matches = sorted(glob.iglob(text, recursive=True))  # noqa: PTH207 - it takes "**"
        return (Clip(match) for match in matches if not Path(match).is_dir() and _is_media(match))
    raise SourceNotFoundError(text, "no such file or folder")


def _below(folder: str) -> Iterator[Clip]:
    """Lists the media in a folder and below it in a fixed order; hidden ones are left out."""

    def fail(error: OSError) -> None:
        raise SourceNotFoundError(str(error.filename), f"cannot be read ({error.strerror})")

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _is_media(name):
                yield Clip(os.path.join(parent, name))  # noqa: PTH118 - millions of times


def _is_media(name: str) -> bool:
    last = PurePosixPath(name)
    return not last.name.startswith(".") and last.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _remote(text: str) -> Iterator[Clip]:
    filesystem, path = open_filesystem(text)
    scheme = text.partition("://")[0]

    def clip(name: str, facts: Mapping[str, Any]) -> Clip:
        size = facts.get("size")
        changed_s = modified_s(dict(facts))
        return Clip(f"{scheme}://{name}", None if size is None else int(size), changed_s)

    if glob.has_magic(path):
        matches = retried(lambda: filesystem.glob(path, detail=True), text)
        for name in sorted(matches):
            if _is_media(name) and matches[name].get("type") != "directory":
                yield clip(name, matches[name])
        return
    facts = retried(lambda: filesystem.info(path), text)
    if facts.get("type") != "directory":
        yield clip(path, facts)
        return
    pending = [path]
    while pending:
        folder = pending.pop(0)
        entries = retried(lambda at=folder: filesystem.ls(at, detail=True), text)  # type: ignore[misc]
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            if entry.get("type") == "directory":
                pending.append(entry["name"])
            elif _is_media(entry["name"]):
                yield clip(entry["name"], entry)


def _manifest(text: str, columns: ManifestColumns) -> Iterator[Clip]:
    rows = _rows(text)
    first = next(rows, None)
    if first is None:
        return
    address = columns.address or next((name for name in ADDRESS_COLUMNS if name in first), None)
    for name in (address, columns.label):
        if name is not None and name not in first:
            raise UsageError(f"{text}: no column {name!r}: there are {', '.join(map(str, first))}")
    if address is None:
        raise UsageError(
            f"{text}: no column of addresses: name it with --column, there are "
            f"{', '.join(map(str, first))}"
        )
    label = columns.label or ("label" if "label" in first else None)
    folder = text.rpartition("/")[0]
    for number, row in enumerate(itertools.chain([first], rows), 1):
        value = row.get(address)
        if not isinstance(value, str) or not value:
            raise UsageError(f"{text}: row {number}: {address} is {value!r}, not an address")
        relative = not is_remote(value) and not value.startswith("/")
        place = f"{folder}/{value}" if relative and folder else value
        expected = None if label is None else _label(row.get(label), f"{text}: row {number}")
        yield Clip(place, expected=expected)


def _label(value: object, where: str) -> str | None:
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    if word not in _LABELS:
        raise UsageError(f"{where}: the label {value!r} is unknown: give real or fake, or 0 or 1")
    return _LABELS[word]


def _rows(text: str) -> Iterator[Mapping[str, Any]]:
    """Reads the rows of a manifest, one after the other.

    Raises:
        SourceNotFoundError: There is none.
        UsageError: It cannot be read as what its name says.
    """
    filesystem, path = open_filesystem(text)
    try:
        if text.lower().endswith(".parquet"):
            yield from _parquet_rows(filesystem, path)
            return
        with filesystem.open(path, "r", encoding="utf-8-sig", newline="") as file:
            if text.lower().endswith(".csv"):
                yield from csv.DictReader(file)
            else:
                yield from (_object(line) for line in file if line.strip())
    except FileNotFoundError:
        raise SourceNotFoundError(text, "no such manifest") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{text}: not a manifest that can be read ({error})") from error


def _parquet_rows(filesystem: Any, path: str) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    import pyarrow.parquet as pq  # noqa: PLC0415 - slow to load

    with filesystem.open(path, "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS):
            yield from batch.to_pylist()


def _object(line: str) -> Mapping[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a line is {line.strip()[:40]!r}, not an object")
    return row
