"""Transposes and reshapes that tf2onnx leaves between TensorFlow's layout and ONNX's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from dfd_export.graphs.passes.editor import GraphEditor, Shape, attribute
from dfd_export.graphs.passes.layer import Layer

_TO_NHWC = [0, 2, 3, 1]
_BY_ELEMENT = {"Add", "Mul", "Sub", "Div"}
_RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}
_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def drop_inverse_transposes(editor: GraphEditor) -> bool:
    """Two transposes of which the second undoes the first: what was before them."""
    changed = False
    for second in editor.nodes:
        first = editor.maker(second.input[0]) if second.op_type == "Transpose" else None
        if first is None or first.op_type != "Transpose":
            continue
        order = [_perm(first)[axis] for axis in _perm(second)]
        if order == sorted(order):
            changed |= editor.bypass([second], first.input[0])
    return changed


def lift_transposes(editor: GraphEditor) -> bool:
    """Scaling with constants or channels put in order, then a transpose: the transpose first.

    So the scaling of pixels comes next to the first convolution and goes into it. The cast of
    the pixels stays first: TensorRT can do nothing else with 8-bit integers.
    """
    changed = False
    for transpose in editor.nodes:
        if transpose.op_type != "Transpose" or not editor.holds(transpose):
            continue
        node = editor.maker(transpose.input[0])
        if node is None or node.op_type not in {*_BY_ELEMENT, "Gather"}:
            continue
        name, perm = node.output[0], _perm(transpose)
        if not editor.is_private(name) or transpose.output[0] in editor.outputs:
            continue
        if node.op_type == "Gather":
            changed |= _lift_over_gather(editor, transpose, node)
            continue
        constants = [editor.weights(value) for value in node.input]
        if sum(value is not None for value in constants) != 1:
            continue
        index = 0 if constants[0] is not None else 1
        values, data = constants[index], node.input[1 - index]
        assert values is not None
        shape, output = editor.shape(data), transpose.output[0]
        if shape is None or len(shape) != len(perm) or values.ndim > len(perm):
            continue
        turned = f"{output}/turned"
        editor.set_shape(turned, tuple(shape[axis] for axis in perm))
        editor.replace([transpose], "Transpose", [data], turned, perm=perm)
        made = editor.replace([node], node.op_type, [turned, turned], output)
        aligned = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
        editor.set_constant(made, index, values if values.size == 1 else aligned.transpose(perm))
        changed = True
    return changed


def _lift_over_gather(
    editor: GraphEditor, transpose: onnx.NodeProto, gather: onnx.NodeProto
) -> bool:
    perm, output, data = _perm(transpose), transpose.output[0], gather.input[0]
    places, shape = editor.constant(gather.input[1]), editor.shape(data)
    if places is None or places.ndim != 1 or shape is None or len(shape) != len(perm):
        return False
    axis = perm.index(attribute(gather, "axis", 0) % len(perm))
    turned = f"{output}/turned"
    editor.set_shape(turned, tuple(shape[old] for old in perm))
    editor.replace([transpose], "Transpose", [data], turned, perm=perm)
    editor.replace([gather], "Gather", [turned, gather.input[1]], output, axis=axis)
    return True


def pool_without_transpose(editor: GraphEditor) -> bool:
    """A mean or maximum over height and width in TensorFlow's layout: `GlobalAveragePool`, …"""
    changed = False
    for node in editor.nodes:
        before = editor.maker(node.input[0]) if node.op_type in _POOLS else None
        if before is None or before.op_type != "Transpose" or _perm(before) != _TO_NHWC:
            continue
        axes = sorted(axis % 4 for axis in attribute(node, "axes", []))
        if axes != [1, 2] or attribute(node, "keepdims", 1):
            continue
        output, pooled = node.output[0], f"{node.output[0]}/pooled"
        editor.replace([], _POOLS[node.op_type], [before.input[0]], pooled)
        squeeze = editor.replace([node], "Squeeze", [pooled], output)
        editor.set_constant(squeeze, 1, np.array([2, 3]))
        changed = True
    return changed


def fix_reshapes(editor: GraphEditor) -> bool:
    """A reshape to a shape calculated from the batch: to a constant one."""
    changed = False
    for node in editor.nodes:
        if node.op_type != "Reshape" or editor.constant(node.input[1]) is not None:
            continue
        target = _calculated(editor, node.input[1])
        # One open axis can only be what the others leave.
        if target is not None and target.count(None) <= 1 and not {0, -1}.intersection(target):
            constant = [-1 if length is None else length for length in target]
            editor.set_constant(node, 1, np.array(constant))
            editor.set_shape(node.output[0], target)
            changed = True
    return changed


def _calculated(editor: GraphEditor, name: str) -> Shape | None:
    """The integers of a shape that the graph calculates; None in it where they are not fixed."""
    constant = editor.constant(name)
    if constant is not None:
        return tuple(int(value) for value in constant.reshape(-1))
    node = editor.maker(name)
    if node is None:
        return None
    if node.op_type == "Shape":
        return None if node.attribute else editor.shape(node.input[0])
    parts = [_calculated(editor, value) for value in node.input]
    known = [part for part in parts if part is not None]
    return _combined(node.op_type, *known) if len(known) == len(parts) else None


def _combined(op_type: str, first: Shape, *rest: Any) -> Shape | None:  # noqa: ANN401
    """What an operator makes of lists of integers; None where that is not known."""
    match op_type:
        case "Cast" | "Unsqueeze":
            return first
        case "Concat":
            return sum(rest, first)
        case "Gather":
            return tuple(first[index] for index in rest[0])
        case "ReduceProd":
            return (None if None in first else math.prod(length or 0 for length in first),)
        case "Slice" if len(rest) == 3 and rest[2] == (0,) and len(rest[0]) == 1:
            return first[rest[0][0] : rest[1][0]]
    return None


def drop_reshapes(editor: GraphEditor) -> bool:
    """Reshapes in a row: the last one. A reshape to the shape that was there: none."""
    changed = False
    for node in editor.nodes:
        if node.op_type != "Reshape" or not editor.holds(node):
            continue
        target = editor.constant(node.input[1])
        if target is None or (target == 0).any():
            continue
        before = editor.maker(node.input[0])
        if before is not None and before.op_type in _RESHAPES:
            editor.set_input(node, 0, before.input[0])
            changed = True
        if _same(editor.shape(node.input[0]), target.tolist()):
            changed |= editor.bypass([node], node.input[0])
    return changed


def _same(shape: Shape | None, target: list[int]) -> bool:
    """Tells whether a reshape to `target` leaves a value of this shape as it is."""
    if shape is None or len(shape) != len(target) or target.count(-1) > 1:
        return False
    return all(new in (-1, old) for old, new in zip(shape, target, strict=True))


def flatten_without_transpose(editor: GraphEditor) -> bool:
    """A flattened map in TensorFlow's layout, then dense layers: their kernels' rows are sorted."""
    changed = False
    for node in editor.nodes:
        before = editor.maker(node.input[0]) if node.op_type == "Reshape" else None
        if before is None or before.op_type != "Transpose" or _perm(before) != _TO_NHWC:
            continue
        shape, target = editor.shape(before.input[0]), editor.constant(node.input[1])
        if shape is None or target is None or None in shape[1:]:
            continue
        count = math.prod(length or 1 for length in shape[1:])
        users = editor.users(node.output[0])
        layers = [Layer.of(editor, user) for user in users if user.op_type in {"MatMul", "Gemm"}]
        if target.tolist() != [-1, count] or node.output[0] in editor.outputs:
            continue
        if len(layers) != len(users) or any(layer is None for layer in layers):
            continue
        channels, height, width = (length or 1 for length in shape[1:])
        rows = np.arange(count).reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
        for layer in layers:
            assert layer is not None
            Layer(layer.node, layer.kernel[rows], layer.bias, layer.pads).write(editor)
        editor.set_input(node, 0, before.input[0])
        changed = True
    return changed


def _perm(node: onnx.NodeProto) -> list[int]:
    return list(attribute(node, "perm", []))
