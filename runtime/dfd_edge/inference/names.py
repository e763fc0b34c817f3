"""The providers that can be asked for, and what each is called inside onnxruntime."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dfd_edge.arguments import check_one_of


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
    """The short name of one of onnxruntime's providers; its own where there is none."""
    short = (provider.value for provider, build in BUILDS.items() if build.name == name)
    return next(short, name)
