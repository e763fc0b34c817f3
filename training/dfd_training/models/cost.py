"""What a frame model costs: parameters and multiply-accumulates, counted layer by layer.

Counted is what convolutions and matrix products multiply, as papers count it: one multiply with its
add is one. The count of the exported graph (`dfd-export inspect`) is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras
from keras import layers

from dfd_training.models.frame import EvidenceHead


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a frame model costs.

    Attributes:
        parameters: Numbers in all weights, statistics of batch norms included.
        macs: Multiply-accumulates for one crop.
    """

    parameters: int
    macs: int


def measure(model: keras.Model) -> ModelCost:
    """Counts a model of `build_frame_model` at its own input size."""
    return ModelCost(model.count_params(), sum(_macs(layer) for layer in _leaves(model)))


def _leaves(model: keras.Model) -> Iterator[layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _macs(layer: layers.Layer) -> int:
    """Products that one layer sums up for one crop; pictures are [B, h, w, C]."""
    match layer:
        case EvidenceHead():
            height, width, channels = layer.input.shape[1:]
            return int(channels) * (1 + (height * width if _is_shown(layer) else 0))
        case layers.SeparableConv2D():
            places = math.prod(layer.output.shape[1:3])
            depthwise = math.prod(layer.depthwise_kernel.shape)
            return int(places * (depthwise + math.prod(layer.pointwise_kernel.shape)))
        case layers.DepthwiseConv2D() | layers.Conv2D():
            # A kernel of groups holds the channels of one group only, as each output needs.
            return int(math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape))
        case layers.Dense():
            places = math.prod(layer.output.shape[1:-1])
            return int(places * math.prod(layer.kernel.shape))
    return 0


def _is_shown(layer: EvidenceHead) -> bool:
    """Whether the map is an output of frame models with this head."""
    return tuple(layer.input.shape[1:3]) != (1, 1)
