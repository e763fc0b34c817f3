"""The note that an output carries: which program derived it, with which bundle, from which file."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path, PurePath

from dfd_edge.sources.expand import SourceItem, SourceKind
from dfd_edge.text import printable
from dfd_edge.version import own_version

_BLOCK_BYTES = 1 << 20


def program() -> tuple[str, str]:
    """Returns the name and the version of this program."""
    return "dfd-edge", own_version()


def short_name(source: str) -> str:
    """Returns the name of a source without its folder, control characters spelt out."""
    return printable(PurePath(source).name or source)


@dataclass(frozen=True, slots=True)
class CopyNote:
    """Note on an output that shows a source.

    Attributes:
        source: Name of the source, as records carry it.
        bundle: The first 12 digits of the bundle's hash, as records carry them.
        path: The file that was judged; None for live sources and standard input.
        sha256: Hash of that file, hexadecimal; None where there is none.
    """

    source: str
    bundle: str
    path: Path | None = None
    sha256: str | None = None

    @property
    def origin(self) -> str:
        """The source by its hash, else by its name, and the bundle, in one line."""
        source = printable(self.source) if self.sha256 is None else f"SHA-256 {self.sha256}"
        return f"source {source}; bundle {self.bundle}"

    def text(self, kind: str) -> str:
        """Returns the note in one line.

        Args:
            kind: Kind of the output, such as "annotated copy".
        """
        name, version = program()
        return f"{kind} by {name} {version}; not the original; {self.origin}"

    def tags(self) -> dict[str, str]:
        """Returns the tags of a film's container, by FFmpeg's names."""
        text = self.text("annotated copy")
        title = f"Annotated copy of {short_name(self.source)}"
        return {"title": title, "comment": text, "description": text}


class SourceHashes:
    """SHA-256 of the files of a run, by the name of the source. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, item: SourceItem, stop: threading.Event) -> str | None:
        """Hashes a file, and returns the hash.

        Args:
            item: The source.
            stop: Ends the hashing when it is set.

        Returns:
            64 hexadecimal digits; None for other sources than ordinary files, for a file that
            cannot be read, and when `stop` was set.
        """
        path = file_of(item)
        sha256 = None if path is None else sha256_of(path, stop)
        if sha256 is not None:
            with self._lock:
                self._known[item.name] = sha256
        return sha256

    def get(self, name: str) -> str | None:
        """Returns the hash of a source, or None."""
        with self._lock:
            return self._known.get(name)


def file_of(item: SourceItem) -> Path | None:
    """Returns the ordinary file that a source is; None for pipes, live sources and open files."""
    if item.kind not in (SourceKind.VIDEO, SourceKind.IMAGE) or not isinstance(item.location, str):
        return None
    path = Path(item.location)
    return path if path.is_file() else None


def sha256_of(path: Path, stop: threading.Event | None = None) -> str | None:
    """Returns the SHA-256 of a file, hexadecimal; None when `stop` is set or it is unreadable.

    `hashlib.file_digest` would not end before the file does, minutes for hours of film.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(block):
                if stop is not None and stop.is_set():
                    return None
                digest.update(block[:size])
    except OSError:
        return None
    return digest.hexdigest()
