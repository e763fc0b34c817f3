"""Bounds on the tensor sizes and the work of a graph, computed before anything runs it.

A few bytes can ask for gigabytes (`ConstantOfShape`) or for hours (one `MatMul` after the other),
already while onnxruntime loads the graph, which folds constants. So the shapes of all tensors are
computed here from those of the inputs. A graph with an operator that is unknown here is tried in a
process of its own (`graph_trial`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle.onnx_file import fields_of, messages_of, only_graph

MOST_NUMBERS = 1 << 28
"""Most numbers in a tensor: a gibibyte of float32."""
MOST_NUMBERS_IN_ALL = 1 << 32
MOST_CONSTANT = 1 << 24
"""Most numbers computed from weights alone, if the file has fewer bytes: loading a graph computes
them, and unpacked weights have no more."""
MOST_PRODUCTS = 4 * 10**12
"""Most multiplications of a run; a core does some 10 to 40 thousand million a second."""
_MOST_VALUES = 1024
"""Longest integer tensor whose values are computed: shapes, axes, bounds of slices."""

Shape = tuple[int, ...]


class TooLarge(Exception):
    """A tensor or the work is larger than any model of this kind needs; the text says which."""


class _Unknown(Exception):
    """The shape of a node's outputs cannot be computed."""


@dataclass(slots=True)
class _Tensor:
    """A tensor's shape, and its whole numbers where they are few and known."""

    shape: Shape
    values: NDArray[np.int64] | None = None


@dataclass(slots=True)
class _Node:
    operator: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    def ints(self, name: str) -> list[int] | None:
        found = self.attributes.get(name)
        return [int(value) for value in found] if isinstance(found, list) else None

    def number(self, name: str, default: int) -> int:
        found = self.attributes.get(name, default)
        return found if isinstance(found, int) else default


def check_size(data: bytes, inputs: Mapping[str, Shape]) -> bool:
    """Computes the sizes of a graph's tensors and the work of a run.

    Args:
        data: The ONNX file, which `onnx_file.read_onnx` accepts.
        inputs: The shapes of the inputs.

    Returns:
        Whether all sizes are known; if not, the known ones are within the bounds.

    Raises:
        TooLarge: A size or the work exceeds its bound.
    """
    graph = only_graph(list(fields_of(memoryview(data))))
    tensors = {name: _Tensor(shape) for name, shape in inputs.items()}
    nodes: list[_Node] = []
    for number, part in messages_of(graph):
        if number == 1:
            nodes.append(_node(part))
        elif number == 5:
            name, tensor = _tensor(part)
            tensors[name] = tensor
    products = in_all = 0
    for name, tensor in tensors.items():
        in_all = _add(in_all, tensor, f"{name!r:.40}", MOST_NUMBERS)
    all_known = True
    varying = set(inputs)
    for node in nodes:
        try:
            outputs, work = _run(node, tensors)
        except _Unknown:
            all_known = False
            continue
        except Exception:  # a graph that makes no sense may end a rule in any way
            all_known = False  # onnxruntime says why
            continue
        if varying.isdisjoint(node.inputs):
            most = min(MOST_NUMBERS, max(MOST_CONSTANT, len(data)))
        else:
            most = MOST_NUMBERS
            varying.update(node.outputs)
        for name, tensor in zip(node.outputs, outputs, strict=False):
            in_all = _add(in_all, tensor, f"what {node.operator} gives", most)
            tensors[name] = tensor
        products += work
        if products > MOST_PRODUCTS:
            raise TooLarge(
                f"up to a {node.operator} it computes {products} products: a graph has at most "
                f"{MOST_PRODUCTS}"
            )
    return all_known


def _add(in_all: int, tensor: _Tensor, what: str, most: int) -> int:
    """Returns the count of numbers with this tensor added, which has at most `most`.

    Raises:
        TooLarge: They are too many.
    """
    count = math.prod(tensor.shape)
    in_all += count
    if count > most:
        raise TooLarge(f"{what} has {count} numbers, and a tensor there at most {most}")
    if in_all > MOST_NUMBERS_IN_ALL:
        raise TooLarge(
            f"up to {what} it has {in_all} numbers, and a graph at most {MOST_NUMBERS_IN_ALL}"
        )
    return in_all


def _node(part: memoryview) -> _Node:
    node, domain = _Node(""), ""
    for number, value in messages_of(part):
        if number == 1:
            node.inputs.append(str(value, "utf-8"))
        elif number == 2:
            node.outputs.append(str(value, "utf-8"))
        elif number == 4:
            node.operator = str(value, "utf-8")
        elif number == 7:
            domain = str(value, "utf-8")
        elif number == 5:
            name, found = _attribute(value)
            node.attributes[name] = found
    if domain not in ("", "ai.onnx"):
        node.operator = f"{domain}:{node.operator}"
    return node


def _attribute(part: memoryview) -> tuple[str, object]:
    """Returns name and value: an integer, a list of integers, a text, or a tensor."""
    name = ""
    found: object = None
    many: list[int] = []
    for number, value in fields_of(part):
        if number == 1 and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif number == 3 and isinstance(value, int):
            found = _signed(value)
        elif number == 4 and isinstance(value, memoryview):
            found = str(value, "utf-8", "replace")
        elif number == 5 and isinstance(value, memoryview):
            found = _tensor(value)[1]
        elif number == 8:
            many += [_signed(value)] if isinstance(value, int) else _packed(value)
    return name, many or found


def _tensor(part: memoryview) -> tuple[str, _Tensor]:
    """Returns name and shape of weights, with the values of a short integer tensor."""
    name, kind, raw = "", 0, b""
    dims: list[int] = []
    stated: list[int] = []
    for number, value in fields_of(part):
        if number == 1:
            dims += [_signed(value)] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in (5, 7):
            stated += [_signed(value)] if isinstance(value, int) else _packed(value)
        elif number == 8 and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif number == 9 and isinstance(value, memoryview) and len(value) <= 8 * _MOST_VALUES:
            raw = bytes(value)
    if any(dim < 0 for dim in dims):
        raise TooLarge(f"its weights {name!r:.40} have a shape of {dims!r:.60}")
    values = None
    if kind in (6, 7) and math.prod(dims) <= _MOST_VALUES:
        whole = np.frombuffer(raw, np.int32 if kind == 6 else np.int64) if raw else stated
        values = np.array(whole, np.int64)
        values = values.reshape(dims) if values.size == math.prod(dims) else None
    return name, _Tensor(tuple(dims), values)


def _packed(value: memoryview) -> list[int]:
    numbers, at, shift = [], 0, 0
    if len(value) > 10 * _MOST_VALUES:
        return []
    for byte in value:
        at |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(_signed(at))
            at = shift = 0
    return numbers


def _signed(value: int) -> int:
    value &= (1 << 64) - 1  # as protocol buffers do with what is written with more bits
    return value - (1 << 64) if value >= 1 << 63 else value


def _run(node: _Node, tensors: Mapping[str, _Tensor]) -> tuple[list[_Tensor], int]:
    """Returns the shapes of a node's outputs, and the multiplications that they take.

    Raises:
        _Unknown: They are not known here.
    """
    rule = _RULES.get(node.operator)
    if rule is None:
        raise _Unknown
    inputs: list[_Tensor | None] = []
    for name in node.inputs:
        if name and name not in tensors:
            raise _Unknown
        inputs.append(tensors[name] if name else None)
    found, work = rule(node, inputs)
    if any(size < 0 for tensor in found for size in tensor.shape):
        raise _Unknown
    return found, work


Rule = Callable[[_Node, list[Any]], tuple[list[_Tensor], int]]


def _same(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    return [_Tensor(inputs[0].shape, inputs[0].values)], 0


def _same_shape(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    return [_Tensor(inputs[0].shape)], 0


def _broadcast(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    if node.operator.startswith("com.microsoft:QLinear"):
        inputs = [inputs[0], inputs[3]]
    shape = _broadcast_shapes([tensor.shape for tensor in inputs])
    compute = _ARITHMETIC.get(node.operator)
    values = None
    if compute is not None and all(tensor.values is not None for tensor in inputs):
        values = _few(compute(inputs[0].values, inputs[1].values))
    return [_Tensor(shape, values)], 0


def _broadcast_shapes(shapes: list[Shape]) -> Shape:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(0 if 0 in axis else max(axis) for axis in zip(*padded, strict=True))


def _matmul(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    left, right = inputs[0].shape, inputs[1].shape
    if len(left) < 2 or len(right) < 2:
        raise _Unknown
    shape = (*_broadcast_shapes([left[:-2], right[:-2], ()]), left[-2], right[-1])
    return [_Tensor(shape)], math.prod(shape) * left[-1]


def _gemm(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    left, right = inputs[0].shape, inputs[1].shape
    rows, inner = left[::-1] if node.number("transA", 0) else left
    columns = right[0] if node.number("transB", 0) else right[1]
    return [_Tensor((rows, columns))], rows * columns * inner


def _conv(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    weights = inputs[3] if node.operator == "QLinearConv" else inputs[1]
    kernel = weights.shape[2:]
    spatial = _windows(node, inputs[0].shape[2:], kernel)
    shape = (inputs[0].shape[0], weights.shape[0], *spatial)
    return [_Tensor(shape)], math.prod(shape) * weights.shape[1] * math.prod(kernel)


def _pool(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    kernel = tuple(node.ints("kernel_shape") or ())
    shape = (*inputs[0].shape[:2], *_windows(node, inputs[0].shape[2:], kernel))
    return [_Tensor(shape)], math.prod(shape) * math.prod(kernel)


def _windows(node: _Node, spatial: Shape, kernel: Shape) -> Shape:
    """Returns how often a window fits along the last axes, or one more."""
    rank = len(spatial)
    strides = node.ints("strides") or [1] * rank
    dilations = node.ints("dilations") or [1] * rank
    pads = node.ints("pads") or [0] * (2 * rank)
    sizes = []
    for axis in range(rank):
        whole = spatial[axis] + abs(pads[axis]) + abs(pads[axis + rank])
        if str(node.attributes.get("auto_pad", "NOTSET")).startswith("SAME"):
            whole = spatial[axis] + dilations[axis] * (kernel[axis] - 1)
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        steps = (whole - reach) / strides[axis]
        sizes.append(int(math.ceil(steps) if node.number("ceil_mode", 0) else steps) + 1)
    return tuple(max(0, size) for size in sizes)


def _global_pool(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    return [_Tensor((*shape[:2], *(1,) * (len(shape) - 2)))], math.prod(shape)


def _recurrent(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    steps, batch, width = inputs[0].shape
    directions, _, hidden = inputs[2].shape
    products = steps * batch * directions * inputs[1].shape[1] * (width + hidden)
    last = _Tensor((directions, batch, hidden))
    return [_Tensor((steps, directions, batch, hidden)), last, last], products


def _transpose(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    order = node.ints("perm") or list(range(len(shape)))[::-1]
    return [_Tensor(tuple(shape[axis] for axis in order))], 0


def _axes(node: _Node, inputs: list[Any]) -> list[int] | None:
    """Returns the axes by attribute or by the second input; None where none are given."""
    if (stated := node.ints("axes")) is not None:
        return stated
    if len(inputs) < 2 or inputs[1] is None:
        return None
    return [int(axis) for axis in _values(inputs[1]).reshape(-1)]


def _values(tensor: Any) -> NDArray[np.int64]:  # noqa: ANN401
    if tensor is None or tensor.values is None:
        raise _Unknown
    values: NDArray[np.int64] = tensor.values
    return values


def _few(values: NDArray[np.int64]) -> NDArray[np.int64] | None:
    return values if values.size <= _MOST_VALUES else None


def _reshaped(tensor: _Tensor, shape: Shape) -> tuple[list[_Tensor], int]:
    values = None if tensor.values is None else tensor.values.reshape(shape)
    return [_Tensor(shape, values)], 0


def _squeeze(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    axes = _axes(node, inputs)
    gone = {axis % len(shape) for axis in axes} if axes is not None else None
    kept = [
        size for n, size in enumerate(shape) if (n not in gone if gone is not None else size != 1)
    ]
    return _reshaped(inputs[0], tuple(kept))


def _unsqueeze(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    axes = _axes(node, inputs) or []
    rank = len(inputs[0].shape) + len(axes)
    left = list(inputs[0].shape)
    new = {axis % rank for axis in axes}
    return _reshaped(inputs[0], tuple(1 if n in new else left.pop(0) for n in range(rank)))


def _reshape(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    wanted = [int(size) for size in _values(inputs[1])]
    if not node.number("allowzero", 0):
        wanted = [shape[n] if size == 0 else size for n, size in enumerate(wanted)]
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = math.prod(shape) // rest
    if math.prod(wanted) != math.prod(shape):
        raise _Unknown
    return _reshaped(inputs[0], tuple(wanted))


def _flatten(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape, axis = inputs[0].shape, node.number("axis", 1)
    axis = axis % len(shape) if axis < 0 else axis
    return _reshaped(inputs[0], (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _concat(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = list(inputs[0].shape)
    axis = node.number("axis", 0) % len(shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in inputs)
    known = all(tensor.values is not None for tensor in inputs)
    values = _few(np.concatenate([t.values for t in inputs], axis)) if known else None
    return [_Tensor(tuple(shape), values)], 0


def _split(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape, count = inputs[0].shape, len(node.outputs)
    axis = node.number("axis", 0) % len(shape)
    parts = node.ints("split")
    if parts is None and len(inputs) > 1 and inputs[1] is not None:
        parts = [int(size) for size in _values(inputs[1])]
    parts = parts or [-(-shape[axis] // count)] * count
    return [_Tensor((*shape[:axis], size, *shape[axis + 1 :])) for size in parts], 0


def _slice(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    if len(inputs) > 2:
        starts, ends = (_values(tensor).tolist() for tensor in inputs[1:3])
        axes = _values(inputs[3]).tolist() if len(inputs) > 3 and inputs[3] else None
        steps = _values(inputs[4]).tolist() if len(inputs) > 4 and inputs[4] else None
    else:
        starts, ends = node.ints("starts") or [], node.ints("ends") or []
        axes, steps = node.ints("axes"), None
    places = [slice(None)] * len(shape)
    axes = list(range(len(starts))) if axes is None else axes
    for n, axis in enumerate(axes):
        step = 1 if steps is None else steps[n]
        end = ends[n] if step > 0 or ends[n] > -shape[axis] - 1 else None
        places[axis] = slice(starts[n], end, step)
    sizes = tuple(len(range(*p.indices(size))) for p, size in zip(places, shape, strict=True))
    values = inputs[0].values
    return [_Tensor(sizes, None if values is None else values[tuple(places)])], 0


def _gather(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape, index = inputs[0].shape, inputs[1]
    axis = node.number("axis", 0) % len(shape)
    values = None
    if inputs[0].values is not None and index.values is not None:
        values = _few(np.take(inputs[0].values, index.values, axis))
    return [_Tensor((*shape[:axis], *index.shape, *shape[axis + 1 :]), values)], 0


def _reduce(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    axes = _axes(node, inputs)
    gone = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    if not axes and node.number("noop_with_empty_axes", 0):
        gone = set()
    keep = node.number("keepdims", 1)
    sizes = [1 if n in gone else size for n, size in enumerate(shape) if keep or n not in gone]
    return [_Tensor(tuple(sizes))], math.prod(shape)


def _shape(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    shape = shape[node.number("start", 0) : node.number("end", len(shape))]
    return [_Tensor((len(shape),), np.array(shape, np.int64))], 0


def _constant(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    found = node.attributes.get("value")
    if isinstance(found, _Tensor):
        return [found], 0
    for name in ("value_int", "value_ints"):
        if name in node.attributes:
            values = np.array(node.attributes[name], np.int64)
            return [_Tensor(values.shape, values)], 0
    raise _Unknown


def _constant_of_shape(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    return [_Tensor(tuple(int(size) for size in _values(inputs[0]).reshape(-1)))], 0


def _range(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    start, limit, step = (int(_values(tensor).reshape(())) for tensor in inputs)
    numbers = range(start, limit, step)
    values = np.array(numbers, np.int64) if len(numbers) <= _MOST_VALUES else None
    return [_Tensor((len(numbers),), values)], 0


def _gather_nd(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape, index = inputs[0].shape, inputs[1].shape
    return [_Tensor((*index[:-1], *shape[node.number("batch_dims", 0) + index[-1] :]))], 0


def _expand(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    wanted = tuple(int(size) for size in _values(inputs[1]))
    return [_Tensor(_broadcast_shapes([inputs[0].shape, wanted]))], 0


def _tile(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    times = _values(inputs[1]).tolist()
    return [_Tensor(tuple(n * size for n, size in zip(times, inputs[0].shape, strict=True)))], 0


def _pad(node: _Node, inputs: list[Any]) -> tuple[list[_Tensor], int]:
    shape = inputs[0].shape
    pads = node.ints("pads") or _values(inputs[1]).tolist()
    if len(inputs) > 3 or len(pads) != 2 * len(shape):
        raise _Unknown
    before, after = pads[: len(shape)], pads[len(shape) :]
    return [_Tensor(tuple(map(sum, zip(before, shape, after, strict=True))))], 0


_ARITHMETIC: dict[str, Callable[[Any, Any], NDArray[np.int64]]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
}
_SAME = ("Cast", "Identity")
_SAME_SHAPE = (
    *("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Exp", "Log", "Sqrt", "Neg"),
    *("Abs", "Erf", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Gelu", "Mish"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "Dropout"),
    *("Reciprocal", "Floor", "Ceil", "Round", "Sign", "Not", "Softmax", "LogSoftmax", "LRN"),
    *("QuantizeLinear", "DequantizeLinear", "ThresholdedRelu", "CumSum", "IsNaN", "PRelu"),
    "Trilu",
    *("com.microsoft:QLinearSigmoid", "com.microsoft:QLinearLeakyRelu"),
)
_BROADCAST = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "Equal", "Mod"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"),
    *("com.microsoft:QLinearAdd", "com.microsoft:QLinearMul"),
)
_REDUCTIONS = ("Mean", "Sum", "Max", "Min", "L1", "L2", "Prod", "SumSquare", "LogSumExp")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_SAME_SHAPE, _same_shape),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS},
    **dict.fromkeys(("Conv", "QLinearConv", "com.microsoft:FusedConv"), _conv),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Range": _range,
    "Shape": _shape,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
}
