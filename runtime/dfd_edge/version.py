"""Versions of installed distributions."""

from __future__ import annotations


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - it brings the email package; few need it

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
