"""Transposes and reshapes that tf2onnx leaves between TensorFlow's layout and ONNX's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from dfd_export.graphs.passes.affine import Layer
from dfd_export.graphs.passes.values import (
    Shape,
    bypass,
    constant,
    insert,
    is_private,
    producer,
    replace,
    set_constant,
    shape_of,
    users,
    weights,
)

_TO_NHWC = [0, 2, 3, 1]
_BY_ELEMENT = ("Add", "Mul", "Sub", "Div")
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def drop_inverse_transposes(graph: ir.Graph) -> bool:
    """Two transposes of which the second undoes the first: what was before them."""
    changed = False
    for second in list(graph):
        first = producer(second.inputs[0], "Transpose") if second.op_type == "Transpose" else None
        if first is None or first.inputs[0] is None:
            continue
        order = [_perm(first)[axis] for axis in _perm(second)]
        if order == sorted(order):
            changed |= bypass([second], first.inputs[0])
    return changed


def lift_transposes(graph: ir.Graph) -> bool:
    """Scaling with constants or channels put in order, then a transpose: the transpose first.

    So the scaling of pixels comes next to the first convolution and goes into it. The cast of
    the pixels stays first: TensorRT can do nothing else with 8-bit integers.
    """
    changed = False
    for transpose in list(graph):
        if transpose.op_type != "Transpose" or transpose.graph is None:
            continue
        node = producer(transpose.inputs[0], "Gather", *_BY_ELEMENT)
        if node is None or not is_private(node.outputs[0]):
            continue
        if transpose.outputs[0].is_graph_output():
            continue
        perm = _perm(transpose)
        if node.op_type == "Gather":
            changed |= _lift_over_gather(transpose, node)
            continue
        constants = [weights(value) for value in node.inputs]
        if sum(value is not None for value in constants) != 1:
            continue
        index = 0 if constants[0] is not None else 1
        values, data = constants[index], node.inputs[1 - index]
        assert values is not None and data is not None
        shape = shape_of(data)
        if shape is None or len(shape) != len(perm) or values.ndim > len(perm):
            continue
        turned = _turned(transpose, data, shape)
        made = replace([node, transpose], node.op_type, [turned, turned])
        aligned = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
        set_constant(made, index, values if values.size == 1 else aligned.transpose(perm))
        changed = True
    return changed


def _lift_over_gather(transpose: ir.Node, gather: ir.Node) -> bool:
    perm, (data, indices) = _perm(transpose), gather.inputs
    assert data is not None
    places, shape = constant(indices), shape_of(data)
    if places is None or places.ndim != 1 or shape is None or len(shape) != len(perm):
        return False
    axis = perm.index(gather.attributes.get_int("axis", 0) % len(perm))
    turned = _turned(transpose, data, shape)
    replace([gather, transpose], "Gather", [turned, indices], axis=axis)
    return True


def _turned(transpose: ir.Node, data: ir.Value, shape: Shape) -> ir.Value:
    perm = _perm(transpose)
    turned_shape = tuple(shape[axis] for axis in perm)
    return insert(transpose, "Transpose", [data], suffix="turned", shape=turned_shape, perm=perm)


def pool_without_transpose(graph: ir.Graph) -> bool:
    """A mean or maximum over height and width in TensorFlow's layout: `GlobalAveragePool`, …"""
    changed = False
    for node in list(graph):
        before = producer(node.inputs[0], "Transpose") if node.op_type in _POOLS else None
        if before is None or _perm(before) != _TO_NHWC:
            continue
        axes = sorted(axis % 4 for axis in node.attributes.get_ints("axes", ()))
        if axes != [1, 2] or node.attributes.get_int("keepdims", 1) != 0:
            continue
        pooled = insert(node, _POOLS[node.op_type], [before.inputs[0]], suffix="pooled")
        set_constant(replace([node], "Squeeze", [pooled]), 1, np.array([2, 3]))
        changed = True
    return changed


def fix_reshapes(graph: ir.Graph) -> bool:
    """A reshape to a shape calculated from the batch: to a constant one."""
    changed = False
    for node in list(graph):
        if node.op_type != "Reshape" or constant(node.inputs[1]) is not None:
            continue
        target = _calculated(node.inputs[1])
        # One open axis can only be what the others leave.
        if target is not None and target.count(None) <= 1 and not {0, -1}.intersection(target):
            set_constant(node, 1, np.array([-1 if n is None else n for n in target]))
            node.outputs[0].shape = ir.Shape(target)
            changed = True
    return changed


def _calculated(value: ir.Value | None) -> Shape | None:
    """The integers of a shape that the graph calculates; None in it where they are not fixed."""
    array = constant(value)
    if array is not None:
        return tuple(int(number) for number in array.reshape(-1))
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Shape":
        data = node.inputs[0]
        return None if node.attributes or data is None else shape_of(data)
    parts = [_calculated(part) for part in node.inputs]
    known = [part for part in parts if part is not None]
    return _combined(node.op_type, *known) if known and len(known) == len(parts) else None


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


def drop_reshapes(graph: ir.Graph) -> bool:
    """Reshapes in a row: the last one. A reshape to the shape that was there: none."""
    changed = False
    for node in list(graph):
        target = constant(node.inputs[1]) if node.op_type == "Reshape" else None
        if target is None or (target == 0).any():
            continue
        before = producer(node.inputs[0], *_RESHAPES)
        if before is not None:
            node.replace_input_with(0, before.inputs[0])
            changed = True
        source = node.inputs[0]
        if source is not None and _same(shape_of(source), target.tolist()):
            changed |= bypass([node], source)
    return changed


def _same(shape: Shape | None, target: list[int]) -> bool:
    """Returns whether a reshape to `target` leaves a value of this shape as it is."""
    if shape is None or len(shape) != len(target) or target.count(-1) > 1:
        return False
    return all(new in (-1, old) for old, new in zip(shape, target, strict=True))


def flatten_without_transpose(graph: ir.Graph) -> bool:
    """A flattened map in TensorFlow's layout, then dense layers: their kernels' rows are sorted."""
    changed = False
    for node in list(graph):
        before = producer(node.inputs[0], "Transpose") if node.op_type == "Reshape" else None
        if before is None or before.inputs[0] is None or _perm(before) != _TO_NHWC:
            continue
        shape, target = shape_of(before.inputs[0]), constant(node.inputs[1])
        if shape is None or target is None or None in shape[1:]:
            continue
        channels, height, width = (length or 1 for length in shape[1:])
        count = channels * height * width
        if target.tolist() != [-1, count] or node.outputs[0].is_graph_output():
            continue
        found = users(node.outputs[0])
        layers = [Layer.of(user) for user in found if user.op_type in {"MatMul", "Gemm"}]
        if len(layers) != len(found) or any(layer is None for layer in layers):
            continue
        rows = np.arange(count).reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
        for layer in layers:
            assert layer is not None
            Layer(layer.node, layer.kernel[rows], layer.bias, layer.pads).write()
        node.replace_input_with(0, before.inputs[0])
        changed = True
    return changed


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes.get_ints("perm", ()))
