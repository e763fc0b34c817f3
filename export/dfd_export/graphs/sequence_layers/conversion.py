"""Conversion of a whole sequence model: its chain of layers, written one after the other."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from dfd_edge.errors import UsageError
from dfd_export.graphs.sequence_layers.graph import (
    Layout,
    SequenceGraph,
    Steps,
    Unsupported,
    convert,
    is_known,
    known_kinds,
)
from dfd_export.graphs.sequence_layers.pointwise import TRAINING_ONLY
from dfd_training.models.sequence import ProbeVote, RunningMean, SignalProbes

_REASONS = {
    "Bidirectional": (
        "reads the clip backwards too, and a live stream cannot see the future: fit the model "
        "anew with the layer inside it alone"
    ),
    "SimpleRNN": "cannot be converted: fit the model anew with GRU or LSTM",
    "RNN": "cannot be converted: fit the model anew with the layer GRU or LSTM",
    "Lambda": "holds Python code: build the model from layers of Keras",
    **dict.fromkeys(
        ("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupedQueryAttention"),
        "attends to steps that no state carries: fit the model anew with the attention head, "
        "whose window rides in the state",
    ),
    **dict.fromkeys(
        ("Conv1D", "SeparableConv1D", "DepthwiseConv1D", "MaxPooling1D", "AveragePooling1D"),
        "looks at steps beside its own, which no state carries: fit the model anew with the "
        "attention head, or with GRU or LSTM",
    ),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalMaxPooling1D", "Flatten"),
        "gives one value for the whole clip, but a live stream needs a logit after each step: fit "
        "the mean head in its place",
    ),
}
_BRANCHES = "takes more than one tensor: only a chain of layers can be exported"


class UnsupportedLayer(UsageError):
    """A sequence model cannot be exported. The message names the layer and says what to do."""

    @classmethod
    def of(cls, model: keras.Model, layer: Any, reason: str) -> UnsupportedLayer:  # noqa: ANN401
        """The error about one layer."""
        return cls(
            f"sequence model {model.name}: layer {layer.name} ({type(layer).__name__}) {reason}"
        )


def layer_chain(model: keras.Model) -> tuple[Any, list[Any]]:
    """Follows a model from its output back to its features.

    Args:
        model: From features [B, T, F] (and a mask) to logits [B, T].

    Returns:
        The tensor of the features, and the layers behind it in order.

    Raises:
        UnsupportedLayer: They are no chain, one of them is unknown, or they do not end in a logit.
    """
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in model.outputs)
        raise UnsupportedLayer(
            f"sequence model {model.name}: it gives {shapes}, not one logit for each step, [B, T]: "
            "let it end in Dense(1) and keras.ops.squeeze(x, axis=-1)"
        )
    backwards, features = _walk(model, model.outputs[0])
    chain = backwards[::-1]
    for layer in chain:
        kind = type(layer)
        if not is_known(kind):
            reason = _REASONS.get(kind.__name__) or (
                f"cannot be converted: build the model as a chain of {', '.join(known_kinds())}"
            )
            raise UnsupportedLayer.of(model, layer, reason)
    _check_end(model, backwards)
    return features, chain


def _walk(model: keras.Model, tensor: Any) -> tuple[list[Any], Any]:  # noqa: ANN401
    """Layers from a tensor back to an input, the last one first, and that input."""
    found: list[Any] = []
    while True:
        layer, index, _ = tensor._keras_history
        if isinstance(layer, layers.InputLayer):
            return found, tensor
        arguments = layer._inbound_nodes[index].arguments
        others = [value for name, value in arguments.kwargs.items() if name != "mask"]
        if isinstance(layer, keras.Model) and len(layer.outputs) == 1:
            inside, start = _walk(model, layer.outputs[0])
            found += inside
            inputs = keras.tree.flatten([arguments.args, others])
            tensor = inputs[[value is start for value in layer.inputs].index(True)]
            continue
        values = keras.tree.flatten([arguments.args, others])
        tensors = [value for value in values if keras.utils.is_keras_tensor(value)]
        if isinstance(layer, SignalProbes):
            tensors = _picture_alone(model, layer, tensors)
        if len(tensors) != 1:
            raise UnsupportedLayer.of(model, layer, _REASONS.get(type(layer).__name__, _BRANCHES))
        if not _drops_last_axis(layer, tensors[0], tensor):
            found.append(_of_each_step(model, layer))
        tensor = tensors[0]


def _picture_alone(model: keras.Model, layer: SignalProbes, tensors: list[Any]) -> list[Any]:
    """Returns the first of a layer's tensors, once the others are the model's own inputs."""
    names = [tensor.name for tensor in tensors[1:] if any(tensor is own for own in model.inputs)]
    if names != ["signals", "measured"]:
        raise UnsupportedLayer.of(
            model, layer, "takes other signals than the model's inputs signals and measured"
        )
    return tensors[:1]


def _drops_last_axis(layer: Any, before: Any, after: Any) -> bool:  # noqa: ANN401
    """Returns whether an operation only makes [B, T] of [B, T, 1]."""
    views = type(layer).__name__ in {"Squeeze", "Reshape", "GetItem"}
    return views and len(before.shape) == 3 and (*after.shape, 1) == tuple(before.shape)


def _of_each_step(model: keras.Model, layer: Any) -> Any:  # noqa: ANN401
    """Returns the layer inside a `TimeDistributed`; every other layer as it is."""
    if not isinstance(layer, layers.TimeDistributed):
        return layer
    if isinstance(layer.layer, layers.RNN):
        raise UnsupportedLayer.of(
            model,
            layer,
            f"runs a {type(layer.layer).__name__} inside each step: cannot be converted",
        )
    return layer.layer


def _check_end(model: keras.Model, backwards: list[Any]) -> None:
    """Checks that the last layer that does more than average, scale and shift gives one logit.

    The probes on signals and their vote add to that logit.
    """
    kept = (*TRAINING_ONLY, layers.BatchNormalization, RunningMean, SignalProbes, ProbeVote)
    last = next((layer for layer in backwards if not isinstance(layer, kept)), None)
    if last is None:
        raise UnsupportedLayer(
            f"sequence model {model.name}: it has no layer that gives a logit: add Dense(1)"
        )
    activation = getattr(last, "activation", None)
    is_dense = isinstance(last, layers.Dense)
    if (
        activation is not None
        and activation is not keras.activations.linear
        and (isinstance(last, layers.Activation) or (is_dense and last.units == 1))
    ):
        name = getattr(activation, "__name__", type(activation).__name__)
        raise UnsupportedLayer.of(
            model, last, f"ends in {name}; it has to give a logit: leave the activation out"
        )
    if not is_dense or last.units != 1:
        raise UnsupportedLayer.of(
            model, last, "comes last, but does not give one logit: end the model in Dense(1)"
        )


def convert_model(model: keras.Model) -> tuple[int, SequenceGraph]:
    """Writes the layers of a sequence model into a graph.

    Args:
        model: From features [B, T, F] (and a mask) to logits [B, T].

    Returns:
        F, and the graph from `features`, `lengths` and `state` (and `signals` and `measured`,
        where the model has them) to `fake_logit` and `next_state`;
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
