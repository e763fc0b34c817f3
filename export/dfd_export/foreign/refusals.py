"""Layers and files that are not taken over, each with what to do about it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from dfd_edge.errors import UsageError

NOT_KERAS = "is not Keras' own, and no other code is loaded: build the model of Keras' own layers"

_FOREIGN = "runs a program of another library, which is not loaded from files: use Keras layers"
_CODE = {
    "Lambda": "holds Python code, which is never run from a file: put a layer in its place that "
    "does the same (Rescaling for a scaling, Activation for an activation) and save again",
    "__lambda__": "is Python code, which is never run from a file: use a function of Keras",
    "TFSMLayer": _FOREIGN,
    "TorchModuleWrapper": _FOREIGN,
    "JaxLayer": _FOREIGN,
    "FlaxLayer": _FOREIGN,
}
"""Refused wherever they stand in a file, before Keras sees it."""

OLD = {
    "CuDNNGRU": "is of TensorFlow 1: put GRU(reset_after=True) in its place and save again",
    "CuDNNLSTM": "is of TensorFlow 1: put LSTM in its place and save again",
    "RandomCrop": "does nothing at inference in Keras 3 and resizes in Keras 2: put Resizing with "
    "crop_to_aspect_ratio=True, or CenterCrop, in its place, whichever the CNN was trained for, "
    "and save again",
}

_WHOLE_CLIP = "needs the clip's later steps, which a live stream has not seen yet: train the model "
_OVER_TIME = _WHOLE_CLIP + "with GRU or LSTM layers in its place"
_MIXES = "over the clip: end the recurrent part with return_sequences=False and train again"

OVER_TIME = {
    "Bidirectional": _WHOLE_CLIP + "with the GRU or LSTM alone, forwards",
    **dict.fromkeys(
        ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        "takes pictures, not features: no bundle holds such a model: train a CNN on pictures, and "
        "GRU or LSTM layers on its features",
    ),
    "RNN": "has a cell of its own: use GRU or LSTM layers",
    "SimpleRNN": "cannot be exported: use GRU or LSTM layers",
    **dict.fromkeys(
        ("Conv1D", "SeparableConv1D", "DepthwiseConv1D", "MaxPooling1D", "AveragePooling1D"),
        _OVER_TIME,
    ),
    **dict.fromkeys(("Attention", "AdditiveAttention", "MultiHeadAttention"), _OVER_TIME),
    "GlobalAveragePooling1D": f"averages {_MIXES}",
    "GlobalMaxPooling1D": f"takes the largest {_MIXES}",
    "Flatten": f"mixes the steps {_MIXES}",
}
"""Not taken over in a sequence model."""


_RESIZED = ("bilinear", "nearest", "bicubic")


def of_resizing(config: dict[str, Any]) -> str | None:
    """Returns why a graph cannot resize like this; None where it can."""
    given = config.get("interpolation", "bilinear")
    problems = {
        f"interpolation={given!r:.20}": given not in _RESIZED,
        "antialias=True": bool(config.get("antialias")),
        "pad_to_aspect_ratio=True": bool(config.get("pad_to_aspect_ratio")),
    }
    found = next((text for text, holds in problems.items() if holds), None)
    if found is None:
        return None
    return (
        f"has {found}, which no graph can do: put Resizing with {' or '.join(_RESIZED)} "
        "interpolation and neither of antialias and pad_to_aspect_ratio in its place, or leave it "
        "out and let the model take pictures of the size that it gives; save again"
    )


_ANEW = (
    "which no bundle can: train a CNN on pictures, give it as FRAME, and a model of GRU or LSTM "
    "layers on its features as SEQUENCE"
)
_NOT_RECURRENT = ("Bidirectional", "RNN", "SimpleRNN")


def of_clips(path: Path, model: keras.Model) -> UsageError:
    """The error about a model that takes clips of pictures; names the layers that matter."""
    start = f"{path}: takes clips {_shapes(model)}, not pictures"
    found = model._flatten_layers(include_self=False)
    if mixing := [layer for layer in found if _mixes_pictures(layer)]:
        mix = "mixes" if len(mixing) == 1 else "mix"
        return UsageError(f"{start}: {_listed(mixing)} {mix} the pictures of a clip, {_ANEW}")
    apart = [layer for layer in found if isinstance(layer, keras.layers.TimeDistributed)]
    advice = f"it mixes the pictures of a clip, {_ANEW}"
    if any(isinstance(layer.layer, keras.Model) for layer in apart):
        advice = (
            "save the model inside its TimeDistributed layer as FRAME, and what follows, from the "
            "features on, as SEQUENCE"
        )
    elif apart:
        inside = _listed([layer.layer for layer in apart])
        advice = (
            f"build {inside} once more as a model of one picture, set their weights and save it as "
            "FRAME, and what follows, from the features on, as SEQUENCE"
        )
    if others := [layer for layer in found if type(layer).__name__ in _NOT_RECURRENT]:
        advice += f"; for that, train it with GRU or LSTM in the place of {_listed(others)}"
    return UsageError(f"{start}: {advice}")


def _mixes_pictures(layer: keras.layers.Layer) -> bool:
    kind = type(layer).__name__
    spatial = kind.removesuffix("Transpose").endswith("3D")
    return spatial or (kind.startswith("ConvLSTM") and isinstance(layer, keras.layers.RNN))


def _listed(found: list[keras.layers.Layer]) -> str:
    """Layers with their kinds, each once."""
    names = dict.fromkeys(f"{_printable(layer.name)} ({type(layer).__name__})" for layer in found)
    return ", ".join(names)


def _shapes(model: keras.Model) -> str:
    return " and ".join(str(list(tensor.shape)) for tensor in model.inputs)


def refuse(path: Path, layer: str, kind: str, problem: str) -> UsageError:
    """The error that names a layer that cannot be taken over."""
    return UsageError(f"{path}: layer {_printable(layer)} ({_printable(kind)}) {problem}")


def _printable(name: str) -> str:
    """A name out of a file, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)[:80]


def check_code(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON
    """Looks for code in the description of a model.

    Raises:
        UsageError: There is some; the message names the layer.
    """
    if isinstance(value, dict):
        kind = value.get("class_name")
        if isinstance(kind, str) and kind in _CODE:
            config = value.get("config")
            name = config.get("name") if isinstance(config, dict) else None
            raise refuse(path, str(name or "without a name"), kind, _CODE[kind])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            check_code(path, item)


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
    """Describes the kind of model in a folder, and what to give in its place."""
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
    """Describes the kind of model in a file that is neither HDF5 nor a .keras archive.

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
    """Describes the kind of model in a zip archive other than .keras; None if not known."""
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
    """Describes JSON: of TensorFlow.js, or the layers of a model without weights."""
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
