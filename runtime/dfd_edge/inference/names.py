"""Names of providers, precisions and resizings, and of providers inside onnxruntime.

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


class Resize(enum.StrEnum):
    """How the square that was cut from a frame comes to the size that a model takes.

    Attributes:
        AREA: Shrinking averages areas, enlarging interpolates linearly.
        BILINEAR: Four neighbours in either direction, as `cv2.resize` and `tf.image.resize` do.
        NEAREST: The nearest pixel, as `load_img` and `ImageDataGenerator` of Keras do.
    """

    AREA = "area"
    BILINEAR = "bilinear"
    NEAREST = "nearest"


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
