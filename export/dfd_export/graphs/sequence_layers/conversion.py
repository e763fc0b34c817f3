"""A whole sequence model, layer by layer."""

from __future__ import annotations

import keras

from dfd_export.graphs.sequence_layers.chain import UnsupportedLayer, layer_chain
from dfd_export.graphs.sequence_layers.graph import Layout, SequenceGraph, Steps
from dfd_export.graphs.sequence_layers.registry import Unsupported, convert


def convert_model(model: keras.Model) -> tuple[int, SequenceGraph]:
    """Writes the layers of a sequence model into a graph.

    Args:
        model: From features [B, T, F] (and a mask) to logits [B, T].

    Returns:
        F, and the graph from `features`, `lengths` and `state` to `fake_logit` and `next_state`;
        a model without a state gives none.

    Raises:
        UnsupportedLayer: A layer cannot be written. The message names it and says what to do.
    """
    features, layers = layer_chain(model)
    width = int(features.shape[-1])
    graph = SequenceGraph()
    steps = Steps("features", width, Layout.BATCH_TIME)
    for layer in layers:
        try:
            steps = convert(graph, layer, steps)
        except Unsupported as error:
            raise UnsupportedLayer.of(model, layer, str(error)) from error
    graph.close(steps)
    return width, graph
