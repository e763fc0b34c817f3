"""Options of providers, and their translation for onnxruntime.

The names of onnxruntime's own settings stand in this file only.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.arguments import check_kind, check_whole
from dfd_edge.errors import ProviderError, UsageError
from dfd_edge.inference.names import BUILDS, Provider

_NUMBERED = (Provider.CUDA, Provider.TENSORRT, Provider.DIRECTML)
_COREML_UNITS = ("ALL", "CPUAndNeuralEngine", "CPUAndGPU", "CPUOnly")
_OPENVINO_DEVICES = ("CPU", "GPU", "NPU")

SINGLE_BUCKETS = (1, 2, 4, 8)
"""Batch sizes of accelerators that compile a graph anew for each."""

GPU_BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes on NVIDIA devices, which are filled by more crops."""


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """Options of a provider. Every field needs a named provider that knows it.

    Attributes:
        device: CUDA, TensorRT, DirectML: number of the device, from 0. OpenVINO: "CPU", "GPU",
            "NPU", or one of several such as "GPU.1". Core ML: its compute units, "ALL",
            "CPUAndNeuralEngine", "CPUAndGPU" or "CPUOnly". None: the first device, OpenVINO's
            CPU, all of Core ML's units.
        gpu_memory_limit_mb: CUDA: mebibytes that onnxruntime's arena may take on the device.
            TensorRT: mebibytes that an engine may take for its work.
        cuda_graphs: CUDA: record the frame model's kernels once for each batch size and launch
            them together.
        engine_cache: TensorRT and OpenVINO: folder for what is compiled for this device; by
            default one in the user's cache.

    Raises:
        UsageError: A value is out of range.
    """

    device: str | int | None = None
    gpu_memory_limit_mb: int | None = None
    cuda_graphs: bool = False
    engine_cache: Path | None = None

    def __post_init__(self) -> None:
        check_kind("device", self.device, (str, int), "its number or name")
        if self.gpu_memory_limit_mb is not None:
            limit = self.gpu_memory_limit_mb
            check_whole("GPU memory limit in MB", limit, least=1, most=2**24)
        check_kind("cuda_graphs", self.cuda_graphs, bool, "True or False")
        check_kind("engine_cache", self.engine_cache, Path, "a Path")

    def check(self, provider: Provider) -> None:
        """Checks that a provider knows every option that is set.

        Args:
            provider: The one asked for.

        Raises:
            UsageError: It does not know one, or cannot have that device.
        """
        knows = {
            "--device": (self.device is not None, (*_NUMBERED, Provider.OPENVINO, Provider.COREML)),
            "--gpu-memory-limit": (
                self.gpu_memory_limit_mb is not None,
                (Provider.CUDA, Provider.TENSORRT),
            ),
            "--cuda-graphs": (self.cuda_graphs, (Provider.CUDA,)),
            "--engine-cache": (
                self.engine_cache is not None,
                (Provider.TENSORRT, Provider.OPENVINO),
            ),
        }
        for flag, (is_set, providers) in knows.items():
            if is_set and provider not in providers:
                raise UsageError(
                    f"{flag} goes with --provider {' or '.join(providers)}, not with {provider}"
                )
        self._check_device(provider)

    @property
    def device_number(self) -> int:
        """The device's number, 0 by default; only for providers that number them."""
        return 0 if self.device is None else int(self.device)

    def _check_device(self, provider: Provider) -> None:
        if self.device is None:
            return
        text = str(self.device)
        if provider in _NUMBERED and not (text.isascii() and text.isdigit()):
            raise UsageError(f"--device {text}: {provider} numbers its devices: give 0, 1 ...")
        if provider is Provider.OPENVINO:
            kind, dot, number = text.partition(".")
            if kind not in _OPENVINO_DEVICES or (dot and not number.isdigit()):
                known = ", ".join(_OPENVINO_DEVICES)
                raise UsageError(f"--device {text}: OpenVINO has {known}, or one as GPU.1")
        if provider is Provider.COREML and text not in _COREML_UNITS:
            raise UsageError(f"--device {text}: Core ML has {', '.join(_COREML_UNITS)}")


NO_OPTIONS = ProviderOptions()


@dataclass(frozen=True, slots=True)
class FrameHints:
    """Facts on the frame graph for providers that compile it.

    Attributes:
        image_size: Side of a crop in pixels.
        half: Whether the graph computes in half precision.
    """

    image_size: int
    half: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Arguments of onnxruntime for opening a graph.

    Attributes:
        providers: onnxruntime's names and options, best first; without the CPU's, which is
            there by itself.
        memory_pattern: Whether memory is planned by the shapes of the first run; DirectML
            refuses that.
    """

    providers: tuple[tuple[str, dict[str, str]], ...]
    memory_pattern: bool = True


def settings_of(
    provider: Provider, options: ProviderOptions, *, threads: int, frame: FrameHints | None = None
) -> Settings:
    """Translates a provider's options for onnxruntime.

    Args:
        provider: Any but `AUTO`.
        options: Those that `ProviderOptions.check` let pass for it.
        threads: Threads inside an operator, where the provider has its own.
        frame: Given for the frame graph.

    Raises:
        ProviderError: The folder for engines cannot be made.
    """
    name = BUILDS[provider].name
    if provider is Provider.CUDA:
        return Settings(((name, _cuda(options)),))
    if provider is Provider.TENSORRT:
        # Nodes that TensorRT does not support go to CUDA; the caller checks the placement.
        plain = ProviderOptions(device=options.device)
        cuda = (BUILDS[Provider.CUDA].name, _cuda(plain))
        return Settings(((name, _tensorrt(options, frame)), cuda))
    if provider is Provider.OPENVINO:
        return Settings(((name, _openvino(options, threads)),))
    if provider is Provider.COREML:
        units = str(options.device or "ALL")
        return Settings(((name, {"ModelFormat": "MLProgram", "MLComputeUnits": units}),))
    if provider is Provider.DIRECTML:
        return Settings(((name, {"device_id": str(options.device_number)}),), memory_pattern=False)
    return Settings(((name, {}),))


def buckets_of(provider: Provider, options: ProviderOptions) -> tuple[int, ...] | None:
    """Returns the batch sizes that a provider is run with; None where any is as good.

    Args:
        provider: Any but `AUTO`.
        options: What was asked of it.
    """
    if provider in (Provider.CUDA, Provider.TENSORRT):
        return GPU_BUCKETS
    return None if computes_on_cpu(provider, options) else SINGLE_BUCKETS


def computes_on_cpu(provider: Provider, options: ProviderOptions) -> bool:
    """Returns whether a provider computes on the processor's own cores."""
    if provider is Provider.OPENVINO:
        return options.device in (None, "CPU")
    return provider is Provider.CPU


def _cuda(options: ProviderOptions) -> dict[str, str]:
    settings = {
        "device_id": str(options.device_number),
        # Batches have few, fixed sizes: the arena need not grow beyond its first size.
        "arena_extend_strategy": "kSameAsRequested",
        # The search happens while the batch sizes are warmed up, not while frames wait.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "enable_cuda_graph": "1" if options.cuda_graphs else "0",
    }
    if options.gpu_memory_limit_mb is not None:
        settings["gpu_mem_limit"] = str(options.gpu_memory_limit_mb * 2**20)
    return settings


def _tensorrt(options: ProviderOptions, frame: FrameHints | None) -> dict[str, str]:
    cache = str(_cache_folder(options, Provider.TENSORRT))
    settings = {
        "device_id": str(options.device_number),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }
    if options.gpu_memory_limit_mb is not None:
        settings["trt_max_workspace_size"] = str(options.gpu_memory_limit_mb * 2**20)
    if frame is not None:
        # One engine for all batch sizes, or it is built again for each.
        side = frame.image_size
        for key, batch in (("min", 1), ("opt", SINGLE_BUCKETS[-1]), ("max", GPU_BUCKETS[-1])):
            settings[f"trt_profile_{key}_shapes"] = f"image:{batch}x{side}x{side}x3"
        settings["trt_fp16_enable"] = "1" if frame.half else "0"
    return settings


def _openvino(options: ProviderOptions, threads: int) -> dict[str, str]:
    settings = {"device_type": str(options.device or "CPU")}
    if computes_on_cpu(Provider.OPENVINO, options):
        settings["num_of_threads"] = str(threads)
    else:
        settings["cache_dir"] = str(_cache_folder(options, Provider.OPENVINO))
        settings["precision"] = "ACCURACY"  # the graph's own; a GPU takes half by default
    return settings


def _cache_folder(options: ProviderOptions, provider: Provider) -> Path:
    """Creates the folder for compiled engines, for the user alone: its files are run."""
    folder = options.engine_cache or _user_cache() / "dfd-edge" / provider.value
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ProviderError(
            f"provider {provider} cannot keep its engines in {folder} ({error.strerror}): name "
            "another folder with --engine-cache"
        ) from error
    return folder


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
