"""MesoNet's two networks as Keras 3 feature extractors: small, of 2018, the baselines to beat.

Afchar, Nozick, Yamagishi and Echizen, "MesoNet: a Compact Facial Video Forgery Detection Network"
(WIFS 2018). Meso4: four convolutions, each with ReLU, batch norm and max pooling, then a hidden
layer of 16 with leaky ReLU, with dropout before it and after it. MesoInception4 begins with two
modules of dilated convolutions in the place of the first two. The hidden layer sees the whole map
at once; here it is a convolution as large as the map, so that features come as a map of one place.
"""

from __future__ import annotations

import keras
from keras import layers

MESONET_WIDTH = 16
"""Units of the hidden layer."""

_MESO_CONVOLUTIONS = ((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4))
"""Width, kernel and pooling of each; the paper's input of 256 pixels leaves a map of 8 x 8."""

_MESO_MODULES = ((1, 4, 4, 2), (2, 4, 4, 2))
"""Channels of each module's branches: plain, and with dilation 1, 2 and 3."""

_MESO_LEAK = 0.1
_MESO_DROPOUT = 0.5


def meso4(input_size: int) -> keras.Model:
    """Builds Meso4 up to its hidden layer, with fresh weights.

    Args:
        input_size: Height and width of the input in pixels; 256 in the paper. The hidden layer's
            weights belong to one size.

    Returns:
        A model from [B, S, S, 3] float32, RGB scaled to 0..1, to the hidden layer
        [B, 1, 1, 16].
    """
    return _mesonet(input_size, name="meso4", modules=0)


def meso_inception4(input_size: int) -> keras.Model:
    """Builds MesoInception4 up to its hidden layer, with fresh weights.

    Arguments and result are those of `meso4`.
    """
    return _mesonet(input_size, name="meso_inception4", modules=2)


def _mesonet(input_size: int, *, name: str, modules: int) -> keras.Model:
    image = keras.Input((input_size, input_size, 3), name="scaled_image")
    x = image
    for index, (width, kernel, pool) in enumerate(_MESO_CONVOLUTIONS):
        block = f"block{index}"
        if index < modules:
            x = _inception(x, _MESO_MODULES[index], name=block)
        else:
            x = layers.Conv2D(
                width, kernel, padding="same", activation="relu", name=f"{block}_conv"
            )(x)
        x = layers.BatchNormalization(name=f"{block}_bn")(x)
        x = layers.MaxPooling2D(pool, padding="same", name=f"{block}_pool")(x)
    x = layers.Dropout(_MESO_DROPOUT, name="dropout0")(x)
    x = layers.Conv2D(MESONET_WIDTH, int(x.shape[1]), padding="valid", name="hidden_conv")(x)
    x = layers.LeakyReLU(_MESO_LEAK, name="hidden_relu")(x)
    x = layers.Dropout(_MESO_DROPOUT, name="dropout1")(x)
    return keras.Model(image, x, name=name)


def _inception(
    x: keras.KerasTensor, widths: tuple[int, int, int, int], *, name: str
) -> keras.KerasTensor:
    """1x1 convolutions, three of them with a dilated 3x3 one after it, side by side."""
    branches = []
    for dilation, width in enumerate(widths):
        branch = layers.Conv2D(width, 1, activation="relu", name=f"{name}_point{dilation}")(x)
        if dilation:
            branch = layers.Conv2D(
                width,
                3,
                padding="same",
                dilation_rate=dilation,
                activation="relu",
                name=f"{name}_dilated{dilation}",
            )(branch)
        branches.append(branch)
    return layers.Concatenate(name=f"{name}_concat")(branches)
