"""Settings of dataclasses: given as text, `name=value`, read from TOML, and written as TOML."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from dfd_edge.errors import UsageError
from dfd_edge.schema import SchemaError, from_plain, to_plain

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

Values = dict[str, Any]
"""Values by the names of a dataclass's fields, each of its field's type."""


def values_of_texts(kind: type[Any], settings: Iterable[str]) -> Values:
    """Reads settings that were given as text.

    Args:
        kind: A dataclass whose fields are truth values, numbers, texts, enums or tuples of texts.
        settings: Texts such as "true_share=0.5"; the parts of a tuple have commas between them.

    Raises:
        UsageError: A text has no "=", an unknown name, or a value that does not fit.
    """
    types = _types(kind)
    values: Values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in types:
            listed = ", ".join(f"{key}={shown}" for key, shown in _defaults(kind).items())
            raise UsageError(f"setting {setting!r} is unknown; known, with their values: {listed}")
        try:
            values[name] = from_plain(types[name], _plain(types[name], text), f"setting {name}")
        except SchemaError as error:
            raise UsageError(str(error)) from error
    return values


def read_settings(path: Path, kinds: Mapping[str, type[Any]]) -> dict[str, Values]:
    """Reads a TOML file of settings.

    Args:
        path: The file.
        kinds: A dataclass for each table that the file may have.

    Returns:
        The values in each of the tables.

    Raises:
        UsageError: The file is missing or no TOML, has a table or a name that is unknown, or a
            value of another type than its field.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error})") from error
    tables = ", ".join(f"[{name}]" for name in kinds)
    read: dict[str, Values] = {name: {} for name in kinds}
    for table, entries in content.items():
        if table not in kinds or not isinstance(entries, dict):
            raise UsageError(f"{path}: {table} is no table of settings; known are {tables}")
        types = _types(kinds[table])
        for name, value in entries.items():
            if name not in types:
                raise UsageError(
                    f"{path}: {table}.{name} is unknown; known in [{table}]: {', '.join(types)}"
                )
            try:
                read[table][name] = from_plain(types[name], value, f"{table}.{name}")
            except SchemaError as error:
                raise UsageError(f"{path}: {error}") from error
    return read


def to_toml(tables: Mapping[str, Any]) -> str:
    """Writes dataclasses as TOML tables that `read_settings` reads."""
    lines: list[str] = []
    for table, options in tables.items():
        # JSON's numbers, truth values, texts and lists are TOML's, but for the character 127.
        entries = (
            f"{name} = {json.dumps(value, ensure_ascii=False)}"
            for name, value in to_plain(options).items()
        )
        lines += [f"[{table}]", *entries, ""]
    return "\n".join(lines).replace("\x7f", "\\u007f")


def _types(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _defaults(kind: type[Any]) -> dict[str, str]:
    shown = {field.name: field.default for field in dataclasses.fields(kind)}
    return {
        name: ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in shown.items()
    }


def _plain(kind: Any, text: str) -> object:  # noqa: ANN401 - a type, of any sort
    """Returns the value that TOML would have for a text; the text itself where it has none."""
    if kind is bool:
        return _TRUTHS.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    if get_origin(kind) is tuple:
        return [part for part in text.split(",") if part]
    return text
