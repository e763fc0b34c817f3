"""The running mean: the mean so far and a count in the state.

A sum would do, but grows: after a day of steps it has no digits left for the next one. The mean
only takes up how far the new steps lie from it.
"""

from __future__ import annotations

import numpy as np

from dfd_export.graphs.sequence_layers.affine import Affine
from dfd_export.graphs.sequence_layers.graph import Layout, SequenceGraph, Steps
from dfd_export.graphs.sequence_layers.registry import converts
from dfd_training.models.sequence import RunningMean


@converts(RunningMean)
def _running_mean(graph: SequenceGraph, layer: RunningMean, steps: Steps) -> Steps:
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
