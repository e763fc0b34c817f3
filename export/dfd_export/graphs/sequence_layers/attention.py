"""Window attention: keys and values of the last steps ride in the state.

A step's row in the state is its keys, its values and a 1. Rows of zeros are steps that have not
been: the logarithm of that last channel, added to the scores, takes them out of sight.
"""

from __future__ import annotations

import numpy as np

from dfd_export.graphs.sequence_layers.affine import Affine, as_array
from dfd_export.graphs.sequence_layers.graph import Layout, SequenceGraph, Steps
from dfd_export.graphs.sequence_layers.registry import converts
from dfd_training.models.sequence import WindowAttention


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
    """Which rows each step sees: [time, window], step t those from t on."""
    time = graph.add("Shape", [steps], f"{name}_time", start=1, end=2)
    time = graph.add("Squeeze", [time], f"{name}_time_steps")
    zero, one = graph.integer(0), graph.integer(1)
    first = graph.add("Range", [zero, time, one], f"{name}_numbers")
    first = graph.add("Unsqueeze", [first, one], f"{name}_first")
    ahead = graph.indices(f"{name}_ahead", np.arange(window, dtype=np.int64))
    return graph.add("Add", [first, ahead], f"{name}_places")
