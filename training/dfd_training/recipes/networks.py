"""The networks of the CNN-RNN recipe: a frozen CNN with a linear probe, and heads behind it.

The recipe is Keras' example "Video classification with a CNN-RNN architecture" (2021), as notebooks
on the Deepfake Detection Challenge took it over: with its two small GRUs, with three larger ones
for a live program, or with attention. A new head is one entry of `HEADS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dfd_edge.errors import UsageError
from dfd_training.models import EvidenceHead, build_frame_model, build_sequence_model

PROBE_C = 0.01
"""Inverse strength of the probe's L2 penalty: there are more features than clips."""


def build_frozen_cnn(*, backbone: str, size: int, weights: str, seed: int = 0) -> keras.Model:
    """Builds the CNN, average pooled, with a linear probe that is still to be fitted.

    Args:
        backbone: A name in the registry of backbones.
        size: Side of its pictures in pixels.
        weights: Weights as for `build_frame_model`.
        seed: Seed of random weights.

    Returns:
        A model from `image` [B, S, S, 3], RGB 0..255, to `features` [B, F] and `fake_logit` [B].

    Raises:
        UsageError: The backbone is unknown, the size too small, or the weights cannot be had.
    """
    keras.utils.set_random_seed(seed)
    whole = build_frame_model(backbone=backbone, input_size=size, weights=weights, dropout=0.0)
    outputs = {name: whole.output[name] for name in ("features", "fake_logit")}
    model = keras.Model(whole.input, outputs, name=f"frozen_{backbone}")
    model.trainable = False
    return model


def hash_of_weights(model: keras.Model) -> str:
    """Returns the SHA-256 of the weights that features depend on, without those of the probe."""
    digest = hashlib.sha256()
    probe = {id(variable) for variable in _probe(model).weights}
    for variable in model.weights:
        if id(variable) not in probe:
            digest.update(f"{variable.path} {tuple(variable.shape)}".encode())
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def fit_probe(
    model: keras.Model, features: list[NDArray[np.float32]], fake: NDArray[np.bool_]
) -> None:
    """Fits the logit of single frames: logistic regression on the features of training clips.

    Features are standardised for the fit, and the standardisation is folded into the weights.
    Both classes weigh the same, and each clip as much as any other.

    Args:
        model: A model from `build_frozen_cnn`; receives the weights.
        features: float32 [T, F] of each clip.
        fake: bool, of each clip; both kinds.
    """
    lengths = np.array([len(part) for part in features])
    rows = np.concatenate(features).astype(np.float64)
    truth = np.repeat(fake, lengths)
    scaler = StandardScaler().fit(rows)
    regression = LogisticRegression(C=PROBE_C, class_weight="balanced", max_iter=500)
    weight = np.repeat(1.0 / lengths, lengths) * lengths.mean()
    regression.fit(scaler.transform(rows), truth, sample_weight=weight)
    kernel = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0]) - float(kernel @ scaler.mean_)
    _probe(model).set_weights([kernel[:, None].astype(np.float32), np.array([bias], np.float32)])


def probe_logits(model: keras.Model, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes the probe's logits of features [T, F]: float32 [T]."""
    kernel, bias = (ops.convert_to_numpy(variable) for variable in _probe(model).weights)
    return np.asarray(features @ kernel[:, 0] + bias[0], np.float32)


def build_rnn(*, feature_width: int, dropout: float = 0.4) -> keras.Model:
    """Builds GRU(16), GRU(8), dropout, dense(8), one logit, as a sequence model.

    Args:
        feature_width: F.
        dropout: Share of values dropped in training.

    Returns:
        A model from a dict of `features` [B, T, F] and `mask` [B, T] bool (True = a real step) to
        `fake_logit` [B, T]; the published network's answer is that after the last real step.
    """
    features = keras.Input((None, feature_width), dtype="float32", name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = layers.GRU(16, return_sequences=True, name="gru0")(features, mask=mask)
    x = layers.GRU(8, return_sequences=True, name="gru1")(x, mask=mask)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(8, activation="relu", name="dense")(x)
    logits = ops.squeeze(layers.Dense(1, name="logit")(x), axis=-1)
    return keras.Model({"features": features, "mask": mask}, logits, name="sequence_cnn_rnn")


@dataclass(frozen=True, slots=True)
class Head:
    """A network over the features of a clip.

    Attributes:
        build: From `feature_width` and `dropout` to a model as `build_rnn` builds it.
        layers: Its layers in words, for the card.
    """

    build: Callable[..., keras.Model]
    layers: str


HEADS = {
    "small": Head(build_rnn, "GRU(16), GRU(8), dropout {dropout:g}, dense(8) and a sigmoid"),
    "live": Head(
        partial(build_sequence_model, head="gru"),
        "GRU(64), batch norm, GRU(32), batch norm, GRU(16), dropout {dropout:g}, dense(32), dropout"
        " and a sigmoid",
    ),
    "attention": Head(
        partial(build_sequence_model, head="attention"),
        "dense(64), causal self-attention over 20 steps, layer norm, dropout {dropout:g}, "
        "dense(32), dropout and a sigmoid",
    ),
}


def head_named(name: str) -> Head:
    """Returns the head of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in HEADS:
        raise UsageError(f"head {name!r:.40} is unknown; known are {', '.join(HEADS)}")
    return HEADS[name]


def last_logit_model(rnn: keras.Model) -> keras.Model:
    """Builds the published network around the same weights: one logit per clip, [B, 1]."""
    features, mask = rnn.input["features"], rnn.input["mask"]
    last = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True) - 1
    logit = ops.take_along_axis(rnn.output, last, axis=1)
    return keras.Model({"features": features, "mask": mask}, logit, name="cnn_rnn")


def _probe(model: keras.Model) -> EvidenceHead:
    return next(layer for layer in model.layers if isinstance(layer, EvidenceHead))
