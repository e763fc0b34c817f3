"""Models as deepfake notebooks build and save them, small and with random weights.

They stand on either Keras: `keras` is the installed one, or `tf_keras`, which still is Keras 2 and
writes the files that most published models are.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
from click.testing import CliRunner, Result

from dfd_export.cli import main
from dfd_export.foreign.loading import load
from dfd_export.foreign.model_file import ModelFile

SIZE = 48
WIDTH = 6
STEPS = 8


def pictures(count: int, size: int = SIZE, seed: int = 5) -> np.ndarray:
    """Noise at two scales, of many brightnesses: uint8 [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 4, 4, 3)).repeat(-(-size // 4), axis=1)
    coarse = coarse.repeat(-(-size // 4), axis=2)[:, :size, :size]
    fine = rng.uniform(0, 1, (count, size, size, 3))
    light = rng.uniform(0.2, 1, (count, 1, 1, 1))
    return (255 * light * (0.6 * coarse + 0.4 * fine)).astype(np.uint8)


def shake(model: Any, seed: int = 0, inputs: np.ndarray | None = None) -> Any:
    """Gives weights and batch norms values that matter, so that a mistake is seen in the output.

    Args:
        model: Any model of Keras 2 or 3.
        seed: Of the values.
        inputs: Batch norms take their statistics of these.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name = getattr(variable, "path", variable.name)
        if "gamma" in name:
            variable.assign(rng.uniform(0.7, 1.4, variable.shape))
        elif any(part in name for part in ("beta", "bias", "moving_mean")):
            variable.assign(rng.uniform(-0.3, 0.3, variable.shape))
        elif "moving_variance" in name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    if inputs is not None:
        norms = [layer for layer in model._flatten_layers() if hasattr(layer, "momentum")]
        for layer in norms:
            layer.momentum = 0.0
        model(inputs.astype(np.float32), training=True)
    return model


def cnn(*head: Any, size: int | None = SIZE, k: ModuleType = keras) -> Any:
    """A small CNN, ending in these layers."""
    layers = k.layers
    return k.Sequential(
        [
            k.Input((size, size, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            *head,
        ]
    )


def recurrent(*, verdict: Any, k: ModuleType = keras, steps: int | None = STEPS) -> Any:
    """The sequence model of [features, mask], as the notebooks build it."""
    layers = k.layers
    features = k.Input((steps, WIDTH))
    mask = k.Input((steps,), dtype="bool")
    x = layers.GRU(7, return_sequences=True)(features, mask=mask)
    x = layers.BatchNormalization()(x)
    x = layers.GRU(5)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.4)(x)
    x = layers.Dense(8, activation="relu")(x)
    return k.Model([features, mask], verdict(x))


def save(model: Any, path: Path) -> Path:
    """Saves a model as notebooks do."""
    model.save(str(path))
    return path


def predict(model: Any, inputs: Any) -> np.ndarray:
    """What a model gives, as numpy."""
    return np.asarray(model(inputs, training=False))


def run_bundle(*arguments: object) -> Result:
    """Runs `dfd-export bundle`."""
    return CliRunner().invoke(main, ["bundle", *(str(argument) for argument in arguments)])


def export_bundle(*arguments: object) -> Result:
    """Runs it to its end."""
    result = run_bundle(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def load_foreign(path: Path) -> tuple[ModelFile, keras.Model]:
    """A model file's description, and the model."""
    file = ModelFile.read(path)
    return file, load(file)
