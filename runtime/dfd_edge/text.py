"""Text that is safe to write to a terminal, a file or a record."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfd_edge.judging.results import Record

_SURROGATES = re.compile("[\ud800-\udfff]")
_FIRST_BYTE = 0xDC00  # Python reads the byte 0xNN of a name that is not UTF-8 as U+DC00 + 0xNN


def printable(text: str) -> str:
    """Returns the text with control characters escaped: a file name must not control a terminal."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in valid_text(text)
    )


def cleaned(text: str, limit: int = 200) -> str:
    """Returns the text of a file in one line, for people to read.

    Control characters, turns of the writing direction and everything else that is not visible are
    taken out, white space becomes single spaces, and what is longer than `limit` characters is cut.
    """
    # Only the beginning is looked at: the text of a hostile file can be many megabytes long.
    start = text[: 8 * limit]
    visible = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in start)
    line = " ".join(visible.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def valid_text(text: str) -> str:
    r"""Returns the text with bytes escaped that are not valid Unicode, as file names may have them.

    Example:
        >>> valid_text("clip\udcff.mp4")
        'clip\\xff.mp4'
    """
    return _SURROGATES.sub(_escaped, text)


def json_line(record: Record) -> str:
    """Returns a record as one line of strict JSON, in ASCII.

    Raises:
        ValueError: A number in it is infinite or "not a number".
    """
    line = json.dumps(record, allow_nan=False)
    if "\\ud" in line:  # rare: a lone surrogate, or half of a character beyond U+FFFF
        line = json.dumps(_valid(record), allow_nan=False)
    return line


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0x80 <= code - _FIRST_BYTE <= 0xFF:
        return f"\\x{code - _FIRST_BYTE:02x}"
    return f"\\u{code:04x}"


def _valid(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(key): _valid(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_valid(entry) for entry in value]
    return value
