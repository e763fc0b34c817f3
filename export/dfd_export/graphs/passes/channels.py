"""Channels put in another order, as BGR for RGB: into the layers after."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_export.graphs.passes.editor import GraphEditor, attribute
from dfd_export.graphs.passes.layer import Layer

_BY_ELEMENT = {"Add", "Mul", "Sub", "Div"}


def fold_channel_order(editor: GraphEditor) -> bool:
    """Sorts the input channels of the convolutions after a new order of channels instead.

    Constants a channel on the way there are sorted likewise.
    """
    changed = False
    for gather in editor.nodes:
        order = _order(editor, gather) if editor.holds(gather) else None
        if order is None or gather.output[0] in editor.outputs:
            continue
        users = editor.users(gather.output[0])
        if len(users) == 1 and users[0].op_type in _BY_ELEMENT:
            changed |= _behind_constant(editor, gather, users[0], order)
        elif users:
            changed |= _into_layers(editor, gather, users, order)
    return changed


def _order(editor: GraphEditor, node: onnx.NodeProto) -> NDArray[np.int64] | None:
    """What a node makes of the channels of [batch, channels, h, w]: output i is input order[i]."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 1:
        return None
    order, shape = editor.constant(node.input[1]), editor.shape(node.input[0])
    if order is None or order.ndim != 1 or shape is None or len(shape) != 4:
        return None
    order = order.astype(np.int64)
    return order if sorted(order.tolist()) == list(range(shape[1] or 0)) else None


def _behind_constant(
    editor: GraphEditor, gather: onnx.NodeProto, user: onnx.NodeProto, order: NDArray[np.int64]
) -> bool:
    """The order, then a constant: the constant in the old order, then the order."""
    index = 1 if user.input[0] == gather.output[0] else 0
    values = editor.weights(user.input[index])
    if values is None or values.ndim > 4:
        return False
    aligned = values.reshape((1,) * (4 - values.ndim) + values.shape)
    if aligned.shape not in {(1, 1, 1, 1), (1, len(order), 1, 1)}:
        return False
    source, output = gather.input[0], user.output[0]
    before = f"{output}/in_order"
    shape = editor.shape(source)
    assert shape is not None
    editor.set_shape(before, shape)
    made = editor.replace([user], user.op_type, [source, source], before)
    editor.set_constant(made, index, values if values.size == 1 else aligned[:, np.argsort(order)])
    editor.replace([gather], "Gather", [before, gather.input[1]], output, axis=1)
    return True


def _into_layers(
    editor: GraphEditor,
    gather: onnx.NodeProto,
    users: list[onnx.NodeProto],
    order: NDArray[np.int64],
) -> bool:
    layers = [Layer.of(editor, user) for user in users]
    for user, layer in zip(users, layers, strict=True):
        whole = user.op_type == "Conv" and attribute(user, "group", 1) == 1
        if layer is None or not whole or user.input[0] != gather.output[0]:
            return False
    for layer in layers:
        assert layer is not None
        kernel = layer.kernel[:, np.argsort(order)]
        Layer(layer.node, kernel, layer.bias, layer.pads).write(editor)
    return editor.bypass([gather], gather.input[0])
