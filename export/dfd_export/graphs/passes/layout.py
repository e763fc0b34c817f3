"""Transposes and reshapes that tf2onnx leaves between TensorFlow's layout and ONNX's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

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
    weights,
)

_BY_ELEMENT = ("Add", "Mul", "Sub", "Div")
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def lift_transposes(graph: ir.Graph) -> bool:
    """Scaling with constants, then a transpose: the transpose first.

    So the scaling of pixels comes next to the first convolution and goes into it. The cast of
    the pixels stays first: TensorRT can do nothing else with 8-bit integers.
    """
    changed = False
    for transpose in list(graph):
        if transpose.op_type != "Transpose" or transpose.graph is None:
            continue
        node = producer(transpose.inputs[0], *_BY_ELEMENT)
        if node is None or not is_private(node.outputs[0]):
            continue
        if transpose.outputs[0].is_graph_output():
            continue
        perm = list(transpose.attributes.get_ints("perm", ()))
        constants = [weights(value) for value in node.inputs]
        if sum(value is not None for value in constants) != 1:
            continue
        index = 0 if constants[0] is not None else 1
        values, data = constants[index], node.inputs[1 - index]
        assert values is not None and data is not None
        shape = shape_of(data)
        if shape is None or len(shape) != len(perm) or values.ndim > len(perm):
            continue
        turned_shape = tuple(shape[axis] for axis in perm)
        turned = insert(
            transpose, "Transpose", [data], suffix="turned", shape=turned_shape, perm=perm
        )
        made = replace([node, transpose], node.op_type, [turned, turned])
        aligned = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
        set_constant(made, index, values if values.size == 1 else aligned.transpose(perm))
        changed = True
    return changed


def fix_reshapes(graph: ir.Graph) -> bool:
    """A reshape to a shape calculated from the batch: to a constant one."""
    changed = False
    for node in list(graph):
        if node.op_type != "Reshape" or constant(node.inputs[1]) is not None:
            continue
        target = shape_of(node.outputs[0])
        # One open axis can only be what the others leave.
        if target is not None and target.count(None) <= 1 and 0 not in target:
            set_constant(node, 1, np.array([-1 if n is None else n for n in target]))
            changed = True
    return changed


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
