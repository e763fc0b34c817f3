"""Rewrites of ONNX graphs that change no result: fewer nodes, the same numbers.

tf2onnx folds most batch norms into the convolution before them, but leaves those after depthwise
convolutions as `Mul` and `Add`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.float32]


def simplify(model: onnx.ModelProto) -> None:
    """Applies all rewrites of this module, in place, until none applies."""
    graph = model.graph
    while _fold_scale(graph) or _fold_offset(graph):
        pass
    drop_unused(graph)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes and initializers that no output depends on, in place."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def _fold_scale(graph: onnx.GraphProto) -> bool:
    """`Conv` then `Mul` by a number a channel: into the kernel (and the bias)."""
    for conv, mul, scale in _after_conv(graph, "Mul"):
        kernel = _constant(graph, conv.input[1])
        assert kernel is not None
        _replace_input(graph, conv, 1, kernel * scale.reshape(-1, 1, 1, 1))
        if len(conv.input) > 2:
            bias = _constant(graph, conv.input[2])
            assert bias is not None
            _replace_input(graph, conv, 2, bias * scale)
        _bypass(graph, conv, mul)
        return True
    return False


def _fold_offset(graph: onnx.GraphProto) -> bool:
    """`Conv` then `Add` of a number a channel: into the bias."""
    for conv, add, offset in _after_conv(graph, "Add"):
        if len(conv.input) > 2:
            bias = _constant(graph, conv.input[2])
            assert bias is not None
            _replace_input(graph, conv, 2, bias + offset)
        else:
            conv.input.append("")
            _replace_input(graph, conv, 2, offset)
        _bypass(graph, conv, add)
        return True
    return False


def _after_conv(
    graph: onnx.GraphProto, op_type: str
) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, Array]]:
    """Each `op_type` with a constant a channel whose other operand only a `Conv` makes."""
    makers = _makers(graph)
    uses = [name for node in graph.node for name in node.input]
    for node in graph.node:
        if node.op_type != op_type or len(node.input) != 2:
            continue
        for data, other in ((0, 1), (1, 0)):
            conv = makers.get(node.input[data])
            if conv is None or conv.op_type != "Conv":
                continue
            name = conv.output[0]
            if uses.count(name) != 1 or _is_output(graph, name):
                continue
            kernel = _constant(graph, conv.input[1])
            values = _constant(graph, node.input[other])
            if kernel is None or values is None:
                continue
            if len(conv.input) > 2 and _constant(graph, conv.input[2]) is None:
                continue
            per_channel = _per_channel(values, kernel.shape[0])
            if per_channel is not None:
                yield conv, node, per_channel


def _per_channel(values: Array, channels: int) -> Array | None:
    """The constant as [channels], where it broadcasts over [batch, channels, h, w] so."""
    shape = (1,) * (4 - values.ndim) + values.shape
    if len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1 and shape[1] in (1, channels):
        return np.array(np.broadcast_to(values.reshape(-1), (channels,)), np.float32)
    return None


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _constant(graph: onnx.GraphProto, name: str) -> Array | None:
    for tensor in graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor)
            return array if array.dtype == np.float32 else None
    return None


def _replace_input(graph: onnx.GraphProto, node: onnx.NodeProto, index: int, value: Array) -> None:
    """Gives the node a constant of its own, since others may share the old one."""
    name = f"{node.output[0]}/folded_{index}"
    for tensor in graph.initializer:
        if tensor.name == name:
            graph.initializer.remove(tensor)
            break
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    node.input[index] = name


def _bypass(graph: onnx.GraphProto, conv: onnx.NodeProto, node: onnx.NodeProto) -> None:
    """Takes out the node after a convolution; its output's name becomes the convolution's."""
    conv.output[0] = node.output[0]
    graph.node.remove(node)


def _is_output(graph: onnx.GraphProto, name: str) -> bool:
    return any(value.name == name for value in graph.output)
