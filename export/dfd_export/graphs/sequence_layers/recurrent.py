"""GRU and LSTM as ONNX's own operators.

Keras and ONNX write a GRU alike: gates in the order update, reset, candidate; `reset_after=True`
is `linear_before_reset=1`; biases come as one row for the input and one for the state. An LSTM's
gates stand in another order. Padding is told by `sequence_lens`, so nothing in it counts.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from dfd_export.graphs.sequence_layers.affine import Array, as_array
from dfd_export.graphs.sequence_layers.graph import Layout, SequenceGraph, Steps
from dfd_export.graphs.sequence_layers.registry import Unsupported, converts


@converts(layers.GRU)
def _gru(graph: SequenceGraph, layer: keras.layers.GRU, steps: Steps) -> Steps:
    _check(layer)
    steps = graph.arrange(graph.settle_mixing(steps), Layout.TIME_BATCH)
    name = graph.label(layer.name)
    start = graph.state(layer.units)
    value, end = graph.add_many(
        "GRU",
        [steps.name, *_weights(graph, layer, steps, name), "lengths", start],
        [f"{name}_steps", f"{name}_end"],
        hidden_size=layer.units,
        linear_before_reset=int(layer.reset_after),
    )
    graph.carry(end)
    return Steps(value, layer.units, Layout.RECURRENT)


@converts(layers.LSTM)
def _lstm(graph: SequenceGraph, layer: keras.layers.LSTM, steps: Steps) -> Steps:
    _check(layer)
    steps = graph.arrange(graph.settle_mixing(steps), Layout.TIME_BATCH)
    name = graph.label(layer.name)
    hidden, cell = graph.state(layer.units), graph.state(layer.units)
    value, *ends = graph.add_many(
        "LSTM",
        [steps.name, *_weights(graph, layer, steps, name), "lengths", hidden, cell],
        [f"{name}_steps", f"{name}_end", f"{name}_cell_end"],
        hidden_size=layer.units,
    )
    for end in ends:
        graph.carry(end)
    return Steps(value, layer.units, Layout.RECURRENT)


def _weights(
    graph: SequenceGraph, layer: keras.layers.RNN, steps: Steps, name: str
) -> tuple[str, str, str]:
    """Kernel, recurrent kernel and bias; what waits before the layer goes into the first."""
    kernel, recurrent = as_array(layer.cell.kernel), as_array(layer.cell.recurrent_kernel)
    bias = np.zeros((2, kernel.shape[1]))
    if layer.use_bias:
        # An LSTM has one row, that of the input, and so has a GRU without reset_after.
        rows = as_array(layer.cell.bias).reshape(-1, kernel.shape[1])
        bias[: len(rows)] = rows
    if steps.waiting is not None:
        kernel, bias[0] = steps.waiting.into(kernel, bias[0])
    if isinstance(layer, layers.LSTM):
        kernel, recurrent, bias = (_onnx_gates(part) for part in (kernel, recurrent, bias))
    return (
        graph.constant(f"{name}_kernel", kernel.T[None]),
        graph.constant(f"{name}_recurrent_kernel", recurrent.T[None]),
        graph.constant(f"{name}_bias", bias.reshape(1, -1)),
    )


def _onnx_gates(weights: Array) -> Array:
    """From Keras' order (input, forget, candidate, output) to ONNX's, over the last axis."""
    gate, forget, candidate, output = np.split(weights, 4, axis=-1)
    return np.concatenate([gate, output, forget, candidate], axis=-1)


def _check(layer: keras.layers.GRU | keras.layers.LSTM) -> None:
    kind = type(layer).__name__
    if not layer.return_sequences:
        raise Unsupported(
            "gives its last step only: build the model with return_sequences=True and the same "
            "weights, for a logit after each step"
        )
    if layer.go_backwards:
        raise Unsupported(
            "goes backwards, which a live stream cannot: fit it anew with go_backwards=False"
        )
    if layer.stateful:
        raise Unsupported(
            "keeps states between batches: build the model with stateful=False and the same "
            "weights; the graph carries states of its own"
        )
    functions = (layer.activation, layer.recurrent_activation)
    if functions != (keras.activations.tanh, keras.activations.sigmoid):
        used = tuple(getattr(f, "__name__", type(f).__name__) for f in functions)
        raise Unsupported(
            f"has activations {used[0]} and {used[1]}: fit it anew with tanh and sigmoid, those "
            f"of ONNX's {kind}"
        )
