"""Batch norms and scalings: into the layer before, into the layers after, or into one node.

In inference a batch norm is one factor and one offset a channel; tf2onnx leaves it as `Mul` and
`Add` wherever no convolution comes right before it, and after depthwise ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_export.graphs.passes.editor import GraphEditor, Shape, attribute
from dfd_export.graphs.passes.layer import Affine, Layer

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Nodes one after the other that are one affine map together.

    Attributes:
        source: The value that goes in.
        nodes: In order; all but the last have one user.
        map: What they do together.
        rank: Number of axes of the values.
    """

    source: str
    nodes: list[onnx.NodeProto]
    map: Affine
    rank: int

    @property
    def output(self) -> str:
        """The value that comes out."""
        return str(self.nodes[-1].output[0])


def fold_affine(editor: GraphEditor) -> bool:
    """Folds each chain of factors and offsets into its neighbours, or else into one node.

    Into the `Conv`, `MatMul` or `Gemm` before, where nothing else takes that one's result. Else
    into those after; an offset goes into a convolution only if that does not pad, since padding
    is zero after the offset and would have to be zero before it.
    """
    changed = False
    for chain in list(_chains(editor)):
        if all(editor.holds(node) for node in chain.nodes):
            changed |= (
                _into_maker(editor, chain)
                or _through_clip(editor, chain)
                or _into_users(editor, chain)
                or _factor_into_users(editor, chain)
                or _into_one_node(editor, chain)
            )
    return changed


def _chains(editor: GraphEditor) -> Iterator[_Chain]:
    taken: set[int] = set()
    for node in editor.nodes:
        step = None if id(node) in taken else _step(editor, node)
        if step is None:
            continue
        source, total = step
        nodes = [node]
        while editor.is_private(nodes[-1].output[0]):
            (user,) = editor.users(nodes[-1].output[0])
            following = _step(editor, user)
            if following is None or following[0] != nodes[-1].output[0]:
                break
            nodes.append(user)
            total = total.then(following[1])
        taken.update(id(entry) for entry in nodes)
        yield _Chain(source, nodes, total, len(editor.shape(source) or ()))


def _step(editor: GraphEditor, node: onnx.NodeProto) -> tuple[str, Affine] | None:
    """The input of a node and what it does to it, if that is one affine map a channel."""
    if node.op_type == "BatchNormalization":
        affine = _batch_norm(editor, node)
        return None if affine is None else (node.input[0], affine)
    if node.op_type not in {"Mul", "Add", "Sub", "Div"}:
        return None
    for data, other in ((0, 1), (1, 0)):
        values = editor.weights(node.input[other])
        per_channel = _per_channel(values, editor.shape(node.input[data]))
        if per_channel is None or (node.op_type == "Div" and not per_channel.all()):
            continue
        if other == 1 or node.op_type in {"Mul", "Add"}:
            return node.input[data], _elementwise(node.op_type, per_channel)
    return None


def _batch_norm(editor: GraphEditor, node: onnx.NodeProto) -> Affine | None:
    scale, shift, mean, variance = (editor.weights(name) for name in node.input[1:5])
    if scale is None or shift is None or mean is None or variance is None:
        return None
    factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
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


def _into_maker(editor: GraphEditor, chain: _Chain) -> bool:
    """A layer, then the chain: into the layer's kernel and bias."""
    maker = editor.maker(chain.source)
    layer = None if maker is None else Layer.of(editor, maker)
    if layer is None or not editor.is_private(chain.source):
        return False
    editor.bypass(chain.nodes, chain.source)
    layer.followed_by(chain.map).write(editor)
    return True


def _through_clip(editor: GraphEditor, chain: _Chain) -> bool:
    """A convolution and `Clip`, then a positive factor: into the layer and the clip's bounds."""
    clip, factor = editor.maker(chain.source), chain.map.scale
    if clip is None or clip.op_type != "Clip" or not editor.is_private(chain.source):
        return False
    if factor.size != 1 or factor[0] <= 0 or chain.map.shift.any():
        return False
    maker = editor.maker(clip.input[0])
    layer = None if maker is None else Layer.of(editor, maker)
    bounds = [editor.weights(name) for name in clip.input[1:] if name]
    if layer is None or not editor.is_private(clip.input[0]) or any(b is None for b in bounds):
        return False
    editor.bypass(chain.nodes, chain.source)
    for index, name in enumerate(clip.input):
        bound = editor.weights(name) if index else None
        if bound is not None:
            editor.set_constant(clip, index, bound * factor[0])
    layer.followed_by(chain.map).write(editor)
    return True


def _into_users(editor: GraphEditor, chain: _Chain) -> bool:
    """The chain, then layers that do not pad: into kernels and biases."""
    layers = _layers_after(editor, chain)
    if not layers or (chain.map.shift.any() and any(layer.pads for layer in layers)):
        return False
    editor.bypass(chain.nodes, chain.source)
    for layer in layers:
        layer.preceded_by(chain.map).write(editor)
    return True


def _factor_into_users(editor: GraphEditor, chain: _Chain) -> bool:
    """The chain, then layers that pad: the factor into kernels, the offset stays as `Add`."""
    layers, scale = _layers_after(editor, chain), chain.map.scale
    if not layers or not scale.all() or (scale == 1).all():
        return False
    offset = (chain.map.shift / scale).astype(np.float32)
    if not np.isfinite(offset).all():
        return False
    for layer in layers:
        layer.preceded_by(Affine(scale, np.zeros(1))).write(editor)
    _emit(editor, chain, Affine(np.ones(1), offset.astype(np.float64)))
    return True


def _layers_after(editor: GraphEditor, chain: _Chain) -> list[Layer]:
    """The layers that take what comes out, if nothing but layers does."""
    layers = []
    for user in editor.users(chain.output):
        layer = Layer.of(editor, user)
        if layer is None or user.input[0] != chain.output:
            return []
        layers.append(layer)
    return [] if chain.output in editor.outputs else layers


def _into_one_node(editor: GraphEditor, chain: _Chain) -> bool:
    """Several nodes: into fewer."""
    if chain.map.is_identity:
        return editor.bypass(chain.nodes, chain.source)
    if len(chain.nodes) <= _cost(chain, chain.map):
        return False
    _emit(editor, chain, chain.map)
    return True


def _cost(chain: _Chain, affine: Affine) -> int:
    both = (affine.scale != 1).any() and affine.shift.any()
    return 2 if both and not _fits_batch_norm(chain, affine) else 1


def _fits_batch_norm(chain: _Chain, affine: Affine) -> bool:
    return chain.rank == 4 and affine.channels > 1


def _emit(editor: GraphEditor, chain: _Chain, affine: Affine) -> None:
    """Puts the fewest nodes that do this map in the place of the chain."""
    channels, output, source = affine.channels, chain.output, chain.source
    scales, shifts = bool((affine.scale != 1).any()), bool(affine.shift.any())
    if scales and shifts and _fits_batch_norm(chain, affine):
        node = editor.replace(chain.nodes, "BatchNormalization", [source], output, epsilon=0.0)
        for value in (affine.scale, affine.shift, np.zeros(1), np.ones(1)):
            editor.set_constant(node, len(node.input), np.broadcast_to(value, (channels,)))
        return
    for node in chain.nodes:
        editor.remove(node)
    if scales:
        scaled = f"{output}/scaled" if shifts else output
        node = editor.replace([], "Mul", [source], scaled)
        editor.set_constant(node, 1, _aligned(affine.scale, chain.rank))
        source = scaled
    if shifts:
        node = editor.replace([], "Add", [source], output)
        editor.set_constant(node, 1, _aligned(affine.shift, chain.rank))


def _aligned(values: Array, rank: int) -> Array:
    """[channels] so that it broadcasts over [batch, channels, ...]."""
    return values.reshape(() if values.size == 1 else (1, -1, *(1,) * (rank - 2)))
