"""Layers that look at one step alone: dense layers, norms, activations, training-only layers.

The probes on the signals of a step, and their vote, are among them.

A batch norm has fixed statistics then and is a factor and an offset for each channel: it goes
into the weights of the dense layer before it or of the layer after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from dfd_export.graphs.sequence_layers.graph import (
    Affine,
    Layout,
    SequenceGraph,
    Steps,
    Unsupported,
    as_array,
    converts,
)
from dfd_training.models.sequence import MOST_SPREADS, ProbeVote, SignalProbes

Function = Callable[[SequenceGraph, str, str], str]
"""Writes a function of the tensor of that name; the other name starts those of its outputs."""


def _node(op: str, **attributes: float) -> Function:
    return lambda graph, x, name: graph.add(op, [x], f"{name}_out", **attributes)


def _relu(
    max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0
) -> Function:
    if threshold:
        raise Unsupported(f"has threshold {threshold:g}: only a ReLU that bends at 0 is known")
    if max_value is None:
        return _node("LeakyRelu", alpha=negative_slope) if negative_slope else _node("Relu")
    if negative_slope:
        raise Unsupported(
            f"has both max_value {max_value:g} and negative_slope {negative_slope:g}: only one of "
            "them is known"
        )

    def write(graph: SequenceGraph, x: str, name: str) -> str:
        low, high = graph.constant(f"{name}_low", 0.0), graph.constant(f"{name}_high", max_value)
        return graph.add("Clip", [x, low, high], f"{name}_out")

    return write


def _times(op: str, **attributes: float) -> Function:
    """The operator's result as a factor of its input: x * op(x)."""

    def write(graph: SequenceGraph, x: str, name: str) -> str:
        gate = graph.add(op, [x], f"{name}_gate", **attributes)
        return graph.add("Mul", [x, gate], f"{name}_out")

    return write


def _gelu(graph: SequenceGraph, x: str, name: str) -> str:
    """The exact GELU: x * (erf(x / sqrt 2) + 1) / 2."""
    value = graph.add("Mul", [x, graph.constant(f"{name}_root", 0.5**0.5)], f"{name}_scaled")
    value = graph.add("Erf", [value], f"{name}_erf")
    value = graph.add("Add", [value, graph.constant(f"{name}_one", 1.0)], f"{name}_sum")
    value = graph.add("Mul", [value, x], f"{name}_product")
    return graph.add("Mul", [value, graph.constant(f"{name}_half", 0.5)], f"{name}_out")


def _mish(graph: SequenceGraph, x: str, name: str) -> str:
    gate = graph.add("Softplus", [x], f"{name}_softplus")
    return graph.add("Mul", [x, graph.add("Tanh", [gate], f"{name}_gate")], f"{name}_out")


_FUNCTIONS: dict[str, Function] = {
    "celu": _node("Celu"),
    "elu": _node("Elu"),
    "exponential": _node("Exp"),
    "gelu": _gelu,
    "hard_sigmoid": _node("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _node("HardSwish"),
    "leaky_relu": _node("LeakyRelu", alpha=0.2),
    "mish": _mish,
    "relu": _relu(),
    "relu6": _relu(max_value=6.0),
    "selu": _node("Selu"),
    "sigmoid": _node("Sigmoid"),
    "silu": _times("Sigmoid"),
    "softmax": _node("Softmax", axis=-1),
    "softplus": _node("Softplus"),
    "softsign": _node("Softsign"),
    "tanh": _node("Tanh"),
}
"""By Keras' names, with the options that these have as names."""


def activate(graph: SequenceGraph, activation: Any, steps: Steps, label: str) -> Steps:  # noqa: ANN401
    """Writes an activation as Keras layers hold one: a function, or a layer that is one.

    Raises:
        Unsupported: There is none of that name in ONNX.
    """
    if isinstance(activation, keras.layers.Layer):
        function = _of_layer(activation)
    else:
        name = getattr(activation, "__name__", type(activation).__name__)
        if activation is keras.activations.linear:
            return steps
        if activation is not getattr(keras.activations, name, None) or name not in _FUNCTIONS:
            known = ", ".join(sorted(_FUNCTIONS))
            raise Unsupported(f"has activation {name}: fit the model anew with one of {known}")
        function = _FUNCTIONS[name]
    steps = graph.settle(steps)
    return Steps(function(graph, steps.name, graph.label(label)), steps.width, steps.layout)


def _of_layer(layer: keras.layers.Layer) -> Function:
    # By the very class: one derived from it may compute something else.
    if type(layer) is layers.ReLU:
        return _relu(layer.max_value, float(layer.negative_slope), float(layer.threshold))
    if type(layer) is layers.LeakyReLU:
        return _node("LeakyRelu", alpha=float(layer.negative_slope))
    if type(layer) is layers.ELU:
        return _node("Elu", alpha=float(layer.alpha))
    raise Unsupported(
        f"has the layer {type(layer).__name__} as activation: fit the model anew with ReLU, "
        "LeakyReLU or ELU"
    )


@converts(layers.Activation)
def _activation(graph: SequenceGraph, layer: keras.layers.Activation, steps: Steps) -> Steps:
    return activate(graph, layer.activation, steps, layer.name)


@converts(layers.ReLU, layers.LeakyReLU, layers.ELU)
def _activation_layer(graph: SequenceGraph, layer: keras.layers.Layer, steps: Steps) -> Steps:
    return activate(graph, layer, steps, layer.name)


@converts(layers.PReLU)
def _prelu(graph: SequenceGraph, layer: keras.layers.PReLU, steps: Steps) -> Steps:
    slopes = np.asarray(keras.ops.convert_to_numpy(layer.alpha))
    if slopes.shape[0] != 1:
        raise Unsupported("has a slope for each step: fit the model anew with shared_axes=[1]")
    steps = graph.settle(steps)
    name = graph.label(layer.name)
    slope = graph.constant(f"{name}_slope", slopes.reshape(-1))
    return Steps(graph.add("PRelu", [steps.name, slope], f"{name}_out"), steps.width, steps.layout)


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


@converts(SignalProbes)
def _signal_probes(graph: SequenceGraph, layer: SignalProbes, steps: Steps) -> Steps:
    steps = graph.settle(graph.arrange(steps, Layout.BATCH_TIME))
    name = graph.label(layer.name)
    # In two steps, not as one factor and offset: a mean may be large beside its spread.
    x = graph.add("Sub", ["signals", graph.constant(f"{name}_mean", as_array(layer.mean))], name)
    scale = graph.constant(f"{name}_scale", as_array(layer.scale))
    x = graph.add("Div", [x, scale], f"{name}_spreads")
    low, high = (
        graph.constant(f"{name}_{side}", sign * MOST_SPREADS)
        for side, sign in (("low", -1.0), ("high", 1.0))
    )
    x = graph.add("Clip", [x, low, high], f"{name}_clipped")
    kernel, bias = as_array(layer.kernel), as_array(layer.bias)
    scores = graph.settle(
        Steps(x, layer.probes, Layout.BATCH_TIME, Affine(f"{name}_scores", kernel, bias))
    )
    flags = graph.add("Unsqueeze", ["measured", graph.integers(2)], f"{name}_flags")
    flags = graph.add("Greater", [flags, graph.constant(f"{name}_half", 0.5)], f"{name}_measured")
    absent = graph.constant(f"{name}_absent", as_array(layer.absent))
    chosen = graph.add("Where", [flags, scores.name, absent], f"{name}_chosen")
    both = graph.add("Concat", [steps.name, chosen], f"{name}_out", axis=2)
    return Steps(both, steps.width + layer.probes, Layout.BATCH_TIME)


@converts(ProbeVote)
def _probe_vote(graph: SequenceGraph, layer: ProbeVote, steps: Steps) -> Steps:
    steps = graph.settle(graph.arrange(steps, Layout.BATCH_TIME))
    name, probes = graph.label(layer.name), steps.width - 1
    picture, scores = graph.add_many(
        "Split", [steps.name, graph.integers(1, probes)], [f"{name}_picture", name], axis=2
    )
    cold = graph.constant(f"{name}_inverse_temperature", 1.0 / layer.temperature)
    scores = graph.add("Mul", [scores, cold], f"{name}_scores")
    # x - log(softmax(x)) is log(sum(exp(x))) in every channel. ReduceLogSumExp would do, but
    # OpenVINO does not read its axes before opset 18.
    shares = graph.add("LogSoftmax", [scores], f"{name}_log_shares", axis=2)
    total = graph.add("Sub", [scores, shares], f"{name}_totals")
    total = graph.add("ReduceMean", [total], f"{name}_total", axes=[2], keepdims=1)
    # T log(mean(exp)) = T (log(sum(exp)) - log K)
    factor = as_array(layer.weight) * layer.temperature
    vote = Affine(f"{name}_vote", factor, -factor * np.log(probes))
    weighed = graph.settle(Steps(total, 1, Layout.BATCH_TIME, vote))
    logit = graph.add("Add", [picture, weighed.name], f"{name}_out")
    return Steps(logit, 1, Layout.BATCH_TIME)


@converts(*TRAINING_ONLY)
def _training_only(_graph: SequenceGraph, _layer: keras.layers.Layer, steps: Steps) -> Steps:
    return steps


def _check_last_axis(axis: int | list[int] | tuple[int, ...]) -> None:
    axes = [axis] if isinstance(axis, int) else list(axis)
    if axes not in ([-1], [2]):
        found = " and ".join(str(number) for number in axes)
        raise Unsupported(f"works on axis {found}: fit the model anew with axis=-1, the channels")
