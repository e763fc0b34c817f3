"""The mean head: what frames alone say, averaged. The baseline that a recurrent head must beat."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("dfd_training")
class RunningMean(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """The mean over the steps so far, padding left out: [B, T, C] to [B, T, C]."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(
        self, x: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Averages over real steps; mask is [B, T], False on padding."""
        real = ops.ones_like(x[..., :1], dtype="bool") if mask is None else mask[..., None]
        total = ops.cumsum(ops.where(real, x, 0.0), axis=1)
        count = ops.cumsum(ops.cast(real, x.dtype), axis=1)
        return total / ops.maximum(count, 1.0)


def mean_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """Dropout, a logit of each step alone, and the mean of those so far.

    Arguments and result are those of `gru_head`.
    """
    x = layers.Dropout(dropout, name="dropout0")(features)
    x = layers.Dense(1, name="logit")(x)
    return ops.squeeze(RunningMean(name="mean")(x, mask=mask), axis=-1)
