"""Graphs of Keras models: their calls, with models inside models taken apart, and their heads."""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_export.foreign.refusals import refuse

INERT = frozenset({
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout", "Equalization",
    "GaussianDropout", "GaussianNoise", "Identity", "MixUp", "RandAugment", "RandomBrightness",
    "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform",
    "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHeight",
    "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomWidth",
    "RandomZoom", "Solarization", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "StochasticDepth",
})  # fmt: skip
"""Layers that do something in training only."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A layer or operation at one place of a graph.

    Attributes:
        layer: The layer; its weights are the model's own.
        inputs: The tensors it is called on, masks among them.
        arguments: The keyword arguments of the call.
        output: The tensor that comes out.
    """

    layer: Any
    inputs: list[keras.KerasTensor]
    arguments: dict[str, Any]
    output: keras.KerasTensor

    @property
    def kind(self) -> str:
        """The class of the layer."""
        return type(self.layer).__name__


def inputs_of(model: keras.Model) -> Any:  # noqa: ANN401 - tensors, nested as the model's
    """The inputs of a model, nested as it takes them; a sequential one has no such property."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def unique_name(name: str, taken: set[str]) -> str:
    """A name that is not taken yet; it then is."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique


def replay(
    model: keras.Model,
    inputs: Any,  # noqa: ANN401 - tensors, nested as the model's
    *,
    reserved: Collection[str] = (),
) -> keras.KerasTensor:
    """Calls a model's layers one by one on other tensors.

    Layers of models inside are called as if they stood in the outer one, so that every tensor in
    between can be had, and layers that do nothing in inference are left out.

    Names of layers become unique, as a model without models inside needs them.

    Args:
        model: A functional or sequential model of one output.
        inputs: Tensors, nested as the model's inputs are.
        reserved: Names that no layer may have.

    Returns:
        The model's output.
    """
    (output,) = keras.tree.flatten(_replay(model, inputs))
    taken = set(reserved)
    for layer in dict.fromkeys(call.layer for call in calls_before(output)):
        layer.name = unique_name(layer.name, taken)
    return output


def _replay(model: keras.Model, inputs: Any) -> Any:  # noqa: ANN401 - see `replay`
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Keras has it
        if isinstance(layer, keras.Model):
            return _replay(layer, args[0])
        if type(layer).__name__ in INERT:
            return args[0]
        return layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            inputs = call(layer, inputs)
        return inputs
    # `keras.models.clone_model` does the same, but its outputs belong to a model of their own.
    return model._run_through_graph(inputs, operation_fn=lambda layer: layer, call_fn=call)


def calls_before(output: keras.KerasTensor) -> list[Call]:
    """Every call that a tensor depends on, inputs of the graph excluded, each after its own."""
    found: list[Call] = []
    seen: set[int] = set()
    waiting = [(output, False)]
    while waiting:
        tensor, done = waiting.pop()
        call = _call_that_made(tensor)
        if call is None or (id(tensor) in seen and not done):
            continue
        if done:
            found.append(call)
            continue
        seen.add(id(tensor))
        waiting.append((tensor, True))
        waiting.extend((source, False) for source in call.inputs)
    return found


def backwards(output: keras.KerasTensor) -> Iterator[Call]:
    """The calls from a tensor back to an input, along the first tensor of each."""
    tensor = output
    while (call := _call_that_made(tensor)) is not None:
        yield call
        tensor = call.inputs[0]


def _call_that_made(tensor: keras.KerasTensor) -> Call | None:
    """Returns the call that made a tensor; None for an input of the graph."""
    layer, node_index, _ = tensor._keras_history
    node = layer._inbound_nodes[node_index]
    if not node.input_tensors:
        return None
    return Call(layer, list(node.input_tensors), dict(node.arguments.kwargs), tensor)


Weights = NDArray[np.float32]

_REGRESSIONS = {
    "mse", "mae", "mape", "msle", "mean_squared_error", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "huber", "huber_loss",
    "log_cosh", "logcosh", "cosine_similarity", "MeanSquaredError", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "Huber", "LogCosh",
    "CosineSimilarity",
}  # fmt: skip
_SAME_VALUES = {"Flatten", "Reshape", "Squeeze"}
"""Operations that change the shape of one or two numbers at most."""


class Classes(enum.StrEnum):
    """The order of a model's two classes; of one number, what 0 and 1 mean."""

    REAL_FAKE = "real,fake"
    FAKE_REAL = "fake,real"


class HeadForm(enum.StrEnum):
    """The form of a model's last layer."""

    SIGMOID = "a sigmoid"
    SOFTMAX = "a softmax of two classes"
    LOGIT = "a logit"
    LOGITS = "two logits"


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierHead:
    """The verdict at a model's end.

    Attributes:
        dense: The dense layer whose sums the verdict is made of.
        features: The input of that layer, [B, F].
        form: The form of its output.
    """

    dense: keras.layers.Dense
    features: keras.KerasTensor
    form: HeadForm

    def weights(self, classes: Classes) -> tuple[Weights, Weights]:
        """Kernel [F, 1] and bias [1] of the logit, higher = more fake.

        The difference of two classes' sums is the logit of their softmax.
        """
        kernel, bias = _weights(self.dense)
        if kernel.shape[1] == 2:
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        sign = np.float32(1 if classes is Classes.REAL_FAKE else -1)
        return kernel * sign, bias * sign


def find_head(path: Path, output: keras.KerasTensor, *, loss: str) -> ClassifierHead | None:
    """Finds the verdict at a model's end.

    Args:
        path: The file, for messages.
        output: The model's output.
        loss: The loss that it was trained with, where the file has it.

    Returns:
        None for a model that ends in features.

    Raises:
        UsageError: It ends in something else than one verdict real or fake.
    """
    after = "linear"
    for call in backwards(output):
        if call.kind == "Dense":
            own = _activation(call) or "linear"
            if "linear" not in (own, after):
                problem = f"has {own}, and then comes {after}: a verdict has one of them"
                raise refuse(path, call.layer.name, call.kind, problem)
            return _verdict(path, call, own if after == "linear" else after, loss)
        if call.kind in _SAME_VALUES and _width(call.output) <= 2:
            continue
        activation = _activation(call)
        if activation is None or after != "linear":
            break
        after = activation
    if _width(output) <= 2:
        last = next(backwards(output), None)
        name, kind = (last.layer.name, last.kind) if last else (output.name, "InputLayer")
        problem = "gives the verdict, but only that of a Dense layer can be taken over: end in one"
        raise refuse(path, name, kind, problem)
    return None


def _verdict(path: Path, call: Call, activation: str, loss: str) -> ClassifierHead | None:
    dense, features = call.layer, call.inputs[0]
    if dense.units > 2 and activation not in ("softmax", "sigmoid"):
        return None
    if problem := _problem(dense.units, activation, loss, rank=len(features.shape)):
        raise refuse(path, dense.name, "Dense", problem)
    forms = {
        (1, "sigmoid"): HeadForm.SIGMOID,
        (2, "softmax"): HeadForm.SOFTMAX,
        (1, "linear"): HeadForm.LOGIT,
        (2, "linear"): HeadForm.LOGITS,
    }
    return ClassifierHead(dense, features, forms[dense.units, activation])


def _problem(units: int, activation: str, loss: str, *, rank: int) -> str | None:
    problems = {
        f"gives {units} classes; a verdict has real and fake: train a model of those two": units
        > 2,
        "gives a verdict for each place of a map: pool the map before it": rank != 2,
        "ends in a softmax of one number, which is 1 for every picture: it says nothing": (
            (units, activation) == (1, "softmax")
        ),
        "ends in two sigmoids that need not add up to 1: end in a softmax, or in one sigmoid": (
            (units, activation) == (2, "sigmoid")
        ),
        f"ends in {activation}, which is no probability: end in a sigmoid or a softmax": (
            activation not in ("sigmoid", "softmax", "linear")
        ),
        f"was trained to hit a number (loss {loss}), not to tell two classes apart": (
            activation == "linear" and loss in _REGRESSIONS
        ),
    }
    return next((text for text, holds in problems.items() if holds), None)


def _activation(call: Call) -> str | None:
    """Name of the function that a call applies to each number (or row); None if it does more."""
    if call.kind in ("Softmax", "Sigmoid"):
        return call.kind.lower()
    if call.kind not in ("Activation", "Dense"):
        return None
    function = call.layer.activation
    return str(getattr(function, "__name__", type(function).__name__))


def _width(tensor: keras.KerasTensor) -> int:
    """Numbers in a row; 3 where they are not known, which is as good as many."""
    return math.prod(3 if side is None else side for side in tensor.shape[1:])


def _weights(dense: keras.layers.Dense) -> tuple[Weights, Weights]:
    kernel = np.asarray(keras.ops.convert_to_numpy(dense.kernel), np.float32)
    if not dense.use_bias:
        return kernel, np.zeros(kernel.shape[1], np.float32)
    return kernel, np.asarray(keras.ops.convert_to_numpy(dense.bias), np.float32)
