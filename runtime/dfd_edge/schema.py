"""Strict JSON for frozen dataclasses: all fields, no others, each of its declared type."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import sys
import types
import typing
from collections.abc import Callable, Hashable
from typing import Any, NoReturn, TypeVar, Union, cast

T = TypeVar("T")

_MOST_WHOLE = 2**63 - 1


class SchemaError(ValueError):
    """A value does not fit its field; the message names both."""


def to_plain(value: object) -> Any:  # noqa: ANN401 - JSON is whatever it is
    """Converts dataclasses, enums and tuples to plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def dump_json(value: object) -> str:
    """Returns a dataclass as indented JSON; infinite numbers and NaN are refused."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def parse_json(text: str) -> object:
    """Parses JSON; NaN, infinities and duplicate keys are refused.

    Raises:
        SchemaError: The text is not JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise SchemaError("not JSON that can be read (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise SchemaError(f"not JSON ({error})") from error
    except SchemaError:
        raise
    except ValueError:  # Python converts no more than some thousand digits
        raise SchemaError("a number in it has too many digits") from None


def check(condition: object, message: str) -> None:
    """Refuses a value of a dataclass, in its `__post_init__`.

    Raises:
        SchemaError: The condition does not hold; the message names the field.
    """
    if not condition:
        raise SchemaError(message)


def from_plain(cls: type[T], value: object, where: str = "") -> T:
    """Builds a dataclass from parsed JSON.

    Args:
        cls: A dataclass whose fields are str, int, float, bool, enums, other dataclasses, None
            unions, and lists, tuples and string-keyed dicts of those.
        value: Result of `parse_json`.
        where: Name of the value in error messages.

    Raises:
        SchemaError: A field is missing, unknown, of another type, or refused by the dataclass.
    """
    return cast(T, _convert(cls, value, where))


def _convert(kind: Any, value: object, where: str) -> object:  # noqa: ANN401
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(kind, value, where)
    if origin in (list, tuple):
        return _convert_array(kind, value, where)
    if origin is dict:
        fields = _object(value, where)
        item = typing.get_args(kind)[1]
        return {key: _convert(item, entry, _join(where, key)) for key, entry in fields.items()}
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(cast(type[Any], kind), value, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _convert_enum(kind, value, where)
    return _SCALARS[kind](value, where)


def _convert_union(kind: Any, value: object, where: str) -> object:  # noqa: ANN401
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    return None if value is None else _convert(options[0], value, where)


def _convert_array(kind: Any, value: object, where: str) -> object:  # noqa: ANN401
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    items = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return [_convert(items[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(value) != len(items):
        _refuse(where, value, f"a list of {len(items)}")
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_convert(item, entry, f"{where}[{i}]") for i, (item, entry) in pairs)


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    """Returns the types of a dataclass's fields; cached, as compiling them from text is slow."""
    return typing.get_type_hints(cls)


def _convert_dataclass(cls: type[Any], value: object, where: str) -> object:
    entries = _object(value, where)
    hints = _hints(cast(Hashable, cls))
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in entries:
        if name not in fields:
            raise SchemaError(f"{_join(where, name)} is unknown")
    values = {}
    for name, field in fields.items():
        if name in entries:
            values[name] = _convert(hints[name], entries[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"{_join(where, name)} is missing")
    try:
        return cls(**values)
    except SchemaError as error:
        raise SchemaError(_join(where, str(error))) from error


def _convert_enum(kind: type[enum.Enum], value: object, where: str) -> object:
    try:
        return kind(value)
    except ValueError:
        _refuse(where, value, "one of " + ", ".join(str(member.value) for member in kind))


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(where or "the whole", value, "an object")
    return value


def _string(value: object, where: str) -> str:
    return value if isinstance(value, str) else _refuse(where, value, "a string")


def _integer(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(where, value, "a whole number")
    if not -_MOST_WHOLE <= value <= _MOST_WHOLE:
        _refuse(where, value, f"a whole number of at most {_MOST_WHOLE}")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(where, value, "a number")
    if not abs(value) <= sys.float_info.max:
        _refuse(where, value, "a number that is finite")
    return float(value)


def _boolean(value: object, where: str) -> bool:
    return value if isinstance(value, bool) else _refuse(where, value, "true or false")


_SCALARS: dict[Any, Callable[[object, str], object]] = {
    str: _string,
    int: _integer,
    float: _number,
    bool: _boolean,
}


def _refuse(where: str, value: object, wanted: str) -> NoReturn:
    raise SchemaError(f"{where} is {value!r:.60}, not {wanted}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _no_constant(name: str) -> NoReturn:
    raise SchemaError(f"{name} is not a number JSON has")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise SchemaError(f"{twice} is given twice")
    return entries
