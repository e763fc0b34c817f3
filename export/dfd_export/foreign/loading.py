"""Foreign model files, loaded with nothing but Keras' own layers.

A model's description is rewritten in the form that the installed Keras reads. Every layer is looked
up by its class among Keras' own; the modules that a file names are not imported. So nothing in a
file decides which code runs, and files of Keras 2 and 3, HDF5 and archive, come out alike. What
only training needs (initialisers, regularisers, constraints, the optimiser) is left out: the
weights come from the file.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import keras

from dfd_edge.errors import UsageError
from dfd_export.foreign import refusals
from dfd_export.foreign.keras2 import (
    KINDS,
    as_keras3,
    keras_layer,
    nodes_as_keras3,
    without_slashes,
)
from dfd_export.foreign.keras_graph import INERT
from dfd_export.foreign.model_file import ModelFile
from dfd_export.foreign.refusals import NOT_KERAS
from dfd_training.models.backbone import ReverseChannels

Config = dict[str, Any]

_GRAPHS = ("Functional", "Model")
_MODELS = (*_GRAPHS, "Sequential")
_OWN = {ReverseChannels.__name__: keras.saving.get_registered_name(ReverseChannels)}
_APPLICATION_LAYERS = {
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
}
"""Layers of keras.applications that are not among `keras.layers`, with the module they are in."""

_OPERATION_MODULES = ("keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.core")
"""Modules that Keras writes for an operation such as `x / 255`; they hold no layers."""

_ARGUMENTS = {"__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__"}
"""Keys that Keras writes into the arguments of a layer's call beside plain JSON."""

_NO_OPERATIONS = {"Cond", "CustomGradient", "Map", "Scan", "VectorizedMap", "WhileLoop", "ForiLoop"}
"""Those of core that take functions."""

_FOR_TRAINING = ("_initializer", "_regularizer", "_constraint")


def rewrite(file: ModelFile) -> Config:
    """Rewrites the description of a whole model.

    Returns:
        What `keras.saving.deserialize_keras_object` takes.

    Raises:
        UsageError: A layer is not taken over, or the description is damaged.
    """
    try:
        return _model(file.path, without_slashes(file.config))
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise UsageError(
            f"{file.path}: its description of the model is damaged ({type(error).__name__}: "
            f"{error}): save it again"
        ) from error


def _model(path: Path, entry: Config) -> Config:
    kind = entry["class_name"]
    if kind in _GRAPHS:
        return _graph(path, entry["config"])
    if kind == "Sequential":
        return _sequential(path, entry["config"])
    raise UsageError(f"{path}: the model's class {kind!r:.60} {NOT_KERAS}")


def _graph(path: Path, config: Config) -> Config:
    layers = [_layer(path, entry) for entry in config["layers"]]
    inputs, outputs = nodes_as_keras3(layers, config["input_layers"], config["output_layers"])
    rewritten = {
        "name": config["name"],
        "trainable": config.get("trainable", True),
        "layers": layers,
        "input_layers": inputs,
        "output_layers": outputs,
    }
    return _object("keras", "Model", rewritten)


def _sequential(path: Path, config: Config | list[Config]) -> Config:
    # Before Keras 2.2.3 the description was the bare list of layers.
    given: Config = {"layers": config} if isinstance(config, list) else config
    entries = list(given["layers"])
    first = entries[0]["config"]
    shape = first.get("batch_input_shape") if isinstance(first, dict) else None
    if shape is not None and entries[0]["class_name"] != "InputLayer":
        source = {"batch_input_shape": shape, "name": f"{first['name']}_input"}
        entries.insert(0, {"class_name": "InputLayer", "config": source})
    rewritten = {
        "name": given.get("name", "sequential"),
        "layers": [_layer(path, entry) for entry in entries],
    }
    if given.get("build_input_shape") is not None:
        rewritten["build_input_shape"] = given["build_input_shape"]
    return _object("keras", "Sequential", rewritten)


def _layer(path: Path, entry: Config) -> Config:
    """One layer, with what a model's description says of its place in the model."""
    kind = entry["class_name"]
    place: Config = {key: entry[key] for key in ("name", "inbound_nodes") if key in entry}
    _check_nodes(path, entry["config"], place.get("inbound_nodes", []))
    if kind in _MODELS:
        return {**_model(path, entry), **place}
    name = str(entry["config"].get("name", entry.get("name", "without a name")))
    if kind in refusals.OLD:
        raise refusals.refuse(path, name, kind, refusals.OLD[kind])
    if kind in KINDS:
        made = keras_layer(entry)
        if made is None:
            raise refusals.refuse(
                path,
                name,
                kind,
                f"calls TensorFlow's {entry['config']['function']!r:.60}, which is not taken over: "
                "put a Keras layer in its place (Rescaling for arithmetic) and save again",
            )
        return _layer(path, made)
    if kind in _OWN:
        return {**_object(None, kind, {"name": name}, registered=_OWN[kind]), **place}
    if "trainable" not in entry["config"] and kind != "InputLayer":
        return {**_operation(path, name, kind, entry["config"]), **place}
    return {**_keras_layer(path, name, kind, entry["config"]), **place}


def _keras_layer(path: Path, name: str, kind: str, config: Config) -> Config:
    """A layer of Keras' own."""
    application = kind.rpartition(">")[2]
    known = application in _APPLICATION_LAYERS
    if kind in INERT or (known and application in INERT):
        # Its settings say how to change pictures in training; each Keras has others.
        return _object("keras.layers", "Identity", {"name": name})
    if not known and not _is_layer(kind):
        raise refusals.refuse(path, name, kind, NOT_KERAS)
    cleaned = _clean(path, name, kind, config)
    if kind == "Resizing" and (problem := refusals.of_resizing(cleaned)) is not None:
        raise refusals.refuse(path, name, kind, problem)
    if known:
        return _object(_APPLICATION_LAYERS[application], application, cleaned)
    return _object("keras.layers", kind, as_keras3(path, kind, cleaned))


def _check_nodes(path: Path, config: Config, value: object) -> None:
    """Refuses objects other than tensors, slices and numbers among the arguments of a call."""
    match value:
        case {"class_name": str(kind), **rest}:
            if kind not in _ARGUMENTS:
                name = config.get("name", "without a name")
                raise UsageError(
                    f"{path}: layer {name} is called with a {kind!r:.60}, which {NOT_KERAS}"
                )
            _check_nodes(path, config, rest)
        case dict():
            _check_nodes(path, config, list(value.values()))
        case list():
            for item in value:
                _check_nodes(path, config, item)


def _operation(path: Path, name: str, kind: str, config: Config) -> Config:
    for module in _OPERATION_MODULES:
        found = getattr(importlib.import_module(module), kind, None)
        if (
            isinstance(found, type)
            and issubclass(found, keras.Operation)
            and kind not in _NO_OPERATIONS
        ):
            return _object(module, kind, _clean(path, name, kind, config))
    if _is_layer(kind):  # a few layers do not write whether they are trained
        return _keras_layer(path, name, kind, config)
    raise refusals.refuse(path, name, kind, NOT_KERAS)


def _clean(path: Path, name: str, kind: str, config: Config) -> Config:
    """A layer's settings without what training needs, and without objects of unknown classes."""
    cleaned = {}
    for key, value in config.items():
        if key.endswith(_FOR_TRAINING):
            continue
        if key.endswith("activation"):
            cleaned[key] = _activation(path, name, kind, value)
        elif key == "dtype":
            cleaned[key] = _dtype(value)
        else:
            cleaned[key] = _plain(path, name, kind, value)
    return cleaned


def _activation(path: Path, name: str, kind: str, value: object) -> object:
    match value:
        case None:
            return None
        case {"class_name": "function", "config": str(function)}:
            return _activation(path, name, kind, function)
        case {"class_name": str(layer), "config": config} if _is_layer(layer):
            return _layer(path, {"class_name": layer, "config": config})
        case str():
            # TensorFlow 2.3 and 2.4 wrote the name of the function inside.
            known = value.removesuffix("_v2")
            if known.isidentifier() and hasattr(keras.activations, known):
                return known
    raise refusals.refuse(
        path, name, kind, f"has the activation {value!r:.60}, which is none of Keras' own: use one"
    )


def _dtype(value: object) -> str:
    """The number type: 32 bits where training mixed it with 16, since the weights have 32."""
    policy = value["config"]["name"] if isinstance(value, dict) else value
    if not isinstance(policy, str) or policy.startswith("mixed") or "float" in policy:
        return "float32"
    return policy


def _plain(path: Path, name: str, kind: str, value: object) -> Any:  # noqa: ANN401 - JSON
    match value:
        case {"class_name": "__numpy__" | "__tensor__", "config": {"value": inner}}:
            return inner
        case {"class_name": "__tuple__", "items": list(items)}:
            return [_plain(path, name, kind, item) for item in items]
        case {"class_name": str(layer), "config": dict(config)} if _is_layer(layer):
            return _layer(path, {"class_name": layer, "config": config})
        case {"class_name": other}:
            raise refusals.refuse(path, name, kind, f"holds a {other!r:.60}, which {NOT_KERAS}")
        case list():
            return [_plain(path, name, kind, item) for item in value]
        case dict():
            return {key: _plain(path, name, kind, item) for key, item in value.items()}
    return value


def _is_layer(kind: str) -> bool:
    found = getattr(keras.layers, kind, None)
    return kind in _MODELS or (isinstance(found, type) and issubclass(found, keras.layers.Layer))


def _object(
    module: str | None, kind: str, config: Config, *, registered: str | None = None
) -> Config:
    return {
        "module": module,
        "class_name": kind,
        "config": config,
        "registered_name": registered,
    }


logger = logging.getLogger(__name__)


def load(file: ModelFile) -> keras.Model:
    """Builds a model from its file and gives it its weights.

    Raises:
        UsageError: A layer is not taken over, or layers and weights do not fit each other.
    """
    config = rewrite(file)
    with warnings.catch_warnings():
        # Warnings of Keras to the author of the model, who is not here.
        warnings.simplefilter("ignore", UserWarning)
        try:
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            model.load_weights(str(file.path))
            _finalize(model)
        except Exception as error:  # Keras raises whatever a damaged description leads to
            written = f"Keras {file.keras_version}" if file.keras_version else "an unknown Keras"
            raise UsageError(
                f"{file.path}: written by {written}, and Keras {keras.__version__} cannot build it "
                f"({_reason(error)}): load it where it was made and save it again"
            ) from error
    return model


def _finalize(model: keras.Model) -> None:
    """Lets layers work out what follows from their weights.

    A `Normalization` inside a model inside a model keeps mean 0 and variance 1 when Keras 3 reads
    an `.h5` file: EfficientNet, for one, would see other pictures than it was trained on.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _finalize(layer)
        elif hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _reason(error: Exception) -> str:
    """The innermost of the reasons that Keras strings together, in one line."""
    *_, last = str(error).split("Exception encountered:")
    return " ".join(last.split())[:300] or type(error).__name__
