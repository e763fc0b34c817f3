"""A reader of ONNX files that needs neither onnxruntime nor the onnx package.

ONNX files are protocol buffers. Only the fields named here are looked at; weights are skipped.
The numbers are those of `onnx.proto` (ONNX 1.0 and later; they never change).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA, _MODEL_FUNCTION = 1, 7, 8, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_GRAPH_SPARSE_INITIALIZER = 15
_NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE_TENSORS = (5, 10), (6, 11), (22, 23)
_SPARSE_TENSORS = (1, 2)
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_EXTERNAL = 1
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR = 1, 2, 1
_TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_STANDARD_DOMAIN = "ai.onnx"
_DIM_VALUE, _DIM_NAME = 1, 2
_WIRE_VARINT, _WIRE_64_BITS, _WIRE_BYTES, _WIRE_32_BITS = 0, 1, 2, 5
#: The bit of a byte that says that the number goes on.
_CONTINUED = 0x80
#: Nodes and weights of a graph; models of this kind have some hundreds, published ones thousands.
_MOST_FIELDS = 200_000
_MOST_NODES = 20_000
_ELEMENT_NAMES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """A graph's input or output: element type and axes, an axis being a length or a name."""

    dtype: str
    axes: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(str(axis) for axis in self.axes)}]"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """The declarations of an ONNX file.

    Attributes:
        ir_version: Version of the file format.
        opsets: By domain, the version of the operators; the standard domain is "ai.onnx".
        inputs: By name, in order.
        outputs: By name, in order.
        operators: How often each operator occurs, subgraphs included. Before the name of one that
            is not of the standard domain stand its domain and a colon.
        subgraphs: Which of them hold a graph of their own: loops, branches, searches.
        functions: How many operators the file defines by itself.
        external_data: Paths of the other files that hold weights of the graph.
        metadata: What the file says of itself, by key.
    """

    ir_version: int
    opsets: dict[str, int]
    inputs: dict[str, TensorSignature]
    outputs: dict[str, TensorSignature]
    operators: dict[str, int]
    subgraphs: tuple[str, ...]
    functions: int
    external_data: tuple[str, ...]
    metadata: dict[str, str]


def read_onnx(data: bytes) -> OnnxFile:
    """Reads the declarations of an ONNX file.

    Args:
        data: The whole file.

    Raises:
        ValueError: The bytes are not an ONNX model.
    """
    fields = list(fields_of(memoryview(data)))
    graph = only_graph(fields)
    ir_version = dict(fields).get(_MODEL_IR_VERSION, 0)
    inputs: dict[str, TensorSignature] = {}
    outputs: dict[str, TensorSignature] = {}
    for number, value in messages_of(graph):
        if number == _GRAPH_INPUT:
            inputs.update([_signature(value)])
        elif number == _GRAPH_OUTPUT:
            outputs.update([_signature(value)])
    found = _Found()
    _walk(graph, found)
    return OnnxFile(
        ir_version=ir_version if isinstance(ir_version, int) else 0,
        opsets=dict(_opset(entry) for entry in _parts(fields, _MODEL_OPSET)),
        inputs=inputs,
        outputs=outputs,
        operators=found.operators,
        subgraphs=tuple(found.subgraphs),
        functions=len(_parts(fields, _MODEL_FUNCTION)),
        external_data=tuple(found.external),
        metadata=dict(_entry(entry) for entry in _parts(fields, _MODEL_METADATA)),
    )


def only_graph(fields: list[tuple[int, int | memoryview]]) -> memoryview:
    """Returns the graph of a model, given the model's fields.

    Raises:
        ValueError: It is no model.
    """
    graphs = _parts(fields, _MODEL_GRAPH)
    if len(graphs) != 1:
        raise ValueError("not an ONNX model")
    return graphs[0]


def _parts(fields: list[tuple[int, int | memoryview]], wanted: int) -> list[memoryview]:
    return [value for n, value in fields if n == wanted and isinstance(value, memoryview)]


def _opset(opset: memoryview) -> tuple[str, int]:
    parts = dict(fields_of(opset))
    domain, version = parts.get(_OPSET_DOMAIN), parts.get(_OPSET_VERSION)
    name = str(domain, "utf-8") if isinstance(domain, memoryview) else ""
    return name or _STANDARD_DOMAIN, version if isinstance(version, int) else 0


def _entry(entry: memoryview) -> tuple[str, str]:
    parts = {number: str(part, "utf-8") for number, part in messages_of(entry)}
    return parts.get(_ENTRY_KEY, ""), parts.get(_ENTRY_VALUE, "")


@dataclass(slots=True)
class _Found:
    """The contents of a graph and of those inside it."""

    nodes: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    subgraphs: dict[str, None] = field(default_factory=dict)
    external: list[str] = field(default_factory=list)


def _walk(graph: memoryview, found: _Found) -> None:
    for number, value in messages_of(graph):
        if number == _GRAPH_INITIALIZER:
            found.external.extend(_external(value))
        elif number == _GRAPH_SPARSE_INITIALIZER:
            found.external.extend(_external_sparse(value))
        elif number == _GRAPH_NODE:
            parts = list(messages_of(value))
            operator = _operator(parts)
            found.operators[operator] = found.operators.get(operator, 0) + 1
            found.nodes += 1
            if found.nodes > _MOST_NODES:
                raise ValueError(f"it has more than {_MOST_NODES} nodes")
            for key, part in parts:
                if key == _NODE_ATTRIBUTE:
                    _walk_attribute(part, operator, found)


def _operator(node: list[tuple[int, memoryview]]) -> str:
    parts = dict(node)
    name = str(parts.get(_NODE_OP_TYPE, b""), "utf-8")
    domain = str(parts.get(_NODE_DOMAIN, b""), "utf-8")
    return name if domain in ("", _STANDARD_DOMAIN) else f"{domain}:{name}"


def _walk_attribute(attribute: memoryview, operator: str, found: _Found) -> None:
    for number, value in messages_of(attribute):
        if number in _ATTRIBUTE_TENSORS:
            found.external.extend(_external(value))
        elif number in _ATTRIBUTE_SPARSE_TENSORS:
            found.external.extend(_external_sparse(value))
        elif number in _ATTRIBUTE_GRAPHS:
            found.subgraphs[operator] = None
            _walk(value, found)


def _external_sparse(tensor: memoryview) -> list[str]:
    parts = [part for number, part in messages_of(tensor) if number in _SPARSE_TENSORS]
    return [path for part in parts for path in _external(part)]


def _external(tensor: memoryview) -> list[str]:
    """Returns the path of the file with the tensor's data; None where the tensor holds it."""
    location = ""
    elsewhere = False
    for number, value in fields_of(tensor):
        if number == _TENSOR_DATA_LOCATION:
            elsewhere = elsewhere or value == _EXTERNAL
        elif number == _TENSOR_EXTERNAL_DATA and isinstance(value, memoryview):
            elsewhere = True
            key, text = _entry(value)
            if key == "location":
                location = text
    return [location] if elsewhere else []


def _signature(value: memoryview) -> tuple[str, TensorSignature]:
    fields = dict(messages_of(value))
    name = str(fields.get(_VALUE_NAME, b""), "utf-8")
    tensor = dict(fields_of(fields.get(_VALUE_TYPE, memoryview(b"")))).get(_TYPE_TENSOR)
    if not isinstance(tensor, memoryview):
        return name, TensorSignature("no tensor", ())
    parts = dict(fields_of(tensor))
    element = parts.get(_TENSOR_ELEMENT, 0)
    shape = parts.get(_TENSOR_SHAPE)
    axes: tuple[int | str, ...] = ()
    if isinstance(shape, memoryview):
        axes = tuple(_axis(dim) for _, dim in messages_of(shape))
    dtype = _ELEMENT_NAMES.get(element, f"type {element}") if isinstance(element, int) else "?"
    return name, TensorSignature(dtype, axes)


def _axis(dim: memoryview) -> int | str:
    parts = dict(fields_of(dim))
    name = parts.get(_DIM_NAME)
    length = parts.get(_DIM_VALUE)
    if isinstance(name, memoryview):
        return str(name, "utf-8")
    return length if isinstance(length, int) else "?"


def messages_of(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields the fields that hold bytes: strings and messages."""
    for number, value in fields_of(data):
        if isinstance(value, memoryview):
            yield number, value


def fields_of(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields number and value of each field of a message, by the wire format.

    Raises:
        ValueError: It is no message, is cut short, or has more fields than any graph needs.
    """
    at, end = 0, len(data)
    for _ in range(_MOST_FIELDS):
        if at >= end:
            return
        tag = data[at]
        at += 1
        if tag >= _CONTINUED:  # seldom: fields of the messages read here have small numbers
            tag, at = _varint(data, at - 1)
        number, wire = tag >> 3, tag & 7
        if wire == _WIRE_BYTES:
            size, at = _varint(data, at)
        elif wire == _WIRE_VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        elif wire in (_WIRE_64_BITS, _WIRE_32_BITS):
            size = 8 if wire == _WIRE_64_BITS else 4
        else:
            raise ValueError("not an ONNX model")
        if at + size > end:
            raise ValueError("the file is cut short")
        yield number, data[at : at + size]
        at += size
    if at < end:
        raise ValueError(f"a part of it has more than {_MOST_FIELDS} fields")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the file is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return value, at
    raise ValueError("not an ONNX model")
