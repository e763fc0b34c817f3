"""Backbones: how one is built, how its pixels are scaled, and how its weights are read.

Scaling inside networks of `keras.applications` is left out or cut off: it is part of the frame
model, so that nobody has to remember it, and the exporter folds it into the first convolution as
far as rounding and padding allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from dfd_edge.errors import UsageError
from dfd_training.models.weights import ImageNetWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Builds one network and reads its weights.

    Attributes:
        function: Its name in `keras.applications`.
        name: The backbone's.
        options: Further arguments of the function.
        first_layer: Where the network begins, if not at its input: layers before it scale pixels.
    """

    function: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    first_layer: str | None = None

    def build(self, input_size: int) -> keras.Model:
        """Builds it with fresh weights.

        Args:
            input_size: Height and width of the input in pixels.

        Returns:
            A model from scaled pixels [B, S, S, 3] to the last feature map [B, h, w, F].
        """
        return self._cut(self._whole(input_size))

    def read(self, backbone: keras.Model, path: Path) -> None:
        """Reads weights into a model that `build` built.

        Args:
            backbone: The model.
            path: `.h5`, as `save_weights` of the same network without a top writes it; the
                official files are such.

        Raises:
            UsageError: The file is missing, is no such file, or is one of another network.
        """
        whole = backbone if self.first_layer is None else self._whole(backbone.input.shape[1])
        read_h5(whole, path, f"{self.name} without its top")
        if whole is not backbone:
            backbone.set_weights(self._cut(whole).get_weights())

    def _whole(self, input_size: int) -> keras.Model:
        make = getattr(keras.applications, self.function)
        return make(
            include_top=False,
            weights=None,
            input_shape=(input_size, input_size, 3),
            **self.options,
        )

    def _cut(self, whole: keras.Model) -> keras.Model:
        # Some functions look their own name up in a table: it cannot be given them.
        begins = whole if self.first_layer is None else whole.get_layer(self.first_layer)
        return keras.Model(begins.input, whole.output, name=self.name)


def read_h5(model: keras.Model, path: Path, network: str) -> None:
    """Reads an `.h5` file of weights: of Keras 3 (`.weights.h5`) or of Keras 2.

    Args:
        model: Takes the weights.
        path: The file.
        network: Name of the expected network in the message.

    Raises:
        UsageError: The file is missing, is no such file, or is one of another network.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such weights file")
    try:
        model.load_weights(path)
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path}: not the weights of {network} ({reason}); give a file that its "
            "save_weights wrote"
        ) from error


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
        offset: A number that is added then, or one a channel.
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
    """Returns tuples as lists: Keras writes no tuples into its files."""
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


WeightsReader = Callable[[keras.Model, Path], None]
"""Puts the weights of a file into a backbone."""


def _read_own(backbone: keras.Model, path: Path) -> None:
    read_h5(backbone, path, backbone.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A convolutional feature extractor.

    Attributes:
        build: From the input size in pixels to a model that is called as the backbone, from
            [B, S, S, 3] scaled pixels to [B, h, w, F].
        input_size: The side of the pictures that it was designed for, in pixels.
        smallest_size: The least side that it takes.
        scaling: Scaling of the pixels before it.
        feature_width: F.
        weights: Where its ImageNet weights come from; None where there are none.
        suffix: Suffix of a file of its weights.
        read: Reader of such a file.
        source: The paper.
    """

    build: Callable[[int], keras.Model]
    input_size: int
    smallest_size: int = 32
    scaling: PixelScaling
    feature_width: int
    weights: ImageNetWeights | None = None
    suffix: str = ".h5"
    read: WeightsReader = _read_own
    source: str

    def load(self, backbone: keras.Model, weights: str | Path) -> None:
        """Gives a backbone its first weights.

        Args:
            backbone: A model of `build`; its weights are replaced.
            weights: "imagenet", "none" (which leaves it as it is), or a file of weights.

        Raises:
            UsageError: There are no such weights, or they cannot be had.
        """
        if weights == "none":
            return
        if weights != "imagenet":
            path = Path(weights)
            if path.suffix != self.suffix:
                raise UsageError(
                    f"{path}: backbone {backbone.name} reads weights from {self.suffix} files, or "
                    "give imagenet or none"
                )
            self.read(backbone, path)
        elif self.weights is None:
            raise UsageError(
                f"backbone {backbone.name} has no ImageNet weights; give weights='none' or a file"
            )
        else:
            self.read(backbone, self.weights.find())


def backbone_of(model: keras.Model) -> keras.Model:
    """Returns the backbone inside a frame model of `build_frame_model`, which shares its weights.

    Raises:
        UsageError: The model has none, since another program built it.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return layer
    raise UsageError(f"model {model.name} has no backbone; give a model that `dfd-train` fitted")


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model and of the models inside it, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
