"""The ledger of an archive: its settings, its lock, and the clips that ended workers.

Files in `_ledger/` beside the data set, which itself says what is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import IO, Any

from dfd_edge.archive.inputs import source_key
from dfd_edge.archive.rows import SCHEMA_VERSION
from dfd_edge.archive.settings import JudgeSettings
from dfd_edge.archive.storage import Store
from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError, OutputError, UsageError
from dfd_edge.schema import to_plain

FOLDER = "_ledger"
MEMORY = f"{FOLDER}/memory"
_RUN = f"{FOLDER}/run.json"
_STRIKES = f"{FOLDER}/strikes"
#: A lock in object storage is renewed this often, and void when it is so old.
_RENEW_S = 20.0
_VOID_S = 120.0
#: Two that lock at the same moment both write; the last one holds it after this.
_SETTLE_S = 2.0
#: Values of the settings that an archive was begun without, because they came later.
_DEFAULTS: dict[str, Any] = to_plain(JudgeSettings())


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts that all runs on one archive share.

    Attributes:
        bundle: Hash of the bundle.
        settings: Settings of the judgements.
        shards: Parts that the clips are divided into.
    """

    bundle: str
    settings: dict[str, Any]
    shards: int


class Ledger(Closing):
    """The ledger of an archive, locked for one run. Use as a context manager.

    Args:
        store: The folder of results.
        facts: Facts of this run.
        shard: Its part of the clips, from 1; each part has a lock of its own.

    Raises:
        UsageError: Another run holds the lock, or the archive was begun with other settings.
    """

    def __init__(self, store: Store, facts: RunFacts, shard: int = 1) -> None:
        self._store = store
        self._lock = _open_lock(store, f"{FOLDER}/lock-{shard}")
        try:
            self._check(facts)
            self._strikes = self._read_strikes()
        except BaseException:
            self._lock.close()
            raise

    def strikes_of(self, source: str) -> int:
        """Returns how many workers a clip has ended so far, in this run and earlier ones."""
        return self._strikes.get(source_key(source).hex(), 0)

    def strike(self, source: str, count: int) -> None:
        """Notes that a clip has ended so many workers."""
        key = source_key(source).hex()
        self._strikes[key] = count
        record = json.dumps({"source": source, "strikes": count})
        self._store.write(f"{_STRIKES}/{key}.json", record.encode())

    def forget_strikes(self) -> None:
        """Forgets which clips have ended workers, so that those are tried again."""
        self._strikes.clear()
        for name in self._store.names(_STRIKES):
            self._store.remove(name)

    def check_held(self) -> None:
        """Makes sure that this run still holds the lock; called before each commit.

        Raises:
            OutputError: Another run has taken it over.
        """
        self._lock.check()

    def close(self) -> None:
        """Releases the lock. Safe to call twice."""
        self._lock.close()

    def _check(self, facts: RunFacts) -> None:
        wanted = {
            "schema": SCHEMA_VERSION,
            "bundle": facts.bundle,
            "shards": facts.shards,
            "settings": facts.settings,
        }
        text = self._store.read(_RUN)
        if text is None:
            if self._store.names("clips"):
                raise UsageError(f"{self._store}: has results but no {_RUN}: give another --out")
            self._store.write(_RUN, (json.dumps(wanted, indent=2) + "\n").encode())
            return
        try:
            found = json.loads(text)
            known = {**_DEFAULTS, **found, **found["settings"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self._store}/{_RUN}: cannot be read ({error})") from error
        for name, value in {**wanted, **facts.settings}.items():
            if name != "settings" and known.get(name) != value:
                raise UsageError(
                    f"{self._store}: begun with {name} {known.get(name)!r}, now {value!r}: resume "
                    "with the same, or give another --out"
                )

    def _read_strikes(self) -> dict[str, int]:
        strikes = {}
        for name in self._store.names(_STRIKES):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(self._store.read(name) or b"")
                strikes[source_key(record["source"]).hex()] = int(record["strikes"])
        return strikes


def _open_lock(store: Store, name: str) -> _FileLock | _ObjectLock:
    return _ObjectLock(store, name) if store.remote else _FileLock(store, name)


class _FileLock:
    """A lock of the system, which goes with the process however that ends."""

    def __init__(self, store: Store, name: str) -> None:
        import fcntl  # noqa: PLC0415 - not on Windows

        path = store.local_path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] | None = path.open("a")
        except OSError as error:
            raise UsageError(f"--out: {path} cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UsageError(
                f"{store}: another run writes to it: wait for it, or give another --out"
            ) from None

    def check(self) -> None:
        """Does nothing: the system keeps the lock."""

    def close(self) -> None:
        """Releases it."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _ObjectLock:
    """A lock in object storage: an object that its holder renews, void once it is old."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._token = secrets.token_hex(8)
        self._over = threading.Event()
        self._lost: str | None = None
        found = self._read()
        if found is not None and time.time() - found["time_s"] < _VOID_S:
            raise UsageError(
                f"{store}: another run writes to it ({found['holder']}): wait for it, or give "
                f"another --out; a run that was killed holds it for {_VOID_S:g} s"
            )
        self._renew()
        self._over.wait(_SETTLE_S)
        self.check()
        self._thread = threading.Thread(target=self._keep, name="archive lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Makes sure that it is held.

        Raises:
            OutputError: Another run has it.
        """
        found = self._read()
        if self._lost is not None or found is None or found["token"] != self._token:
            holder = self._lost or ("nobody" if found is None else found["holder"])
            raise OutputError(f"{self._store}: the lock of this run was lost to {holder}")

    def close(self) -> None:
        """Releases it."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        with contextlib.suppress(DfdError):
            self.check()
            self._store.remove(self._name)

    def _keep(self) -> None:
        while not self._over.wait(_RENEW_S):
            with contextlib.suppress(DfdError):  # tried again; `check` decides
                found = self._read()
                if found is not None and found["token"] != self._token:
                    self._lost = str(found["holder"])
                    return
                self._renew()

    def _renew(self) -> None:
        record = {
            "token": self._token,
            "time_s": time.time(),
            "holder": f"{socket.gethostname()}, process {os.getpid()}",
        }
        self._store.write(self._name, json.dumps(record).encode())

    def _read(self) -> dict[str, Any] | None:
        text = self._store.read(self._name)
        if text is None:
            return None
        try:
            found = json.loads(text)
            return {"token": found["token"], "time_s": found["time_s"], "holder": found["holder"]}
        except (ValueError, KeyError, TypeError):
            return None
