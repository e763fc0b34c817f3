"""Files on this machine and in object storage (s3://, gs://, az://), through fsspec.

Credentials come from the environment alone, as each storage's own library reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dfd_edge.archive.rows import Clip, Judgement
from dfd_edge.errors import (
    DfdError,
    OutputError,
    SourceError,
    SourceNotFoundError,
    UnreachableError,
    UsageError,
)
from dfd_edge.sources.address import redact

T = TypeVar("T")

_ATTEMPTS = 5
_FIRST_WAIT_S = 0.5
#: Bytes of one request; after a cut connection only this much is read again.
PIECE_BYTES = 8 << 20
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}


def is_remote(address: str) -> bool:
    """Whether an address is in object storage rather than a path."""
    scheme, mark, _ = address.partition("://")
    return bool(mark) and scheme != "file"


def open_filesystem(address: str) -> tuple[Any, str]:
    """Returns fsspec's file system for an address, and the path within it.

    Raises:
        UsageError: The address has a password in it, its kind is unknown, or the package for it
            is not installed.
    """
    import fsspec  # noqa: PLC0415 - workers need none

    if redact(address) != address:
        raise UsageError(
            f"{redact(address)}: credentials come from the environment: leave them out"
        )
    scheme = address.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "the package that fsspec names for it")
        raise UsageError(
            f"{address}: run `pip install {package}` for {scheme}:// ({error})"
        ) from error
    except ValueError as error:
        raise UsageError(f"{address}: this kind of storage is unknown ({error})") from error
    return filesystem, str(path)


def retried(call: Callable[[], T], address: str) -> T:
    """Calls something that needs the network, a few times with growing waits.

    Raises:
        SourceNotFoundError: There is no such object.
        UnreachableError: It failed each time; the cause is the last error.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except FileNotFoundError:
            raise SourceNotFoundError(address, "no such object") from None
        except PermissionError as error:
            raise UnreachableError(address, f"access refused ({error})") from error
        except Exception as error:  # each storage's library has errors of its own
            if attempt == _ATTEMPTS - 1:
                cause = " ".join(str(error).split()) or type(error).__name__
                raise UnreachableError(
                    address, f"not reached in {_ATTEMPTS} attempts ({cause:.200})"
                ) from error
            time.sleep(_FIRST_WAIT_S * 2**attempt)
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A clip whose contents are on this machine.

    Attributes:
        clip: The clip, with the size and the time of change that were found.
        path: The file; None where there is none to judge.
        sha256: Hash of its contents, hexadecimal; None where they could not be read.
        error: Why it could not be read.
        temporary: Whether the file is a copy, to be removed after use.
        repeated: Whether another clip with the same contents is judged in its place.
    """

    clip: Clip
    path: str | None = None
    sha256: str | None = None
    error: Judgement | None = None
    temporary: bool = False
    repeated: bool = False

    def discard(self) -> None:
        """Removes the copy."""
        if self.temporary and self.path is not None:
            with contextlib.suppress(OSError):
                Path(self.path).unlink()


def fetch(clip: Clip, scratch: str) -> Fetched:
    """Brings the contents of a clip to this machine and hashes them; errors are in the result.

    Args:
        clip: What to fetch. Files on this machine are hashed where they are.
        scratch: Folder for copies.
    """
    try:
        if is_remote(clip.source):
            return _download(clip, scratch)
        return _look(clip)
    except DfdError as error:
        return Fetched(clip, error=Judgement.of_error(error))
    except OSError as error:
        told = SourceError(clip.source, f"cannot be read ({error.strerror or error})")
        return Fetched(clip, error=Judgement.of_error(told))


def _look(clip: Clip) -> Fetched:
    path = clip.source.removeprefix("file://")
    try:
        found = os.stat(path)  # noqa: PTH116 - names that are no text are read too
    except FileNotFoundError:
        raise SourceNotFoundError(clip.source, "no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(clip.source, "is no ordinary file")
    clip = replace(clip, size=found.st_size, modified_s=found.st_mtime)
    with Path(path).open("rb") as file:
        return Fetched(clip, path, hashlib.file_digest(file, "sha256").hexdigest())


def _download(clip: Clip, scratch: str) -> Fetched:
    filesystem, path = open_filesystem(clip.source)
    facts = retried(lambda: filesystem.info(path), clip.source)
    size = int(facts["size"])
    digest = hashlib.sha256()
    suffix = PurePosixPath(path).suffix[:16]
    descriptor, copy = tempfile.mkstemp(suffix, "clip-", scratch)
    fetched = Fetched(clip, copy, temporary=True)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for start in range(0, size, PIECE_BYTES):
                piece = retried(lambda at=start: _piece(filesystem, path, at, size), clip.source)  # type: ignore[misc]
                digest.update(piece)
                file.write(piece)
    except BaseException:
        fetched.discard()
        raise
    clip = replace(clip, size=size, modified_s=modified_s(facts))
    return replace(fetched, clip=clip, sha256=digest.hexdigest())


def _piece(filesystem: Any, path: str, start: int, size: int) -> bytes:  # noqa: ANN401 - fsspec's
    end = min(start + PIECE_BYTES, size)
    piece = bytes(filesystem.cat_file(path, start=start, end=end))
    if len(piece) != end - start:
        raise OSError(f"{len(piece)} of {end - start} bytes came")
    return piece


def modified_s(facts: dict[str, Any]) -> float | None:
    """Returns the time of change in fsspec's description of a file, in seconds since 1970."""
    for key in ("LastModified", "mtime", "last_modified", "updated", "modified"):
        value = facts.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


class Store:
    """The folder of results: files in it appear whole or not at all.

    Args:
        address: A folder of this machine, or an address in object storage.

    Attributes:
        address: As given.
        remote: Whether it is in object storage.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/") or address
        self.remote = is_remote(address)
        self.filesystem, self._root = open_filesystem(self.address)
        self._root = self._root.rstrip("/")
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return self.address

    def path(self, name: str) -> str:
        """Returns the path of a file within the file system."""
        return f"{self._root}/{name}"

    def local_path(self, name: str = "") -> Path:
        """Returns the path of a file where the store is on this machine."""
        return Path(self._root) / name

    def write(self, name: str, contents: bytes) -> None:
        """Writes a file; a file of that name is replaced.

        Raises:
            OutputError: It cannot be written.
        """
        if self.remote:
            try:
                retried(lambda: self.filesystem.pipe_file(self.path(name), contents), self.address)
            except SourceError as error:
                raise OutputError(f"{self}/{name}: cannot be written ({error.cause})") from error
            return
        target = self.local_path(name)
        # Unlike `sinks.files.written_whole`, it outlasts a loss of power.
        partial = target.with_name(f".{target.name}.partial")
        try:
            with self._lock:
                target.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    file.write(contents)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
                _sync_folder(target.parent)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error.strerror})") from error

    def read(self, name: str) -> bytes | None:
        """Returns the contents of a file, or None where there is none.

        Raises:
            OutputError: It cannot be read.
        """
        try:
            return bytes(retried(lambda: self.filesystem.cat_file(self.path(name)), self.address))
        except SourceNotFoundError:
            return None
        except SourceError as error:
            raise OutputError(f"{self}/{name}: cannot be read ({error.cause})") from error

    def names(self, folder: str) -> list[str]:
        """Returns the names of the files in a folder, sorted; hidden ones are left out.

        Raises:
            OutputError: It cannot be listed.
        """

        def listed() -> list[str]:
            self.filesystem.invalidate_cache()
            return list(self.filesystem.ls(self.path(folder), detail=False))

        try:
            found = retried(listed, self.address)
        except SourceNotFoundError:
            return []
        except SourceError as error:
            raise OutputError(f"{self}/{folder}: cannot be listed ({error.cause})") from error
        names = (PurePosixPath(path).name for path in found)
        return sorted(f"{folder}/{name}" for name in names if name and not name.startswith("."))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(SourceNotFoundError):
            retried(lambda: self.filesystem.rm_file(self.path(name)), self.address)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """Opens a file for reading at any place in it."""
        with self.filesystem.open(self.path(name), "rb") as file:
            yield file


def _sync_folder(folder: Path) -> None:
    """Makes renames in a folder outlast a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
