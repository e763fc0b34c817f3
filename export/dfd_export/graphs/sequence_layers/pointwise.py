"""Layers that look at one step alone: dense layers and norms, and what does nothing in inference.

A batch norm has fixed statistics then and is a factor and an offset for each channel: it goes
into the weights of the dense layer before it or of the layer after it.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from dfd_export.graphs.sequence_layers.activations import activate
from dfd_export.graphs.sequence_layers.affine import Affine, as_array
from dfd_export.graphs.sequence_layers.graph import SequenceGraph, Steps
from dfd_export.graphs.sequence_layers.registry import Unsupported, converts

TRAINING_ONLY = (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.Masking,
    layers.SpatialDropout1D,
)
"""Layers that give what they take in inference; what `Masking` finds, `lengths` tells the graph."""


@converts(layers.Dense)
def _dense(graph: SequenceGraph, layer: keras.layers.Dense, steps: Steps) -> Steps:
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise Unsupported("has LoRA or quantised weights: export the model before they are added")
    steps = graph.settle_mixing(steps)
    kernel = as_array(layer.kernel)
    bias = as_array(layer.bias) if layer.use_bias else np.zeros(layer.units)
    if steps.waiting is not None:
        kernel, bias = steps.waiting.into(kernel, bias)
    steps = Steps(steps.name, layer.units, steps.layout, Affine(layer.name, kernel, bias))
    return activate(graph, layer.activation, steps, f"{layer.name}_activation")


@converts(layers.BatchNormalization)
def _batch_norm(
    _graph: SequenceGraph, layer: keras.layers.BatchNormalization, steps: Steps
) -> Steps:
    _check_last_axis(layer.axis)
    waiting = Affine.of(layer).after(steps.waiting)
    return Steps(steps.name, steps.width, steps.layout, waiting)


@converts(layers.LayerNormalization)
def _layer_norm(
    graph: SequenceGraph, layer: keras.layers.LayerNormalization, steps: Steps
) -> Steps:
    _check_last_axis(layer.axis)
    steps = graph.settle(steps)
    name = graph.label(layer.name)
    scale = as_array(layer.gamma) if layer.scale else np.ones(steps.width)
    inputs = [steps.name, graph.constant(f"{name}_scale", scale)]
    if layer.center:
        inputs.append(graph.constant(f"{name}_bias", as_array(layer.beta)))
    value = graph.add(
        "LayerNormalization", inputs, f"{name}_out", axis=-1, epsilon=float(layer.epsilon)
    )
    return Steps(value, steps.width, steps.layout)


@converts(*TRAINING_ONLY)
def _training_only(_graph: SequenceGraph, _layer: keras.layers.Layer, steps: Steps) -> Steps:
    return steps


def _check_last_axis(axis: int | list[int] | tuple[int, ...]) -> None:
    axes = [axis] if isinstance(axis, int) else list(axis)
    if axes not in ([-1], [2]):
        found = " and ".join(str(number) for number in axes)
        raise Unsupported(f"works on axis {found}: fit the model anew with axis=-1, the channels")
