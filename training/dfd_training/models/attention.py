"""The attention head: each step looks back over a window of the last steps, never ahead."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from dfd_edge.errors import UsageError
from dfd_training.models.recurrent import verdict

_WIDTH = 64
_ATTENTION_HEADS = 4
_WINDOW = 20
"""Four seconds at 5 Hz."""

_OUT_OF_SIGHT = -1e9


@keras.saving.register_keras_serializable("dfd_training")
class WindowAttention(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Causal self-attention over a window of steps, added to what it reads.

    Step t attends to the steps t - window + 1 to t, as far as they are there and real. How far
    back a step lies counts through a learnt number per head and distance (relative position
    bias: Shaw et al., NAACL 2018, in the form of Raffel et al., JMLR 2020). Time and memory grow
    with the number of steps, not with its square.

    Args:
        heads: Attention heads; they share the channels evenly.
        window: K, how many steps one attends to, itself included.
    """

    def __init__(self, heads: int = _ATTENTION_HEADS, window: int = _WINDOW, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        if heads < 1 or window < 1:
            raise UsageError(f"heads is {heads} and window {window}; each is 1 or more")
        self.heads = heads
        self.window = window
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for steps [B, T, C].

        Raises:
            UsageError: The heads cannot share the channels evenly.
        """
        width = input_shape[-1]
        assert width is not None
        if width % self.heads:
            raise UsageError(f"{width} channels cannot be shared by {self.heads} heads evenly")
        shape = (width, width)
        self.query_kernel = self.add_weight(name="query_kernel", shape=shape)
        self.query_bias = self.add_weight(name="query_bias", shape=(width,), initializer="zeros")
        # A bias of the keys would add the same to all scores of a step, and one of the values
        # would be a second one of the output.
        self.key_kernel = self.add_weight(name="key_kernel", shape=shape)
        self.value_kernel = self.add_weight(name="value_kernel", shape=shape)
        self.output_kernel = self.add_weight(name="output_kernel", shape=shape)
        self.output_bias = self.add_weight(name="output_bias", shape=(width,), initializer="zeros")
        self.relative_bias = self.add_weight(
            name="relative_bias", shape=(self.window, self.heads), initializer="zeros"
        )
        super().build(input_shape)

    def call(
        self, x: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Maps steps [B, T, C] to [B, T, C]; where mask [B, T] is False, nobody attends."""
        width = x.shape[-1]
        split = (*ops.shape(x)[:2], -1, self.heads, width // self.heads)
        query = ops.matmul(x, self.query_kernel) + self.query_bias
        key, value = ops.matmul(x, self.key_kernel), ops.matmul(x, self.value_kernel)
        real = ops.ones_like(x[..., 0], dtype="bool") if mask is None else mask
        # Of each step its window, [B, T, K, heads, C / heads], the oldest step first.
        keys = ops.reshape(self._windows(key), split)
        values = ops.reshape(self._windows(value), split)
        in_sight = self._windows(ops.cast(real, "int32")[..., None]) > 0
        query = ops.reshape(query, split) / (width // self.heads) ** 0.5
        scores = ops.sum(query * keys, axis=-1) + self.relative_bias
        weights = ops.softmax(ops.where(in_sight, scores, _OUT_OF_SIGHT), axis=2)
        seen = ops.sum(weights[..., None] * values, axis=2)
        seen = ops.reshape(seen, ops.shape(x))
        return x + ops.matmul(seen, self.output_kernel) + self.output_bias

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], **_: object
    ) -> tuple[int | None, ...]:
        """Returns the shape that went in."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "heads": self.heads, "window": self.window}

    def _windows(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """From [B, T, C] to [B, T, K, C]: of each step the K steps up to it, zeros before all."""
        steps = ops.arange(ops.shape(x)[1])[:, None] + ops.arange(self.window)
        before = [[0, 0], [self.window - 1, 0], [0, 0]]
        return ops.take(ops.pad(x, before), steps, axis=1)


def attention_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """Dense(64), attention over 20 steps, layer norm, dropout, dense(32), dropout, one logit.

    Arguments and result are those of `gru_head`. A logit knows the last 20 steps and no older.
    """
    x = layers.Dense(_WIDTH, name="project")(features)
    x = WindowAttention(name="attention")(x, mask=mask)
    return verdict(layers.LayerNormalization(name="norm")(x), dropout)
