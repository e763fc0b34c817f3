"""Saving, loading and averaging `.keras` files, with the scale of the crops that they take."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole


@keras.saving.register_keras_serializable("dfd_training")
class CropModel(keras.Model):  # type: ignore[misc] # Keras is untyped
    """A functional model that knows how the face crops behind its inputs were cut.

    The crop scale is part of the model's config: it is saved and loaded with the model.

    Attributes:
        crop_scale: Side of the crops over the size of the face, or None where that is unknown.
    """

    crop_scale: float | None = None

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the functional model, and the crop scale."""
        return {**super().get_config(), "crop_scale": self.crop_scale}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> CropModel:
        """Builds the model that `get_config` described."""
        rest = dict(config)
        crop_scale = rest.pop("crop_scale", None)
        model: CropModel = super().from_config(rest, custom_objects=custom_objects)
        model.crop_scale = crop_scale
        return model


def with_crop_scale(model: keras.Model, crop_scale: float) -> CropModel:
    """Returns a model of the same layers and weights that carries a crop scale.

    Args:
        model: A functional model.
        crop_scale: Side of the crops that it takes, over the size of the face.
    """
    carrier = CropModel(model.input, model.output, name=model.name)
    carrier.crop_scale = float(crop_scale)
    return carrier


def crop_scale_of(model: keras.Model) -> float | None:
    """Returns the crop scale that a model carries, or None."""
    return getattr(model, "crop_scale", None)


def read_crop_scale(path: Path) -> float | None:
    """Returns the crop scale that a `.keras` file carries, or None, without building the model.

    Raises:
        UsageError: The file is no `.keras` file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        scale = config["config"].get("crop_scale")
        return None if scale is None else float(scale)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not a Keras model that can be loaded ({error})") from error


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model as a `.keras` file; a file of that name is replaced only once it is whole."""
    if path.suffix != ".keras":
        raise UsageError(f"{path}: a model is saved under a name that ends in .keras")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        model.save(partial)


def load_keras_file(path: Path) -> keras.Model:
    """Loads a `.keras` file whose custom layers have been imported.

    Raises:
        UsageError: The file is missing or is no model.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such model file")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{path}: not a Keras model that can be loaded ({reason})") from error


def average_models(paths: Sequence[Path], out: Path) -> None:
    """Saves a model whose weights are the mean of those of several models.

    Models that were fitted from the same start with other settings average well: the result costs
    as much as one of them and generalises better ("model soups", Wortsman et al., ICML 2022).

    Args:
        paths: `.keras` files of one architecture and crop scale, at least two.
        out: The new `.keras` file.

    Raises:
        UsageError: There are fewer than two, a file is no model, or the models differ in layers,
            shapes or crop scale.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} models to average; two or more")
    model = load_keras_file(paths[0])
    sums = [np.asarray(weights, np.float64) for weights in model.get_weights()]
    for path in paths[1:]:
        other = load_keras_file(path)
        if crop_scale_of(other) != crop_scale_of(model):
            raise UsageError(
                f"{path}: crop scale {crop_scale_of(other)}, but {crop_scale_of(model)} in "
                f"{paths[0]}; only models of the same crops can be averaged"
            )
        weights = other.get_weights()
        if [part.shape for part in weights] != [part.shape for part in sums]:
            raise UsageError(f"{path}: other layers than in {paths[0]}; they cannot be averaged")
        sums = [total + part for total, part in zip(sums, weights, strict=True)]
    model.set_weights([total / len(paths) for total in sums])
    save_model(model, out)
