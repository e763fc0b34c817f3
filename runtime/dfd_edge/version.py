"""Versions of installed distributions, and the versions that this one requires."""

from __future__ import annotations

import re


def version_of(distribution: str) -> str | None:
    """Returns the version of an installed distribution, or None."""
    from importlib import metadata  # noqa: PLC0415 - it brings the email package; few need it

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """Returns the version of this program, or "unknown" where it is run from its sources."""
    return version_of("dfd-edge") or "unknown"


def requirement_of(distribution: str) -> str:
    """Returns the requirement of a library for pip: its name and the allowed versions."""
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
    """Returns whether a requirement allows a version; only `>=` and `<` are read."""
    numbers = _numbers(version)
    for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
        if (numbers >= _numbers(bound)) != (sign == ">="):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version without trailing zeros: 2.0 is 2."""
    (text,) = re.findall(r"^(?:\d+\.?)*", version)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
