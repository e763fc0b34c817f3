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

Converter = Callable[[object, str], object]
"""Converts a parsed value, whose name in messages comes second; raises SchemaError."""

_MOST_WHOLE = 2**63 - 1
#: Values of these types are plain already.
_PLAIN = frozenset((str, int, float, bool))


class SchemaError(ValueError):
    """A value does not fit its field; the message names both."""


def to_plain(value: object) -> Any:  # noqa: ANN401 - JSON is whatever it is
    """Converts dataclasses, enums and tuples to plain JSON values."""
    if value is None or type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = _names(cast(Hashable, type(value)))
        return {name: to_plain(getattr(value, name)) for name in names}
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
    return cast(T, _converter(cast(Hashable, cls))(value, where))


@functools.cache
def _converter(kind: Any) -> Converter:  # noqa: ANN401
    """Returns what converts values to a type; cached, as archives convert millions."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        option = next(option for option in arguments if option is not type(None))
        return functools.partial(_convert_optional, _converter(option))
    if origin in (list, tuple):
        return _array_converter(origin, arguments)
    if origin is dict:
        return functools.partial(_convert_dict, _converter(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return functools.partial(_convert_dataclass, cast(type[Any], kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return functools.partial(_convert_enum, kind)
    return _SCALARS.get(kind, _nothing)


def _array_converter(origin: type[Any], arguments: tuple[Any, ...]) -> Converter:
    if origin is list:
        return functools.partial(_convert_list, _converter(arguments[0]))
    if arguments[-1] is Ellipsis:
        return functools.partial(_convert_tuple, _converter(arguments[0]))
    return functools.partial(_convert_fixed, tuple(map(_converter, arguments)))


def _convert_optional(option: Converter, value: object, where: str) -> object:
    return None if value is None else option(value, where)


def _convert_list(item: Converter, value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    return [item(entry, f"{where}[{i}]") for i, entry in enumerate(value)]


def _convert_tuple(item: Converter, value: object, where: str) -> tuple[object, ...]:
    return tuple(_convert_list(item, value, where))


def _convert_fixed(items: tuple[Converter, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    if len(value) != len(items):
        _refuse(where, value, f"a list of {len(items)}")
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(item(entry, f"{where}[{i}]") for i, (item, entry) in pairs)


def _convert_dict(item: Converter, value: object, where: str) -> dict[str, object]:
    entries = _object(value, where)
    return {key: item(entry, _join(where, key)) for key, entry in entries.items()}


@functools.cache
def _names(cls: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cast(Any, cls)))


@functools.cache
def _fields(cls: Hashable) -> dict[str, tuple[Converter, bool]]:
    """Returns by name what converts each field of a dataclass, and whether it must be there."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: (
            _converter(hints[field.name]),
            field.default is field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cast(Any, cls))
    }


def _convert_dataclass(cls: type[Any], value: object, where: str) -> object:
    entries = _object(value, where)
    fields = _fields(cast(Hashable, cls))
    for name in entries:
        if name not in fields:
            raise SchemaError(f"{_join(where, name)} is unknown")
    values = {}
    for name, (converter, needed) in fields.items():
        if name in entries:
            values[name] = converter(entries[name], _join(where, name))
        elif needed:
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


def _nothing(value: object, where: str) -> NoReturn:
    """Refuses values of types that JSON does not have, such as bytes."""
    _refuse(where, value, "null")


_SCALARS: dict[Any, Converter] = {
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
