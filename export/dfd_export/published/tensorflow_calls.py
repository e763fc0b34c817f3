"""TensorFlow calls inside Keras 2 models, as the Keras layers that do the same.

Keras 2 recorded `preprocess_input(x)`, `x / 255` or `tf.nn.sigmoid(x)` as layers of the kinds
`TFOpLambda` and `SlicingOpLambda`: the name of a TensorFlow function with its arguments. Keras 3
knows neither kind. No function is looked up by the name in the file: those below are known, any
other is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]
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
    """Tells whether an argument is the output of a layer: its name and two numbers."""
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
