"""The results as a Parquet data set: its columns, its part files, and how they are read.

A part file appears whole or not at all, so the parts themselves say what is done.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfd_edge.archive.inputs import source_key
from dfd_edge.archive.rows import SCHEMA_VERSION, ClipRow, Failure, Judgement, Person, Span
from dfd_edge.archive.storage import Store
from dfd_edge.errors import UsageError
from dfd_edge.judging.results import Label
from dfd_edge.schema import to_plain
from dfd_edge.text import valid_text

CLIPS, FRAMES = "clips", "frames"
_VERSION_KEY = b"dfd_edge_archive_schema"
_SPANS = pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64())]))
_PEOPLE = pa.list_(
    pa.struct(
        [
            ("track", pa.int32()),
            ("label", pa.string()),
            ("p_fake", pa.float64()),
            ("logit", pa.float64()),
            ("judged_steps", pa.int32()),
            ("intervals", _SPANS),
        ]
    )
)
_TIME = pa.timestamp("us", tz="UTC")
_PROVENANCE = pa.struct(
    [
        ("outcome", pa.string()),
        ("signer", pa.string()),
        ("trusted", pa.bool_()),
        ("signed_at", pa.string()),
        ("claim_generator", pa.string()),
        ("source_types", pa.list_(pa.string())),
        ("generators", pa.list_(pa.string())),
        ("error", pa.string()),
        ("record", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the results.

    Attributes:
        name: Its name.
        type: Its type in Arrow.
        meaning: One line for the documentation.
    """

    name: str
    type: pa.DataType
    meaning: str


CLIP_COLUMNS = (
    Column("source", pa.string(), "path or address; one row each"),
    Column("sha256", pa.string(), "hash of the contents; null where they could not be read"),
    Column("label", pa.string(), "`real`, `fake`, `unsure` or `no_face`; null with an `error`"),
    Column("p_fake", pa.float64(), "calibrated probability; null where nobody was judged"),
    Column("logit", pa.float64(), "its logit"),
    Column("coverage", pa.float64(), "share of the sampled frames with a judged face"),
    Column("complete", pa.bool_(), "whether all of the clip was judged"),
    Column("reason", pa.string(), "why it was not, or why the label is `unsure` in any case"),
    Column("people", _PEOPLE, "everyone seen, with their own verdicts"),
    Column("intervals", _SPANS, "seconds in which anybody looked fake"),
    Column("frames", pa.int32(), "sampled frames"),
    Column("duration_s", pa.float64(), "seconds seen; 0 for an image"),
    Column("kind", pa.string(), "`video` or `image`; null where it could not be opened"),
    Column("size", pa.int64(), "bytes"),
    Column("modified", _TIME, "time of the last change"),
    Column("expected", pa.string(), "label in the manifest: `real`, `fake` or null"),
    Column("error", pa.string(), "why there is no verdict, in one line"),
    Column("failure", pa.string(), "its kind: " + ", ".join(f"`{kind}`" for kind in Failure)),
    Column("attempts", pa.int32(), "workers that tried; above 1 where some died"),
    Column("duplicate_of", pa.string(), "source of the clip with the same contents, judged once"),
    Column("seconds", pa.float64(), "seconds spent on the judgement; 0 for a duplicate"),
    Column("judged", _TIME, "when"),
    Column("bundle", pa.string(), "hash of the bundle, 64 digits"),
    Column("version", pa.string(), "version of dfd-edge"),
    Column("provider", pa.string(), "provider that ran the frame model"),
    Column("precision", pa.string(), "variant of the frame model"),
    Column("thumbnail", pa.binary(), "JPEG of the most suspicious crop, with `--thumbnails`"),
    Column("provenance", _PROVENANCE, "what it says of its own origin, with `--provenance`"),
)
FRAME_COLUMNS = (
    Column("sha256", pa.string(), "hash of the clip's contents; copies share these rows"),
    Column("time_s", pa.float64(), "time of the frame"),
    Column("track", pa.int32(), "number of the person"),
    Column("box", pa.list_(pa.float64(), 4), "x0, y0, x1, y1 of the face in pixels"),
    Column("judged", pa.bool_(), "whether the face votes"),
    Column("reason", pa.string(), "why it does not"),
    Column("p_frame", pa.float64(), "score of this crop alone"),
    Column("p_step", pa.float64(), "score of the sequence model after this step"),
    Column("p_fake", pa.float64(), "score of the person over the last seconds"),
    Column("label", pa.string(), "live label of the person"),
)


@cache
def schema_of(columns: tuple[Column, ...]) -> pa.Schema:
    """Returns the Arrow schema of columns, with the version in its metadata."""
    version = {_VERSION_KEY: str(SCHEMA_VERSION)}
    return pa.schema([(column.name, column.type) for column in columns], metadata=version)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a committed row is: its part file and its number in it."""

    part: int
    row: int


class Dataset:
    """The part files of an archive.

    Args:
        store: The folder of results.
        prefix: Begins the names of the parts that this writes: runs that fill one folder together
            have different ones.
        bundle: Hash of the bundle.
        version: Version of dfd-edge.

    Raises:
        UsageError: A part has another schema version.
    """

    def __init__(self, store: Store, prefix: str, *, bundle: str, version: str) -> None:
        self._store = store
        self._prefix = prefix
        self._facts = {"bundle": bundle, "version": version}
        self.parts = store.names(CLIPS)
        mine = [name for name in self.parts if PurePosixPath(name).name.startswith(f"{prefix}-")]
        numbers = [int(PurePosixPath(name).stem.rpartition("-")[2]) for name in mine]
        self._next = max(numbers, default=-1) + 1
        self._loaded: tuple[int, pa.Table] | None = None

    def done(self) -> Iterator[tuple[bytes, str | None, Place]]:
        """Lists what is committed: key of the source, hash, and place of the row."""
        for number, name in enumerate(self.parts):
            with self._store.opened(name) as file:
                parquet = open_part(file, name)
                table = parquet.read(["source", "sha256", "duplicate_of"])
            columns = (table.column(i).to_pylist() for i in range(3))
            for row, (source, sha256, first) in enumerate(zip(*columns, strict=True)):
                yield source_key(source), None if first else sha256, Place(number, row)

    def read(self, place: Place) -> tuple[str, Judgement]:
        """Reads the source and the judgement of a committed row."""
        if self._loaded is None or self._loaded[0] != place.part:
            with self._store.opened(self.parts[place.part]) as file:
                self._loaded = place.part, pq.ParquetFile(file).read()
        record = self._loaded[1].slice(place.row, 1).to_pylist()[0]
        return record["source"], _judgement(record)

    def commit(self, rows: Sequence[ClipRow]) -> int:
        """Writes rows as a part file, after that of their frames.

        Returns:
            Number of the part.

        Raises:
            OutputError: It cannot be written; none of the rows is then committed.
        """
        stem = f"{self._prefix}-{self._next:06d}.parquet"
        frames = [{**frame, "sha256": row.sha256} for row in rows for frame in row.frames]
        if frames:
            # Frames of a part that never came are replaced, or removed when the run is resumed.
            self._store.write(f"{FRAMES}/{stem}", _parquet(frames, FRAME_COLUMNS))
        records = [{**record_of(row), **self._facts} for row in rows]
        self._store.write(f"{CLIPS}/{stem}", _parquet(records, CLIP_COLUMNS))
        self.parts.append(f"{CLIPS}/{stem}")
        self._next += 1
        return len(self.parts) - 1

    def remove_orphans(self) -> None:
        """Removes this run's parts of frames whose clips were never committed."""
        for name in self._store.names(FRAMES):
            last = PurePosixPath(name).name
            if last.startswith(f"{self._prefix}-") and f"{CLIPS}/{last}" not in self.parts:
                self._store.remove(name)

    def drop_failed(self) -> int:
        """Rewrites the parts without the clips that failed, so that they are judged again.

        Returns:
            Number of rows removed.
        """
        dropped = 0
        for name in self.parts:
            with self._store.opened(name) as file:
                table = open_part(file, name).read()
            kept = table.filter(table["failure"].is_null())
            if kept.num_rows < table.num_rows:
                dropped += table.num_rows - kept.num_rows
                self._store.write(name, _bytes_of(kept))
        self._loaded = None
        return dropped


def open_part(file: Any, name: str) -> pq.ParquetFile:  # noqa: ANN401 - a file of fsspec
    """Opens a part file and checks its schema version.

    Raises:
        UsageError: It is another one, or no part of an archive.
    """
    try:
        parquet = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{name}: not a part of an archive ({error})") from error
    version = (parquet.schema_arrow.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise UsageError(
            f"{name}: schema version {version}, this program reads {SCHEMA_VERSION}: use the "
            "version of dfd-edge that wrote it"
        )
    return parquet


def read_clips(store: Store, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Reads columns of all clips, part by part.

    Raises:
        UsageError: There are none, or a part cannot be read.
    """
    parts = store.names(CLIPS)
    if not parts:
        raise UsageError(f"{store}: no results: no Parquet file in {store}/{CLIPS}")
    for name in parts:
        with store.opened(name) as file:
            yield from open_part(file, name).iter_batches(columns=list(columns))


def record_of(row: ClipRow) -> dict[str, Any]:
    """Returns the row as a record of `CLIP_COLUMNS`, without bundle and version."""
    clip, judgement = row.clip, row.judgement
    if judgement is None:
        raise ValueError(f"{clip.source}: not judged yet")
    people = [
        {
            "track": person.track,
            "label": person.label.value,
            "p_fake": person.p_fake,
            "logit": person.logit,
            "judged_steps": person.judged_steps,
            "intervals": _records(person.intervals),
        }
        for person in judgement.people
    ]
    return {
        "source": valid_text(clip.source),
        "sha256": row.sha256,
        "label": None if judgement.label is None else judgement.label.value,
        "p_fake": judgement.p_fake,
        "logit": judgement.logit,
        "coverage": judgement.coverage,
        "complete": judgement.complete,
        "reason": _text(judgement.reason),
        "people": people,
        "intervals": _records(judgement.intervals),
        "frames": judgement.frames,
        "duration_s": judgement.duration_s,
        "kind": judgement.kind,
        "size": clip.size,
        "modified": _moment(clip.modified_s),
        "expected": clip.expected,
        "error": _text(judgement.error),
        "failure": None if judgement.failure is None else judgement.failure.value,
        "attempts": judgement.attempts,
        "duplicate_of": _text(row.duplicate_of),
        "seconds": 0.0 if row.duplicate_of else judgement.seconds,
        "judged": _moment(row.judged_s),
        "provider": judgement.provider,
        "precision": judgement.precision,
        "thumbnail": judgement.thumbnail,
        "provenance": None if row.provenance is None else to_plain(row.provenance),
    }


def _judgement(record: dict[str, Any]) -> Judgement:
    """Returns the judgement of a record of `record_of`."""
    people = tuple(
        Person(**{**person, "label": Label(person["label"]), "intervals": _spans(person)})
        for person in record["people"]
    )
    return Judgement(
        label=None if record["label"] is None else Label(record["label"]),
        people=people,
        intervals=_spans(record),
        failure=None if record["failure"] is None else Failure(record["failure"]),
        **{name: record[name] for name in _PLAIN},
    )


_PLAIN = (
    *("p_fake", "logit", "coverage", "complete", "reason", "frames", "duration_s", "kind"),
    *("provider", "precision", "seconds", "attempts", "error", "thumbnail"),
)


def _spans(record: dict[str, Any]) -> tuple[Span, ...]:
    return tuple(Span(**span) for span in record["intervals"])


def _records(spans: Sequence[Span]) -> list[dict[str, float]]:
    return [{"start_s": span.start_s, "end_s": span.end_s} for span in spans]


def _text(value: str | None) -> str | None:
    return None if value is None else valid_text(value)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _parquet(records: list[dict[str, Any]], columns: tuple[Column, ...]) -> bytes:
    return _bytes_of(pa.Table.from_pylist(records, schema_of(columns)))


def _bytes_of(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
