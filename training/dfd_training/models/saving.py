"""Saving and loading models as `.keras` files."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from dfd_edge.errors import UsageError

FRAME_OUTPUTS = ("features", "fake_logit", "evidence")


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model as a `.keras` file; a file of that name is replaced only once it is whole."""
    if path.suffix != ".keras":
        raise UsageError(f"{path}: a model is saved under a name that ends in .keras")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        model.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_frame_model(path: Path) -> keras.Model:
    """Loads what `build_frame_model` built, trained or not.

    Raises:
        UsageError: The file is missing, is no model, or is not a frame model.
    """
    model = _load(path)
    outputs = model.output
    if not isinstance(outputs, dict) or not {"features", "fake_logit"} <= outputs.keys():
        raise UsageError(
            f"{path}: not a frame model (its outputs are {_names(outputs)}, not "
            f"{', '.join(FRAME_OUTPUTS)}); give a file that `dfd-train fit frame` wrote"
        )
    return model


def load_sequence_model(path: Path) -> keras.Model:
    """Loads what `build_sequence_model` built, trained or not.

    Raises:
        UsageError: The file is missing, is no model, or is not a sequence model.
    """
    model = _load(path)
    inputs = {tensor.name: len(tensor.shape) for tensor in model.inputs}
    if inputs != {"features": 3, "mask": 2}:
        raise UsageError(
            f"{path}: not a sequence model (its inputs are {', '.join(inputs)}, not features, "
            "mask); give a file that `dfd-train fit sequence` wrote"
        )
    return model


def _load(path: Path) -> keras.Model:
    # The custom layers have to be registered before a file that names them is read.
    import dfd_training.models.frame  # noqa: F401, PLC0415

    if not path.is_file():
        raise UsageError(f"{path}: no such model file")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{path}: not a Keras model that can be loaded ({reason})") from error


def _names(outputs: object) -> str:
    if isinstance(outputs, dict):
        return ", ".join(outputs)
    return "one unnamed tensor" if not isinstance(outputs, list) else f"{len(outputs)} tensors"
