"""From what was asked for to a list of sources: files, folders, globs, cameras, addresses."""

from __future__ import annotations

import glob
import io
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, TypeAlias

from dfd_edge.asked import check_name
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources.address import check_spelling, is_address, redact
from dfd_edge.sources.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES, image_format
from dfd_edge.sources.headers import is_animation
from dfd_edge.sources.options import SourceOptions
from dfd_edge.sources.video import head_of, is_file_object, read_head

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
#: Names of files that hold pictures one after the other; under any other, the first is a still.
_PICTURE_SERIES = frozenset([".mjpeg", ".mjpg"])

#: Path, address, camera index, the bytes of a file, or an open binary file.
Source: TypeAlias = str | os.PathLike[str] | int | bytes | bytearray | memoryview | BinaryIO


class SourceKind(StrEnum):
    """How a source is read."""

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
    """

    kind: SourceKind
    location: str | int | BinaryIO
    name: str
    options: SourceOptions = field(default_factory=SourceOptions)

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
            raise UsageError(f"source {source}: give a path, an address or a camera number")
        if isinstance(source, int):
            return cls(SourceKind.CAMERA, source, f"camera {source}")
        if hasattr(source, "read"):
            raise UsageError(
                f"{type(source).__name__}: gives its bytes once only; read them all and give those"
            )
        if not isinstance(source, str | os.PathLike):
            raise UsageError(
                f"source of type {type(source).__name__}: give a path, an address, bytes, an open "
                "binary file or a camera number"
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
        """The source with these options, if there are any; a `SourceItem` brings its own.

        Raises:
            SourceError, UsageError: As `of` does.
        """
        item = source if isinstance(source, SourceItem) else cls.of(source)
        return item if options is None else replace(item, options=options)


def expand(sources: Iterable[str | Path | int]) -> tuple[list[SourceItem], list[SourceError]]:
    """Finds the sources that `sources` stand for.

    A folder stands for the videos and pictures in it and below it, by file name suffix, sorted;
    hidden files are left out. A name with `*`, `?` or `[` that is no file is a glob (`**` goes
    into folders).

    Returns:
        The sources in the order given, each file once and each with a name of its own, and what
        could not be found: the others are still to be done.
    """
    items: dict[tuple[SourceKind, str | int | BinaryIO], SourceItem] = {}
    errors: list[SourceError] = []
    for source in sources:
        try:
            for item in _expand_one(source, errors):
                items.setdefault((item.kind, item.location), item)
        except SourceError as error:
            errors.append(error)
        except UsageError as error:  # a name that none can have
            errors.append(SourceError(str(error)))
    return _told_apart(items.values()), errors


def _told_apart(items: Iterable[SourceItem]) -> list[SourceItem]:
    """The items under names of their own: addresses may differ in what is not shown of them."""
    named: dict[str, SourceItem] = {}
    for item in items:
        name, number = item.name, 1
        while name in named:
            number += 1
            name = f"{item.name} #{number}"
        named[name] = replace(item, name=name)
    return list(named.values())


def _expand_one(source: str | Path | int, errors: list[SourceError]) -> Iterator[SourceItem]:
    try:
        yield from _expand_readable(source, errors)
    except OSError as error:
        raise SourceError(
            f"{redact(str(source))}: cannot be looked at ({error.strerror})"
        ) from None


def _expand_readable(source: str | Path | int, errors: list[SourceError]) -> Iterator[SourceItem]:
    if isinstance(source, int) or source == STANDARD_INPUT or is_address(str(source)):
        yield SourceItem.of(source)
        return
    check_name("source", str(source))
    check_spelling(str(source))
    path = Path(source)
    if path.is_dir():
        yield from _files(_media_below(path, errors), errors)
    elif not path.exists() and glob.has_magic(str(source)):
        matches = [Path(match) for match in sorted(glob.glob(str(source), recursive=True))]  # noqa: PTH207
        media = [match for match in matches if not match.is_dir()]
        if not media:
            raise SourceError(f"{source}: no file matches this pattern")
        yield from _files(media, errors)
    else:
        yield SourceItem.of(path)


def _files(paths: Iterable[Path], errors: list[SourceError]) -> Iterator[SourceItem]:
    for path in paths:
        try:
            yield SourceItem.of(path)
        except SourceError as error:
            errors.append(error)


def _media_below(folder: Path, errors: list[SourceError]) -> list[Path]:
    """Videos and pictures in a folder and below it, sorted.

    Raises:
        SourceError: The folder cannot be read, or holds none.
    """
    unreadable: list[OSError] = []
    found: list[Path] = []
    skipped = 0
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                found.append(Path(parent, name))
            else:
                skipped += 1
    for error in unreadable:
        errors.append(
            SourceError(f"{error.filename}: the folder cannot be read ({error.strerror})")
        )
    if skipped:
        logger.info("%s: %d files that are no video and no picture were left out", folder, skipped)
    if not found and not unreadable:
        raise SourceError(f"{folder}: no video and no picture in this folder")
    return found
