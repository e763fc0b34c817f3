"""Models in other forms than a Keras file: what they are, and how to come to a Keras file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

_KERAS_FILE = "give the .keras or .h5 file that it was made of"
_BUILD = (
    "build the model as its notebook does, load the weights into it, and save it with "
    "model.save('model.keras')"
)
_PYTORCH = (
    "weights of PyTorch, which hold no Keras layers: build the network of Keras' layers, copy the "
    "weights into it, and save it with model.save('model.keras')"
)
_CODE_OF_FUNCTIONS = (
    "the program of a network without its layers, which cannot be taken apart into features and "
    f"verdict: {_KERAS_FILE}"
)
_CHECKPOINT = f"a checkpoint, which holds weights but no layers: {_BUILD}"
_BY_SUFFIX = {
    ".onnx": f"an ONNX model: {_CODE_OF_FUNCTIONS}",
    ".pb": f"a frozen graph of TensorFlow: {_CODE_OF_FUNCTIONS}",
    ".index": _CHECKPOINT,
    ".ckpt": _CHECKPOINT,
    ".pt": _PYTORCH,
    ".pth": _PYTORCH,
    ".safetensors": f"weights without layers: {_BUILD}",
}
_SAVED_MODEL_2 = (
    "a SavedModel folder of Keras 2: save it as one file: with tf_keras installed, run beside it "
    "python -c \"import tf_keras; tf_keras.models.load_model('{name}', compile=False)"
    ".save('model.h5')\" and give model.h5"
)
_EXPORTED = (
    f"a SavedModel folder without Keras' layers, as model.export() writes: {_CODE_OF_FUNCTIONS}, "
    "or save the model where it was made with model.save('model.keras')"
)


def describe_folder(path: Path) -> str:
    """Says which kind of model a folder holds, and what to give in its place."""
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if "saved_model.pb" in names:
        return _SAVED_MODEL_2.format(name=path.name) if "keras_metadata.pb" in names else _EXPORTED
    if "model.json" in names:
        return _describe_json(path / "model.json")
    if {"metadata.json", "config.json", "model.weights.h5"} <= names:
        return (
            "an unpacked .keras archive: pack it again: cd into it and run python -m zipfile -c "
            "../model.keras metadata.json config.json model.weights.h5"
        )
    if any(name.endswith(".index") for name in names):
        return _CHECKPOINT
    return (
        "a folder, but no finished run of a recipe and no model: give a folder that `dfd-train "
        "recipe` wrote, or a model file, .h5 or .keras"
    )


def describe_file(path: Path, start: bytes) -> str | None:
    """Says which kind of model a file holds that is neither HDF5 nor a .keras archive.

    Args:
        path: The file.
        start: Its first 8 bytes.

    Returns:
        What it is and what to give in its place; None where that is not known.
    """
    if start[4:8] == b"TFL3":
        return f"a TensorFlow Lite model: {_CODE_OF_FUNCTIONS}"
    if start.startswith(b"\x80"):
        return f"a pickle, which can run code and is never opened: {_BUILD}"
    if start.lstrip()[:1] == b"{":
        return _describe_json(path)
    if path.name == "saved_model.pb":
        return "a part of a SavedModel folder: give the whole folder"
    if ".data-" in path.name:
        return _CHECKPOINT
    return _BY_SUFFIX.get(path.suffix.lower())


def describe_archive(path: Path) -> str | None:
    """Says which kind of model a zip archive is that is no .keras archive; None if not known."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if any(name.endswith("data.pkl") for name in names):
        return _PYTORCH
    if any(name.endswith("saved_model.pb") for name in names):
        return "a zipped SavedModel folder: unpack it and give the folder"
    return None


def _describe_json(path: Path) -> str:
    """Of TensorFlow.js, or the layers of a model without weights."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and "weightsManifest" in found:
        if found.get("format") == "graph-model":
            return f"a graph model of TensorFlow.js: {_CODE_OF_FUNCTIONS}"
        return (
            "a model of TensorFlow.js: with tensorflowjs installed, run tensorflowjs_converter "
            f"--input_format=tfjs_layers_model --output_format=keras {path.name} model.h5, and "
            "give model.h5"
        )
    if isinstance(found, dict) and "class_name" in found:
        return (
            "the layers of a model without its weights: load it with model_from_json, load the "
            "weights, and save it with model.save('model.keras')"
        )
    return f"JSON, but no model: {_KERAS_FILE}"
