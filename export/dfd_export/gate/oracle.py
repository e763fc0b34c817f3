"""Keras models as oracles: their outputs, and how far rounding alone moves them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_export.gate.comparison import Expected, Scale

OUTPUT = "output"
"""The name of the output of a model that does not name it."""

_ROUNDING = float(np.finfo(np.float32).eps)

Array = NDArray[Any]
Weights = tuple[list[Array], list[Array]]
Call = Callable[[list[Array], list[Array], Any], Any]


class Oracle:
    """Runs a Keras model twice: as it is, and with weights and inputs off by a rounding error.

    The second output shows how exact the first can be: an exported graph has other weights in
    the last digit too, since batch norms go into kernels, and adds in another order.

    Args:
        model: Any Keras model. It is not changed.
        seed: Seed of the rounding errors.
        compiled: Traces the model as one TensorFlow function. That pays for recurrent layers,
            which are slow step by step, and costs more than it brings for the rest.
    """

    def __init__(self, model: keras.Model, *, seed: int = 0, compiled: bool = False) -> None:
        self.model = model
        self._rng = np.random.default_rng(seed)
        self._exact: Weights = (
            _arrays(model.trainable_variables),
            _arrays(model.non_trainable_variables),
        )
        self._moved: Weights = self._move(self._exact[0]), self._move(self._exact[1])
        self._call = _compile(model) if compiled else _eager(model)

    def __call__(self, inputs: Array | Mapping[str, Array]) -> dict[str, Expected]:
        """Runs a batch of inputs.

        Args:
            inputs: As the model takes them.

        Returns:
            By name of the output (`OUTPUT` where the model names none), the values and the scale
            that they have over these inputs.
        """
        with _full_float32():
            values = _named(self._call(*self._exact, inputs))
            moved = _named(self._call(*self._moved, self._move_inputs(inputs)))
        return {
            name: Expected(value, Scale.of(value, moved[name])) for name, value in values.items()
        }

    def _move(self, arrays: list[Array]) -> list[Array]:
        return [off_by_rounding(array, self._rng) for array in arrays]

    def _move_inputs(self, inputs: Array | Mapping[str, Array]) -> Array | dict[str, Array]:
        if isinstance(inputs, Mapping):
            return {name: off_by_rounding(array, self._rng) for name, array in inputs.items()}
        return off_by_rounding(inputs, self._rng)


def off_by_rounding(array: Array, rng: np.random.Generator) -> Array:
    """The array with each number moved by up to one unit of its last digit; integers stay."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    factor = 1 + _ROUNDING * rng.uniform(-1, 1, array.shape)
    return (array * factor).astype(array.dtype)


def _arrays(variables: list[Any]) -> list[Array]:
    return [np.asarray(variable.numpy()) for variable in variables]


def _eager(model: keras.Model) -> Call:
    def call(trainable: list[Array], rest: list[Array], inputs: Any) -> Any:  # noqa: ANN401
        return model.stateless_call(trainable, rest, inputs, training=False)[0]

    return call


def _compile(model: keras.Model) -> Call:
    import tensorflow as tf  # noqa: PLC0415 - slow to import

    # Weights are arguments, so that both sets share one trace; open axes, so that all lengths do.
    signature = (
        [tf.TensorSpec(v.shape, v.dtype) for v in model.trainable_variables],
        [tf.TensorSpec(v.shape, v.dtype) for v in model.non_trainable_variables],
        {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs},
    )
    return tf.function(_eager(model), input_signature=signature, autograph=False)  # type: ignore[no-any-return]


def _named(outputs: object) -> dict[str, Array]:
    named = outputs if isinstance(outputs, dict) else {OUTPUT: outputs}
    return {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in named.items()}


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Keeps TensorFlow from rounding to 10 bits on GPUs, which it does by default."""
    import tensorflow as tf  # noqa: PLC0415

    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)
