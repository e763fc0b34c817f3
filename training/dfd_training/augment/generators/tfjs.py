"""Reader of Keras models that were saved for TensorFlow.js ("layers models") into Keras 3.

Such a model is `model.json`, which holds the layers and the list of weights, and files of raw
weights in the list's order. Packages of image super-resolution carry networks in this form; here
no JavaScript is run, and nothing in a package is executed or unpickled.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError

_INTERPOLATIONS = ("nearest", "bilinear")


def list_models(package: Path) -> list[str]:
    """Returns the names of all `model.json` in a package (`.tgz`).

    Raises:
        UsageError: When the file is missing or is no such archive.
    """
    with _open(package) as archive:
        names = [name for name in archive.getnames() if posixpath.basename(name) == "model.json"]
    return sorted(names)


def read_layers_model(package: Path, name: str) -> keras.Model:
    """Builds the model that a package holds under a name, with its weights.

    Args:
        package: A `.tgz`.
        name: Name of the `model.json` in it.

    Raises:
        UsageError: When the package cannot be read, holds a kind of layer that is not known here,
            or weights that do not fit.
    """
    with _open(package) as archive:
        try:
            topology = json.loads(_member(archive, package, name))
            manifest = topology["weightsManifest"]
            layers = topology["modelTopology"]["model_config"]["config"]
            folder = posixpath.dirname(name)
            weights: dict[str, NDArray[np.float32]] = {}
            for group in manifest:
                paths = [posixpath.join(folder, path) for path in group["paths"]]
                raw = b"".join(_member(archive, package, path) for path in paths)
                weights |= _split(raw, group["weights"])
            model = _build(layers)
            for layer in model.layers:
                if layer.weights:
                    layer.set_weights([weights[f"{layer.name}/{w.name}"] for w in layer.weights])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            cause = " ".join(f"{type(error).__name__} {error}".split())[:160]
            raise UsageError(
                f"{package}: {name} is not a layers model that can be read: {cause}"
            ) from error
    return model


def _open(package: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(package, "r:*")
    except (OSError, tarfile.TarError) as error:
        raise UsageError(
            f"{package}: not a package of networks: {error}: give a .tgz as `npm pack` writes it"
        ) from error


def _member(archive: tarfile.TarFile, package: Path, name: str) -> bytes:
    try:
        stream = archive.extractfile(name)
    except (KeyError, OSError, tarfile.TarError, EOFError) as error:
        raise UsageError(f"{package}: lacks {name}, or is damaged there") from error
    if stream is None:
        raise UsageError(f"{package}: {name} is not a file")
    return stream.read()


def _split(raw: bytes, entries: list[dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    weights: dict[str, NDArray[np.float32]] = {}
    start = 0
    for entry in entries:
        if entry["dtype"] != "float32" or "quantization" in entry:
            raise ValueError(f"weight {entry['name']} is not plain float32")
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(raw, "<f4", count, start)
        weights[entry["name"]] = values.reshape(entry["shape"])
        start += 4 * count
    if start != len(raw):
        raise ValueError(f"{len(raw)} bytes of weights, the list accounts for {start}")
    return weights


def _build(config: dict[str, Any]) -> keras.Model:
    tensors: dict[str, Any] = {}
    for entry in config["layers"]:
        options = entry["config"]
        if entry["class_name"] == "InputLayer":
            shape = options["batch_input_shape"][1:]
            tensors[entry["name"]] = keras.Input(shape=shape, name=entry["name"])
            continue
        inputs = [tensors[node[0]] for node in entry["inbound_nodes"][0]]
        layer = _layer(entry["class_name"], options)
        tensors[entry["name"]] = layer(inputs if len(inputs) > 1 else inputs[0])
    (start,), (end,) = config["input_layers"], config["output_layers"]
    return keras.Model(tensors[start[0]], tensors[end[0]])


def _layer(kind: str, options: dict[str, Any]) -> keras.Layer:
    name = options["name"]
    match kind:
        case "Conv2D":
            return keras.layers.Conv2D(
                options["filters"],
                options["kernel_size"],
                strides=options["strides"],
                padding=options["padding"],
                dilation_rate=options["dilation_rate"],
                groups=options.get("groups", 1),
                activation=options["activation"],
                use_bias=options["use_bias"],
                name=name,
            )
        case "Activation":
            return keras.layers.Activation(options["activation"], name=name)
        case "Concatenate":
            return keras.layers.Concatenate(axis=options["axis"], name=name)
        case "Add":
            return keras.layers.Add(name=name)
        case "UpSampling2D" if options["interpolation"] in _INTERPOLATIONS:
            return keras.layers.UpSampling2D(
                tuple(options["size"]), interpolation=options["interpolation"], name=name
            )
    raise ValueError(f"layers of the kind {kind} are not known here")
