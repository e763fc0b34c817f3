"""The database of judgements: their states, verdicts and notes, in one SQLite file."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from dfd_edge.closing import Closing
from dfd_edge.errors import UsageError
from dfd_edge.judging.results import Record
from dfd_edge.text import json_line, valid_text

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE judgements (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    submitted_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    label TEXT,
    verdict TEXT,
    error TEXT,
    note TEXT NOT NULL DEFAULT '',
    bundle TEXT NOT NULL,
    version TEXT NOT NULL,
    media TEXT
);
CREATE INDEX by_state ON judgements (state, number);
CREATE INDEX by_file ON judgements (sha256, bundle);
"""
MAX_TRIES = 3
"""Times that a judgement is begun whose process or server dies."""


class State(StrEnum):
    """States of a judgement; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether no other state follows."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judgement as it is stored.

    Attributes:
        number: Place in the order of submission, from 1.
        id: Random name in addresses.
        state: How far it is.
        name: Name of the file as it was submitted.
        sha256: Digest of the file.
        bytes: Its size.
        submitted_at, started_at, finished_at: RFC 3339 in UTC.
        tries: How often it was begun.
        label: Label of the verdict.
        verdict: The published verdict record.
        error: `type`, `title` and `detail` of a failure, and the `provenance` of a file that was
            read all the same.
        note: Text of the user.
        bundle: Hash of the bundle that judges.
        version: Version of the program that judges.
        media: Name of the original in the folder of originals; None where it is deleted.
    """

    number: int
    id: str
    state: State
    name: str
    sha256: str
    bytes: int
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    tries: int
    label: str | None
    verdict: Record | None
    error: Record | None
    note: str
    bundle: str
    version: str
    media: str | None

    @property
    def provenance(self) -> Record | None:
        """Statements of the file on its origin, as in records; None where it was not read."""
        return (self.verdict or self.error or {}).get("provenance")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received.

    Attributes:
        name: As the sender names it.
        media: Its random name in the folder of originals.
        sha256: Digest.
        bytes: Size.
    """

    name: str
    media: str
    sha256: str
    bytes: int


def now() -> str:
    """Returns the time as RFC 3339 in UTC, to a millisecond."""
    return _rfc3339(datetime.now(UTC))


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store(Closing):
    """The judgements of one folder. Thread-safe.

    Args:
        path: The SQLite file; created where there is none.

    Raises:
        UsageError: It is no database of this program, or one of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._create(path)
        except sqlite3.Error as error:
            raise UsageError(
                f"{path}: cannot be opened as the database ({error}): give another --data folder"
            ) from error

    def _create(self, path: Path) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise UsageError(
                f"{path}: written by a newer version of dfd-edge: upgrade, or give another --data "
                "folder"
            )
        if version == 0:
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def close(self) -> None:
        """Closes the database. Safe to call twice."""
        with self._lock:
            self._database.close()

    def add(
        self, upload: Upload, *, bundle: str, version: str, again: bool = False
    ) -> tuple[Judgement, bool]:
        """Queues a file, or returns the judgement that the same bundle has of it already.

        Args:
            upload: The file.
            bundle: Hash of the bundle.
            version: Version of the program.
            again: Whether it is judged anew in any case.

        Returns:
            The judgement, and whether it is new.
        """
        with self._transaction():
            if not again and (known := self._same_file(upload.sha256, bundle)) is not None:
                return known, False
            name = secrets.token_hex(16)
            self._database.execute(
                "INSERT INTO judgements (id, state, name, sha256, bytes, submitted_at, bundle,"
                " version, media) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(name, State.QUEUED, valid_text(upload.name), upload.sha256, upload.bytes),
                    *(now(), bundle, version, upload.media),
                ),
            )
            return self._required(name), True

    def _same_file(self, sha256: str, bundle: str) -> Judgement | None:
        row = self._database.execute(
            "SELECT * FROM judgements WHERE sha256 = ? AND bundle = ? AND state IN (?, ?, ?)"
            " ORDER BY number DESC LIMIT 1",
            (sha256, bundle, State.DONE, State.QUEUED, State.RUNNING),
        ).fetchone()
        return None if row is None else _judgement(row)

    def get(self, id_: str) -> Judgement | None:
        """Returns a judgement, or None."""
        with self._lock:
            row = self._database.execute("SELECT * FROM judgements WHERE id = ?", (id_,)).fetchone()
        return None if row is None else _judgement(row)

    def _required(self, id_: str) -> Judgement:
        found = self.get(id_)
        assert found is not None
        return found

    def search(
        self,
        *,
        text: str = "",
        label: str | None = None,
        state: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Judgement]:
        """Returns judgements, the newest first.

        Args:
            text: Words, each of which stands in the name, the note or the digest.
            label: Label of the verdict.
            state: State.
            before: Only those with a lower number.
            limit: Most that are returned.
        """
        conditions, values = ["1"], list[Any]()
        for word in text.split():
            pattern = "%" + "".join(f"\\{c}" if c in "\\%_" else c for c in word) + "%"
            conditions.append(
                "(name LIKE ? ESCAPE '\\' OR note LIKE ? ESCAPE '\\' OR sha256 LIKE ? ESCAPE '\\')"
            )
            values += [pattern] * 3
        for column, value in (("label", label), ("state", state)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if before is not None:
            conditions.append("number < ?")
            values.append(before)
        with self._lock:
            rows = self._database.execute(
                f"SELECT * FROM judgements WHERE {' AND '.join(conditions)}"
                " ORDER BY number DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [_judgement(row) for row in rows]

    def counts(self) -> dict[State, int]:
        """Returns the number of judgements in each state."""
        with self._lock:
            rows = self._database.execute(
                "SELECT state, COUNT(*) FROM judgements GROUP BY state"
            ).fetchall()
        return dict.fromkeys(State, 0) | {State(state): count for state, count in rows}

    def position(self, judgement: Judgement) -> int | None:
        """Returns the place in the queue, from 1; None where it does not wait."""
        if judgement.state is not State.QUEUED:
            return None
        with self._lock:
            (before,) = self._database.execute(
                "SELECT COUNT(*) FROM judgements WHERE state = ? AND number <= ?",
                (State.QUEUED, judgement.number),
            ).fetchone()
        return int(before)

    def claim(self) -> Judgement | None:
        """Takes the first judgement of the queue, which then runs; None where none waits."""
        with self._transaction():
            row = self._database.execute(
                "SELECT id FROM judgements WHERE state = ? ORDER BY number LIMIT 1",
                (State.QUEUED,),
            ).fetchone()
            if row is None:
                return None
            self._database.execute(
                "UPDATE judgements SET state = ?, started_at = ?, tries = tries + 1 WHERE id = ?",
                (State.RUNNING, now(), row["id"]),
            )
            return self._required(row["id"])

    def finish(
        self,
        id_: str,
        state: State,
        *,
        verdict: Record | None = None,
        error: Record | None = None,
    ) -> Judgement | None:
        """Gives a judgement a final state; one that has another stays as it is.

        Returns:
            The judgement; None where it was deleted.
        """
        with self._transaction():
            self._database.execute(
                "UPDATE judgements SET state = ?, finished_at = ?, label = ?, verdict = ?,"
                " error = ? WHERE id = ? AND state IN (?, ?)",
                (
                    *(state, now(), None if verdict is None else verdict["label"]),
                    *(None if verdict is None else json_line(verdict),),
                    *(None if error is None else json_line(error), id_),
                    *(State.QUEUED, State.RUNNING),
                ),
            )
            return self.get(id_)

    def requeue(self, id_: str, *, uncounted: bool = False) -> Judgement | None:
        """Puts a judgement that was begun back to its place in the queue.

        Args:
            id_: Its name.
            uncounted: Whether this try does not count, since the file had no part in its end.

        Returns:
            The judgement; None where it was deleted.
        """
        with self._transaction():
            self._database.execute(
                "UPDATE judgements SET state = ?, started_at = NULL, tries = tries - ?"
                " WHERE id = ? AND state = ?",
                (State.QUEUED, int(uncounted), id_, State.RUNNING),
            )
            return self.get(id_)

    def resume(self, error: dict[str, str]) -> tuple[int, int]:
        """Puts back what a server that was killed had begun.

        Args:
            error: Error of those that were begun too often.

        Returns:
            How many wait again, and how many have failed.
        """
        with self._transaction():
            failed = self._database.execute(
                "UPDATE judgements SET state = ?, finished_at = ?, error = ?"
                " WHERE state = ? AND tries >= ?",
                (State.FAILED, now(), json_line(error), State.RUNNING, MAX_TRIES),
            ).rowcount
            waiting = self._database.execute(
                "UPDATE judgements SET state = ?, started_at = NULL WHERE state = ?",
                (State.QUEUED, State.RUNNING),
            ).rowcount
        return waiting, failed

    def set_note(self, id_: str, note: str) -> Judgement | None:
        """Changes the note; returns the judgement, or None where there is none."""
        with self._transaction():
            self._database.execute(
                "UPDATE judgements SET note = ? WHERE id = ?", (valid_text(note), id_)
            )
            return self.get(id_)

    def delete(self, id_: str) -> bool:
        """Deletes a judgement; returns whether there was one."""
        with self._transaction():
            deleted = self._database.execute("DELETE FROM judgements WHERE id = ?", (id_,))
            return deleted.rowcount > 0

    def forget_media(self, id_: str) -> None:
        """Notes that the original is deleted."""
        with self._transaction():
            self._database.execute("UPDATE judgements SET media = NULL WHERE id = ?", (id_,))

    def expired(self, keep_days: float) -> list[Judgement]:
        """Returns finished judgements whose originals are older than so many days."""
        until = _rfc3339(datetime.now(UTC) - timedelta(days=keep_days))
        with self._lock:
            rows = self._database.execute(
                "SELECT * FROM judgements WHERE media IS NOT NULL AND finished_at <= ?", (until,)
            ).fetchall()
        return [_judgement(row) for row in rows]

    def strays(self, media: Iterable[str]) -> list[str]:
        """Returns the names of originals that belong to no judgement."""
        with self._lock:
            rows = self._database.execute("SELECT media FROM judgements WHERE media IS NOT NULL")
            known = {row["media"] for row in rows}
        return [name for name in media if name not in known]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A block whose changes are all written, or none."""
        with self._lock:
            if self._database.in_transaction:
                yield
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def _judgement(row: sqlite3.Row) -> Judgement:
    values = dict(row)
    values["state"] = State(values["state"])
    for name in ("verdict", "error"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Judgement(**values)
