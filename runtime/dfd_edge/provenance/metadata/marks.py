"""Marks: what a file's plain metadata state about its origin.

None of it is signed. Anybody can write it, change it or take it out, and most services that pass
a file on take it out: a mark says where to look next, and its absence says nothing.

`marks.json` lists the statements that mean something, each with the public source that documents
it. All others are left out, a place where the file was recorded among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dfd_edge.errors import SourceError
from dfd_edge.provenance.metadata.statements import MOST_BYTES, Statement
from dfd_edge.provenance.record import Mark
from dfd_edge.provenance.source_types import source_type
from dfd_edge.text import cleaned

#: Marks of one file that are kept.
MOST_MARKS = 200
_MOST_STATEMENTS = 1_000
#: Characters of a value that are compared with the known marks.
_COMPARED = 1 << 16
_TABLE = Path(__file__).with_name("marks.json")


@dataclass(frozen=True, slots=True)
class KnownMark:
    """An entry of `marks.json`.

    Attributes:
        generator: Generator or swap tool that writes it; None for what others write too.
        fields: Where it is found, in lower case; `container.*` stands for every such field.
        pattern: The value contains it.
        beside: Another field of the same file and a pattern that its value contains too.
        meaning: The meaning in plain words; None where the value says it all.
        source: Address of the code, standard or publication that documents it.
    """

    generator: str | None
    fields: tuple[str, ...]
    pattern: re.Pattern[str]
    beside: tuple[str, re.Pattern[str]] | None
    meaning: str | None
    source: str

    def fits(self, statement: Statement, others: Sequence[Statement]) -> bool:
        """Returns whether this is the mark that a statement makes, in a file with those others."""
        field = statement.field.lower()
        if field not in self.fields and f"{field.partition('.')[0]}.*" not in self.fields:
            return False
        if not self.pattern.search(statement.value[:_COMPARED]):
            return False
        if self.beside is None:
            return True
        name, pattern = self.beside
        return any(
            other.field.lower() == name and pattern.search(other.value[:_COMPARED])
            for other in others
        )


def _known_marks() -> Iterator[KnownMark]:
    for entry in json.loads(_TABLE.read_text(encoding="utf-8"))["marks"]:
        beside = entry.get("beside")
        yield KnownMark(
            generator=entry["generator"],
            fields=tuple(field.lower() for field in entry["fields"]),
            pattern=re.compile(entry["pattern"]),
            beside=beside and (beside["field"].lower(), re.compile(beside["pattern"])),
            meaning=entry["meaning"],
            source=entry["source"],
        )


#: The known marks; of several that fit a statement, the first counts. They are loaded with this
#: module, since a process that reads a stranger's file may not be able to open another one.
KNOWN_MARKS = tuple(_known_marks())


def read_marks(path: Path) -> tuple[Mark, ...]:
    """Reads the statements of a file's plain metadata that mean something for its origin.

    Args:
        path: A film or picture. Damaged metadata are read up to the damage.

    Returns:
        At most `MOST_MARKS` marks, those of generators and swap tools first.

    Raises:
        SourceError: The file is missing, unreadable or empty.
    """
    try:
        statements = list(dict.fromkeys(_bounded(_statements(path))))
    except OSError as error:
        cause = f"its metadata cannot be read ({error.strerror or error})"
        raise SourceError(path, cause) from error
    marks = dict.fromkeys(
        mark for statement in statements if (mark := _mark(statement, statements)) is not None
    )
    return tuple(sorted(marks, key=_rank)[:MOST_MARKS])


def _statements(path: Path) -> Iterator[Statement]:
    from dfd_edge.sources.containers import image_format, read_head  # noqa: PLC0415

    head = read_head(path)
    kind = "gif" if head.startswith(b"GIF8") else image_format(head)
    if kind is None:
        from dfd_edge.provenance.metadata.films import film_statements  # noqa: PLC0415

        yield from film_statements(path, head)
    else:
        from dfd_edge.provenance.metadata.pictures import picture_statements  # noqa: PLC0415

        with path.open("rb") as file:
            yield from picture_statements(file, kind)


def _bounded(statements: Iterator[Statement]) -> Iterator[Statement]:
    """Yields the statements until they are too many, or too long in all."""
    characters = 0
    for statement in islice(statements, _MOST_STATEMENTS):
        characters += len(statement.value)
        if characters > MOST_BYTES:
            return
        yield statement


def _mark(statement: Statement, others: Sequence[Statement]) -> Mark | None:
    if not (value := cleaned(statement.value)):
        return None
    known = next((mark for mark in KNOWN_MARKS if mark.fits(statement, others)), None)
    if known is None:
        return None
    stated = None
    meaning = known.meaning
    if statement.field.lower().endswith(".digitalsourcetype"):
        stated = source_type(value)
        meaning = stated.meaning
    return Mark(statement.field, value, meaning, known.generator, stated)


def _rank(mark: Mark) -> int:
    """Known marks of generators first, then source types, then the rest in the file's order."""
    return 0 if mark.generator else 1 if mark.source_type else 2
