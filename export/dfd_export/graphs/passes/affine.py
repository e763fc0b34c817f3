"""Batch norms and scalings: into the layer before, into the layers after, or into one node.

In inference a batch norm is one factor and one offset a channel; tf2onnx leaves it as `Mul` and
`Add` wherever no convolution comes right before it, and after depthwise ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dfd_export.graphs.passes.values import (
    Shape,
    bypass,
    insert,
    is_private,
    producer,
    replace,
    set_constant,
    shape_of,
    users,
    weights,
)

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
        """The number of channels that it distinguishes."""
        return max(self.scale.size, self.shift.size)

    @property
    def is_identity(self) -> bool:
        """Whether it does nothing."""
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

    node: ir.Node
    kernel: Array
    bias: Array
    pads: bool

    @classmethod
    def of(cls, node: ir.Node) -> Layer | None:
        """Reads a layer; None where the node is none, or its weights are no constants."""
        if node.op_type not in {"Conv", "MatMul", "Gemm"}:
            return None
        kernel = weights(node.inputs[1])
        if kernel is None:
            return None
        if node.op_type != "Conv" and not _is_plain(node, kernel):
            return None
        if node.attributes.get_int("transB", 0):
            kernel = kernel.T
        width = kernel.shape[0] if node.op_type == "Conv" else kernel.shape[1]
        bias = np.zeros(width)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            given = weights(node.inputs[2])
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

    def write(self) -> None:
        """Puts kernel and bias into the node; a `MatMul` with a bias becomes a `Gemm`."""
        node, has_bias = self.node, bool(self.bias.any())
        if node.op_type == "MatMul" and has_bias:
            node = replace([node], "Gemm", node.inputs)
        transposed = node.attributes.get_int("transB", 0)
        set_constant(node, 1, self.kernel.T if transposed else self.kernel)
        if has_bias or len(node.inputs) > 2:
            set_constant(node, 2, self.bias)

    def _by_input(self, values: Array) -> Array:
        """One number an input channel, so that it broadcasts over the kernel."""
        if values.size == 1:
            return values
        if self.node.op_type != "Conv":
            return values[:, None]
        group = self.node.attributes.get_int("group", 1)
        grouped = values.reshape(group, -1).repeat(len(self.kernel) // group, axis=0)
        return grouped.reshape(*grouped.shape, *(1,) * (self.kernel.ndim - 2))


def _is_plain(node: ir.Node, kernel: Array) -> bool:
    """Returns whether a `MatMul` or `Gemm` is x @ kernel + bias over [batch, channels]."""
    shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
    factors = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    return (
        kernel.ndim == 2
        and shape is not None
        and len(shape) == 2
        and factors == (1.0, 1.0)
        and not node.attributes.get_int("transA", 0)
    )


def _pads(node: ir.Node) -> bool:
    automatic = node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    return automatic or any(node.attributes.get_ints("pads", ()))


@dataclass(frozen=True, slots=True)
class _Chain:
    """Nodes one after the other that are one affine map together.

    Attributes:
        source: The value that goes in.
        nodes: In order; all but the last have one user.
        map: The map that they are together.
        rank: Number of axes of the values.
    """

    source: ir.Value
    nodes: list[ir.Node]
    map: Affine
    rank: int

    @property
    def output(self) -> ir.Value:
        """The value that comes out."""
        return self.nodes[-1].outputs[0]


def fold_affine(graph: ir.Graph) -> bool:
    """Folds each chain of factors and offsets into its neighbours, or else into one node.

    Into the `Conv`, `MatMul` or `Gemm` before, where nothing else takes that one's result. Else
    into those after; an offset goes into a convolution only if that does not pad, since padding
    is zero after the offset and would have to be zero before it.
    """
    changed = False
    for chain in list(_chains(graph)):
        if all(node.graph is graph for node in chain.nodes):
            changed |= (
                _into_maker(chain)
                or _through_clip(chain)
                or _into_users(chain)
                or _factor_into_users(chain)
                or _into_one_node(chain)
            )
    return changed


def _chains(graph: ir.Graph) -> Iterator[_Chain]:
    taken: set[int] = set()
    for node in list(graph):
        step = None if id(node) in taken else _step(node)
        if step is None:
            continue
        source, total = step
        nodes = [node]
        while is_private(nodes[-1].outputs[0]):
            (user,) = users(nodes[-1].outputs[0])
            following = _step(user)
            if following is None or following[0] is not nodes[-1].outputs[0]:
                break
            nodes.append(user)
            total = total.then(following[1])
        taken.update(id(entry) for entry in nodes)
        yield _Chain(source, nodes, total, len(shape_of(source) or ()))


def _step(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    """The input of a node and what it does to it, if that is one affine map a channel."""
    if node.op_type == "BatchNormalization":
        affine, data = _batch_norm(node), node.inputs[0]
        return None if affine is None or data is None else (data, affine)
    if node.op_type not in {"Mul", "Add", "Sub", "Div"}:
        return None
    first, second = node.inputs
    for data, other in ((first, second), (second, first)):
        if data is None:
            continue
        per_channel = _per_channel(weights(other), shape_of(data))
        if per_channel is None or (node.op_type == "Div" and not per_channel.all()):
            continue
        if other is second or node.op_type in {"Mul", "Add"}:
            return data, _elementwise(node.op_type, per_channel)
    return None


def _batch_norm(node: ir.Node) -> Affine | None:
    scale, shift, mean, variance = (weights(value) for value in node.inputs[1:5])
    if scale is None or shift is None or mean is None or variance is None:
        return None
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return Affine(factor, shift - mean * factor)


def _elementwise(op_type: str, values: Array) -> Affine:
    match op_type:
        case "Mul":
            return Affine(values, np.zeros(1))
        case "Div":
            return Affine(1 / values, np.zeros(1))
        case "Add":
            return Affine(np.ones(1), values)
    return Affine(np.ones(1), -values)


def _per_channel(values: Array | None, shape: Shape | None) -> Array | None:
    """A constant as [channels] or [1], if it broadcasts over [batch, channels, ...] like that."""
    if values is None or shape is None or values.ndim > len(shape):
        return None
    if values.size == 1:
        return values.reshape(1)
    aligned = (1,) * (len(shape) - values.ndim) + values.shape
    if len(shape) in {2, 4} and aligned == (1, shape[1], *(1,) * (len(shape) - 2)):
        return values.reshape(-1)
    return None


def _into_maker(chain: _Chain) -> bool:
    """A layer, then the chain: into the layer's kernel and bias."""
    maker = chain.source.producer()
    layer = None if maker is None else Layer.of(maker)
    if layer is None or not is_private(chain.source):
        return False
    bypass(chain.nodes, chain.source)
    layer.followed_by(chain.map).write()
    return True


def _through_clip(chain: _Chain) -> bool:
    """A convolution and `Clip`, then a positive factor: into the layer and the clip's bounds."""
    clip, factor = producer(chain.source, "Clip"), chain.map.scale
    if clip is None or clip.inputs[0] is None or not is_private(chain.source):
        return False
    if factor.size != 1 or factor[0] <= 0 or chain.map.shift.any():
        return False
    maker = clip.inputs[0].producer()
    layer = None if maker is None else Layer.of(maker)
    bounds = {i: weights(v) for i, v in enumerate(clip.inputs) if i and v is not None}
    if layer is None or not is_private(clip.inputs[0]):
        return False
    if any(bound is None for bound in bounds.values()):
        return False
    bypass(chain.nodes, chain.source)
    for index, bound in bounds.items():
        if bound is not None:
            set_constant(clip, index, bound * factor[0])
    layer.followed_by(chain.map).write()
    return True


def _into_users(chain: _Chain) -> bool:
    """The chain, then layers that do not pad: into kernels and biases."""
    layers = _layers_after(chain)
    if not layers or (chain.map.shift.any() and any(layer.pads for layer in layers)):
        return False
    bypass(chain.nodes, chain.source)
    for layer in layers:
        layer.preceded_by(chain.map).write()
    return True


def _factor_into_users(chain: _Chain) -> bool:
    """The chain, then layers that pad: the factor into kernels, the offset stays as `Add`."""
    layers, scale = _layers_after(chain), chain.map.scale
    if not layers or not scale.all() or (scale == 1).all():
        return False
    offset = (chain.map.shift / scale).astype(np.float32)
    if not np.isfinite(offset).all():
        return False
    for layer in layers:
        layer.preceded_by(Affine(scale, np.zeros(1))).write()
    _emit(chain, Affine(np.ones(1), offset.astype(np.float64)))
    return True


def _layers_after(chain: _Chain) -> list[Layer]:
    """The layers that take what comes out, if nothing but layers does."""
    layers = []
    for user in users(chain.output):
        layer = Layer.of(user)
        if layer is None or user.inputs[0] is not chain.output:
            return []
        layers.append(layer)
    return [] if chain.output.is_graph_output() else layers


def _into_one_node(chain: _Chain) -> bool:
    """Several nodes: into fewer."""
    if chain.map.is_identity:
        return bypass(chain.nodes, chain.source)
    if len(chain.nodes) <= _cost(chain, chain.map):
        return False
    _emit(chain, chain.map)
    return True


def _cost(chain: _Chain, affine: Affine) -> int:
    both = (affine.scale != 1).any() and affine.shift.any()
    return 2 if both and not _fits_batch_norm(chain, affine) else 1


def _fits_batch_norm(chain: _Chain, affine: Affine) -> bool:
    return chain.rank == 4 and affine.channels > 1


def _emit(chain: _Chain, affine: Affine) -> None:
    """Puts the fewest nodes that do this map in the place of the chain."""
    channels, source = affine.channels, chain.source
    scales, shifts = bool((affine.scale != 1).any()), bool(affine.shift.any())
    if scales and shifts and _fits_batch_norm(chain, affine):
        node = replace(chain.nodes, "BatchNormalization", [source], epsilon=0.0)
        for value in (affine.scale, affine.shift, np.zeros(1), np.ones(1)):
            set_constant(node, len(node.inputs), np.broadcast_to(value, (channels,)))
        return
    if scales and shifts:
        source = insert(
            chain.nodes[0], "Mul", [source], suffix="scaled", shape=shape_of(chain.source)
        )
        scaling = source.producer()
        assert scaling is not None
        set_constant(scaling, 1, _aligned(affine.scale, chain.rank))
    node = replace(chain.nodes, "Add" if shifts else "Mul", [source])
    set_constant(node, 1, _aligned(affine.shift if shifts else affine.scale, chain.rank))


def _aligned(values: Array, rank: int) -> Array:
    """[channels] so that it broadcasts over [batch, channels, ...]."""
    return values.reshape(() if values.size == 1 else (1, -1, *(1,) * (rank - 2)))
