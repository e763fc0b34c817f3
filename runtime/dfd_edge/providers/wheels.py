"""Which onnxruntime is installed, and whether it can be imported.

`onnxruntime` is imported inside functions, so that `import dfd_edge` works without it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

from dfd_edge.errors import ProviderError

_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)


_FATAL = 4
"""onnxruntime's highest level of messages; it has no names for them in Python."""


def installed_wheels() -> dict[str, str]:
    """The installed distributions that bring a module `onnxruntime`: name to version."""
    found = {}
    for name in _WHEELS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def quiet_onnxruntime() -> None:
    """Keeps onnxruntime from writing to standard error, for the whole process.

    What it has to say of a provider that does not load comes as an error too. For programs that
    own their process; an application's own choice is not to be overruled.
    """
    load_onnxruntime().set_default_logger_severity(_FATAL)


def load_onnxruntime() -> ModuleType:
    """Imports onnxruntime.

    Raises:
        ProviderError: None is installed, it cannot be imported, or several are installed, which
            overwrite each other's files.
    """
    wheels = installed_wheels()
    if len(wheels) > 1:
        names = " and ".join(f"{name} {version}" for name, version in wheels.items())
        extra = "gpu" if "onnxruntime-gpu" in wheels else "cpu"
        raise ProviderError(
            f"{names} are installed together and overwrite each other's files: run "
            f"`pip uninstall -y {' '.join(wheels)}`, then `pip install 'dfd-edge[{extra}]'`"
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        if not wheels:
            raise ProviderError(
                "onnxruntime is not installed: run `pip install 'dfd-edge[cpu]'`, or "
                "`pip install 'dfd-edge[gpu]'` for CUDA"
            ) from error
        name = next(iter(wheels))
        raise ProviderError(
            f"{name} {wheels[name]} is installed but cannot be imported ({error}): run "
            f"`pip install --force-reinstall {name}`"
        ) from error
