"""What happens to pixels before a published model: what is asked for, and what is found inside."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_export.published.graphs import Call, calls_before
from dfd_training.models.backbone import CAFFE, SIGNED, TORCH, UNIT, PixelScaling, ReverseChannels


class Scaling(enum.StrEnum):
    """What a notebook did to pixels of 0..255 before its model saw them."""

    NONE = "none"
    UNIT = "0..1"
    SIGNED = "-1..1"
    TORCH = "torch"
    CAFFE = "caffe"


MEANINGS = {
    Scaling.NONE: "0..255 as they are",
    Scaling.UNIT: "divided by 255, as ImageDataGenerator(rescale=1/255) does",
    Scaling.SIGNED: "to -1..1, as preprocess_input of InceptionV3, Xception and MobileNet does",
    Scaling.TORCH: "ImageNet mean and deviation, as preprocess_input of DenseNet does",
    Scaling.CAFFE: "BGR less the ImageNet mean, as preprocess_input of VGG and ResNet50 does",
}

_LAYERS: dict[Scaling, PixelScaling] = {
    Scaling.UNIT: UNIT,
    Scaling.SIGNED: SIGNED,
    Scaling.TORCH: TORCH,
    Scaling.CAFFE: CAFFE,
}

SCALING_NAMES = ("to_bgr", "bgr_channels", "scaling")
"""Names of the layers that scaling may add."""

_SCALES = {
    "Add", "Divide", "Multiply", "Normalization", "Rescaling", "Subtract", "TrueDivide",
}  # fmt: skip
_MOVES = {
    "CenterCrop", "GetItem", "Resizing", "ReverseChannels", "Stack", "Take", "ZeroPadding2D",
}  # fmt: skip
_HIGHEST = 300.0
"""Above what any published scaling makes of pixels of 0..255; one meant for 0..1 makes more."""


@dataclass(frozen=True, slots=True)
class FoundScaling:
    """Layers that scale the pixels inside a model.

    Attributes:
        layers: Their names.
        low: The least that comes out of pixels of 0..255.
        high: The most.
    """

    layers: tuple[str, ...]
    low: float
    high: float

    @property
    def takes_bytes(self) -> bool:
        """Tells whether what comes out is as a network takes it, if pixels of 0..255 go in."""
        return max(abs(self.low), abs(self.high)) <= _HIGHEST


def scale(image: keras.KerasTensor, scaling: Scaling, *, bgr: bool) -> keras.KerasTensor:
    """Does to RGB pixels of 0..255 what a notebook did: channels first, then the scaling."""
    x = ReverseChannels(name="to_bgr")(image) if bgr else image
    return x if scaling is Scaling.NONE else _LAYERS[scaling].apply(x)


def scale_as_keras(crops: NDArray[np.uint8], scaling: Scaling, *, bgr: bool) -> NDArray[np.float32]:
    """The same by the functions that notebooks call, to compare with."""
    pixels = crops[..., ::-1] if bgr else crops
    x = np.array(pixels, np.float32)
    modes = {Scaling.SIGNED: "tf", Scaling.TORCH: "torch", Scaling.CAFFE: "caffe"}
    if scaling in modes:
        scaled = keras.applications.imagenet_utils.preprocess_input(
            x, data_format="channels_last", mode=modes[scaling]
        )
        return np.asarray(scaled, np.float32)
    return x / np.float32(255) if scaling is Scaling.UNIT else x


def find_scaling(image: keras.KerasTensor, output: keras.KerasTensor) -> FoundScaling | None:
    """Finds what scales the pixels inside a model, before its first layer with trained weights.

    Args:
        image: The model's input, [B, S, S, 3].
        output: Any tensor of the model that follows.
    """
    pixels = {id(image)}
    tensors = []
    scaling: list[Call] = []
    for call in calls_before(output):
        if call.kind in _SCALES | _MOVES and all(id(source) in pixels for source in call.inputs):
            pixels.add(id(call.output))
            tensors.append(call.output)
            if call.kind in _SCALES:
                scaling.append(call)
    if not scaling:
        return None
    inside = keras.Model(image, tensors[-1])
    side = image.shape[1]
    extremes = np.stack([np.zeros((side, side, 3)), np.full((side, side, 3), 255)])
    scaled = keras.ops.convert_to_numpy(inside(extremes.astype(np.float32), training=False))
    names = tuple(call.layer.name for call in scaling)
    return FoundScaling(names, float(scaled.min()), float(scaled.max()))
