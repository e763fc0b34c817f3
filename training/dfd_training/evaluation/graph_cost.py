"""Multiply-accumulates and stored weights of an ONNX graph, by shape inference alone.

Counted is what convolutions, matrix products and recurrent layers multiply, as papers count it:
one multiply with its add is one. Elementwise work (activations, normalisation, pooling) is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_INFERENCE_NEEDS = 4096
"""Constants up to this many numbers are kept for shape inference: shapes and axes among them."""

_MOST_STEPS = 2**31
"""A `Range` of as many numbers or more is not looked into."""

_STANDARD_DOMAINS = ("", "ai.onnx")

_TWINS = {
    "com.microsoft:FusedConv": ("Conv", (0, 1)),
    "com.microsoft:FusedGemm": ("Gemm", (0, 1)),
    "com.microsoft:QGemm": ("Gemm", (0, 3)),
    "com.microsoft:QLinearConv": ("Conv", (0, 3)),
    "com.microsoft:QLinearAdd": ("Add", (0, 3)),
    "com.microsoft:QLinearMul": ("Mul", (0, 3)),
    "com.microsoft:QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "com.microsoft:QLinearAveragePool": ("AveragePool", (0,)),
    "com.microsoft:QLinearSigmoid": ("Identity", (0,)),
    "com.microsoft:QLinearLeakyRelu": ("Identity", (0,)),
    "com.microsoft.nchwc:Conv": ("Conv", (0, 1)),
    "com.microsoft.nchwc:GlobalAveragePool": ("GlobalAveragePool", (0,)),
    "com.microsoft.nchwc:ReorderInput": ("Identity", (0,)),
    "com.microsoft.nchwc:ReorderOutput": ("Identity", (0,)),
}
"""Operators of onnxruntime's optimiser, as the standard operator of the same shapes and the inputs
that it has. (A blocked layout pads the channels to a multiple of 8 or 16, which is counted.)"""

_PAIR = (1, 2, 4, 5, 6, 7)
_QUANTISATION = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": _PAIR,
    "QLinearMatMul": _PAIR,
    "QLinearAdd": _PAIR,
    "QLinearMul": _PAIR,
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
}
"""Inputs of an operator that are scales and zero points."""

_QUANTISED_BIAS = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}
"""Input that may be a bias of 32-bit integers."""

_ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Sum", "Mean", "Min", "Max", "Clip", "PRelu"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"),
    *("RMSNormalization", "Dropout", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
    *("Where", "Concat", "Split", "Slice", "Pad", "Expand", "Tile", "Reshape", "Squeeze"),
    *("Unsqueeze", "Trilu", "Compress", "Gather", "GatherElements", "GatherND", "OneHot"),
    *("ScatterElements", "ScatterND", "Range", "TopK", "CumSum", "CastLike", "Resize", "Upsample"),
    *("MaxRoiPool", "RoiAlign", "NonMaxSuppression", "QuantizeLinear", "DequantizeLinear"),
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"),
)
"""Operators that may read weights beside other inputs and sum up no products with them."""

_PRODUCTS = ("Attention", "DFT", "STFT")
"""Operators that sum up products, of no weights; nothing here counts them."""

_WEIGHT_TYPES = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE),
    *(TensorProto.INT8, TensorProto.UINT8),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The numbers of one type that a graph stores, and their bytes."""

    numbers: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LayerCost:
    """The cost of one operator.

    Attributes:
        name: The node, or where it has no name, its first output.
        operator: Its type.
        weight: The largest of its weights, whose name is often nearer to the model's layer.
        shape: Shape of its first output; None where inference does not find it.
        parameters: Weights that it reads.
        macs: Multiply-accumulates; None where they are not known.
    """

    name: str
    operator: str
    weight: str | None
    shape: Shape | None
    parameters: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class GraphCost:
    """The cost of a graph.

    Attributes:
        parameters: Weights of all layers, without scales, zero points, shapes and axes.
        stored: By element type, all numbers that the graph stores.
        layers: The operators that multiply and accumulate, in the graph's order.
    """

    parameters: int
    stored: dict[str, Stored]
    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layers where they are known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The layers where they are not."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)


def measure(model: onnx.ModelProto, axes: Mapping[str, int] | None = None) -> GraphCost:
    """Counts what a graph multiplies and stores.

    Args:
        model: Any graph. What subgraphs, operators of other domains, and operators with weights
            that are not listed here do is not known.
        axes: Lengths of the inputs' named axes; 1 for those that are not here.

    Raises:
        ValueError: A stored tensor has an element type that ONNX does not have.
    """
    graph = model.graph
    tensors = dict(_constants(graph))
    weights = _weights(graph, tensors)
    shapes = {**infer_shapes(model, axes or {}), **_shapes_of(tensors)}
    dequantised = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    layers = []
    for node in graph.node:
        twin = _twin(node)
        counter = _COUNTERS.get(twin.op_type) if twin.domain in _STANDARD_DOMAINS else None
        read = {dequantised.get(name, name) for name in node.input} & weights.keys()
        if counter is None and not _is_opaque(twin, reads_weights=bool(read)):
            continue
        layers.append(
            LayerCost(
                name=node.name or "".join(node.output[:1]),
                operator=node.op_type,
                weight=max(sorted(read), key=weights.__getitem__, default=None),
                shape=shapes.get("".join(node.output[:1])),
                parameters=sum(weights[name] for name in read),
                macs=_count(counter, twin, shapes) if counter else None,
            )
        )
    return GraphCost(sum(weights.values()), _stored(tensors.values()), tuple(layers))


def infer_shapes(model: onnx.ModelProto, axes: Mapping[str, int]) -> dict[str, Shape]:
    """Shapes of all values that ONNX's shape inference finds whole.

    Args:
        model: Any graph.
        axes: Lengths of the inputs' named axes; 1 for those that are not here.
    """
    graph = model.graph
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = graph.name
    light.graph.node.extend(part for node in graph.node for part in _by_planes(_twin(node)))
    for value in graph.input:
        light.graph.input.append(_bound(value, axes))
    light.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.output)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _INFERENCE_NEEDS:
            light.graph.initializer.append(tensor)
        else:  # their shape is enough, and a copy of large weights would not fit a message
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(info)
    shapes = _inferred(light)
    return _inferred(light) if _settle_ranges(light.graph, shapes) else shapes


def _inferred(model: onnx.ModelProto) -> dict[str, Shape]:
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except shape_inference.InferenceError:  # the graph is not valid: nothing is known of it
        return {}
    shapes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        has_shape = value.type.tensor_type.HasField("shape")
        if has_shape and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _settle_ranges(graph: onnx.GraphProto, shapes: Shapes) -> bool:
    """Makes inputs of known length of each `Range` over an axis, which inference leaves open.

    Returns:
        Whether there is one.
    """
    numbers = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.INT64
        and not tensor.dims
        and (len(tensor.raw_data) == 8 or len(tensor.int64_data) == 1)
    }
    settled = []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            place = {attribute.name: attribute.i for attribute in node.attribute}
            axes = shapes[node.input[0]][place.get("start", 0) : place.get("end")]
            numbers[node.output[0]] = np.array(axes, np.int64)
        elif node.op_type == "Squeeze" and np.size(numbers.get(node.input[0], ())) == 1:
            numbers[node.output[0]] = numbers[node.input[0]].reshape(())
        elif node.op_type == "Range" and all(name in numbers for name in node.input):
            start, limit, step = (numbers[name].item() for name in node.input)
            length = max(0, -((start - limit) // step)) if step else _MOST_STEPS
            if length < _MOST_STEPS:
                settled.append((node, length))
    for node, length in settled:
        graph.node.remove(node)
        graph.input.append(
            helper.make_tensor_value_info(node.output[0], TensorProto.INT64, [length])
        )
    return bool(settled)


def _bound(value: onnx.ValueInfoProto, axes: Mapping[str, int]) -> onnx.ValueInfoProto:
    tensor = value.type.tensor_type
    shape = [
        dim.dim_value if dim.HasField("dim_value") else axes.get(dim.dim_param, 1)
        for dim in tensor.shape.dim
    ]
    return helper.make_tensor_value_info(value.name, tensor.elem_type, shape)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                yield node.output[0], attribute.t


def _weights(graph: onnx.GraphProto, tensors: Mapping[str, onnx.TensorProto]) -> dict[str, int]:
    """Counts the numbers of each constant that is a weight by its type and by what reads it."""
    scales: set[str] = set()
    biases: set[str] = set()
    for node in graph.node:
        places = _QUANTISATION.get(node.op_type, ())
        scales.update(name for place, name in enumerate(node.input) if place in places)
        bias = _QUANTISED_BIAS.get(node.op_type, len(node.input))
        biases.update(node.input[bias : bias + 1])
    return {
        name: math.prod(tensor.dims)
        for name, tensor in tensors.items()
        if name not in scales and (tensor.data_type in _WEIGHT_TYPES or name in biases)
    }


def _stored(tensors: Iterable[onnx.TensorProto]) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    for tensor in tensors:
        numbers = math.prod(tensor.dims)
        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except KeyError:
            raise ValueError(
                f"{tensor.name!r:.80} has the element type {tensor.data_type}, which ONNX has not"
            ) from None
        so_far = stored.get(dtype.name, Stored(0, 0))
        stored[dtype.name] = Stored(
            so_far.numbers + numbers, so_far.bytes + numbers * dtype.itemsize
        )
    return stored


def _shapes_of(tensors: Mapping[str, onnx.TensorProto]) -> dict[str, Shape]:
    return {name: tuple(tensor.dims) for name, tensor in tensors.items()}


def _twin(node: onnx.NodeProto) -> onnx.NodeProto:
    """The standard operator of the same shapes and work; the node itself where there is none."""
    twin = _TWINS.get(f"{node.domain}:{node.op_type}")
    if twin is None:
        return node
    inputs = [node.input[place] for place in twin[1] if place < len(node.input)]
    standard = onnx.NodeProto(op_type=twin[0], name=node.name, input=inputs, output=node.output)
    standard.attribute.extend(node.attribute)
    return standard


def _by_planes(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node as ONNX's inference reads it, which has no layout with the channels last."""
    last = any(a.name == "channels_last" and a.i for a in node.attribute)
    if not (last and node.input and node.output):
        return [node]
    out = node.output[0]
    planes = onnx.NodeProto()
    planes.CopyFrom(node)
    planes.input[0], planes.output[0] = f"{out}~in", f"{out}~out"
    return [
        helper.make_node("Transpose", [node.input[0]], [f"{out}~in"], perm=[0, 3, 1, 2]),
        planes,
        helper.make_node("Transpose", [f"{out}~out"], [out], perm=[0, 2, 3, 1]),
    ]


def _is_opaque(node: onnx.NodeProto, *, reads_weights: bool) -> bool:
    """Returns whether an operator without a counter may sum up products."""
    has_graphs = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    if has_graphs or node.domain not in _STANDARD_DOMAINS or node.op_type in _PRODUCTS:
        return True
    several = sum(map(bool, node.input)) > 1
    return reads_weights and several and node.op_type not in _ELEMENTWISE


def _count(counter: Counter, node: onnx.NodeProto, shapes: Shapes) -> int | None:
    try:
        return counter(node, shapes)
    except (LookupError, ValueError):
        return None


def _convolution(weights: int) -> Counter:
    """Each number that comes out is a product with one filter: channels of a group x kernel."""

    def count(node: onnx.NodeProto, shapes: Shapes) -> int:
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weights]][1:])

    return count


def _transposed_convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each number that goes in is multiplied with one filter."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _matrix_product(node: onnx.NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


def _einsum(node: onnx.NodeProto, shapes: Shapes) -> int:
    """One multiplication for each combination of labels and each tensor after the first."""
    equation = {a.name: a.s for a in node.attribute}["equation"].decode()
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if "." in equation:
        raise KeyError(equation)
    lengths = {
        label: shapes[name][axis]
        for term, name in zip(terms, node.input, strict=True)
        for axis, label in enumerate(term)
    }
    return math.prod(lengths.values()) * (len(terms) - 1)


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    """At each step every weight of the input's and of the state's kernel is used once."""
    steps_and_batch = math.prod(shapes[node.input[0]][:2])
    return steps_and_batch * sum(math.prod(shapes[name]) for name in node.input[1:3])


Counter = Callable[[onnx.NodeProto, Shapes], int]

_COUNTERS: dict[str, Counter] = {
    "Conv": _convolution(weights=1),
    "ConvInteger": _convolution(weights=1),
    "QLinearConv": _convolution(weights=3),
    "DeformConv": _convolution(weights=1),
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearMatMul": _matrix_product,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
}
