"""Activations that have an operator of their own."""

from __future__ import annotations

import numpy as np
import onnx

from dfd_export.graphs.passes.editor import GraphEditor


def fuse_hard_swish(editor: GraphEditor) -> bool:
    """`x * clip(x + 3, 0, 6) / 6`, in whatever order: `HardSwish`."""
    changed = False
    for clip in editor.nodes:
        if not editor.holds(clip) or not _clips(editor, clip, 0, 6):
            continue
        add = editor.maker(clip.input[0])
        x = None if add is None else _operand(editor, add, "Add", 3)
        if add is None or x is None or not editor.is_private(add.output[0]):
            continue
        product = _product(editor, clip, x)
        if product is not None:
            editor.replace([*product, clip, add], "HardSwish", [x], product[0].output[0])
            changed = True
    return changed


def _product(editor: GraphEditor, clip: onnx.NodeProto, x: str) -> list[onnx.NodeProto] | None:
    """The two nodes after the clip that multiply with x and with a sixth, the last one first."""
    for first in _only_user(editor, clip):
        for last in _only_user(editor, first):
            halves = (first, clip), (last, first)
            for (by_x, before_x), (by_sixth, before_sixth) in (halves, halves[::-1]):
                scaled = _sixth(editor, by_sixth)
                if scaled == before_sixth.output[0] and _times(by_x, before_x.output[0]) == x:
                    return [last, first]
    return None


def _only_user(editor: GraphEditor, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return editor.users(node.output[0]) if editor.is_private(node.output[0]) else []


def _sixth(editor: GraphEditor, node: onnx.NodeProto) -> str | None:
    """What the node divides by six."""
    return _operand(editor, node, "Mul", 1 / 6) or _operand(editor, node, "Div", 6)


def _times(node: onnx.NodeProto, name: str) -> str | None:
    """What the node multiplies `name` with."""
    if node.op_type != "Mul" or name not in node.input:
        return None
    return str(node.input[1 - list(node.input).index(name)])


def _operand(editor: GraphEditor, node: onnx.NodeProto, op_type: str, value: float) -> str | None:
    """The other operand of a node that has one number as an operand."""
    if node.op_type != op_type:
        return None
    for data, other in ((0, 1), (1, 0)) if op_type != "Div" else ((0, 1),):
        if _is_number(editor, node.input[other], value):
            return str(node.input[data])
    return None


def _clips(editor: GraphEditor, node: onnx.NodeProto, low: float, high: float) -> bool:
    return (
        node.op_type == "Clip"
        and len(node.input) == 3
        and _is_number(editor, node.input[1], low)
        and _is_number(editor, node.input[2], high)
    )


def _is_number(editor: GraphEditor, name: str, value: float) -> bool:
    found = editor.weights(name)
    return found is not None and found.size == 1 and bool(found.item() == np.float32(value))
