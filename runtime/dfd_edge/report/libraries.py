"""What a page needs beside the base installation, asked for before anything is judged."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from dfd_edge.errors import UsageError

_LIBRARIES = ("jinja2", "plotly")
_SUFFIXES = (".html", ".htm")


def check_report(path: Path) -> None:
    """Refuse a report that could not be written or would not be opened as a page.

    Raises:
        UsageError: The suffix is not that of a page, or jinja2 or plotly cannot be imported.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--report: {path}: a report is written as {' or '.join(_SUFFIXES)}")
    for library in _LIBRARIES:
        try:
            import_module(library)
        except ImportError as error:
            raise UsageError(
                f"--report needs {' and '.join(_LIBRARIES)}, but {library} cannot be imported "
                f"({error}): run `pip install 'dfd-edge[report]'`"
            ) from error
