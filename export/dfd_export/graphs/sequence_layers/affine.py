"""Linear maps of each step, put together before they are written: batch norms cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """x @ kernel + bias over the last axis.

    Attributes:
        name: The layer that it comes from, for the names of its constants.
        kernel: [in, out]; or [C], a factor for each channel.
        bias: [out].
    """

    name: str
    kernel: Array
    bias: Array

    @classmethod
    def of(cls, layer: keras.layers.BatchNormalization) -> Affine:
        """The map that a batch norm is in inference."""
        scale = 1.0 / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            scale = scale * as_array(layer.gamma)
        shift = -as_array(layer.moving_mean) * scale
        return cls(layer.name, scale, shift + as_array(layer.beta) if layer.center else shift)

    @property
    def per_channel(self) -> bool:
        """Tells whether no channel goes into another."""
        return self.kernel.ndim == 1

    def after(self, first: Affine | None) -> Affine:
        """This map, which is per channel, applied to the result of `first`."""
        if first is None:
            return self
        return Affine(first.name, first.kernel * self.kernel, first.bias * self.kernel + self.bias)

    def into(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Kernel [C, out] and bias [out] that do this map's work first; it is per channel."""
        return kernel * self.kernel[:, None], bias + self.bias @ kernel


def as_array(variable: Any) -> Array:  # noqa: ANN401 - a Keras variable
    """A variable's value, float64: foldings round once, when they are written."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
