"""Small networks that are trained from scratch: the tutorials' CNN, and MesoNet's two.

The CNN that tutorials on deepfakes begin with: two 5x5 convolutions of 32 channels and two 3x3 ones
of 64, each pair followed by max pooling, then a hidden layer of 128. Flattened, the hidden layer
sees the whole map at once and holds nearly all of the weights. With global pooling it is applied at
each place of the map, and the mean is taken after it: 1 % of the weights, an evidence map, any
input size.

Meso4 and MesoInception4 (Afchar, Nozick, Yamagishi and Echizen, "MesoNet: a Compact Facial Video
Forgery Detection Network", WIFS 2018): four convolutions, each with ReLU, batch norm and max
pooling, then a hidden layer of 16 with leaky ReLU between two dropouts. MesoInception4 begins with
two modules of dilated convolutions instead. The hidden layer, which sees the whole map, is a
convolution as large as the map, so that features come as a map of one place.
"""

from __future__ import annotations

import keras
from keras import layers

CUSTOM_CNN_WIDTH = 128
"""Units of the hidden layer."""

_CUSTOM_CNN_PAIRS = ((32, 5), (64, 3))
"""Width and kernel of each pair of convolutions."""


def custom_cnn(input_size: int) -> keras.Model:
    """Builds the network for global pooling, with fresh weights.

    Args:
        input_size: Height and width of the input in pixels.

    Returns:
        A model from [B, S, S, 3] float32, RGB scaled to 0..1, to the hidden layer at each place,
        [B, S / 4, S / 4, 128].
    """
    return _custom_cnn(input_size, name="custom_cnn", flatten=False)


def custom_cnn_flatten(input_size: int) -> keras.Model:
    """Builds the flattened network, with fresh weights.

    Args:
        input_size: Height and width of the input in pixels. The hidden layer's weights belong to
            one size.

    Returns:
        A model from [B, S, S, 3] float32, RGB scaled to 0..1, to the hidden layer, [B, 1, 1, 128].
    """
    return _custom_cnn(input_size, name="custom_cnn_flatten", flatten=True)


def _custom_cnn(input_size: int, *, name: str, flatten: bool) -> keras.Model:
    image = keras.Input((input_size, input_size, 3), name="scaled_image")
    x = image
    for pair, (width, kernel) in enumerate(_CUSTOM_CNN_PAIRS):
        for conv in range(2):
            x = layers.Conv2D(
                width, kernel, padding="same", activation="relu", name=f"block{pair}_conv{conv}"
            )(x)
        x = layers.MaxPooling2D(2, name=f"block{pair}_pool")(x)
    # A dense layer on the flattened map is a convolution as large as the map.
    x = layers.Conv2D(
        CUSTOM_CNN_WIDTH, int(x.shape[1]) if flatten else 1, activation="relu", name="hidden_conv"
    )(x)
    return keras.Model(image, x, name=name)


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
    """Joins 1x1 convolutions side by side, three of them followed by a dilated 3x3 one."""
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
