"""The installed onnxruntime wheel, and whether it can be imported.

`onnxruntime` is imported inside functions, so that `import dfd_edge` works without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from dfd_edge.errors import ProviderError
from dfd_edge.inference.names import BUILDS, Provider
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
    """Returns the installed distributions of a module `onnxruntime`: name to version."""
    versions = {name: version_of(name) for name in _WHEELS}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def several_in(site: Path | None) -> bool:
    """Returns whether a folder of packages holds several of the distributions.

    Their folders' names tell; asking for their metadata at each start would take longer than
    opening a bundle.
    """
    if site is None:
        return False
    known = {name.replace("-", "_") for name in _WHEELS}
    found = {path.name.partition("-")[0].lower() for path in site.glob("onnxruntime*.dist-info")}
    return len(found & known) > 1


def _site_of_onnxruntime() -> Path | None:
    """Returns the folder of packages with `onnxruntime`; None where there is none."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).parent


def quiet_onnxruntime() -> None:
    """Keeps onnxruntime from writing to standard error, for the whole process.

    It reports a provider that does not load as an error too. For programs that own their process:
    an application's own setting stays.
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


NVIDIA = (Provider.CUDA, Provider.TENSORRT)

_NVIDIA_FAILURE = re.compile(r"(?:CUDA|CUDNN|CUBLAS|CUBLASLT) failure \d+: [^;\n]*[^;\s]")


def reason_of(error: Exception) -> str:
    """Returns an error of onnxruntime's in one line; for an NVIDIA library, that library's."""
    text = str(error).strip() or type(error).__name__
    found = _NVIDIA_FAILURE.search(text)
    line = found.group() if found is not None else text.splitlines()[0]
    return "".join(c if c.isprintable() else "?" for c in line)


def not_built_in(provider: Provider) -> str:
    """Returns why a provider that the installed onnxruntime lacks cannot run, with the mend."""
    wheels = installed_wheels()
    found = " ".join(f"{name} {version}" for name, version in wheels.items()) or "onnxruntime"
    install = f"`pip install {BUILDS[provider].install}`"
    if provider is Provider.COREML and sys.platform != "darwin":
        return "provider coreml cannot run: Core ML is part of macOS only: use --provider auto"
    if provider is Provider.DIRECTML and sys.platform != "win32":
        return "provider directml cannot run: DirectML is part of Windows: use --provider auto"
    return (
        f"provider {provider} cannot run: the installed {found} is built without it: run "
        f"`pip uninstall -y {' '.join(wheels) or 'onnxruntime'}`, then {install}"
    )


def not_loading(provider: Provider, reason: str) -> str:
    """Returns why a provider that is in the wheel did not load.

    Args:
        provider: The provider.
        reason: What onnxruntime said.
    """
    if provider in NVIDIA and (missing := _missing_library(_libraries(provider))) is not None:
        return _lacking(provider, missing)
    install = BUILDS[provider].install
    return (
        f"provider {provider} cannot run: {reason}: check the device and its "
        f"driver, run `pip install --upgrade {install}`, or use --provider auto"
    )


def find_fault(provider: Provider) -> str | None:
    """Looks for what keeps a provider from loading, before onnxruntime tries.

    onnxruntime writes about a missing library to standard error, in several lines, while the
    session that it opens runs on the CPU.

    Args:
        provider: One that the installed onnxruntime is built with. Loads the libraries that its
            wheels brought along.

    Returns:
        Cause and mend in one line, or None where nothing is found wrong.
    """
    if provider not in NVIDIA or not (libraries := _libraries(provider)):
        return None
    # The driver first: onnxruntime's library for CUDA needs the driver's as well.
    if (missing := _missing_device()) is not None:
        return (
            f"provider {provider} cannot run: {missing}: install NVIDIA's driver and see that "
            "`nvidia-smi` lists the device, or use --provider auto"
        )
    preload_libraries(provider)
    # Elsewhere than on Linux a provider's library that is loaded too early stays unusable.
    if sys.platform == "linux" and (missing := _missing_library(libraries)) is not None:
        return _lacking(provider, missing)
    return None


def preload_libraries(provider: Provider) -> None:
    """Loads the CUDA, cuDNN and TensorRT libraries that came as Python packages, if any."""
    ort = load_onnxruntime()
    if hasattr(ort, "preload_dlls"):
        # It prints what it does not find, on standard output, where records may be going.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    if provider is Provider.TENSORRT:
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt_libs")  # loads its libraries into the process


def _libraries(provider: Provider) -> list[Path]:
    """Returns onnxruntime's own libraries for a provider."""
    folder = Path(load_onnxruntime().__file__ or "").parent / "capi"
    return sorted(folder.glob(f"*onnxruntime_providers_{provider.value}.*"))


def _lacking(provider: Provider, missing: str) -> str:
    return (
        f"provider {provider} cannot run: a library is missing ({missing}): run "
        f"`pip install --upgrade {BUILDS[provider].install}`, or use --provider auto"
    )


def _missing_library(libraries: list[Path]) -> str | None:
    for path in libraries:
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            # Its files were found and its symbols not, which only onnxruntime gives it: the
            # library was not loaded, and nothing of it has run.
            if "undefined symbol" not in str(error):
                return str(error)
    return None


def _missing_device() -> str | None:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        return f"there is no NVIDIA driver ({error})"
    count = ctypes.c_int(0)
    if (status := driver.cuInit(0)) != 0:
        return f"the NVIDIA driver finds no usable device (cuInit gives {status})"
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no device"
    return None
