"""Look-ups and edits that the rewrites share, on the nodes and values of `onnx_ir`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int | None, ...]
"""Length of each axis, None where it is not known before the graph runs."""


def constant(value: ir.Value | None) -> Array | None:
    """Returns the numbers of a constant; None for other values."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def weights(value: ir.Value | None) -> NDArray[np.float64] | None:
    """Returns the numbers of a float32 constant, as float64 to calculate with; None for others."""
    array = constant(value)
    return None if array is None or array.dtype != np.float32 else array.astype(np.float64)


def shape_of(value: ir.Value) -> Shape | None:
    """Returns the shape of a value; None where it was not inferred."""
    if value.shape is None:
        return None
    return tuple(length if isinstance(length, int) else None for length in value.shape)


def users(value: ir.Value) -> list[ir.Node]:
    """Returns the nodes that take a value, each once for every input that takes it."""
    return [node for node, _ in value.uses()]


def is_private(value: ir.Value) -> bool:
    """Returns whether a single input of a single node takes the value, and no graph output."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Returns the node that makes a value, if it is one of these operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def set_constant(node: ir.Node, index: int, array: Array) -> None:
    """Gives a node a constant of its own, as other nodes may share the old one.

    Args:
        node: The node.
        index: The input's index; one past the last adds an input.
        array: Floating numbers become float32, integers int64.
    """
    graph = node.graph
    assert graph is not None
    dtype = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
    stem = f"{node.outputs[0].name}/{index}"
    name, count = stem, 0
    while name in graph.initializers:
        count += 1
        name = f"{stem}_{count}"
    tensor = ir.tensor(np.ascontiguousarray(array, dtype), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    if index == len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    suffix: str,
    shape: Shape | None = None,
    **attributes: Any,  # noqa: ANN401
) -> ir.Value:
    """Adds a node before another one.

    Args:
        before: The node.
        op_type: The new node's operator.
        inputs: The new node's inputs.
        suffix: Its output is called after that of `before`, with this.
        shape: Its output's shape, where it is known.
        **attributes: The new node's.

    Returns:
        What it gives.
    """
    output = ir.Value(
        name=f"{before.outputs[0].name}/{suffix}",
        shape=None if shape is None else ir.Shape(shape),
        type=before.outputs[0].type,
    )
    node = ir.node(op_type, inputs, attributes, outputs=[output], name=output.name)
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return output


def replace(
    nodes: Sequence[ir.Node],
    op_type: str,
    inputs: Sequence[ir.Value | None],
    **attributes: Any,  # noqa: ANN401
) -> ir.Node:
    """Puts one new node in the place of a row of nodes; its output bears the last one's name."""
    last, graph = nodes[-1], nodes[-1].graph
    assert graph is not None
    old = last.outputs[0]
    output = ir.Value(name=old.name, shape=old.shape, type=old.type)
    made = ir.node(op_type, inputs, attributes, outputs=[output], name=old.name)
    graph.insert_before(last, made)
    ir.convenience.replace_all_uses_with(old, output, replace_graph_outputs=True)
    graph.remove(list(nodes), safe=True)
    return made


def bypass(nodes: Sequence[ir.Node], source: ir.Value) -> bool:
    """Takes out nodes in a row; what came out of the last is now `source`.

    Returns:
        False where nothing was done, since an output of the graph bears the last one's name, and
        `source` cannot take that name.
    """
    output, graph = nodes[-1].outputs[0], nodes[-1].graph
    assert graph is not None
    named = output.is_graph_output()
    if named and (source.producer() is None or source.is_graph_output()):
        return False
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    graph.remove(list(nodes), safe=True)
    if named:
        source.name = output.name
    return True
