"""Meso4 as a Keras 3 feature extractor: a small network of 2018, the baseline to beat.

Afchar, Nozick, Yamagishi and Echizen, "MesoNet: a Compact Facial Video Forgery Detection Network"
(WIFS 2018): four convolutions, each with ReLU, batch norm and max pooling, then a hidden layer of
16 with leaky ReLU, with dropout before it and after it. The hidden layer sees the whole map at
once; here it is a convolution as large as the map, so that features come as a map of one place.
"""

from __future__ import annotations

import keras
from keras import layers

FEATURE_WIDTH = 16
"""Units of the hidden layer."""

_CONVOLUTIONS = ((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4))
"""Width, kernel and pooling of each; the paper's input of 256 pixels leaves a map of 8 x 8."""

_LEAK = 0.1
_DROPOUT = 0.5


def meso4(input_size: int) -> keras.Model:
    """Builds Meso4 up to its hidden layer, with fresh weights.

    Args:
        input_size: Height and width of the input in pixels; 256 in the paper. The hidden layer's
            weights belong to one size.

    Returns:
        A model from [B, S, S, 3] float32, RGB scaled to 0..1, to the hidden layer
        [B, 1, 1, 16].
    """
    image = keras.Input((input_size, input_size, 3), name="scaled_image")
    x = image
    for index, (width, kernel, pool) in enumerate(_CONVOLUTIONS):
        x = layers.Conv2D(
            width, kernel, padding="same", activation="relu", name=f"block{index}_conv"
        )(x)
        x = layers.BatchNormalization(name=f"block{index}_bn")(x)
        x = layers.MaxPooling2D(pool, padding="same", name=f"block{index}_pool")(x)
    x = layers.Dropout(_DROPOUT, name="dropout0")(x)
    x = layers.Conv2D(FEATURE_WIDTH, int(x.shape[1]), padding="valid", name="hidden_conv")(x)
    x = layers.LeakyReLU(_LEAK, name="hidden_relu")(x)
    x = layers.Dropout(_DROPOUT, name="dropout1")(x)
    return keras.Model(image, x, name="meso4")
