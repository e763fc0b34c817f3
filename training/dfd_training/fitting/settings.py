"""Settings of dataclasses: given as text, `name=value`, read from TOML, and written as TOML."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from dfd_edge.errors import UsageError

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

Values = dict[str, Any]
"""Values by the names of a dataclass's fields, each of its field's type."""


def values_of_texts(kind: type[Any], settings: Iterable[str]) -> Values:
    """Read settings that were given as text.

    Args:
        kind: a dataclass whose fields are truth values, numbers, texts, enums or tuples of texts.
        settings: texts such as "true_share=0.5"; the parts of a tuple have commas between them.

    Raises:
        UsageError: for a text without "=", an unknown name, or a value that does not fit.
    """
    types = _types(kind)
    values: Values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in types:
            listed = ", ".join(f"{key}={shown}" for key, shown in _defaults(kind).items())
            raise UsageError(f"setting {setting!r} is unknown; known, with their values: {listed}")
        try:
            values[name] = _of_text(types[name], text)
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"setting {name}={text}: not a value of the kind {_described(types[name])}"
            ) from error
    return values


def read_settings(path: Path, kinds: Mapping[str, type[Any]]) -> dict[str, Values]:
    """Read a TOML file of settings.

    Args:
        path: of the file.
        kinds: a dataclass for each table that the file may have.

    Returns:
        For each of the tables what the file says.

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
                read[table][name] = _of_toml(types[name], value)
            except ValueError as error:
                raise UsageError(
                    f"{path}: {table}.{name} is {value!r}; {_described(types[name])} is wanted"
                ) from error
    return read


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write dataclasses as TOML tables that `read_settings` reads."""
    lines: list[str] = []
    for table, options in tables.items():
        values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        lines += [f"[{table}]", *(f"{name} = {_toml(value)}" for name, value in values.items()), ""]
    return "\n".join(lines)


def _types(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _defaults(kind: type[Any]) -> dict[str, str]:
    shown = {field.name: field.default for field in dataclasses.fields(kind)}
    return {
        name: ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in shown.items()
    }


def _of_text(kind: Any, text: str) -> object:  # noqa: ANN401 - a type, of any sort
    if kind is bool:
        return _TRUTHS[text.lower()]
    if kind is float:
        return _finite(float(text))
    if kind is int or kind is str or _is_enum(kind):
        return kind(text)
    return tuple(part for part in text.split(",") if part)


def _of_toml(kind: Any, value: object) -> object:  # noqa: ANN401 - a type, of any sort
    """Check a value of TOML; a whole number will do for a float, and nothing for another kind."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, float, str):
        if type(value) is not kind:
            raise ValueError
        return _finite(value) if isinstance(value, float) else value
    if _is_enum(kind):
        return kind(value)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError
    return tuple(value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def _is_enum(kind: Any) -> bool:  # noqa: ANN401 - a type, of any sort
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _described(kind: Any) -> str:  # noqa: ANN401 - a type, of any sort
    if _is_enum(kind):
        return "one of " + ", ".join(kind)
    return kind.__name__ if isinstance(kind, type) else "list of texts"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    # A JSON string is a TOML basic string, but for the character 127.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
