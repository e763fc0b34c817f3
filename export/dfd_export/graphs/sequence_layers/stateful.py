"""Layers that carry a state from step to step: GRU and LSTM, running mean, window attention.

GRU and LSTM are ONNX's own operators. Keras and ONNX write a GRU alike: gates in the order update,
reset, candidate; `reset_after=True` is `linear_before_reset=1`; biases come as one row for the
input and one for the state. An LSTM's gates stand in another order. `sequence_lens` excludes the
padding.

The running mean carries the mean so far and a count. A sum would do, but grows: after a day of
steps it has no digits left for the next one. With a decay it carries the running numerators and
their denominator, which do not grow.

Window attention carries keys and values of the last steps. A step's row in the state is its keys,
its values and a 1. Rows of zeros are steps that have not been: the logarithm of that last channel,
added to the scores, hides them.
"""

from __future__ import annotations

import keras
import numpy as np
import onnx
from keras import layers

from dfd_export.graphs.sequence_layers.graph import (
    Affine,
    Array,
    Layout,
    SequenceGraph,
    Steps,
    Unsupported,
    as_array,
    converts,
)
from dfd_training.models.sequence import RunningMean, WindowAttention


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


@converts(RunningMean)
def _running_mean(graph: SequenceGraph, layer: RunningMean, steps: Steps) -> Steps:
    if layer.decay < 1.0:
        return _decayed_mean(graph, layer, steps)
    width = steps.width
    steps = graph.settle(graph.arrange(_with_one(steps, layer.name), Layout.BATCH_TIME))
    name = graph.label(layer.name)
    as_row, as_state = graph.integers(-1, 1, width + 1), graph.integers(1, -1, width + 1)
    apart = graph.integers(width, 1)
    start = graph.add("Reshape", [graph.state(width + 1), as_row], f"{name}_start")
    mean, count = graph.add_many(
        "Split", [start, apart], [f"{name}_before", f"{name}_count_before"], axis=2
    )
    only_mean = graph.constant(f"{name}_only_mean", np.append(np.ones(width), 0.0))
    mean_and_0 = graph.add("Mul", [start, only_mean], f"{name}_before_and_0")
    change = graph.add("Sub", [steps.name, mean_and_0], f"{name}_changes_and_1")
    change = graph.add("CumSum", [change, graph.integer(1)], f"{name}_sums")
    change, new = graph.add_many(
        "Split", [change, apart], [f"{name}_change", f"{name}_new_count"], axis=2
    )
    count = graph.add("Add", [count, new], f"{name}_count")
    change = graph.add("Div", [change, count], f"{name}_mean_change")
    mean = graph.add("Add", [mean, change], f"{name}_out")
    rows = graph.add("Concat", [mean, count], f"{name}_rows", axis=2)
    end = graph.rows_at_ends(rows, [-1], f"{name}_end")
    graph.carry(graph.add("Reshape", [end, as_state], f"{name}_end_as_state"))
    return Steps(mean, width, Layout.BATCH_TIME)


def _decayed_mean(graph: SequenceGraph, layer: RunningMean, steps: Steps) -> Steps:
    """Writes the mean as sums over the steps so far, each times the decay to the power of its age.

    The steps of one call are summed by a product with a triangle of such powers. What was carried
    into the call counts with the power of the steps since.
    """
    width = steps.width
    steps = graph.settle(graph.arrange(_with_one(steps, layer.name), Layout.BATCH_TIME))
    name = graph.label(layer.name)
    zero, one = graph.integer(0), graph.integer(1)
    time = graph.add("Shape", [steps.name], f"{name}_time", start=1, end=2)
    time = graph.add("Squeeze", [time], f"{name}_time_steps")
    numbers = graph.add("Range", [zero, time, one], f"{name}_numbers")
    numbers = graph.add("Cast", [numbers], f"{name}_row", to=onnx.TensorProto.FLOAT)
    column = graph.add("Unsqueeze", [numbers, one], f"{name}_column")
    decay = graph.constant(f"{name}_decay", layer.decay)
    age = graph.add("Sub", [column, numbers], f"{name}_signed_age")
    age = graph.add("Relu", [age], f"{name}_age")
    powers = graph.add("Pow", [decay, age], f"{name}_powers")
    powers = graph.add("Trilu", [powers], f"{name}_triangle", upper=0)
    sums = graph.add("MatMul", [powers, steps.name], f"{name}_new_sums")
    since = graph.add("Add", [column, graph.constant(f"{name}_one", 1.0)], f"{name}_since")
    left = graph.add("Pow", [decay, since], f"{name}_left")
    as_row, as_state = graph.integers(-1, 1, width + 1), graph.integers(1, -1, width + 1)
    start = graph.add("Reshape", [graph.state(width + 1), as_row], f"{name}_start")
    before = graph.add("Mul", [start, left], f"{name}_before")
    sums = graph.add("Add", [before, sums], f"{name}_sums")
    end = graph.rows_at_ends(sums, [-1], f"{name}_end")
    graph.carry(graph.add("Reshape", [end, as_state], f"{name}_end_as_state"))
    numerators, denominator = graph.add_many(
        "Split",
        [sums, graph.integers(width, 1)],
        [f"{name}_numerators", f"{name}_denominator"],
        axis=2,
    )
    mean = graph.add("Div", [numerators, denominator], f"{name}_out")
    return Steps(mean, width, Layout.BATCH_TIME)


def _with_one(steps: Steps, name: str) -> Steps:
    """The steps with a channel more, which is always 1: its sum counts them."""
    kernel, bias = np.eye(steps.width), np.zeros(steps.width)
    if steps.waiting is not None:
        waiting = steps.waiting
        name, bias = waiting.name, waiting.bias
        kernel = np.diag(waiting.kernel) if waiting.per_channel else waiting.kernel
    kernel = np.pad(kernel, [(0, 0), (0, 1)])
    return Steps(
        steps.name, steps.width + 1, steps.layout, Affine(name, kernel, np.append(bias, 1.0))
    )


@converts(WindowAttention)
def _window_attention(graph: SequenceGraph, layer: WindowAttention, steps: Steps) -> Steps:
    width, heads, window = steps.width, layer.heads, layer.window
    steps = graph.settle(graph.arrange(steps, Layout.BATCH_TIME))
    name = graph.label(layer.name)
    projected = graph.settle(
        Steps(steps.name, 3 * width + 1, steps.layout, _projections(layer, width))
    )
    query, rows = graph.add_many(
        "Split",
        [projected.name, graph.integers(width, 2 * width + 1)],
        [f"{name}_query", f"{name}_new_rows"],
        axis=2,
    )
    if window > 1:
        rows = _behind_the_last(graph, rows, 2 * width + 1, window, name)
    windows = graph.add(
        "Gather", [rows, _places(graph, projected.name, window, name)], f"{name}_windows", axis=1
    )
    keys, values, real = graph.add_many(
        "Split",
        [windows, graph.integers(width, width, 1)],
        [f"{name}_keys", f"{name}_values", f"{name}_real"],
        axis=3,
    )
    query = graph.add("Unsqueeze", [query, graph.integers(2)], f"{name}_query_of_window")
    products = graph.add("Mul", [query, keys], f"{name}_products")
    to_heads = np.repeat(np.eye(heads), width // heads, axis=0)
    scores = graph.add(
        "MatMul", [products, graph.constant(f"{name}_to_heads", to_heads)], f"{name}_scores"
    )
    bias = graph.constant(f"{name}_relative_bias", as_array(layer.relative_bias))
    sight = graph.add("Add", [graph.add("Log", [real], f"{name}_sight"), bias], f"{name}_offsets")
    scores = graph.add("Add", [scores, sight], f"{name}_scores_in_sight")
    weights = graph.add("Softmax", [scores], f"{name}_weights", axis=2)
    weights = graph.add(
        "MatMul",
        [weights, graph.constant(f"{name}_to_channels", to_heads.T)],
        f"{name}_channel_weights",
    )
    weighted = graph.add("Mul", [weights, values], f"{name}_weighted")
    seen = graph.add("ReduceSum", [weighted, graph.integers(2)], f"{name}_seen", keepdims=0)
    output = Affine(f"{name}_output", as_array(layer.output_kernel), as_array(layer.output_bias))
    added = graph.settle(Steps(seen, width, Layout.BATCH_TIME, output))
    return Steps(
        graph.add("Add", [steps.name, added.name], f"{name}_out"), width, Layout.BATCH_TIME
    )


def _projections(layer: WindowAttention, width: int) -> Affine:
    """Query (scaled), key and value of a step, and a 1: [C] to [3 C + 1]."""
    scale = (width // layer.heads) ** -0.5
    kernels = [
        as_array(layer.query_kernel) * scale,
        as_array(layer.key_kernel),
        as_array(layer.value_kernel),
        np.zeros((width, 1)),
    ]
    bias = np.zeros(3 * width + 1)
    bias[:width] = as_array(layer.query_bias) * scale
    bias[-1] = 1.0
    return Affine(f"{layer.name}_projection", np.concatenate(kernels, axis=1), bias)


def _behind_the_last(graph: SequenceGraph, rows: str, width: int, window: int, name: str) -> str:
    """The rows of the last `window - 1` steps, then the new ones; carries on those at the end."""
    count = window - 1
    as_rows, as_state = graph.integers(-1, count, width), graph.integers(1, -1, count * width)
    start = graph.add("Reshape", [graph.state(count * width), as_rows], f"{name}_last_rows")
    rows = graph.add("Concat", [start, rows], f"{name}_rows", axis=1)
    end = graph.rows_at_ends(rows, list(range(count)), f"{name}_end")
    graph.carry(graph.add("Reshape", [end, as_state], f"{name}_end_as_state"))
    return rows


def _places(graph: SequenceGraph, steps: str, window: int, name: str) -> str:
    """Writes the rows that each step sees: [time, window], step t those from t on."""
    time = graph.add("Shape", [steps], f"{name}_time", start=1, end=2)
    time = graph.add("Squeeze", [time], f"{name}_time_steps")
    zero, one = graph.integer(0), graph.integer(1)
    first = graph.add("Range", [zero, time, one], f"{name}_numbers")
    first = graph.add("Unsqueeze", [first, one], f"{name}_first")
    ahead = graph.indices(f"{name}_ahead", np.arange(window, dtype=np.int64))
    return graph.add("Add", [first, ahead], f"{name}_places")
