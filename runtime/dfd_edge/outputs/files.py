"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dfd_edge.errors import UsageError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` and renames it to `path` at the end.

    The temporary file keeps the suffix of `path`. It is removed when the block raises, or when
    nothing was written in it.

    Raises:
        UsageError: The folder does not exist or cannot be written to.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        partial.touch()
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield partial
        if partial.stat().st_size:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
