"""Names of providers and precisions, and what each provider is called inside onnxruntime.

The command line loads this at its start, so it imports no library.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from dfd_edge.arguments import check_one_of

PRECISIONS: Final = ("fp32", "fp16", "int8")
"""Variants of the frame graph that a bundle may carry."""

PRECISION_CHOICES: Final = ("auto", *PRECISIONS)
"""Precisions that can be asked for."""


class Provider(enum.StrEnum):
    """A provider that can be asked for."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    COREML = "coreml"
    DIRECTML = "directml"


PROVIDER_CHOICES: Final = tuple(provider.value for provider in Provider)
"""Providers that can be asked for, as texts."""


@dataclass(frozen=True, slots=True)
class Build:
    """A provider's name inside onnxruntime, and what to install for it."""

    name: str
    install: str


BUILDS = {
    Provider.CPU: Build("CPUExecutionProvider", "'dfd-edge[cpu]'"),
    Provider.CUDA: Build("CUDAExecutionProvider", "'dfd-edge[gpu]'"),
    Provider.TENSORRT: Build("TensorrtExecutionProvider", "'dfd-edge[gpu]' tensorrt"),
    Provider.OPENVINO: Build("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    Provider.COREML: Build("CoreMLExecutionProvider", "onnxruntime (on macOS)"),
    Provider.DIRECTML: Build("DmlExecutionProvider", "onnxruntime-directml (on Windows)"),
}


def parse_provider(name: str) -> Provider:
    """Returns the provider of that name.

    Raises:
        UsageError: There is none.
    """
    check_one_of("provider", name, Provider)
    return Provider(name)


def provider_called(name: str) -> str:
    """Returns the short name of one of onnxruntime's providers; its own where there is none."""
    short = (provider.value for provider, build in BUILDS.items() if build.name == name)
    return next(short, name)
