"""Expands arguments to a list of sources: files, folders, globs, cameras, addresses."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from dfd_edge.arguments import check_name
from dfd_edge.errors import SourceError, SourceNotFoundError, UsageError
from dfd_edge.judging.results import Event, EventKind
from dfd_edge.sources.address import check_spelling, is_address, redact
from dfd_edge.sources.containers import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    head_of,
    image_format,
    is_file_object,
    read_head,
)
from dfd_edge.sources.headers import is_animation
from dfd_edge.sources.options import SourceOptions

if TYPE_CHECKING:
    from dfd_edge.sources.opening import ReadAhead

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
#: Characters of the patterns that are expanded here.
_WILDCARDS = frozenset("*?[")
#: Names of files that hold pictures one after the other; under any other, the first is a still.
_PICTURE_SERIES = frozenset([".mjpeg", ".mjpg"])

#: Path, address, camera index, the bytes of a file, or an open binary file.
Source: TypeAlias = str | os.PathLike[str] | int | bytes | bytearray | memoryview | BinaryIO

#: Names of files that were left out which a note holds.
_SHOWN_NAMES = 8
_Identity = tuple[int, int]  # of a folder: its device and number there


class SourceKind(StrEnum):
    """Kind of a source."""

    VIDEO = "video"
    IMAGE = "image"
    CAMERA = "camera"
    ADDRESS = "address"
    STANDARD_INPUT = "standard input"


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One source.

    Attributes:
        kind: How it is read.
        location: Path, address, camera index or open file.
        name: What messages and records call it; credentials are taken out of addresses.
        options: How it is to be opened.
        ahead: A video file that was opened and begun already; None opens it when it is read.
    """

    kind: SourceKind
    location: str | int | BinaryIO
    name: str
    options: SourceOptions = field(default_factory=SourceOptions)
    ahead: ReadAhead | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, source: Source) -> SourceItem:
        """Classifies a single source; of files, the first bytes are read.

        Raises:
            SourceError: The file is missing, a folder, unreadable or empty, or an address is
                misspelt.
            UsageError: It is none of these, its name cannot be one, or a file opened as text.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            return cls._of_file(io.BytesIO(source), f"{len(memoryview(source).cast('B'))} bytes")
        if is_file_object(source):
            path = getattr(source, "name", None)
            return cls._of_file(source, path if isinstance(path, str) else "file object")
        if isinstance(source, bool):
            raise UsageError(
                "give a path, an address or a camera number", source=f"source {source}"
            )
        if isinstance(source, int):
            return cls(SourceKind.CAMERA, source, f"camera {source}")
        if hasattr(source, "read"):
            raise UsageError(
                "gives its bytes once only; read them all and give those",
                source=type(source).__name__,
            )
        if not isinstance(source, str | os.PathLike):
            raise UsageError(
                "give a path, an address, bytes, an open binary file or a camera number",
                source=f"source of type {type(source).__name__}",
            )
        return cls._of_name(source)

    @classmethod
    def _of_name(cls, source: str | os.PathLike[str]) -> SourceItem:
        if source == STANDARD_INPUT:
            return cls(SourceKind.STANDARD_INPUT, STANDARD_INPUT, "standard input")
        text = os.fsdecode(source)
        check_name("source", text)
        if isinstance(source, str) and is_address(source):
            return cls(SourceKind.ADDRESS, text, redact(text))
        check_spelling(text)
        path = Path(text)
        if path.is_char_device():
            return cls(SourceKind.CAMERA, text, text)
        kind = image_format(read_head(path))
        if kind == "jpeg" and path.suffix.lower() in _PICTURE_SERIES:
            return cls(SourceKind.VIDEO, text, text)
        still = kind is not None
        if kind in ("png", "webp"):
            with path.open("rb") as file:
                still = not is_animation(file, kind)
        return cls(SourceKind.IMAGE if still else SourceKind.VIDEO, text, text)

    @classmethod
    def _of_file(cls, file: BinaryIO, name: str) -> SourceItem:
        kind = image_format(head_of(file, name))
        still = kind is not None and not is_animation(file, kind)
        return cls(SourceKind.IMAGE if still else SourceKind.VIDEO, file, name)

    @classmethod
    def made_of(cls, source: Source | SourceItem, options: SourceOptions | None) -> SourceItem:
        """Returns the item of a source, with these options if any; a `SourceItem` has its own.

        Raises:
            SourceError, UsageError: As `of` does.
        """
        item = source if isinstance(source, SourceItem) else cls.of(source)
        return item if options is None else replace(item, options=options)


def expand(
    sources: Iterable[Source], *, on_event: Callable[[Event], None] | None = None
) -> tuple[list[SourceItem], list[SourceError]]:
    """Finds the sources that arguments stand for.

    A folder stands for the videos and pictures in it and below it, by file name suffix, sorted;
    hidden files are left out. Links to other folders are followed, each folder once. A name with
    `*`, `?` or `[` that is no file is a glob (`**` goes into folders).

    Args:
        sources: Files, folders, globs, addresses, cameras; bytes and open files stand for
            themselves.
        on_event: Called with a note on what is left out of each folder.

    Returns:
        The sources in the order given, each file once and each with a name of its own, and what
        could not be found: the others are still to be done.
    """
    items: dict[tuple[SourceKind, str | int | BinaryIO], SourceItem] = {}
    errors: list[SourceError] = []
    report = on_event or _log
    for source in sources:
        try:
            for item in _expand_one(source, errors, report):
                items.setdefault((item.kind, item.location), item)
        except SourceError as error:
            errors.append(error)
        except UsageError as error:  # a name that none can have, or no source at all
            errors.append(SourceError(error.source or redact(str(source)), error.cause))
    return _uniquely_named(items.values()), errors


def _uniquely_named(items: Iterable[SourceItem]) -> list[SourceItem]:
    """Gives each item a unique name: addresses may differ in parts that are not shown."""
    named: dict[str, SourceItem] = {}
    for item in items:
        name, number = item.name, 1
        while name in named:
            number += 1
            name = f"{item.name} #{number}"
        named[name] = replace(item, name=name)
    return list(named.values())


def _log(event: Event) -> None:
    logger.info("%s: %s", event.source, event.detail)


def _expand_one(
    source: Source, errors: list[SourceError], report: Callable[[Event], None]
) -> Iterator[SourceItem]:
    try:
        yield from _expand_readable(source, errors, report)
    except OSError as error:
        raise SourceError(redact(str(source)), f"cannot be looked at ({error.strerror})") from None


def _expand_readable(
    source: Source, errors: list[SourceError], report: Callable[[Event], None]
) -> Iterator[SourceItem]:
    text = os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
    if text is None or text == STANDARD_INPUT or is_address(text):
        yield SourceItem.of(source)
        return
    check_name("source", text)
    check_spelling(text)
    path = Path(text)
    if path.is_dir():
        yield from _files(_media_below(path, errors, report), errors)
    elif not path.exists() and _WILDCARDS & set(text):
        import glob  # noqa: PLC0415 - shells expand most patterns themselves

        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
        media = [match for match in matches if not match.is_dir()]
        if not media:
            raise SourceNotFoundError(text, "no file matches this pattern")
        yield from _files(media, errors)
    else:
        yield SourceItem.of(path)


def _files(paths: Iterable[Path], errors: list[SourceError]) -> Iterator[SourceItem]:
    for path in paths:
        try:
            yield SourceItem.of(path)
        except SourceError as error:
            errors.append(error)


def _media_below(
    folder: Path, errors: list[SourceError], report: Callable[[Event], None]
) -> list[Path]:
    """Returns the videos and pictures in a folder and below it, sorted, linked folders last.

    Raises:
        SourceError: The folder cannot be read, or holds none.
    """
    unreadable: list[OSError] = []
    found: list[Path] = []
    others: list[str] = []
    outer = {_identity(parent) for parent in folder.resolve().parents}
    seen: set[_Identity] = set()
    links: list[Path] = []
    roots = deque([folder])
    while roots:
        for parent, folders, names in os.walk(roots.popleft(), onerror=unreadable.append):
            here = _identity(Path(parent))
            if here in seen:
                folders.clear()
                continue
            seen.add(here)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [path for name in folders if (path := Path(parent, name)).is_symlink()]
            for name in sorted(name for name in names if not name.startswith(".")):
                path = Path(parent, name)
                if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                    found.append(path)
                else:
                    others.append(str(path.relative_to(folder)))
        if not roots:  # what is linked twice is found under its own name first
            roots.extend(link for link in links if _identity(link) not in outer)
            upward = [str(link.relative_to(folder)) for link in links if _identity(link) in outer]
            links.clear()
            if upward:
                text = f"{_counted(upward, 'link')} to a folder around this one not followed"
                report(Event(str(folder), 0.0, EventKind.NOTE, f"{text}: {_listed(upward)}"))
    for error in unreadable:
        errors.append(SourceError(error.filename, f"the folder cannot be read ({error.strerror})"))
    if others:
        text = f"{_counted(others, 'file')} of other kinds left out: {_listed(others)}"
        report(Event(str(folder), 0.0, EventKind.NOTE, text))
    if not found and not unreadable:
        raise SourceNotFoundError(folder, "no video and no picture in this folder")
    return found


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _counted(names: list[str], word: str) -> str:
    return f"{len(names)} {word}" if len(names) == 1 else f"{len(names)} {word}s"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    left = len(names) - _SHOWN_NAMES
    return f"{shown} and {left} more" if left > 0 else shown
