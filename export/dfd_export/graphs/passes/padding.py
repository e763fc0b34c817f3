"""`Pad` with zeros: into the convolution or pooling after it."""

from __future__ import annotations

import onnx
from onnx import helper

from dfd_export.graphs.passes.editor import GraphEditor, attribute

_NOT_NEGATIVE = {"Relu", "Sigmoid"}


def fold_pads(editor: GraphEditor) -> bool:
    """Lets each convolution and pooling do the zero padding before it.

    A `MaxPool` sees minus infinity where it pads, so it may take zeros over only if nothing that
    it looks at is negative.
    """
    changed = False
    for pad in editor.nodes:
        borders = _borders(editor, pad)
        if borders is None or pad.output[0] in editor.outputs:
            continue
        users = editor.users(pad.output[0])
        if users and all(_takes(editor, user, pad, borders) for user in users):
            for user in users:
                _add_pads(user, borders)
            editor.bypass([pad], pad.input[0])
            changed = True
    return changed


def _borders(editor: GraphEditor, node: onnx.NodeProto) -> list[int] | None:
    """Rows and columns of zeros that a `Pad` adds: as ONNX has them, all starts before all ends."""
    if node.op_type != "Pad" or attribute(node, "mode", b"constant") != b"constant":
        return None
    if len(node.input) > 2 and node.input[2]:
        value = editor.constant(node.input[2])
        if value is None or value.any():
            return None
    pads = editor.constant(node.input[1])
    if pads is None or len(node.input) > 3 or pads.size != 8 or (pads < 0).any():
        return None
    starts, ends = pads.reshape(2, 4)
    if starts[:2].any() or ends[:2].any():
        return None
    return [int(count) for count in (*starts[2:], *ends[2:])]


def _takes(
    editor: GraphEditor, node: onnx.NodeProto, pad: onnx.NodeProto, borders: list[int]
) -> bool:
    if node.input[0] != pad.output[0] or pad.output[0] in node.input[1:]:
        return False
    if attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        return False
    match node.op_type:
        case "Conv":
            return True
        case "AveragePool":
            return _has_room(node, borders)
        case "MaxPool":
            return _has_room(node, borders) and _not_negative(editor, pad.input[0])
    return False


def _has_room(node: onnx.NodeProto, borders: list[int]) -> bool:
    """Tells whether a pooling that does not pad yet can pad like this, and mean the same."""
    sides = [*attribute(node, "kernel_shape"), *attribute(node, "kernel_shape")]
    # Which windows a rounded-up size adds depends on who pads.
    return (
        len(node.output) == 1
        and not attribute(node, "ceil_mode", 0)
        and not any(attribute(node, "pads", []))
        and all(count < side for count, side in zip(borders, sides, strict=True))
    )


def _not_negative(editor: GraphEditor, name: str) -> bool:
    maker = editor.maker(name)
    if maker is None:
        return False
    if maker.op_type == "Clip":
        low = editor.weights(maker.input[1])
        return low is not None and bool(low.min() >= 0)
    return maker.op_type in _NOT_NEGATIVE


def _add_pads(node: onnx.NodeProto, borders: list[int]) -> None:
    before = attribute(node, "pads", [0] * len(borders))
    kept = [entry for entry in node.attribute if entry.name not in {"pads", "auto_pad"}]
    del node.attribute[:]
    node.attribute.extend(kept)
    both = [int(old) + new for old, new in zip(before, borders, strict=True)]
    node.attribute.append(helper.make_attribute("pads", both))
    if node.op_type == "AveragePool":
        node.attribute.append(helper.make_attribute("count_include_pad", 1))
