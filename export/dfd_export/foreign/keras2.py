"""Translates descriptions of models from Keras 2 to Keras 3.

Most published `.h5` files come from Keras 2. It recorded `preprocess_input(x)`, `x / 255` or
`tf.nn.sigmoid(x)` as layers of the kinds `TFOpLambda` and `SlicingOpLambda`: the name of a
TensorFlow function with its arguments. Keras 3 knows neither kind. No function is looked up by the
name in the file: those below are known, any other is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfd_export.foreign.refusals import refuse

Config = dict[str, Any]

_GONE: dict[str, tuple[object, ...]] = {
    # Recurrent layers: the axes swapped. Keras 3 has batch first only.
    "time_major": (False,),
    # Convolutions that are depthwise in any case.
    "groups": (1,),
    # Inputs: tensors of uneven rows, and values known beforehand.
    "ragged": (False,),
    # Batch norms: other ways to compute the statistics in training.
    "renorm": (False,),
    "virtual_batch_size": (None,),
    "fused": (None, True, False),
    # Layers that draw random numbers in training: how they do.
    "rng_type": (None, "stateful", "stateless", "legacy_stateful"),
    # Recurrent layers: how the operations are grouped, with one result.
    "implementation": (0, 1, 2),
}
"""Settings that Keras 3 does not know, with the values at which they change nothing."""

_KEEP_GROUPS = {"Conv2D", "Conv1D", "Conv3D", "Convolution2D", "GroupNormalization"}


def without_slashes(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Rewrites names of layers, and what refers to them: Keras 3 allows no `/` in them.

    MobileNetV3 of Keras 2, for one, has layers such as `expanded_conv/expand`.
    """
    match value:
        case [str(name), int(call), int(output), *rest]:
            return [name.replace("/", "_"), call, output, *without_slashes(rest)]
        case list():
            return [without_slashes(item) for item in value]
        case {"name": str(name), **others}:
            return {"name": name.replace("/", "_"), **without_slashes(others)}
        case dict():
            return {key: without_slashes(item) for key, item in value.items()}
    return value


def as_keras3(path: Path, kind: str, config: Config) -> Config:
    """Rewrites the settings of one layer.

    Raises:
        UsageError: A setting has a value that Keras 3 cannot express.
    """
    changed = {}
    for key, value in config.items():
        gone = key in _GONE and not (key == "groups" and kind in _KEEP_GROUPS)
        if gone and value not in _GONE[key]:
            name = config.get("name", "without a name")
            raise refuse(path, name, kind, f"has {key}={value!r:.40}, which Keras 3 cannot do")
        if not gone:
            changed[key] = value
    shape = changed.pop("batch_input_shape", None)
    if kind == "InputLayer" and shape is not None:
        changed["batch_shape"] = shape
    # Lists of one axis, where Keras 3 takes the number.
    if kind == "BatchNormalization" and isinstance(changed.get("axis"), list):
        (changed["axis"],) = changed["axis"]
    if kind == "LeakyReLU" and "alpha" in changed:
        changed["negative_slope"] = changed.pop("alpha")
    return changed


def nodes_as_keras3(layers: list[Config], inputs: object, outputs: object) -> tuple[object, object]:
    """Rewrites, in place, which outputs each layer of a graph is called on.

    Keras 2 wrote `[layer, call, output, {arguments}]` and counted the calls of a model inside a
    model from 1, since its own graph was call 0; Keras 3 writes arguments as it takes them and
    counts from 0.

    Args:
        layers: The layers of the graph.
        inputs: The graph's inputs, as the file has them.
        outputs: The graph's outputs, as the file has them.

    Returns:
        Inputs and outputs; one alone is not in a list.
    """
    by_name = {layer["name"]: layer for layer in layers}
    old = any(isinstance(node, list) for layer in layers for node in layer["inbound_nodes"])
    if old:
        first = _first_calls(layers, outputs, by_name)
        for layer in layers:
            layer["inbound_nodes"] = [_node(node, first) for node in layer["inbound_nodes"]]
        outputs = _shift_outputs(outputs, first, by_name)
    return _single(inputs), _single(outputs)


def _first_calls(
    layers: list[Config], outputs: object, by_name: dict[str, Config]
) -> dict[str, int]:
    """Returns by layer the number of its first call: 1 for most models inside a model, else 0."""
    used: dict[str, int] = {}
    places = [*_references([layer["inbound_nodes"] for layer in layers]), *_references(outputs)]
    for name, call, _ in places:
        used[name] = max(used.get(name, 0), call)
    return {
        name: max(0, last + 1 - max(1, len(by_name[name]["inbound_nodes"])))
        for name, last in used.items()
    }


def _references(value: object) -> list[tuple[str, int, int]]:
    """Every `[layer, call, output, ...]` inside nested lists and arguments."""
    match value:
        case [str(name), int(call), int(output), *rest]:
            return [(name, call, output), *_references(rest)]
        case list():
            return [found for item in value for found in _references(item)]
        case dict():
            return [found for item in value.values() for found in _references(item)]
    return []


def _node(node: list[Any], first: dict[str, int]) -> Config:
    tensors = [_tensor(source[:3], first) for source in node]
    arguments = node[0][3] if len(node[0]) > 3 else {}
    given = {
        key: _tensor(value, first) if _references(value) else value
        for key, value in arguments.items()
        if value is not None
    }
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": given}


def _tensor(source: list[Any], first: dict[str, int]) -> Config:
    name, call, output = source
    history = [name, call - first[name], output]
    # Shape and number type are those of the layer, once it is built.
    described = {"shape": [None], "dtype": "float32", "keras_history": history}
    return {"class_name": "__keras_tensor__", "config": described}


def _shift_outputs(outputs: object, first: dict[str, int], by_name: dict[str, Config]) -> object:
    """Keras 3 still counts from 1 in a graph's outputs, but for a `Sequential` inside."""
    if isinstance(outputs, list) and len(outputs) == 3 and isinstance(outputs[0], str):
        name, call, output = outputs
        counted = by_name[name]["class_name"] == "Model"
        return [name, call - first[name] + counted, output]
    if isinstance(outputs, dict):
        return {key: _shift_outputs(value, first, by_name) for key, value in outputs.items()}
    return [_shift_outputs(value, first, by_name) for value in outputs]  # type: ignore[attr-defined]


def _single(tensors: object) -> object:
    if isinstance(tensors, list) and len(tensors) == 1 and not isinstance(tensors[0], str):
        return tensors[0]
    return tensors


Number = float | list[float]

KINDS = ("TFOpLambda", "SlicingOpLambda")

_ADD = ("math.add", "__operators__.add")
_SUBTRACT = ("math.subtract", "__operators__.sub")
_MULTIPLY = ("math.multiply", "__operators__.mul")
_DIVIDE = ("math.truediv", "math.divide", "__operators__.truediv")
_ACTIVATIONS = {
    "math.sigmoid": "sigmoid",
    "nn.sigmoid": "sigmoid",
    "nn.softmax": "softmax",
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.silu": "silu",
    "nn.swish": "silu",
    "math.tanh": "tanh",
    "nn.tanh": "tanh",
}
_REVERSED = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]
_CONSTANT = "_CONSTANT_VALUE"


def keras_layer(entry: Config) -> Config | None:
    """Turns a recorded call into the entry of a layer.

    Args:
        entry: A layer of one of `KINDS`, as the file describes it.

    Returns:
        `class_name`, `config` and `inbound_nodes` of a layer that gives the same, in Keras 2's
        form; None where the call is not known.
    """
    function = entry["config"]["function"].removeprefix("keras.")
    if len(entry["inbound_nodes"]) != 1:
        return None
    first, node, tensor, arguments = entry["inbound_nodes"][0]
    given = {k: v for k, v in arguments.items() if k != "name" and v is not None}
    name = entry["config"]["name"]
    if given.keys() != {"y"}:
        return _of_one(function, name, [first, node, tensor, {}], given)
    if first == _CONSTANT:
        return _with_constant_first(function, name, _number(tensor), given["y"])
    return _of_two(function, name, [first, node, tensor, {}], given["y"])


def _of_one(function: str, name: str, source: list[Any], given: Config) -> Config | None:
    """Calls on one tensor."""
    activation = _ACTIVATIONS.get(function)
    if function.startswith("activations."):
        activation = function.partition(".")[2]
    if function == "cast" and given == {"dtype": "float32"}:
        activation, given = "linear", {}
    if activation is not None and given.get("axis", -1) == -1 and not given.keys() - {"axis"}:
        return _entry("Activation", name, [source], activation=activation)
    if function == "__operators__.getitem" and given == {"slice_spec": _REVERSED}:
        return _entry("ReverseChannels", name, [source])
    if function == "nn.bias_add" and given.get("data_format") in (None, "NHWC"):
        return _affine(name, source, offset=_number(given.get("bias")))
    return None


def _of_two(function: str, name: str, source: list[Any], other: object) -> Config | None:
    """Calls on a tensor and a number, or on two tensors."""
    if _is_tensor(other):
        return _merge(function, name, source, other)  # type: ignore[arg-type] # a list, as seen
    return _arithmetic(function, name, source, _number(other))


def _arithmetic(function: str, name: str, source: list[Any], y: Number | None) -> Config | None:
    if y is None:
        return None
    if function in _ADD:
        return _affine(name, source, offset=y)
    if function in _SUBTRACT:
        return _affine(name, source, offset=_each(y, lambda v: -v))
    if function in _MULTIPLY:
        return _affine(name, source, scale=y)
    if function in _DIVIDE:
        return _affine(name, source, scale=_each(y, lambda v: 1.0 / v))
    return None


def _with_constant_first(
    function: str, name: str, constant: Number | None, other: object
) -> Config | None:
    if constant is None or not _is_tensor(other):
        return None
    source = [*other, {}]  # type: ignore[misc] # a list of three, as was just seen
    if function in _SUBTRACT:
        return _affine(name, source, scale=-1.0, offset=constant)
    return None if function in _DIVIDE else _arithmetic(function, name, source, constant)


def _merge(function: str, name: str, source: list[Any], other: list[Any]) -> Config | None:
    kinds = {"Add": _ADD, "Subtract": _SUBTRACT, "Multiply": _MULTIPLY}
    for kind, functions in kinds.items():
        if function in functions:
            return _entry(kind, name, [source, [*other, {}]])
    return None


def _affine(
    name: str, source: list[Any], *, scale: Number | None = 1.0, offset: Number | None = 0.0
) -> Config | None:
    if scale is None or offset is None:
        return None
    return _entry("Rescaling", name, [source], scale=scale, offset=offset)


def _entry(kind: str, name: str, sources: list[list[Any]], **config: object) -> Config:
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, "trainable": False, **config},
        "inbound_nodes": [sources],
    }


def _is_tensor(value: object) -> bool:
    """Returns whether an argument is the output of a layer: its name and two numbers."""
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _number(value: object) -> Number | None:
    """A number, or a list of one for each channel."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value):
        return [float(v) for v in value]
    return None


def _each(value: Number, change: Callable[[float], float]) -> Number:
    return [change(v) for v in value] if isinstance(value, list) else change(value)
