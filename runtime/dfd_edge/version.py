"""Versions of installed distributions, and of those that this one asks for."""

from __future__ import annotations

import re


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - it brings the email package; few need it

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirement_of(distribution: str) -> str:
    """The requirement of a library, for pip: its name and the versions that are allowed."""
    from importlib import metadata  # noqa: PLC0415

    try:
        required = metadata.requires("dfd-edge") or []
    except metadata.PackageNotFoundError:
        required = []
    for requirement in required:
        asked = requirement.partition(";")[0].strip()
        if asked.removeprefix(distribution)[:1] in ("<", ">", "=", "!", "~"):
            return asked
    return distribution


def is_allowed(version: str, requirement: str) -> bool:
    """Whether a requirement allows a version, as far as it says `>=` and `<`."""
    numbers = _numbers(version)
    for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
        if (numbers >= _numbers(bound)) != (sign == ">="):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without zeros at their end: 2.0 is 2."""
    (text,) = re.findall(r"^(?:\d+\.?)*", version)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
