"""Networks that people bring: chains of their own, with random weights.

A fresh network says nearly the same of every picture, and its batch norms do nothing, so that a
wrong graph would go unseen. `settle` gives it statistics and scales that matter.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops


def settle(model: keras.Model, crops: np.ndarray, seed: int = 0) -> None:
    """Random scales and offsets everywhere; batch norms take the statistics of these crops."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name = variable.path.rsplit("/", 1)[-1]
        if name == "gamma":
            variable.assign(rng.uniform(0.7, 1.4, variable.shape))
        elif name in {"beta", "bias"}:
            variable.assign(rng.uniform(-0.3, 0.3, variable.shape))
    norms = [layer for layer in model._flatten_layers() if hasattr(layer, "momentum")]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(crops.astype(np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


CHAIN_SIZE = 48
"""Input size in pixels of the networks in `CHAINS`."""


def _meso() -> list[layers.Layer]:
    """MesoNet (Afchar et al., 2018): batch norms between activation and pooling, and flattened."""
    chain: list[layers.Layer] = []
    for width, side, pool in ((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4)):
        chain += [
            layers.Conv2D(width, side, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(pool, padding="same"),
        ]
    dense = [layers.Dense(16), layers.LeakyReLU(negative_slope=0.1), layers.Dropout(0.5)]
    return [*chain, layers.Flatten(), layers.Dropout(0.5), *dense]


def _tutorial() -> list[layers.Layer]:
    """What tutorials begin with: convolutions without padding, flattened into dense layers."""
    return [
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(24, activation="relu"),
        layers.BatchNormalization(),
        layers.Dense(12, activation="relu"),
    ]


def _separable() -> list[layers.Layer]:
    """As in Xception: separable convolutions, each with a batch norm after it."""
    return [
        layers.SeparableConv2D(16, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(24, 3, strides=2, padding="same"),
        layers.BatchNormalization(),
        layers.Activation("swish"),
        layers.ZeroPadding2D(((0, 1), (0, 1))),
        layers.DepthwiseConv2D(3, strides=2, use_bias=False),
        layers.BatchNormalization(scale=False),
        layers.Activation("hard_swish"),
        layers.Conv2D(24, 3, activation="elu"),
        layers.BatchNormalization(),
        layers.Conv2D(32, 3, use_bias=False),
        layers.BatchNormalization(center=False),
        layers.ReLU(max_value=6.0),
        layers.GlobalAveragePooling2D(),
        layers.BatchNormalization(),
        layers.Dense(20, activation="relu"),
    ]


def _preactivated() -> list[layers.Layer]:
    """As in DenseNet and ResNetV2: batch norm and activation before each convolution."""
    return [
        layers.BatchNormalization(),
        layers.Conv2D(12, 3, strides=2, padding="same"),
        layers.ZeroPadding2D(1),
        layers.AveragePooling2D(3, strides=2),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(16, 3, padding="same", use_bias=False),
        layers.MaxPooling2D(),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
    ]


def _modern() -> list[layers.Layer]:
    """As in ConvNeXt: exact GELU, grouped convolutions, layer norms."""
    return [
        layers.Conv2D(12, 4, strides=4),
        layers.LayerNormalization(),
        layers.Conv2D(12, 5, padding="same", groups=4),
        layers.Dense(24),
        layers.Activation(lambda x: keras.activations.gelu(x, approximate=False)),
        layers.Conv2DTranspose(8, 2, strides=2),
        layers.GroupNormalization(4),
        layers.GlobalMaxPooling2D(),
    ]


CHAINS = {
    "meso": _meso,
    "tutorial": _tutorial,
    "separable": _separable,
    "preactivated": _preactivated,
    "modern": _modern,
}
"""By name, the layers from scaled pixels to features."""


def chain_model(name: str) -> keras.Model:
    """A frame model without evidence around one of `CHAINS`."""
    image = keras.Input((CHAIN_SIZE, CHAIN_SIZE, 3), name="image")
    scaled = layers.Rescaling(1 / 127.5, -1)(image)
    features = keras.Sequential(CHAINS[name](), name=name)(scaled)
    logit = ops.squeeze(layers.Dense(1)(features), axis=-1)
    return keras.Model(image, {"features": features, "fake_logit": logit}, name=f"frame_{name}")
