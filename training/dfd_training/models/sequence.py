"""The sequence model: the features of a clip's steps to a logit after each of them."""

from __future__ import annotations

import keras

from dfd_edge.errors import UsageError
from dfd_training.models.registry import HEADS


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
