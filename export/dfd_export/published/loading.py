"""Published model files, loaded with nothing but Keras' own layers."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import keras

from dfd_edge.errors import UsageError
from dfd_export.published.model_file import ModelFile
from dfd_export.published.rewriting import rewrite

logger = logging.getLogger(__name__)


def load(file: ModelFile) -> keras.Model:
    """Builds a model from its file and gives it its weights.

    Raises:
        UsageError: A layer is not taken over, or layers and weights do not fit each other.
    """
    config = rewrite(file)
    with warnings.catch_warnings():
        # Of Keras to the author of the model, who is not here.
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


def load_published(path: Path) -> tuple[ModelFile, keras.Model]:
    """Reads and loads a published model."""
    file = ModelFile.read(path)
    return file, load(file)
