"""Versions of installed distributions, and of those that this one asks for."""

from __future__ import annotations


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - it brings the email package; few need it

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirement_of(distribution: str) -> str:
    """What pip is to install of a library: its name with the versions that this project allows."""
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
