"""Which processor a graph runs on: asked for, tried, read back, and explained.

`onnxruntime` is imported inside functions, so that `import dfd_edge` works without it. What
`get_available_providers` lists is what was built into the wheel, not what loads on this machine:
only a session that was opened and read back counts here.
"""

from __future__ import annotations

import ctypes
import enum
import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from dfd_edge.errors import BundleError, ProviderError, UsageError

T = TypeVar("T")


class Provider(enum.StrEnum):
    """What can be asked for."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    COREML = "coreml"
    DIRECTML = "directml"


@dataclass(frozen=True, slots=True)
class _Build:
    """A provider's name inside onnxruntime, and what to install for it."""

    name: str
    install: str


_BUILDS = {
    Provider.CPU: _Build("CPUExecutionProvider", "'dfd-edge[cpu]'"),
    Provider.CUDA: _Build("CUDAExecutionProvider", "'dfd-edge[gpu]'"),
    Provider.TENSORRT: _Build("TensorrtExecutionProvider", "'dfd-edge[gpu]'"),
    Provider.OPENVINO: _Build("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    Provider.COREML: _Build("CoreMLExecutionProvider", "onnxruntime (on macOS)"),
    Provider.DIRECTML: _Build("DmlExecutionProvider", "onnxruntime-directml (on Windows)"),
}
_AUTO_ORDER = (Provider.CUDA, Provider.CPU)
"""What `auto` tries. The others are for those who ask: TensorRT builds engines for minutes."""

_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """What runs, and whether it is what was asked for.

    True when the frame graph runs on the provider asked for; for `auto`, when it runs on the
    best one that the installed onnxruntime was built with. Its text says so in words.

    Attributes:
        requested: The provider asked for.
        actual: The provider that the frame graph runs on.
        sequence_actual: The provider of the sequence graph. One step of it takes microseconds
            on a CPU, less than a copy to an accelerator, so that is where it runs.
        precision: The variant of the frame graph.
        precision_reason: Why that variant.
        reason: Why something better did not run; None where nothing was missed.
    """

    requested: str
    actual: str
    sequence_actual: str
    precision: str
    precision_reason: str = "as asked"
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None

    def __str__(self) -> str:
        runs = f"{self.actual} ({self.precision})"
        if self.sequence_actual != self.actual:
            runs += f", sequence model on {self.sequence_actual}"
        return f"{runs}: {self.reason}" if self.reason else runs


@dataclass(frozen=True, slots=True)
class ProviderProbe:
    """Whether a provider of the installed onnxruntime really ran a graph here; if not, why."""

    provider: str
    works: bool
    detail: str


def parse_provider(name: str) -> Provider:
    """Returns the provider of that name.

    Raises:
        UsageError: There is none.
    """
    try:
        return Provider(name)
    except ValueError:
        known = ", ".join(Provider)
        raise UsageError(f"provider {name!r} is unknown; known are {known}") from None


def installed_wheels() -> dict[str, str]:
    """The installed distributions that bring a module `onnxruntime`: name to version."""
    found = {}
    for name in _WHEELS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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


def open_session(graph: bytes, provider: Provider, *, threads: int, name: str) -> Any:  # noqa: ANN401
    """Opens a graph on exactly one provider.

    Threads inside an operator do not spin while they wait: the processor's time belongs to the
    other stages.

    Args:
        graph: The ONNX file's bytes.
        provider: Any but `AUTO`.
        threads: Threads inside an operator.
        name: The file, for messages.

    Returns:
        An `onnxruntime.InferenceSession`, read back to run on that provider.

    Raises:
        ProviderError: The provider cannot run here; cause and mend are in the message.
        BundleError: onnxruntime refuses the graph itself.
    """
    ort = load_onnxruntime()
    build = _BUILDS[provider]
    if build.name not in ort.get_available_providers():
        raise ProviderError(_not_built_in(provider))
    if provider in (Provider.CUDA, Provider.TENSORRT) and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3 if provider is Provider.CPU else 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By itself onnxruntime takes bytes with the mark of its own format for that, whatever else
    # they can be read as: a file could be checked as one model and run as another.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        # onnxruntime's own fall-back prints to standard output and hides the cause.
        session = ort.InferenceSession(graph, options, providers=[build.name], enable_fallback=0)
    except Exception as error:  # onnxruntime raises types of its own and bare RuntimeError
        reason = str(error).strip().splitlines()[0]
        if provider is Provider.CPU:
            raise BundleError(
                f"{name}: onnxruntime {ort.__version__} refuses the graph ({reason}): export the "
                "bundle again, or upgrade onnxruntime"
            ) from error
        raise ProviderError(_not_loading(provider, reason)) from error
    if session.get_providers()[0] != build.name:
        raise ProviderError(_not_loading(provider, None))
    return session


def open_best(
    requested: Provider, open_on: Callable[[Provider], T]
) -> tuple[T, Provider, str | None]:
    """Opens a graph on the provider asked for, or for `AUTO` on the best that runs.

    Args:
        requested: The provider asked for.
        open_on: Opens it on one provider, with `open_session`.

    Returns:
        What `open_on` returned, the provider, and, where `AUTO` had to leave out one that
        onnxruntime was built with, why.

    Raises:
        ProviderError: A named provider cannot run: there is no falling back from it.
        BundleError: onnxruntime refuses the graph itself.
    """
    if requested is not Provider.AUTO:
        return open_on(requested), requested, None
    available = load_onnxruntime().get_available_providers()
    reason = None
    for provider in _AUTO_ORDER:
        if _BUILDS[provider].name not in available:
            continue
        try:
            opened = open_on(provider)
        except ProviderError as error:
            reason = reason or str(error)
            continue
        return opened, provider, reason
    raise ProviderError(reason or "the installed onnxruntime has no CPU provider: reinstall it")


def probe_providers(graph: Path, *, threads: int = 1) -> list[ProviderProbe]:
    """Opens and runs a graph on each provider of the installed onnxruntime.

    Args:
        graph: A small ONNX file with one input whose axes, but for named ones, are fixed.
        threads: Threads inside an operator.

    Raises:
        ProviderError: There is no usable onnxruntime.
    """
    available = load_onnxruntime().get_available_providers()
    data = graph.read_bytes()
    probes = []
    for provider, build in _BUILDS.items():
        if build.name not in available:
            continue
        try:
            session = open_session(data, provider, threads=threads, name=graph.name)
            session.run(None, _zeros(session))
        except (ProviderError, BundleError) as error:
            probes.append(ProviderProbe(provider.value, False, str(error)))
        except Exception as error:  # the run itself: a library or device that fails only now
            reason = str(error).strip().splitlines()[0]
            probes.append(ProviderProbe(provider.value, False, reason))
        else:
            probes.append(ProviderProbe(provider.value, True, "runs"))
    return probes


def _zeros(session: Any) -> dict[str, Any]:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - keeps the module light for those who only read reports

    dtypes = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32}
    return {
        value.name: np.zeros(
            [axis if isinstance(axis, int) else 1 for axis in value.shape],
            dtypes.get(value.type, np.float32),
        )
        for value in session.get_inputs()
    }


def _not_built_in(provider: Provider) -> str:
    wheels = installed_wheels()
    found = " ".join(f"{name} {version}" for name, version in wheels.items()) or "onnxruntime"
    install = f"`pip install {_BUILDS[provider].install}`"
    if provider is Provider.COREML and sys.platform != "darwin":
        return "provider coreml cannot run: Core ML is part of macOS only: use --provider auto"
    if provider is Provider.DIRECTML and sys.platform != "win32":
        return "provider directml cannot run: DirectML is part of Windows: use --provider auto"
    return (
        f"provider {provider} cannot run: the installed {found} is built without it: run "
        f"`pip uninstall -y {' '.join(wheels) or 'onnxruntime'}`, then {install}"
    )


def _not_loading(provider: Provider, reason: str | None) -> str:
    """Why a provider that is in the wheel does not load: its library, the driver, the device."""
    cause = reason
    if provider in (Provider.CUDA, Provider.TENSORRT):
        cause = _missing_library(provider) or _missing_device() or reason
    install = _BUILDS[provider].install
    return (
        f"provider {provider} cannot run: {cause or 'onnxruntime left it out'}: check the device "
        f"and its driver, run `pip install --upgrade {install}`, or use --provider auto"
    )


def _missing_library(provider: Provider) -> str | None:
    folder = Path(load_onnxruntime().__file__ or "").parent / "capi"
    for path in sorted(folder.glob(f"*onnxruntime_providers_{provider.value}.*")):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            # The library finds its symbols only inside onnxruntime; what counts is a file.
            text = str(error)
            if "undefined symbol" not in text:
                return f"a library is missing ({text})"
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
