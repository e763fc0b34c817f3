"""Settings given as text, `name=value`, put into a dataclass of options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TypeVar

from dfd_edge.errors import UsageError

Options = TypeVar("Options")

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def with_settings(options: Options, settings: Iterable[str]) -> Options:
    """Replace fields of a dataclass by values given as text.

    Numbers and truth values only; what a field takes is told by the value that it has.

    Args:
        options: an instance of a dataclass.
        settings: texts such as "true_share=0.5".

    Returns:
        A changed copy.

    Raises:
        UsageError: for a text without "=", an unknown name, or a value that does not fit.
    """
    known = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)  # type: ignore[arg-type] # a dataclass by contract
    }
    simple = {name: value for name, value in known.items() if isinstance(value, bool | int | float)}
    changes: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in simple:
            listed = ", ".join(f"{key}={value}" for key, value in simple.items())
            raise UsageError(f"setting {setting!r} is unknown; known, with their values: {listed}")
        changes[name] = _value(name, text, simple[name])
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def _value(name: str, text: str, before: bool | float) -> bool | float:
    try:
        if isinstance(before, bool):
            return _TRUTHS[text.lower()]
        return type(before)(text)
    except (KeyError, ValueError) as error:
        kind = type(before).__name__
        raise UsageError(f"setting {name}={text}: not a value of the kind {kind}") from error
