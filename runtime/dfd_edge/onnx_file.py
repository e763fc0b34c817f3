"""What an ONNX file declares, read from its bytes without onnxruntime or the onnx package.

ONNX files are protocol buffers. Only the fields named here are looked at; weights are skipped.
The numbers are those of `onnx.proto` (ONNX 1.0 and later; they never change).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_GRAPH_SPARSE_INITIALIZER = 15
_NODE_OP_TYPE, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_EXTERNAL = 1
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR = 1, 2, 1
_TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_DIM_VALUE, _DIM_NAME = 1, 2
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
    """What a graph declares.

    Attributes:
        inputs: By name, in order.
        outputs: By name, in order.
        operators: How often each operator occurs, subgraphs included.
        external_data: Paths of the other files that hold weights of the graph.
    """

    inputs: dict[str, TensorSignature]
    outputs: dict[str, TensorSignature]
    operators: dict[str, int]
    external_data: tuple[str, ...]


def read_onnx(data: bytes) -> OnnxFile:
    """Reads what an ONNX file declares.

    Args:
        data: The whole file.

    Raises:
        ValueError: The bytes are not an ONNX model.
    """
    graphs = [v for n, v in _fields(memoryview(data)) if n == _MODEL_GRAPH]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise ValueError("not an ONNX model")
    inputs: dict[str, TensorSignature] = {}
    outputs: dict[str, TensorSignature] = {}
    for number, value in _messages(graphs[0]):
        if number == _GRAPH_INPUT:
            inputs.update([_signature(value)])
        elif number == _GRAPH_OUTPUT:
            outputs.update([_signature(value)])
    operators: dict[str, int] = {}
    external: list[str] = []
    _walk(graphs[0], operators, external)
    return OnnxFile(inputs, outputs, operators, tuple(external))


def _walk(graph: memoryview, operators: dict[str, int], external: list[str]) -> None:
    for number, value in _messages(graph):
        if number == _GRAPH_INITIALIZER:
            external.extend(_external(value))
        elif number == _GRAPH_SPARSE_INITIALIZER:
            for _, tensor in _messages(value):
                external.extend(_external(tensor))
        elif number == _GRAPH_NODE:
            for field, part in _messages(value):
                if field == _NODE_OP_TYPE:
                    name = str(part, "utf-8")
                    operators[name] = operators.get(name, 0) + 1
                elif field == _NODE_ATTRIBUTE:
                    _walk_attribute(part, operators, external)


def _walk_attribute(attribute: memoryview, operators: dict[str, int], external: list[str]) -> None:
    for number, value in _messages(attribute):
        if number in _ATTRIBUTE_TENSORS:
            external.extend(_external(value))
        elif number in _ATTRIBUTE_GRAPHS:
            _walk(value, operators, external)


def _external(tensor: memoryview) -> list[str]:
    """The path of the file that holds the tensor's numbers, where the tensor does not."""
    location = ""
    elsewhere = False
    for number, value in _fields(tensor):
        if number == _TENSOR_DATA_LOCATION:
            elsewhere = elsewhere or value == _EXTERNAL
        elif number == _TENSOR_EXTERNAL_DATA and isinstance(value, memoryview):
            elsewhere = True
            entry = {n: str(part, "utf-8") for n, part in _messages(value)}
            if entry.get(_ENTRY_KEY) == "location":
                location = entry.get(_ENTRY_VALUE, "")
    return [location] if elsewhere else []


def _signature(value: memoryview) -> tuple[str, TensorSignature]:
    fields = dict(_messages(value))
    name = str(fields.get(_VALUE_NAME, b""), "utf-8")
    tensor = dict(_fields(fields.get(_VALUE_TYPE, memoryview(b"")))).get(_TYPE_TENSOR)
    if not isinstance(tensor, memoryview):
        return name, TensorSignature("no tensor", ())
    parts = dict(_fields(tensor))
    element = parts.get(_TENSOR_ELEMENT, 0)
    shape = parts.get(_TENSOR_SHAPE)
    axes: tuple[int | str, ...] = ()
    if isinstance(shape, memoryview):
        axes = tuple(_axis(dim) for _, dim in _messages(shape))
    dtype = _ELEMENT_NAMES.get(element, f"type {element}") if isinstance(element, int) else "?"
    return name, TensorSignature(dtype, axes)


def _axis(dim: memoryview) -> int | str:
    parts = dict(_fields(dim))
    name = parts.get(_DIM_NAME)
    length = parts.get(_DIM_VALUE)
    if isinstance(name, memoryview):
        return str(name, "utf-8")
    return length if isinstance(length, int) else "?"


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that hold bytes: strings and messages."""
    for number, value in _fields(data):
        if isinstance(value, memoryview):
            yield number, value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message, by the wire format."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("not an ONNX model")
        if at + size > len(data):
            raise ValueError("the file is cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the file is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("not an ONNX model")
