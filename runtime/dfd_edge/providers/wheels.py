"""Which onnxruntime is installed, and whether it can be imported.

`onnxruntime` is imported inside functions, so that `import dfd_edge` works without it.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from dfd_edge.errors import ProviderError
from dfd_edge.version import version_of

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
    versions = {name: version_of(name) for name in _WHEELS}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def several_in(site: Path | None) -> bool:
    """Whether several of the distributions lie in a folder of packages.

    Their folders' names tell; asking for their metadata at each start would take longer than
    opening a bundle.
    """
    if site is None:
        return False
    known = {name.replace("-", "_") for name in _WHEELS}
    found = {path.name.partition("-")[0].lower() for path in site.glob("onnxruntime*.dist-info")}
    return len(found & known) > 1


def _site_of_onnxruntime() -> Path | None:
    """The folder of packages that `onnxruntime` comes from; None where there is none."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).parent


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
    if several_in(_site_of_onnxruntime()) and len(wheels := installed_wheels()) > 1:
        names = " and ".join(f"{name} {version}" for name, version in wheels.items())
        extra = "gpu" if "onnxruntime-gpu" in wheels else "cpu"
        raise ProviderError(
            f"{names} are installed together and overwrite each other's files: run "
            f"`pip uninstall -y {' '.join(wheels)}`, then `pip install 'dfd-edge[{extra}]'`"
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        wheels = installed_wheels()
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
