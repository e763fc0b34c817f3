"""Keeps TensorFlow's notes on its build off the terminal while it loads.

Its libraries write them to standard error from static initialisers, before they read
`TF_CPP_MIN_LOG_LEVEL`: oneDNN is on, no CUDA driver was found, and that logging is not set up yet.
Commands install this; as a library, the program leaves imports alone.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_STANDARD_ERROR = 2


def quiet_tensorflow() -> None:
    """Lets the first import of TensorFlow write nothing, unless it fails."""
    # Read once TensorFlow is loaded, for what it logs later.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow once, by the other finders, and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Some modules of the package look at the loader, which is the usual one from here on.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        with _silent_descriptor():
            self._loader.exec_module(module)


@contextlib.contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Keeps what native code writes to standard error; it is shown where the block fails."""
    sys.stderr.flush()
    kept = os.dup(_STANDARD_ERROR)
    try:
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), _STANDARD_ERROR)
            try:
                yield
            except BaseException:
                os.dup2(kept, _STANDARD_ERROR)
                written.seek(0)
                os.write(_STANDARD_ERROR, written.read())
                raise
            finally:
                sys.stderr.flush()
                os.dup2(kept, _STANDARD_ERROR)
    finally:
        os.close(kept)
