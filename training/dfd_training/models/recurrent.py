"""Recurrent heads: from a clip's features to a logit after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import layers, ops


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
    return verdict(_stack(layers.GRU, (64, 32, 16), features, mask), dropout)


def gru_small_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """GRU(16), batch norm, GRU(8), then as `gru_head` with dense(8): a quarter of its weights."""
    return verdict(_stack(layers.GRU, (16, 8), features, mask), dropout, width=8)


def gru_single_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """GRU(64), then as `gru_head`."""
    return verdict(_stack(layers.GRU, (64,), features, mask), dropout)


def lstm_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """As `gru_head`, with an LSTM in the place of each GRU."""
    return verdict(_stack(layers.LSTM, (64, 32, 16), features, mask), dropout)


def verdict(x: keras.KerasTensor, dropout: float, *, width: int = 32) -> keras.KerasTensor:
    """Dropout, a dense layer, dropout, and one logit of each step: [B, T, C] to [B, T]."""
    x = layers.Dropout(dropout, name="dropout0")(x)
    x = layers.Dense(width, activation="relu", name="dense")(x)
    x = layers.Dropout(dropout, name="dropout1")(x)
    x = layers.Dense(1, name="logit")(x)
    return ops.squeeze(x, axis=-1)


def _stack(
    cell: Callable[..., keras.layers.RNN],
    widths: Sequence[int],
    x: keras.KerasTensor,
    mask: keras.KerasTensor,
) -> keras.KerasTensor:
    """Recurrent layers one after the other, a batch norm between two of them."""
    kind = cell.__name__.lower()
    for index, width in enumerate(widths):
        x = cell(width, return_sequences=True, name=f"{kind}{index}")(x, mask=mask)
        if index < len(widths) - 1:
            x = layers.BatchNormalization(name=f"{kind}{index}_bn")(x, mask=mask)
    return x
