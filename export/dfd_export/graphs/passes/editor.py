"""A graph being rewritten: who makes a value, who uses it, what its shape is."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

Array = NDArray[Any]
Shape = tuple[int | None, ...]
"""Length of each axis, None where it is not known before the graph runs."""


class GraphEditor:
    """Look-ups and edits on a graph without subgraphs; `commit` writes the result back.

    Args:
        model: Valid ONNX, inputs and outputs declared. Changed by `commit` only.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._inputs = {value.name for value in self._graph.input}
        self.outputs = {value.name for value in self._graph.output}
        self._shapes = _infer_shapes(model)
        self._nodes = {id(node): node for node in map(_copy, self._graph.node)}
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            self._link(node)

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes as they are now; edits do not disturb the list."""
        return list(self._nodes.values())

    def holds(self, node: onnx.NodeProto) -> bool:
        """Tells whether the node has not been taken out since."""
        return id(node) in self._nodes

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a value; None for inputs and constants."""
        return self._makers.get(name)

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a value, each once for every input that takes it."""
        return list(self._users.get(name, []))

    def is_private(self, name: str) -> bool:
        """Tells whether a single input of a single node takes the value, and no output shows it."""
        return len(self._users.get(name, [])) == 1 and name not in self.outputs

    def constant(self, name: str) -> Array | None:
        """The numbers of a constant; None for other values."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def weights(self, name: str) -> Array | None:
        """The numbers of a float32 constant, as float64 to calculate with; None for others."""
        array = self.constant(name)
        return None if array is None or array.dtype != np.float32 else array.astype(np.float64)

    def shape(self, name: str) -> Shape | None:
        """The shape of a value, where it can be inferred or `set_shape` told it."""
        return self._shapes.get(name)

    def set_shape(self, name: str, shape: Shape) -> None:
        """Tells the shape of a value that was made since, or that could not be inferred."""
        self._shapes[name] = shape

    def constants(self) -> dict[str, Array]:
        """All constants by name."""
        return {name: numpy_helper.to_array(tensor) for name, tensor in self._tensors.items()}

    def set_constant(self, node: onnx.NodeProto, index: int, value: Array) -> None:
        """Gives a node a constant of its own, as other nodes may share the old one.

        Args:
            node: The node.
            index: Of the input; one past the last adds an input.
            value: Floating numbers become float32, integers int64.
        """
        dtype = np.float32 if np.issubdtype(value.dtype, np.floating) else np.int64
        stem = f"{node.output[0]}/{index}"
        name, count = stem, 0
        while name in self._tensors:
            count += 1
            name = f"{stem}_{count}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        self._tensors[name] = tensor
        self.set_input(node, index, name)

    def set_input(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Lets an input take another value; one past the last adds an input."""
        self._unlink(node)
        if index == len(node.input):
            node.input.append(name)
        else:
            node.input[index] = name
        self._link(node)

    def replace(
        self,
        nodes: Iterable[onnx.NodeProto],
        op_type: str,
        inputs: list[str],
        output: str,
        **attributes: Any,  # noqa: ANN401
    ) -> onnx.NodeProto:
        """Puts one new node in the place of others."""
        for node in nodes:
            self.remove(node)
        made = helper.make_node(op_type, inputs, [output], name=output, **attributes)
        self._nodes[id(made)] = made
        self._link(made)
        return made

    def remove(self, node: onnx.NodeProto) -> None:
        """Takes out a node whose output nothing takes any more, or another is about to make."""
        self._unlink(node)
        del self._nodes[id(node)]

    def bypass(self, nodes: Sequence[onnx.NodeProto], source: str) -> bool:
        """Takes out nodes in a row; what came out of the last is now `source`.

        Returns:
            False where nothing was done, since an output of the graph is called after the last
            node, and `source` cannot take that name.
        """
        output = nodes[-1].output[0]
        maker = self.maker(source)
        if output in self.outputs and (maker is None or source in self.outputs):
            return False
        for node in nodes:
            self.remove(node)
        if output not in self.outputs:
            self._redirect(output, source)
            return True
        assert maker is not None
        self._unlink(maker)
        maker.output[list(maker.output).index(source)] = output
        self._link(maker)
        self._redirect(source, output)
        return True

    def problem(self) -> str | None:
        """Why the outputs cannot be had: a value that nothing makes, or a circle; else None."""
        needs: dict[int, list[int]] = {}
        given, waiting = {"", *self._inputs, *self._tensors}, sorted(self.outputs)
        while waiting:
            name = waiting.pop()
            maker = self._makers.get(name)
            if name in given or (maker is not None and id(maker) in needs):
                continue
            if maker is None:
                return f"nothing makes {name}"
            needs[id(maker)] = [id(self._makers[n]) for n in maker.input if n in self._makers]
            waiting += maker.input
        try:
            graphlib.TopologicalSorter(needs).prepare()
        except graphlib.CycleError as error:
            node = self._nodes[error.args[1][0]]
            return f"node {node.name} ({node.op_type}) waits for its own result"
        return None

    def commit(self) -> None:
        """Writes the nodes back in an order in which they can run; drops what is not needed."""
        needed, order = set(self.outputs), self._sorted()
        kept = []
        for node in reversed(order):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        graph = self._graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(t for name, t in self._tensors.items() if name in needed)

    def _redirect(self, old: str, new: str) -> None:
        for node in self.users(old):
            if old in node.input:
                self._unlink(node)
                node.input[:] = [new if name == old else name for name in node.input]
                self._link(node)

    def _link(self, node: onnx.NodeProto) -> None:
        self._makers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            self._users.setdefault(name, []).append(node)

    def _unlink(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if self._makers.get(name) is node:
                del self._makers[name]
        for name in set(node.input):
            self._users[name] = [user for user in self._users[name] if user is not node]

    def _sorted(self) -> list[onnx.NodeProto]:
        order: list[onnx.NodeProto] = []
        done: set[int] = set()
        for root in self.nodes:
            stack = [root]
            while stack:
                node = stack[-1]
                makers = [self._makers[name] for name in node.input if name in self._makers]
                waiting = [maker for maker in makers if id(maker) not in done]
                if waiting:
                    stack.extend(waiting)
                    continue
                stack.pop()
                if id(node) not in done:
                    done.add(id(node))
                    order.append(node)
        return order


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """The value of a node's attribute."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _infer_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, Shape] = {
        tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer
    }
    for value in [*inferred.value_info, *inferred.input, *inferred.output]:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in dims
            )
    return shapes
