"""A frame logit for models that have none: the sequence model's verdict after a single step.

Published pairs of a feature extractor and a sequence model have no classifier for one picture.
Such a pair gives a picture the score that its sequence model gives a clip of one step.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
from keras import ops
from onnx import compose, helper, numpy_helper

from dfd_edge.bundle import Signatures
from dfd_edge.bundle.onnx_file import TensorSignature, read_onnx
from dfd_edge.errors import UsageError
from dfd_export.graphs.onnx_model import drop_unused, finish
from dfd_training.models import takes_signals

_PREFIX = "step/"
_VIEWS = {"Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that give zeros for zeros and change nothing but the shape."""


def single_step_model(features_model: keras.Model, sequence_model: keras.Model) -> keras.Model:
    """Puts a sequence model behind a feature extractor, for clips of one step.

    The result is a frame model: `describe_frame_model` and `check_parity` take it, so the gate
    compares the graph of `attach_single_step_logit` with both Keras models.

    Args:
        features_model: From `image` [B, S, S, 3], RGB 0..255, to a dict with `features` [B, F].
        sequence_model: From `features` [B, T, F] and `mask` [B, T] to logits [B, T].

    Returns:
        A model from `image` to a dict of `features` [B, F] and `fake_logit` [B].
    """
    image = features_model.inputs[0]
    features = features_model.output["features"]
    mask = ops.ones_like(features[:, :1], dtype="bool")
    inputs = {"features": features[:, None], "mask": mask}
    if takes_signals(sequence_model):
        nothing = ops.zeros_like(features[:, :1])  # a picture has no frames before it
        width = next(t.shape[-1] for t in sequence_model.inputs if t.name == "signals")
        inputs["signals"] = ops.repeat(nothing[:, None], width, axis=2)
        inputs["measured"] = nothing
    logits = sequence_model(inputs)
    outputs = {"features": features, "fake_logit": ops.squeeze(logits, axis=1)}
    return keras.Model(image, outputs, name=f"{features_model.name}_single_step")


def attach_single_step_logit(
    features_graph: onnx.ModelProto, sequence_graph: onnx.ModelProto
) -> onnx.ModelProto:
    """Gives a graph of features the logit of a sequence graph that starts at this very step.

    Args:
        features_graph: `image` to `features`, as `export_frame_graph` makes it with
            `outputs=("features",)`.
        sequence_graph: As `export_sequence_graph` makes it; its state starts at zeros.

    Returns:
        A checked graph from `image` to `features` and `fake_logit`, with the metadata of
        `features_graph`.

    Raises:
        UsageError: The sequence graph takes features of another width.
    """
    frame = read_onnx(features_graph.SerializeToString())
    sequence = read_onnx(sequence_graph.SerializeToString())
    features = frame.outputs["features"]
    width, wanted = features.axes[1], sequence.inputs["features"].axes[2]
    if width != wanted:
        raise UsageError(
            f"the sequence graph takes features of width {wanted}, but the frame graph gives "
            f"{width}: export the two models that belong together"
        )
    step = compose.add_prefix(sequence_graph, _PREFIX).graph
    _start_at_zeros(step)
    made = onnx.ModelProto()
    made.CopyFrom(features_graph)
    graph = made.graph
    signals = sequence.inputs.get("signals")
    constants = {
        "signal_shape": np.array([1] if signals is None else [1, signals.axes[2]]),
        "batch_axis": np.array([0]),
        "time_axis": np.array([1]),
        "state_width": np.array([sequence.inputs["state"].axes[1]]),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.int64), _PREFIX + name)
        for name, value in constants.items()
    )
    graph.initializer.extend(step.initializer)
    graph.node.extend([*_first_step(measured=signals is not None), *step.node])
    logit = [f"{_PREFIX}fake_logit", f"{_PREFIX}time_axis"]
    graph.node.append(helper.make_node("Squeeze", logit, ["fake_logit"], name="fake_logit"))
    outputs: Signatures = {
        "features": features,
        "fake_logit": TensorSignature(features.dtype, features.axes[:1]),
    }
    graph.output.append(helper.make_empty_tensor_value_info("fake_logit"))
    drop_unused(graph)
    metadata = {entry.key: entry.value for entry in features_graph.metadata_props}
    return finish(made, frame.inputs, outputs, name=graph.name, metadata=metadata)


def _first_step(*, measured: bool) -> list[onnx.NodeProto]:
    """From `features` [batch, F] to the inputs of a sequence graph that starts here."""
    one = numpy_helper.from_array(np.array([1], np.int32))
    zero = numpy_helper.from_array(np.array([0], np.float32))
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Unsqueeze", ["features", f"{_PREFIX}time_axis"], "features", {}),
        ("Shape", ["features"], "batch", {"start": 0, "end": 1}),
        ("ConstantOfShape", [f"{_PREFIX}batch"], "lengths", {"value": one}),
        ("Concat", [f"{_PREFIX}batch", f"{_PREFIX}state_width"], "state_shape", {"axis": 0}),
        ("ConstantOfShape", [f"{_PREFIX}state_shape"], "state", {"value": zero}),
    ]
    if measured:  # by no signals, as the state is zeros
        one_step, width = f"{_PREFIX}batch_and_time", f"{_PREFIX}signal_shape"
        shape = f"{_PREFIX}signals_shape"
        nodes += [
            ("Concat", [f"{_PREFIX}batch", f"{_PREFIX}time_axis"], "batch_and_time", {"axis": 0}),
            ("ConstantOfShape", [one_step], "measured", {"value": zero}),
            ("Concat", [f"{_PREFIX}batch", width], "signals_shape", {"axis": 0}),
            ("ConstantOfShape", [shape], "signals", {"value": zero}),
        ]
    return [
        helper.make_node(op, inputs, [_PREFIX + name], name=_PREFIX + name, **attributes)
        for op, inputs, name, attributes in nodes
    ]


def _start_at_zeros(graph: onnx.GraphProto) -> None:
    """Leaves out what GRU and LSTM take for granted: full lengths and states of zeros."""
    zeros = {f"{_PREFIX}state"}
    for node in graph.node:
        if node.op_type in _VIEWS and node.input[0] in zeros:
            zeros.update(node.output)
        if node.op_type in {"GRU", "LSTM"}:
            kept = [
                "" if name in zeros or name == f"{_PREFIX}lengths" else name for name in node.input
            ]
            while not kept[-1]:
                kept.pop()
            node.input[:] = kept
