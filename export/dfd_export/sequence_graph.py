"""The sequence model as ONNX: native GRU operators, every state in one tensor, no loops.

Keras and ONNX write a GRU alike: gates in the order update, reset, candidate; `reset_after=True`
is `linear_before_reset=1`; biases come as one row for the input and one for the state. Padding
is told by `sequence_lens`, so nothing in it counts. Batch norms have fixed statistics and are
affine: each goes into the weights of the layer after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfd_edge.bundle import sequence_contract
from dfd_edge.errors import UsageError
from dfd_edge.manifest import FrameSpec, SequenceSpec
from dfd_export.onnx_model import OPSET, finish

SEQUENCE_FILE = "sequence.onnx"

_ACTIVATIONS = {"linear": None, "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Affine:
    """y = x * scale + shift, over the last axis."""

    scale: Array
    shift: Array

    @classmethod
    def of(cls, layer: keras.layers.BatchNormalization) -> Affine:
        """The affine map that a batch norm is in inference."""
        mean, variance = _numpy(layer.moving_mean), _numpy(layer.moving_variance)
        scale = 1.0 / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            scale = scale * _numpy(layer.gamma)
        shift = -mean * scale
        return cls(scale, shift + _numpy(layer.beta) if layer.center else shift)

    def after(self, first: Affine | None) -> Affine:
        """This map applied to the result of `first`."""
        if first is None:
            return self
        return Affine(first.scale * self.scale, first.shift * self.scale + self.shift)

    def into(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Kernel [in, out] and bias [out] that do this map's work too."""
        return kernel * self.scale[:, None], bias + self.shift @ kernel


@dataclass(slots=True)
class _Graph:
    """Nodes and constants while the graph is being built; activations lie as [time, batch, …]."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    state_widths: list[int] = field(default_factory=list)

    def add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:  # noqa: ANN401
        name = f"{op.lower()}_{outputs[0]}"
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def constant(self, name: str, value: Array | list[int]) -> str:
        dtype = np.int64 if isinstance(value, list) else np.float32
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name


def describe_sequence_model(
    model: keras.Model, *, rate_hz: float, max_gap_s: float
) -> SequenceSpec:
    """Reads the width of the state off a sequence model.

    Args:
        model: As `dfd_training.models.build_sequence_model` builds it.
        rate_hz: Steps per second that it was trained at.
        max_gap_s: After a longer gap between two steps the state starts anew.

    Raises:
        UsageError: The model is no chain of layers that this module can convert.
    """
    widths = [x.units for x in _chain(model) if isinstance(x, keras.layers.GRU)]
    if not widths:
        raise UsageError(f"sequence model {model.name}: it has no recurrent layer")
    return SequenceSpec(SEQUENCE_FILE, rate_hz, sum(widths), max_gap_s)


def export_sequence_graph(
    model: keras.Model, frame: FrameSpec, spec: SequenceSpec, *, metadata: dict[str, str]
) -> onnx.ModelProto:
    """Builds the graph of a sequence model from its weights.

    Args:
        model: A chain of GRU, batch norm, dropout and dense layers from `features` to one logit.
        frame: The frame model that it takes its features from.
        spec: What `describe_sequence_model` says of it.
        metadata: Goes into the file's own metadata.

    Returns:
        A checked graph with the inputs, outputs and axes of `sequence_contract`.

    Raises:
        UsageError: A layer cannot be converted, or the model takes features of another width.
    """
    width = next(tensor.shape[-1] for tensor in model.inputs if tensor.name == "features")
    if width != frame.feature_width:
        raise UsageError(
            f"sequence model {model.name} takes features of width {width}, but the frame model "
            f"gives {frame.feature_width}: fit it on that model's features"
        )
    graph = _Graph()
    layers = _chain(model)
    graph.add("Transpose", ["features"], ["by_time"], perm=[1, 0, 2])
    _split_state(graph, layers)
    value, waiting = "by_time", None
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            waiting = Affine.of(layer).after(waiting)
        elif isinstance(layer, keras.layers.GRU):
            value, waiting = _gru(graph, layer, value, waiting), None
        elif isinstance(layer, keras.layers.Dense):
            value, waiting = _dense(graph, layer, value, waiting), None
    if waiting is not None:
        raise UsageError(f"sequence model {model.name}: it ends in a batch norm, not in a logit")
    graph.add("Squeeze", [value, graph.constant("last_axis", [2])], ["logit_by_time"])
    graph.add("Transpose", ["logit_by_time"], ["fake_logit"], perm=[1, 0])
    ends = [f"end_{index}" for index in range(len(graph.state_widths))]
    graph.add("Concat", ends, ["next_state"], axis=1)
    inputs, outputs = sequence_contract(frame, spec)
    made = helper.make_graph(graph.nodes, "sequence", [], [], graph.constants)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
    return finish(proto, inputs, outputs, name="sequence", metadata=metadata)


def _split_state(graph: _Graph, layers: list[keras.layers.Layer]) -> None:
    graph.state_widths = [x.units for x in layers if isinstance(x, keras.layers.GRU)]
    starts = [f"start_{index}" for index in range(len(graph.state_widths))]
    sizes = graph.constant("state_widths", graph.state_widths)
    graph.add("Split", ["state", sizes], starts, axis=1)
    graph.constant("axis_0", [0])
    graph.constant("axis_1", [1])


def _gru(graph: _Graph, layer: keras.layers.GRU, value: str, before: Affine | None) -> str:
    cell = layer.cell
    name, units = layer.name, layer.units
    index = sum(node.op_type == "GRU" for node in graph.nodes)
    bias = np.zeros((2, 3 * units))
    if cell.use_bias:
        # Without reset_after there is one row, that of the input.
        rows = _numpy(cell.bias).reshape(-1, 3 * units)
        bias[: len(rows)] = rows
    kernel = _numpy(cell.kernel)
    if before is not None:
        kernel, bias[0] = before.into(kernel, bias[0])
    start = graph.add("Unsqueeze", [f"start_{index}", "axis_0"], [f"{name}_start"])
    inputs = [
        value,
        graph.constant(f"{name}_kernel", kernel.T[None]),
        graph.constant(f"{name}_recurrent_kernel", _numpy(cell.recurrent_kernel).T[None]),
        graph.constant(f"{name}_bias", bias.reshape(1, -1)),
        "lengths",
        start,
    ]
    steps, end = f"{name}_steps", f"{name}_end"
    reset_after = int(layer.reset_after)
    graph.add("GRU", inputs, [steps, end], hidden_size=units, linear_before_reset=reset_after)
    graph.add("Squeeze", [end, "axis_0"], [f"end_{index}"])
    return graph.add("Squeeze", [steps, "axis_1"], [f"{name}_out"])


def _dense(graph: _Graph, layer: keras.layers.Dense, value: str, before: Affine | None) -> str:
    name = layer.name
    kernel = _numpy(layer.kernel)
    bias = _numpy(layer.bias) if layer.use_bias else np.zeros(layer.units)
    if before is not None:
        kernel, bias = before.into(kernel, bias)
    value = graph.add("MatMul", [value, graph.constant(f"{name}_kernel", kernel)], [f"{name}_mul"])
    value = graph.add("Add", [value, graph.constant(f"{name}_bias", bias)], [f"{name}_add"])
    operator = _ACTIVATIONS[layer.activation.__name__]
    return value if operator is None else graph.add(operator, [value], [f"{name}_out"])


def _chain(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers from `features` to the logit, checked one by one.

    Raises:
        UsageError: They are no chain, or a layer cannot be converted; the layer is named.
    """
    layers = [layer for layer in reversed(list(_backwards(model))) if not _is_free(layer)]
    for layer in layers:
        if problem := _problem(layer):
            raise UsageError(
                f"sequence model {model.name}: layer {layer.name} ({type(layer).__name__}) "
                f"{problem}; a chain of GRU, BatchNormalization, Dropout and Dense layers can be "
                "exported"
            )
    last = layers[-1] if layers else None
    if not isinstance(last, keras.layers.Dense) or last.units != 1:
        raise UsageError(f"sequence model {model.name}: its last layer is not Dense(1)")
    if last.activation.__name__ != "linear":
        raise UsageError(
            f"sequence model {model.name}: layer {last.name} ends in "
            f"{last.activation.__name__}; it has to give a logit (activation None)"
        )
    return layers


def _backwards(model: keras.Model) -> Iterator[Any]:
    """Operations from the output back to the input, along the first argument of each."""
    tensor = model.outputs[0]
    while True:
        operation, node_index, _ = tensor._keras_history
        if isinstance(operation, keras.layers.InputLayer):
            return
        yield operation
        tensor = operation._inbound_nodes[node_index].arguments.args[0]


def _is_free(operation: Any) -> bool:  # noqa: ANN401
    """Tells whether an operation does nothing in inference, or only drops the last axis."""
    squeezes = type(operation).__name__ == "Squeeze" and operation.axis in (-1, 2)
    return squeezes or isinstance(operation, keras.layers.Dropout)


def _problem(layer: object) -> str | None:
    match layer:
        case keras.layers.GRU():
            return _gru_problem(layer)
        case keras.layers.Dense():
            name = layer.activation.__name__
            return None if name in _ACTIVATIONS else f"has activation {name}"
        case keras.layers.BatchNormalization():
            return None if layer.axis in (-1, 2) else f"works on axis {layer.axis}"
    return "cannot be converted"


def _gru_problem(layer: keras.layers.GRU) -> str | None:
    if not layer.return_sequences:
        return "gives its last step only (return_sequences=False)"
    if layer.go_backwards:
        return "goes backwards, which a live stream cannot"
    if layer.stateful:
        return "keeps states between batches (stateful=True)"
    used = layer.activation.__name__, layer.recurrent_activation.__name__
    return None if used == ("tanh", "sigmoid") else f"has activations {used[0]}, {used[1]}"


def _numpy(variable: Any) -> Array:  # noqa: ANN401
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
