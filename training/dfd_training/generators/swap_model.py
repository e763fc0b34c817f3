"""The swap autoencoder: one encoder for everybody, a decoder that paints the person asked for.

The plan of the swap tools since 2017 (one encoder, a decoder for each person), with a decoder
that a person's embedding modulates (Perez et al., "FiLM", 2018), so that a hundred people share
what they have in common. The encoder's code is narrow: expression, gaze and light pass, the
person does not. Contours of the face show the decoder where eyes and mouth are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

FACE_SIDE = 96
MAP_SIDE = 48


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """Sizes of the network.

    Attributes:
        people: the decoder's persons.
        code: width of the encoder's code.
        widths: channels of the decoder at 6, 12, 24 and 48 pixels.
    """

    people: int
    code: int = 64
    widths: tuple[int, int, int, int] = (128, 96, 64, 40)


@keras.saving.register_keras_serializable(package="dfd_training")
class PixelShuffle(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Turn channels into pixels (Shi et al., 2016): [b, h, w, 4 c] to [b, 2 h, 2 w, c]."""

    def call(self, inputs: Any) -> Any:  # noqa: ANN401 - a tensor of any backend
        """Rearrange."""
        _, height, width, depth = inputs.shape
        channels = depth // 4
        parts = ops.reshape(inputs, (-1, height, width, 2, 2, channels))
        parts = ops.transpose(parts, (0, 1, 3, 2, 4, 5))
        return ops.reshape(parts, (-1, 2 * height, 2 * width, channels))


def build_swap_model(plan: SwapPlan) -> keras.Model:
    """Build the autoencoder.

    Inputs: `face` float32 [b, 96, 96, 3], RGB in 0..1, of anybody; `map` float32 [b, 48, 48, 3],
    contours of the face to paint, in 0..1; `person` int32 [b]. Output: float32 [b, 96, 96, 3],
    RGB, about 0..1.
    """
    face = keras.Input((FACE_SIDE, FACE_SIDE, 3), name="face")
    contours = keras.Input((MAP_SIDE, MAP_SIDE, 3), name="map")
    person = keras.Input((), dtype="int32", name="person")

    values = layers.AveragePooling2D(2)(face)
    for width in (32, 64, 96):
        values = layers.Conv2D(width, 4, strides=2, padding="same")(values)
        values = layers.LeakyReLU(0.1)(values)
    code = layers.Dense(plan.code, name="code")(layers.Flatten()(values))

    traits = layers.Embedding(plan.people, 64, name="traits")(person)
    start = 6
    values = layers.Dense(start * start * plan.widths[0])(layers.Concatenate()([code, traits]))
    values = layers.Reshape((start, start, plan.widths[0]))(values)
    look = layers.Embedding(plan.people, 12 * 12 * 16, name="look")(person)
    look = layers.Reshape((12, 12, 16))(look)
    for number, width in enumerate(plan.widths[1:]):
        values = layers.Conv2D(4 * width, 3, padding="same")(values)
        values = PixelShuffle()(values)
        side = values.shape[1]
        shown = (
            contours if side == MAP_SIDE else layers.AveragePooling2D(MAP_SIDE // side)(contours)
        )
        parts = [values, shown, look] if number == 0 else [values, shown]
        values = layers.Concatenate()(parts)
        values = layers.Conv2D(width, 3 if number < 2 else 1, padding="same")(values)
        values = _modulate(values, traits)
    values = layers.Conv2D(12, 3, padding="same", bias_initializer=_HALF)(values)
    painted = PixelShuffle(name="painted")(values)
    return keras.Model({"face": face, "map": contours, "person": person}, painted)


_HALF = keras.initializers.Constant(0.5)


def _modulate(values: Any, traits: Any) -> Any:  # noqa: ANN401 - tensors of any backend
    width = values.shape[-1]
    scale = layers.Reshape((1, 1, width))(layers.Dense(width)(traits))
    shift = layers.Reshape((1, 1, width))(layers.Dense(width)(traits))
    values = layers.Add()([values, layers.Multiply()([values, scale]), shift])
    return layers.LeakyReLU(0.1)(values)


def painting_loss(truth: Any, painted: Any) -> Any:  # noqa: ANN401 - tensors of any backend
    """Weighted L1, L1 of edges and structural dissimilarity (Wang et al., 2004).

    Args:
        truth: float32 [b, h, w, 4]: RGB in 0..1, and what a pixel counts.
        painted: float32 [b, h, w, 3].
    """
    wanted, weight = truth[..., :3], truth[..., 3:]
    error = ops.mean(weight * ops.abs(wanted - painted))
    edges = 0.0
    for axis in (1, 2):
        before = _differences(wanted, axis) - _differences(painted, axis)
        edges = edges + ops.mean(weight[:, :-1, :-1] * ops.abs(before))
    return 2.0 * error + 2.0 * edges + 0.5 * ops.mean(_dissimilarity(wanted, painted))


def _differences(picture: Any, axis: int) -> Any:  # noqa: ANN401
    if axis == 1:
        return picture[:, 1:, :-1] - picture[:, :-1, :-1]
    return picture[:, :-1, 1:] - picture[:, :-1, :-1]


def _dissimilarity(first: Any, second: Any) -> Any:  # noqa: ANN401
    first, second = ops.mean(first, -1, keepdims=True), ops.mean(second, -1, keepdims=True)
    moments = ops.concatenate(
        [first, second, first * first, second * second, first * second], axis=-1
    )
    averages = ops.average_pool(moments, 7, strides=2, padding="valid")
    mean_1, mean_2 = averages[..., 0], averages[..., 1]
    spread_1 = averages[..., 2] - mean_1 * mean_1
    spread_2 = averages[..., 3] - mean_2 * mean_2
    shared = averages[..., 4] - mean_1 * mean_2
    likeness = (2 * mean_1 * mean_2 + 1e-4) * (2 * shared + 9e-4)
    likeness = likeness / (
        (mean_1 * mean_1 + mean_2 * mean_2 + 1e-4) * (spread_1 + spread_2 + 9e-4)
    )
    return 1.0 - likeness
