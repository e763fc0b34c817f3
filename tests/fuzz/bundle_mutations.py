"""Forged bundles: changed manifests and graphs, whose hashes were put right again."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from mutations import mutate
from onnx import TensorProto, helper, numpy_helper

from dfd_edge.bundle.manifest import MANIFEST_NAME
from small_bundle import relist

_GRAPHS = ("frame.onnx", "sequence.onnx")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 1 << 31, 1 << 63, 10**400, 0.5, -2.5, 1e308, 1e-308),
    *("", "x", "x" * 5000, "../secret", "/etc/passwd", "\0", "\ud800", "frame.onnx", "2026", "é"),
    *([], [0.0], [[]], [None], {}, {"a": 1}, {"file": "frame.onnx"}, [1e308] * 3, ["x"] * 100),
)
_OPERATORS = (
    *("Relu", "Add", "Mul", "MatMul", "Gemm", "Conv", "ConstantOfShape", "Expand", "Tile", "Range"),
    *("Reshape", "Resize", "Pad", "Gather", "Slice", "Concat", "Transpose", "Cast", "Loop", "If"),
    *("NonZero", "TopK", "OneHot", "Einsum", "CumSum", "GRU", "LSTM", "Shape", "RandomNormal"),
    *("Softmax", "Squeeze", "Unsqueeze", "Where", "Split", "EyeLike", "StringNormalizer", "Bogus"),
)
_LENGTHS = (0, 1, 2, 3, 7, -1, -2, 255, 65_536, 1_000_000, 10**9, (1 << 31) - 1, 1 << 31, 1 << 62)


def forge(folder: Path, random_: random.Random) -> None:
    """Changes a whole bundle in one to three ways, so that its hashes still agree."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        random_.choice(_FORGERIES)(folder, random_)


def _change_manifest(folder: Path, random_: random.Random) -> None:
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        return
    for _ in range(random_.choice((1, 1, 2, 4))):
        _change_tree(content, random_)
    text = json.dumps(content)
    if random_.random() < 0.03:
        text = text.replace("5", "5" * 5000, 1)
    path.write_text(text, "utf-8")


def _change_tree(content: Any, random_: random.Random) -> None:
    """Changes one place of a tree of JSON, every depth alike."""
    places: list[tuple[Any, Any]] = []
    todo = [content]
    while todo:
        node = todo.pop()
        if isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            places += [(node, key) for key in keys]
            todo += [node[key] for key in keys]
    if not places:
        return
    node, key = random_.choice(places)
    how = random_.random()
    if how < 0.6:
        node[key] = random_.choice(_VALUES)
    elif how < 0.7 and isinstance(node[key], int | float):
        node[key] = -node[key] if random_.random() < 0.5 else node[key] * random_.choice((2, 1000))
    elif how < 0.8:
        node[key] = random_.choice(places)[0] if random_.random() < 0.1 else [node[key]]
    elif how < 0.9:
        del node[key]
    elif isinstance(node, dict):
        node[random_.choice(("added", "", "file", str(key).upper()))] = random_.choice(_VALUES)
    # A tree that holds itself is no JSON.
    try:
        json.dumps(content)
    except (ValueError, RecursionError):
        node[key] = None


def _damage_manifest(folder: Path, random_: random.Random) -> None:
    path = folder / MANIFEST_NAME
    path.write_bytes(mutate(path.read_bytes(), b"{}[]" * 50, random_))


def _damage_file(folder: Path, random_: random.Random) -> None:
    names = [p.name for p in sorted(folder.iterdir()) if p.name != MANIFEST_NAME]
    name = random_.choice((*_GRAPHS, *names))
    other = folder / random_.choice(names)
    path = folder / name
    path.write_bytes(mutate(path.read_bytes() or b"\0", other.read_bytes(), random_))
    _relist(folder, name)


def _change_graph(folder: Path, random_: random.Random) -> None:
    name = random_.choice(_GRAPHS)
    try:
        model = onnx.load_model_from_string((folder / name).read_bytes())
    except (DecodeError, ValueError):
        return
    if not (model.graph.node and model.graph.initializer):
        return
    for _ in range(random_.choice((1, 1, 2, 3))):
        random_.choice(_GRAPH_CHANGES)(model, random_)
    (folder / name).write_bytes(model.SerializeToString())
    _relist(folder, name)


def _relist(folder: Path, name: str) -> None:
    # The manifest may have been forged, too.
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        relist(folder, name)


def _other_operator(model: onnx.ModelProto, random_: random.Random) -> None:
    random_.choice(model.graph.node).op_type = random_.choice(_OPERATORS)


def _other_wiring(model: onnx.ModelProto, random_: random.Random) -> None:
    node = random_.choice(model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    side = node.input if random_.random() < 0.7 and node.input else node.output
    side[random_.randrange(len(side))] = random_.choice((*names, "", "nothing"))


def _other_attribute(model: onnx.ModelProto, random_: random.Random) -> None:
    node = random_.choice(model.graph.node)
    value = random_.choice(_LENGTHS)
    if node.attribute and random_.random() < 0.8:
        attribute = random_.choice(node.attribute)
        if attribute.ints:
            attribute.ints[random_.randrange(len(attribute.ints))] = value
        else:
            attribute.i = value
    else:
        name = random_.choice(("axis", "axes", "pads", "strides", "group", "hidden_size", "to"))
        node.attribute.append(helper.make_attribute(name, random_.choice((value, [value] * 2))))


def _drop_or_repeat_node(model: onnx.ModelProto, random_: random.Random) -> None:
    at = random_.randrange(len(model.graph.node))
    if random_.random() < 0.5 and len(model.graph.node) > 1:
        del model.graph.node[at]
    else:
        model.graph.node.append(model.graph.node[at])


def _other_weights(model: onnx.ModelProto, random_: random.Random) -> None:
    tensor = random_.choice(model.graph.initializer)
    how = random_.random()
    if how < 0.4 and tensor.dims:
        tensor.dims[random_.randrange(len(tensor.dims))] = random_.choice(_LENGTHS)
    elif how < 0.5:
        tensor.data_type = random_.randrange(24)
    elif how < 0.6:
        tensor.raw_data = tensor.raw_data[: random_.randrange(len(tensor.raw_data) + 1)]
    else:
        try:
            array = numpy_helper.to_array(tensor).copy()
        except (ValueError, TypeError, MemoryError):
            return
        if array.size:
            numbers = (0, -1, 1e38, -1e38, np.nan, np.inf) if array.dtype.kind == "f" else _LENGTHS
            array.reshape(-1)[random_.randrange(array.size)] = random_.choice(numbers)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _other_signature(model: onnx.ModelProto, random_: random.Random) -> None:
    value = random_.choice((*model.graph.input, *model.graph.output))
    shape = value.type.tensor_type.shape
    if shape.dim and random_.random() < 0.7:
        random_.choice(shape.dim).dim_value = random_.choice(_LENGTHS)
    else:
        value.type.tensor_type.elem_type = random_.randrange(24)


def _huge_tensor(model: onnx.ModelProto, random_: random.Random) -> None:
    """Before a node's input, something that makes many numbers of few bytes."""
    node = random_.choice(model.graph.node)
    if not node.input:
        return
    shape = [random_.choice(_LENGTHS) for _ in range(random_.choice((1, 1, 2)))]
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "huge_shape"))
    one = helper.make_tensor("one_value", TensorProto.FLOAT, [1], [0.0])
    made = [helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"], value=one)]
    if random_.random() < 0.3:
        made.append(helper.make_node("ReduceSum", ["huge"], ["little"], keepdims=0))
    at = random_.randrange(len(node.input))
    total = helper.make_node("Add", [node.input[at], made[-1].output[0]], ["with_huge"])
    node.input[at] = "with_huge"
    nodes = [*made, total, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _other_version(model: onnx.ModelProto, random_: random.Random) -> None:
    if random_.random() < 0.5:
        model.ir_version = random_.choice((0, 1, 3, 99, 1 << 40))
    else:
        model.opset_import[0].version = random_.choice((0, 1, 6, 11, 13, 18, 99, 1 << 40))


_GRAPH_CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_other_operator, _other_operator, _other_wiring, _other_attribute, _drop_or_repeat_node),
    *(_other_weights, _other_weights, _other_signature, _huge_tensor, _other_version),
)
_FORGERIES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(_change_manifest, _change_manifest, _damage_manifest, _damage_file),
    *(_change_graph, _change_graph, _change_graph, _change_graph),
)
