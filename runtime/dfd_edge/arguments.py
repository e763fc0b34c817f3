"""Checks of arguments: each refusal names the value and what is allowed."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable

from dfd_edge.errors import UsageError

MOST_THREADS = 1024
MOST_RATE_HZ = 1000.0
LEAST_RATE_HZ = 0.001
_MOST_NAME = 4096
"""Bytes of the longest path that Linux takes; other systems take less."""


def check_number(
    what: str, value: object, *, above: float | None = None, least: float = 0.0, most: float = 1e12
) -> float:
    """Returns a number that is in its range, as a float.

    Args:
        what: Name and unit, for the message.
        value: What was given.
        above: It has to be more than this; None where `least` says it.
        least: It has to be this or more.
        most: It has to be this or less.

    Raises:
        UsageError: It is no number, or out of range.
    """
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except (OverflowError, ValueError):
            number = math.inf
    low = number >= least if above is None else number > above
    if not (low and number <= most):
        span = f"from {least:g} to" if above is None else f"above {above:g}, at most"
        raise UsageError(f"{what} {_shown(value)}: give a number {span} {most:g}")
    return number


def check_rate(what: str, value: object) -> float:
    """Returns a rate in Hz.

    Raises:
        UsageError: It is no number, or out of range.
    """
    return check_number(what, value, least=LEAST_RATE_HZ, most=MOST_RATE_HZ)


def check_whole(what: str, value: object, *, least: int, most: int) -> int:
    """Returns a whole number that is in its range.

    Raises:
        UsageError: It is no whole number, or out of range.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= most:  # type: ignore[call-overload]
        raise UsageError(f"{what} {_shown(value)}: give a whole number from {least} to {most}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_one_of(what: str, value: object, allowed: Iterable[str]) -> None:
    """Checks that a text is one of those allowed.

    Raises:
        UsageError: It is not.
    """
    known = tuple(allowed)
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{what} {_shown(value)} is unknown; known are {', '.join(known)}")


def check_kind(what: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Checks that a value is of a type, or None.

    Raises:
        UsageError: It is not.
    """
    if value is not None and not isinstance(value, kinds):
        raise UsageError(f"{what} is a {type(value).__name__}: give {wanted}")


def check_calls(**calls: object) -> None:
    """Checks that these can be called, or are None.

    Raises:
        UsageError: One cannot.
    """
    for name, call in calls.items():
        if call is not None and not callable(call):
            raise UsageError(f"{name} is a {type(call).__name__}: give a function")


def check_name(what: str, text: str) -> None:
    """Checks that a text can be the name of a file or an address at all.

    Raises:
        UsageError: It is too long, or holds a zero or half a character.
    """
    about = f"{what} {_shown(text)}"
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError:
        raise UsageError("half a character stands in its name", source=about) from None
    if "\0" in text:
        raise UsageError("a zero byte stands in its name", source=about)
    if size > _MOST_NAME:
        raise UsageError(f"a name of {size} bytes; it has at most {_MOST_NAME}", source=about)


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:  # a number of too many digits, an object whose own `repr` fails
        return f"of type {type(value).__name__}"
