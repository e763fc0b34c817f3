"""The recurrent head: from a clip's features to a logit after every step."""

from __future__ import annotations

import keras
from keras import layers, ops

_GRU_WIDTHS = (64, 32, 16)
_DENSE_WIDTH = 32


def gru_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """GRU(64), batch norm, GRU(32), batch norm, GRU(16), dropout, dense(32), dropout, one logit.

    Args:
        features: [B, T, F] float32.
        mask: [B, T] bool, True where the step is real; padding moves neither the states nor the
            batch norms' statistics.
        dropout: Share of values dropped before and after the dense layer.

    Returns:
        Logits [B, T], higher = more fake; the value after a padded step is without meaning.
    """
    x = features
    for index, width in enumerate(_GRU_WIDTHS):
        x = layers.GRU(width, return_sequences=True, name=f"gru{index}")(x, mask=mask)
        if index < len(_GRU_WIDTHS) - 1:
            x = layers.BatchNormalization(name=f"gru{index}_bn")(x, mask=mask)
    x = layers.Dropout(dropout, name="dropout0")(x)
    x = layers.Dense(_DENSE_WIDTH, activation="relu", name="dense")(x)
    x = layers.Dropout(dropout, name="dropout1")(x)
    x = layers.Dense(1, name="logit")(x)
    return ops.squeeze(x, axis=-1)
