"""What an entry of the registry says of a backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from dfd_edge.errors import UsageError
from dfd_training.models.applications import read_h5
from dfd_training.models.pretrained import ImageNetWeights
from dfd_training.models.scaling import PixelScaling

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
        scaling: What is done to pixels before it.
        feature_width: F.
        weights: Where its ImageNet weights come from; None where there are none.
        suffix: What the name of a file of weights ends in, and
        read: how such a file is read.
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
            backbone: What `build` built; its weights are replaced.
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
    """The backbone inside a frame model of `build_frame_model`, which shares its weights.

    Raises:
        UsageError: The model has none, since another program built it.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return layer
    raise UsageError(f"model {model.name} has no backbone; give a model that `dfd-train` fitted")
