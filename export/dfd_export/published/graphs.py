"""The graph of a model as one chain of calls, models inside models taken apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import keras

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
        layer: What is called; its weights are the model's own.
        inputs: The tensors it is called on, masks among them.
        arguments: The keyword arguments of the call.
        output: What comes out.
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
    """None for an input of the graph."""
    layer, node_index, _ = tensor._keras_history
    node = layer._inbound_nodes[node_index]
    if not node.input_tensors:
        return None
    return Call(layer, list(node.input_tensors), dict(node.arguments.kwargs), tensor)
