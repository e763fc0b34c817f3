"""A foreign CNN as a standard frame model, with the scaling of its pixels."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Resize
from dfd_export.foreign.keras_graph import (
    Call,
    Classes,
    ClassifierHead,
    Weights,
    backwards,
    calls_before,
    find_head,
    replay,
)
from dfd_export.foreign.loading import load
from dfd_export.foreign.model_file import ModelFile
from dfd_export.foreign.refusals import of_clips
from dfd_training.models.backbone import CAFFE, SIGNED, TORCH, UNIT, PixelScaling, ReverseChannels


class Scaling(enum.StrEnum):
    """The scaling of pixels of 0..255 outside of a model."""

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
        """Whether what comes out is as a network takes it, if pixels of 0..255 go in."""
        return max(abs(self.low), abs(self.high)) <= _HIGHEST


@dataclass(frozen=True, slots=True)
class FoundResizing:
    """A layer that resizes the pictures inside a model which takes any size.

    Attributes:
        size: Side of its pictures in pixels.
        resize: How it resizes.
    """

    size: int
    resize: Resize


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


def find_resizing(image: keras.KerasTensor, output: keras.KerasTensor) -> FoundResizing | None:
    """Finds the layer that brings pictures of any size to the one that a model works at.

    Returns:
        None where the first layer to change the size of the pictures does not resize them to a
        square, or in a way that the runtime does not have.
    """
    pixels = {id(image)}
    for call in calls_before(output):
        if call.kind not in _SCALES | _MOVES or any(id(t) not in pixels for t in call.inputs):
            continue
        pixels.add(id(call.output))
        if call.output.shape[1:3] == image.shape[1:3] and call.kind != "Resizing":
            continue
        layer = call.layer
        if call.kind != "Resizing" or layer.height != layer.width:
            return None
        known = layer.interpolation in list(Resize)
        return FoundResizing(int(layer.height), Resize(layer.interpolation)) if known else None
    return None


_SAVE_ONE = "save the part that takes one RGB picture and gives one verdict, or its features"
_NAMES = ("image", "logit", "evidence", *SCALING_NAMES)
"""Names of the layers that are added."""
_ANY_SIZE = 128
"""To look at models that take pictures of any size, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class ForeignFrame:
    """A foreign CNN, and what its file says of it.

    Attributes:
        file: The file.
        model: The model as it was published, [B, S, S, 3] to whatever it ends in.
        size: S in pixels; None where the model takes any.
        head: Its verdict; None for a feature extractor.
        scaling: The scaling of pixels inside; None where there is none.
        resizing: The resizing inside of a model that takes any size; None where there is none.
    """

    file: ModelFile
    model: keras.Model
    size: int | None
    head: ClassifierHead | None
    scaling: FoundScaling | None
    resizing: FoundResizing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSettings:
    """Settings of a CNN that are not in its file.

    Attributes:
        size: Side of its pictures in pixels.
        scaling: The scaling of pixels of 0..255 outside of it.
        bgr: True where it was trained on pictures in OpenCV's order.
        classes: The order of its classes.
        resize: How its pictures came to that size.
    """

    size: int
    scaling: Scaling
    bgr: bool
    classes: Classes
    resize: Resize = Resize.BILINEAR


def open_frame(file: ModelFile) -> ForeignFrame:
    """Loads a foreign CNN and analyses it.

    Raises:
        UsageError: It cannot be loaded, or is no model of one RGB picture.
    """
    model = load(file)
    size = _input_size(file.path, model)
    image = keras.Input((size or _ANY_SIZE, size or _ANY_SIZE, 3))
    output = _replay(file.path, model, image)
    head = find_head(file.path, output, loss=file.loss)
    if head is None and len(output.shape) != 2:
        raise UsageError(
            f"{file.path}: ends in an output of shape {list(output.shape)}, not in a verdict or in "
            "features [B, F]: save it with pooling='avg' or a GlobalAveragePooling2D at its end"
        )
    resizing = find_resizing(image, output) if size is None else None
    return ForeignFrame(file, model, size, head, find_scaling(image, output), resizing)


def build_frame(found: ForeignFrame, answers: FrameSettings) -> keras.Model:
    """Builds the standard frame model; its layers are the published model's own.

    Returns:
        A model from `image` [B, S, S, 3], RGB 0..255, to a dict of `features` [B, F]; where the
        published model has a verdict, `fake_logit` [B]; and `evidence` [B, h, w] where the
        features are the mean of a map.
    """
    image = keras.Input((answers.size, answers.size, 3), dtype="float32", name="image")
    scaled = scale(image, answers.scaling, bgr=answers.bgr)
    output = _replay(found.file.path, found.model, scaled)
    head = find_head(found.file.path, output, loss=found.file.loss)
    if head is None:
        return keras.Model(image, {"features": output}, name="published_features")
    kernel, bias = head.weights(answers.classes)
    logit = keras.layers.Dense(1, name="logit")
    outputs = {
        "features": head.features,
        "fake_logit": keras.ops.squeeze(logit(head.features), axis=-1),
    }
    logit.set_weights([kernel, bias])
    if (evidence := _evidence(head.features, kernel, bias)) is not None:
        outputs["evidence"] = evidence
    return keras.Model(image, outputs, name="published_frame")


def _evidence(
    features: keras.KerasTensor, kernel: Weights, bias: Weights
) -> keras.KerasTensor | None:
    """The class-activation map (Zhou et al., CVPR 2016), where there is one.

    A batch norm between pooling and verdict is affine, and so goes into the map's weights.
    """
    for call in backwards(features):
        if call.kind == "BatchNormalization":
            scale, shift = _affine(call.layer)
            kernel, bias = kernel * scale[:, None], bias + shift @ kernel
        elif call.kind == "GlobalAveragePooling2D" and not call.layer.keepdims:
            source = call.inputs[0]
            if min(source.shape[1:3]) < 2 or call.layer.data_format != "channels_last":
                return None
            convolution = keras.layers.Conv2D(1, 1, name="evidence")
            evidence = keras.ops.squeeze(convolution(source), axis=-1)
            convolution.set_weights([kernel[None, None], bias])
            return evidence
        else:
            return None
    return None


def _affine(norm: keras.layers.BatchNormalization) -> tuple[Weights, Weights]:
    """Scale and shift that a batch norm is in inference, [F] each."""
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(v)) for v in (norm.moving_mean, norm.moving_variance)
    )
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(keras.ops.convert_to_numpy(norm.gamma))
    shift = -mean * scale
    if norm.center:
        shift = shift + np.asarray(keras.ops.convert_to_numpy(norm.beta))
    return np.asarray(scale, np.float32), np.asarray(shift, np.float32)


def _replay(path: Path, model: keras.Model, image: keras.KerasTensor) -> keras.KerasTensor:
    try:
        return replay(model, image, reserved=_NAMES)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path}: does not take pictures of {list(image.shape)} ({reason})"
        ) from error


def _input_size(path: Path, model: keras.Model) -> int | None:
    for side, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(tensors) != 1:
            raise UsageError(
                f"{path}: has {len(tensors)} {side}, not one: {_SAVE_ONE}; if it is a sequence "
                "model, give the model that its features come from as FRAME, and it as SEQUENCE"
            )
    shape = tuple(model.inputs[0].shape)
    if len(shape) == 5:
        raise of_clips(path, model)
    if len(shape) != 4 or shape[3] != 3:
        raise UsageError(f"{path}: takes {list(shape)}, not RGB pictures [B, S, S, 3]: {_SAVE_ONE}")
    if shape[1] != shape[2]:
        raise UsageError(
            f"{path}: takes pictures of {shape[1]} x {shape[2]} px; crops are square: train it on "
            "square ones"
        )
    return None if shape[1] is None else int(shape[1])
