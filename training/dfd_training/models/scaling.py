"""What happens to pixels before a backbone: the order of the channels, factors and offsets.

Every network that was trained by others expects the scaling that it was trained with. It is part
of the frame model, so that nobody has to remember it, and the exporter folds it into the first
convolution as far as rounding and padding allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers, ops

Channels = float | tuple[float, float, float]
"""One number for all channels, or one for each."""


@keras.saving.register_keras_serializable("dfd_training")
class ReverseChannels(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """RGB to BGR, or back: [B, h, w, 3], the last axis in reverse order."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Reverses the channels."""
        return ops.take(x, ops.convert_to_tensor([2, 1, 0], dtype="int32"), axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelScaling:
    """Pixels 0..255 times `scale` plus `offset`, after the channels were put in order.

    Attributes:
        scale: A factor, or one a channel.
        offset: What is added then, or one number a channel.
        bgr: Whether the backbone takes blue first; `scale` and `offset` are in that order then.
    """

    scale: Channels = 1.0
    offset: Channels = 0.0
    bgr: bool = False

    def apply(self, image: keras.KerasTensor) -> keras.KerasTensor:
        """Adds the layers that do it to a picture [B, h, w, 3] of RGB pixels 0..255."""
        x = ReverseChannels(name="bgr_channels")(image) if self.bgr else image
        return layers.Rescaling(_plain(self.scale), _plain(self.offset), name="scaling")(x)


def _plain(value: Channels) -> float | list[float]:
    """Keras writes lists into its files, but no tuples."""
    return list(value) if isinstance(value, tuple) else value


UNIT = PixelScaling(scale=1 / 255)
"""To 0..1."""

SIGNED = PixelScaling(scale=1 / 127.5, offset=-1.0)
"""To -1..1: the Inception and MobileNet families and Xception."""

LITE = PixelScaling(scale=1 / 128, offset=-127 / 128)
"""(x - 127) / 128: the EfficientNet-Lite family."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TORCH = PixelScaling(
    scale=(1 / (255 * _DEVIATION[0]), 1 / (255 * _DEVIATION[1]), 1 / (255 * _DEVIATION[2])),
    offset=(-_MEAN[0] / _DEVIATION[0], -_MEAN[1] / _DEVIATION[1], -_MEAN[2] / _DEVIATION[2]),
)
"""Less ImageNet's mean, by its standard deviation, a channel: EfficientNet and DenseNet."""

CAFFE = PixelScaling(offset=(-103.939, -116.779, -123.68), bgr=True)
"""BGR less ImageNet's mean pixel, not scaled: VGG and the first ResNets."""
