"""EfficientNet-Lite0 and -Lite1 (Tan & Le 2019; the Lite family of 2020) as Keras 3 extractors.

Differences from EfficientNet-B0: ReLU6 in place of swish, no squeeze-and-excite, stem
and head of fixed width. Lite1 repeats the blocks of the middle stages 1.1 times as often, rounded
up. The weights come from TensorFlow, so strides pad as TensorFlow's "same".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.models.weights import read_state_dict

FEATURE_WIDTH = 1280
"""Channels of the last feature map."""

_STEM_WIDTH = 32
_BN_EPSILON = 1e-3
_BN_MOMENTUM = 0.99


@dataclass(frozen=True, slots=True)
class _Stage:
    """Repeats of one inverted-residual block; the stride is the first one's."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


_LITE0_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expand=1, width=16),
    _Stage(repeats=2, kernel=3, stride=2, expand=6, width=24),
    _Stage(repeats=2, kernel=5, stride=2, expand=6, width=40),
    _Stage(repeats=3, kernel=3, stride=2, expand=6, width=80),
    _Stage(repeats=3, kernel=5, stride=1, expand=6, width=112),
    _Stage(repeats=4, kernel=5, stride=2, expand=6, width=192),
    _Stage(repeats=1, kernel=3, stride=1, expand=6, width=320),
)
_LITE1_DEPTH = 1.1


def efficientnet_lite0(input_size: int) -> keras.Model:
    """Builds the convolutional part of EfficientNet-Lite0, with fresh weights.

    Args:
        input_size: Height and width of the input in pixels.

    Returns:
        A model from [B, S, S, 3] float32, RGB scaled by (x - 127) / 128, to the last feature
        Map [B, ceil(S / 32), ceil(S / 32), 1280] (after its batch norm and ReLU6).
    """
    return _build(input_size, name="efficientnet_lite0", depth=1.0)


def efficientnet_lite1(input_size: int) -> keras.Model:
    """Builds the convolutional part of EfficientNet-Lite1, with fresh weights.

    Argument and result are those of `efficientnet_lite0`; it was trained at 240 pixels.
    """
    return _build(input_size, name="efficientnet_lite1", depth=_LITE1_DEPTH)


def read_torch_weights(backbone: keras.Model, path: Path) -> None:
    """Puts the weights of a `.pth` file into the backbone: see `load_torch_weights`.

    Raises:
        UsageError: The file is missing, is no state dict, or is one of another network.
    """
    load_torch_weights(backbone, read_state_dict(path))


def load_torch_weights(backbone: keras.Model, state: Mapping[str, NDArray[Any]]) -> None:
    """Puts the weights of a torch state dict into the backbone; every weight of it must be there.

    Args:
        backbone: A model of this family.
        state: As `read_state_dict` gives it. The classifier's weights in it are left out.

    Raises:
        UsageError: A parameter is missing or has another shape, or the file holds more blocks.
    """
    blocks = {layer.name.partition("_")[0] for layer in backbone.layers}
    more = [name for name in state if _block_of(name) not in {None, *blocks}]
    if more:
        raise UsageError(
            f"weights: parameter {more[0]} belongs to a deeper network; give the weights of "
            f"{backbone.name}"
        )
    for layer in backbone.layers:
        prefix = _torch_name(layer.name)
        if isinstance(layer, layers.BatchNormalization):
            keys = ("weight", "bias", "running_mean", "running_var")
            values = [_parameter(state, f"{prefix}.{key}", backbone.name) for key in keys]
        elif isinstance(layer, layers.DepthwiseConv2D):
            values = [_parameter(state, f"{prefix}.weight", backbone.name).transpose(2, 3, 0, 1)]
        elif isinstance(layer, layers.Conv2D):
            values = [_parameter(state, f"{prefix}.weight", backbone.name).transpose(2, 3, 1, 0)]
        else:
            continue
        for variable, value in zip(layer.weights, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise UsageError(
                    f"weights {prefix}: shape {value.shape}, but {backbone.name} has "
                    f"{tuple(variable.shape)}; give the weights of {backbone.name}"
                )
            variable.assign(value)


def _build(input_size: int, *, name: str, depth: float) -> keras.Model:
    image = keras.Input((input_size, input_size, 3), name="scaled_image")
    x = _conv_bn(image, _STEM_WIDTH, kernel=3, stride=2, name="stem")
    index = 0
    for place, stage in enumerate(_LITE0_STAGES):
        ends = place in (0, len(_LITE0_STAGES) - 1)  # the first and the last stage never grow
        for repeat in range(stage.repeats if ends else math.ceil(depth * stage.repeats)):
            stride = stage.stride if repeat == 0 else 1
            x = _block(x, stage, stride=stride, name=f"block{index}")
            index += 1
    x = _conv_bn(x, FEATURE_WIDTH, kernel=1, stride=1, name="head")
    return keras.Model(image, x, name=name)


def _parameter(state: Mapping[str, NDArray[Any]], name: str, network: str) -> NDArray[np.float32]:
    if name not in state:
        raise UsageError(f"weights: parameter {name} is missing; give the state dict of {network}")
    return np.asarray(state[name], np.float32)


_TORCH_LAYERS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
}


def _torch_name(layer: str) -> str:
    block, _, rest = layer.partition("_")
    if block.startswith("block") and rest in _TORCH_LAYERS:
        return f"_blocks.{block.removeprefix('block')}.{_TORCH_LAYERS[rest]}"
    return _TORCH_LAYERS.get(layer, layer)


def _block_of(parameter: str) -> str | None:
    """Returns the Keras name of a torch parameter's block; None outside the blocks."""
    parts = parameter.split(".")
    return f"block{parts[1]}" if parts[0] == "_blocks" else None


def _batch_norm(name: str) -> layers.Layer:
    return layers.BatchNormalization(momentum=_BN_MOMENTUM, epsilon=_BN_EPSILON, name=name)


def _relu6(name: str) -> layers.Layer:
    return layers.ReLU(max_value=6.0, name=name)


def _conv_bn(
    x: keras.KerasTensor, width: int, *, kernel: int, stride: int, name: str, relu: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(
        width, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = _batch_norm(f"{name}_bn")(x)
    return _relu6(f"{name}_relu")(x) if relu else x


def _block(x: keras.KerasTensor, stage: _Stage, *, stride: int, name: str) -> keras.KerasTensor:
    """Inverted residual: widens (1x1), depthwise, projects (1x1, linear), adds if shapes allow."""
    entry = x
    width_in = int(x.shape[-1])
    if stage.expand != 1:
        x = _conv_bn(x, width_in * stage.expand, kernel=1, stride=1, name=f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        name=f"{name}_depthwise_conv",
    )(x)
    x = _batch_norm(f"{name}_depthwise_bn")(x)
    x = _relu6(f"{name}_depthwise_relu")(x)
    x = _conv_bn(x, stage.width, kernel=1, stride=1, name=f"{name}_project", relu=False)
    if stride == 1 and width_in == stage.width:
        x = layers.Add(name=f"{name}_add")([x, entry])
    return x
