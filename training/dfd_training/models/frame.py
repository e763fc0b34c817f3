"""The frame model: from a face crop to features, a logit and an evidence map; and its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.models.backbone import backbone_of, leaf_layers
from dfd_training.models.bundle_weights import (
    bundle_folder,
    found_weights,
    graph_logit_layer,
    read_frame_graph,
)
from dfd_training.models.registry import BACKBONES
from dfd_training.models.saving import load_keras_file

FRAME_OUTPUTS = ("features", "fake_logit", "evidence")


@keras.saving.register_keras_serializable("dfd_training")
class EvidenceHead(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Global pooling and one logit, with the class-activation map (Zhou et al., CVPR 2016).

    The logit's weights, applied at each place of the map instead of to its mean, give what
    each place adds: without dropout the mean of `evidence` is `fake_logit`.

    Args:
        dropout: Share of the pooled features dropped in training.
    """

    def __init__(self, dropout: float = 0.2, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(dropout, name="dropout")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes kernel [F, 1] and bias [1] for a map [B, h, w, F]."""
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], 1), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")
        super().build(input_shape)

    def call(
        self, feature_map: keras.KerasTensor, training: bool | None = None
    ) -> dict[str, keras.KerasTensor]:
        """Maps [B, h, w, F] to features [B, F], fake_logit [B] and evidence [B, h, w]."""
        features = ops.mean(feature_map, axis=(1, 2))
        logit = ops.matmul(self.dropout(features, training=training), self.kernel) + self.bias
        kernel = ops.reshape(self.kernel, (1, 1, -1, 1))
        evidence = ops.conv(feature_map, kernel, data_format="channels_last") + self.bias
        return {
            "features": features,
            "fake_logit": ops.squeeze(logit, axis=-1),
            "evidence": ops.squeeze(evidence, axis=-1),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "dropout": self.dropout.rate}


def build_frame_model(
    *,
    backbone: str = "efficientnet_lite0",
    input_size: int | None = None,
    weights: str | Path = "imagenet",
    dropout: float = 0.2,
) -> keras.Model:
    """Builds the frame model; the scaling of pixels is inside.

    Args:
        backbone: A name in `BACKBONES`.
        input_size: Height and width of the crops in pixels; by default what the backbone was
            designed for.
        weights: "imagenet", "none", a file of the backbone's weights in the layout of the
            ImageNet ones, or a `.keras` frame model or a bundle with the same backbone, whose
            head is taken too; "shipped" is what ships with the runtime, as Keras fitted it where
            this is a checkout. The batch norms of a bundle are measured by `measure_norms`.
        dropout: Share of the pooled features dropped in training.

    Returns:
        A model from `image` [B, S, S, 3], RGB 0..255 (uint8 or float32), to a dict of float32:
        `features` [B, F], `fake_logit` [B] (higher = more fake) and, unless the backbone's last
        Map is a single place, `evidence` [B, h, w], whose mean is `fake_logit`.

    Raises:
        UsageError: The backbone is unknown, a number is out of range, or the weights cannot be
            had.
    """
    if backbone not in BACKBONES:
        known = ", ".join(sorted(BACKBONES))
        raise UsageError(f"backbone {backbone!r} is unknown; known are {known}")
    entry = BACKBONES[backbone]
    size = entry.input_size if input_size is None else input_size
    if size < entry.smallest_size:
        raise UsageError(
            f"input size {size} is too small; {backbone} needs {entry.smallest_size} pixels or more"
        )
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout {dropout} is out of range; 0 or more and below 1")
    convolutions = entry.build(size)
    image = keras.Input((size, size, 3), dtype="float32", name="image")
    feature_map = convolutions(entry.scaling.apply(image))
    outputs = EvidenceHead(dropout, name="evidence_head")(feature_map)
    if tuple(feature_map.shape[1:3]) == (1, 1):
        del outputs["evidence"]  # one place is no map: it would say of the crop what the logit says
    model = keras.Model(image, outputs, name=f"frame_{backbone}")
    weights = found_weights(weights)
    if (bundle := bundle_folder(weights)) is not None:
        read_frame_graph(model, bundle)
    elif Path(weights).suffix == ".keras":
        _take_weights(model, Path(weights), backbone)
    else:
        entry.load(convolutions, weights)
    return model


def load_frame_model(path: Path) -> keras.Model:
    """Loads what `build_frame_model` built, trained or not.

    Raises:
        UsageError: The file is missing, is no model, or is not a frame model.
    """
    model = load_keras_file(path)
    outputs = model.output
    if not isinstance(outputs, dict) or not {"features", "fake_logit"} <= outputs.keys():
        raise UsageError(
            f"{path}: not a frame model (its outputs are {_names(outputs)}, not "
            f"{', '.join(FRAME_OUTPUTS)}); give a file that `dfd-train fit frame` wrote"
        )
    return model


def read_logit_layer(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the layer that makes a frame model's logit of its features.

    Args:
        path: A `.keras` file that `load_frame_model` loads, or a bundle.

    Returns:
        Kernel float32 [F, 1] and bias float32 [1]: the logit is `features @ kernel + bias`.

    Raises:
        UsageError: It has no such layer, or the file is no frame model.
        BundleError: The bundle is damaged.
    """
    if (bundle := bundle_folder(str(path))) is not None:
        return graph_logit_layer(bundle)
    layers_of = load_frame_model(path).layers
    head = next((layer for layer in layers_of if isinstance(layer, EvidenceHead)), None)
    if head is None:
        raise UsageError(f"{path}: its logit is not made by the head that this program builds")
    kernel, bias = head.get_weights()
    return kernel, bias


def _names(outputs: object) -> str:
    if isinstance(outputs, dict):
        return ", ".join(outputs)
    return "one unnamed tensor" if not isinstance(outputs, list) else f"{len(outputs)} tensors"


def _take_weights(model: keras.Model, path: Path, backbone: str) -> None:
    """Takes all weights of a frame model with the same backbone, whatever size its crops have."""
    start = load_frame_model(path)
    found = backbone_of(start).name
    if found != backbone:
        raise UsageError(f"{path}: its backbone is {found}, not {backbone}")
    try:
        model.set_weights(start.get_weights())
    except ValueError as error:
        sides = start.inputs[0].shape[1], model.inputs[0].shape[1]
        raise UsageError(
            f"{path}: its weights are for crops of {sides[0]} pixels, and do not fit {backbone} at "
            f"{sides[1]}; give that size"
        ) from error


@dataclass(frozen=True, slots=True)
class ModelCost:
    """The cost of a frame model.

    Attributes:
        parameters: Numbers in all weights, statistics of batch norms included.
        macs: Multiply-accumulates for one crop.
    """

    parameters: int
    macs: int


def measure(model: keras.Model) -> ModelCost:
    """Counts parameters and multiply-accumulates of a frame model at its own input size.

    Multiply-accumulates are those of convolutions and matrix products, one multiply with its add
    as one, as papers count them. `dfd-export inspect` counts the exported graph alike.
    """
    return ModelCost(model.count_params(), sum(_macs(layer) for layer in leaf_layers(model)))


def _macs(layer: layers.Layer) -> int:
    """Returns the multiply-accumulates of one layer for one crop; pictures are [B, h, w, C]."""
    match layer:
        case EvidenceHead():
            height, width, channels = layer.input.shape[1:]
            return int(channels) * (1 + (height * width if _is_shown(layer) else 0))
        case layers.SeparableConv2D():
            places = math.prod(layer.output.shape[1:3])
            depthwise = math.prod(layer.depthwise_kernel.shape)
            return int(places * (depthwise + math.prod(layer.pointwise_kernel.shape)))
        case layers.DepthwiseConv2D() | layers.Conv2D():
            # A kernel of groups holds the channels of one group only, as each output needs.
            return int(math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape))
        case layers.Dense():
            places = math.prod(layer.output.shape[1:-1])
            return int(places * math.prod(layer.kernel.shape))
    return 0


def _is_shown(layer: EvidenceHead) -> bool:
    """Returns whether the map is an output of frame models with this head."""
    return tuple(layer.input.shape[1:3]) != (1, 1)
