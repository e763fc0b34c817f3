"""Layers with a constant kernel, and what an affine map before or after does to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_export.graphs.passes.editor import GraphEditor, attribute

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """y = x * scale + shift; each is [channels], or [1] for all channels alike."""

    scale: Array
    shift: Array

    def then(self, other: Affine) -> Affine:
        """This map, and another one after it."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)

    @property
    def channels(self) -> int:
        """How many it tells apart."""
        return max(self.scale.size, self.shift.size)

    @property
    def is_identity(self) -> bool:
        """Tells whether it does nothing."""
        return bool((self.scale == 1).all() and not self.shift.any())


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A `Conv`, `MatMul` or `Gemm` on [batch, channels, ...] with constant kernel and bias.

    Attributes:
        node: The node.
        kernel: As [out, in, ...] of a `Conv`; [in, out] of the others.
        bias: float64 [out]; zeros where the node has none.
        pads: Whether it looks beyond its input's border, where it sees zeros.
    """

    node: onnx.NodeProto
    kernel: Array
    bias: Array
    pads: bool

    @classmethod
    def of(cls, editor: GraphEditor, node: onnx.NodeProto) -> Layer | None:
        """Reads a layer; None where the node is none, or its weights are no constants."""
        if node.op_type not in {"Conv", "MatMul", "Gemm"}:
            return None
        kernel = editor.weights(node.input[1])
        if kernel is None:
            return None
        if node.op_type != "Conv" and not _is_plain(editor, node, kernel):
            return None
        if attribute(node, "transB", 0):
            kernel = kernel.T
        width = kernel.shape[0] if node.op_type == "Conv" else kernel.shape[1]
        bias = np.zeros(width)
        if len(node.input) > 2 and node.input[2]:
            given = editor.weights(node.input[2])
            if given is None or given.size not in {1, width}:
                return None
            bias = np.array(np.broadcast_to(given.reshape(-1), (width,)))
        return cls(node, kernel, bias, node.op_type == "Conv" and _pads(node))

    def followed_by(self, affine: Affine) -> Layer:
        """The layer that does its own work and then the map's."""
        scale = np.broadcast_to(affine.scale, self.bias.shape)
        if self.node.op_type == "Conv":
            scale = scale.reshape(-1, *(1,) * (self.kernel.ndim - 1))
        bias = self.bias * affine.scale + affine.shift
        return Layer(self.node, self.kernel * scale, bias, self.pads)

    def preceded_by(self, affine: Affine) -> Layer:
        """The layer that does the map's work and then its own; exact where it does not pad."""
        scale, shift = self._by_input(affine.scale), self._by_input(affine.shift)
        weighted = self.kernel * shift
        if self.node.op_type == "Conv":
            added = weighted.reshape(len(weighted), -1).sum(axis=1)
        else:
            added = weighted.sum(axis=0)
        return Layer(self.node, self.kernel * scale, self.bias + added, self.pads)

    def write(self, editor: GraphEditor) -> None:
        """Puts kernel and bias into the node; a `MatMul` with a bias becomes a `Gemm`."""
        node, has_bias = self.node, bool(self.bias.any())
        if node.op_type == "MatMul" and has_bias:
            node = editor.replace([node], "Gemm", list(node.input), node.output[0])
        transposed = attribute(node, "transB", 0)
        editor.set_constant(node, 1, self.kernel.T if transposed else self.kernel)
        if has_bias or len(node.input) > 2:
            editor.set_constant(node, 2, self.bias)

    def _by_input(self, values: Array) -> Array:
        """One number an input channel, so that it broadcasts over the kernel."""
        if values.size == 1:
            return values
        if self.node.op_type != "Conv":
            return values[:, None]
        group = attribute(self.node, "group", 1)
        grouped = values.reshape(group, -1).repeat(len(self.kernel) // group, axis=0)
        return grouped.reshape(*grouped.shape, *(1,) * (self.kernel.ndim - 2))


def _is_plain(editor: GraphEditor, node: onnx.NodeProto, kernel: Array) -> bool:
    """Tells whether a `MatMul` or `Gemm` is x @ kernel + bias over [batch, channels]."""
    shape = editor.shape(node.input[0])
    factors = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    return (
        kernel.ndim == 2
        and shape is not None
        and len(shape) == 2
        and factors == (1.0, 1.0)
        and not attribute(node, "transA", 0)
    )


def _pads(node: onnx.NodeProto) -> bool:
    automatic = attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}
    return automatic or any(attribute(node, "pads", []))
