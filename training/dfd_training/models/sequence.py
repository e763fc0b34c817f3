"""The sequence model: the features of a clip's steps to a logit after each of them."""

from __future__ import annotations

from collections.abc import Callable

import keras

from dfd_edge.errors import UsageError
from dfd_training.models.attention import attention_head
from dfd_training.models.pooling import mean_head
from dfd_training.models.recurrent import gru_head, gru_single_head, gru_small_head, lstm_head

HeadLayers = Callable[[keras.KerasTensor, keras.KerasTensor, float], keras.KerasTensor]
"""From features [B, T, F], mask [B, T] (True = a real step) and dropout to logits [B, T]."""

HEADS: dict[str, HeadLayers] = {
    "gru": gru_head,
    "gru_small": gru_small_head,
    "gru_single": gru_single_head,
    "lstm": lstm_head,
    "attention": attention_head,
    "mean": mean_head,
}
"""All of them causal: a logit depends on no later step, and padding behind the end on nothing."""


def build_sequence_model(
    *, feature_width: int, head: str = "gru", dropout: float = 0.3
) -> keras.Model:
    """Builds the sequence model.

    Args:
        feature_width: F, the width of the frame model's features.
        head: A name in `HEADS`.
        dropout: Share of values dropped in training.

    Returns:
        A model from a dict of `features` [B, T, F] float32 and `mask` [B, T] bool (True = a real
        step, False = padding after the end) to `fake_logit` [B, T] float32, the verdict after
        each step (higher = more fake).

    Raises:
        UsageError: The head is unknown or a number is out of range.
    """
    if head not in HEADS:
        raise UsageError(f"head {head!r} is unknown; known are {', '.join(sorted(HEADS))}")
    if feature_width < 1:
        raise UsageError(f"feature width {feature_width} is out of range; 1 or more")
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout {dropout} is out of range; 0 or more and below 1")
    features = keras.Input((None, feature_width), dtype="float32", name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    logits = HEADS[head](features, mask, dropout)
    return keras.Model({"features": features, "mask": mask}, logits, name=f"sequence_{head}")
