"""Nodes that go into one: hard swish into its own operator, zero padding into the next layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dfd_export.graphs.passes.values import (
    bypass,
    constant,
    is_private,
    producer,
    replace,
    users,
    weights,
)

_NOT_NEGATIVE = {"Relu", "Sigmoid"}


def fuse_hard_swish(graph: ir.Graph) -> bool:
    """`x * clip(x + 3, 0, 6) / 6`, in whatever order: `HardSwish`."""
    changed = False
    for clip in list(graph):
        if clip.op_type != "Clip" or len(clip.inputs) != 3:
            continue
        add = producer(clip.inputs[0], "Add")
        x = None if add is None else _operand(add, 3)
        bounded = _is_number(clip.inputs[1], 0) and _is_number(clip.inputs[2], 6)
        if add is None or x is None or not bounded or not is_private(add.outputs[0]):
            continue
        product = _product(clip, x)
        if product is not None:
            replace([add, clip, *product], "HardSwish", [x])
            changed = True
    return changed


def _product(clip: ir.Node, x: ir.Value) -> list[ir.Node] | None:
    """The two nodes after the clip that multiply with x and with a sixth, in order."""
    nodes = [clip]
    for _ in range(2):
        if not is_private(nodes[-1].outputs[0]):
            return None
        nodes += users(nodes[-1].outputs[0])
    _, first, last = nodes
    halves = (first, clip), (last, first)
    for (by_x, before_x), (by_sixth, before_sixth) in (halves, halves[::-1]):
        number = 6 if by_sixth.op_type == "Div" else 1 / 6
        scaled = _operand(by_sixth, number) if by_sixth.op_type in {"Mul", "Div"} else None
        others = [value for value in by_x.inputs if value is not before_x.outputs[0]]
        if scaled is before_sixth.outputs[0] and by_x.op_type == "Mul" and others == [x]:
            return [first, last]
    return None


def _operand(node: ir.Node, value: float) -> ir.Value | None:
    """The other operand of a node that has this number as an operand."""
    first, second = node.inputs
    if _is_number(second, value):
        return first
    return second if node.op_type != "Div" and _is_number(first, value) else None


def _is_number(value: ir.Value | None, number: float) -> bool:
    found = weights(value)
    return found is not None and found.size == 1 and bool(found.item() == np.float32(number))


def fold_pads(graph: ir.Graph) -> bool:
    """Lets each convolution and pooling do the zero padding before it.

    A `MaxPool` sees minus infinity where it pads, so it may take zeros over only if nothing that
    it looks at is negative.
    """
    changed = False
    for pad in list(graph):
        borders = _borders(pad)
        output = pad.outputs[0]
        if borders is None or output.is_graph_output():
            continue
        found = users(output)
        if found and all(_takes(user, pad, borders) for user in found):
            for user in found:
                _add_pads(user, borders)
            bypass([pad], _first(pad))
            changed = True
    return changed


def _borders(node: ir.Node) -> list[int] | None:
    """Rows and columns of zeros that a `Pad` adds: as ONNX has them, all starts before all ends."""
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant":
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        value = constant(node.inputs[2])
        if value is None or value.any():
            return None
    pads = constant(node.inputs[1])
    if pads is None or len(node.inputs) > 3 or pads.size != 8 or (pads < 0).any():
        return None
    starts, ends = pads.reshape(2, 4)
    if starts[:2].any() or ends[:2].any():
        return None
    return [int(count) for count in (*starts[2:], *ends[2:])]


def _takes(node: ir.Node, pad: ir.Node, borders: list[int]) -> bool:
    if node.inputs[0] is not pad.outputs[0] or pad.outputs[0] in node.inputs[1:]:
        return False
    if node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return False
    match node.op_type:
        case "Conv":
            return True
        case "AveragePool":
            return _has_room(node, borders)
        case "MaxPool":
            return _has_room(node, borders) and _not_negative(_first(pad).producer())
    return False


def _has_room(node: ir.Node, borders: list[int]) -> bool:
    """Returns whether a pooling that does not pad yet can pad like this, and mean the same."""
    sides = node.attributes.get_ints("kernel_shape", ())
    # The windows that a rounded-up size adds depend on the node that pads.
    return (
        len(node.outputs) == 1
        and not node.attributes.get_int("ceil_mode", 0)
        and not any(node.attributes.get_ints("pads", ()))
        and all(count < side for count, side in zip(borders, [*sides, *sides], strict=True))
    )


def _not_negative(node: ir.Node | None) -> bool:
    if node is not None and node.op_type == "Clip":
        low = weights(node.inputs[1])
        return low is not None and bool(low.min() >= 0)
    return node is not None and node.op_type in _NOT_NEGATIVE


def _add_pads(node: ir.Node, borders: list[int]) -> None:
    before = node.attributes.get_ints("pads", [0] * len(borders))
    both = [old + new for old, new in zip(before, borders, strict=True)]
    node.attributes.pop("auto_pad", None)
    node.attributes.add(ir.AttrInt64s("pads", both))
    if node.op_type == "AveragePool":
        node.attributes.add(ir.AttrInt64("count_include_pad", 1))


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
