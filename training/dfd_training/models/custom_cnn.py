"""The small network that tutorials on deepfakes begin with, with and without its flattened map.

Two 5x5 convolutions of 32 channels and two 3x3 ones of 64, each pair with max pooling after it,
then a hidden layer of 128. Flattened, the hidden layer sees the whole map at once and holds nearly
all of the weights. With global pooling it is applied at each place of the map, and the mean is
taken after it: a network of 1 % of the weights, whose map tells where the score comes from, at any
size of the picture.
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
