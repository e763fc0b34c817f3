"""The sequence model of a CNN that stands alone: the mean of its frame logits so far."""

from __future__ import annotations

import keras

from dfd_edge.errors import UsageError
from dfd_export.published.ending import Weights
from dfd_training.models import EvidenceHead
from dfd_training.models.sequence import RunningMean


def mean_model(kernel: Weights, bias: Weights) -> keras.Model:
    """Builds it of the weights of the CNN's verdict.

    Args:
        kernel: [F, 1].
        bias: [1].

    Returns:
        A model from a dict of `features` [B, T, F] and `mask` [B, T] to logits [B, T].
    """
    features = keras.Input((None, len(kernel)), dtype="float32", name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    logit = keras.layers.Dense(1, name="logit")
    mean = RunningMean(name="mean")(logit(features), mask=mask)
    logit.set_weights([kernel, bias])
    logits = keras.ops.squeeze(mean, axis=-1)
    return keras.Model({"features": features, "mask": mask}, logits, name="sequence_mean")


def verdict_weights(frame_model: keras.Model) -> tuple[Weights, Weights]:
    """Kernel [F, 1] and bias [1] of a frame model's logit, as `dfd-train` fits it.

    Raises:
        UsageError: The model ends otherwise.
    """
    for layer in frame_model.layers:
        if isinstance(layer, EvidenceHead):
            kernel, bias = (keras.ops.convert_to_numpy(v) for v in (layer.kernel, layer.bias))
            return kernel, bias
    raise UsageError(
        f"frame model {frame_model.name}: has no evidence head whose logits could be averaged: "
        "give a SEQUENCE"
    )
