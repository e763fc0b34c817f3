"""Networks of `keras.applications` as backbones: built without top, their official weights read.

Scaling that some of them bring along is left out or cut off: the frame model has one place for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from dfd_edge.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Builds one network and reads its weights.

    Attributes:
        function: Its name in `keras.applications`.
        name: The backbone's.
        options: Further arguments of the function.
        first_layer: Where the network begins, if not at its input: layers before it scale pixels.
    """

    function: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    first_layer: str | None = None

    def build(self, input_size: int) -> keras.Model:
        """Builds it with fresh weights.

        Args:
            input_size: Height and width of the input in pixels.

        Returns:
            A model from scaled pixels [B, S, S, 3] to the last feature map [B, h, w, F].
        """
        return self._cut(self._whole(input_size))

    def read(self, backbone: keras.Model, path: Path) -> None:
        """Reads weights into a model that `build` built.

        Args:
            backbone: The model.
            path: `.h5`, as `save_weights` of the same network without a top writes it; the
                official files are such.

        Raises:
            UsageError: The file is missing, is no such file, or is one of another network.
        """
        whole = backbone if self.first_layer is None else self._whole(backbone.input.shape[1])
        read_h5(whole, path, f"{self.name} without its top")
        if whole is not backbone:
            backbone.set_weights(self._cut(whole).get_weights())

    def _whole(self, input_size: int) -> keras.Model:
        make = getattr(keras.applications, self.function)
        return make(
            include_top=False,
            weights=None,
            input_shape=(input_size, input_size, 3),
            **self.options,
        )

    def _cut(self, whole: keras.Model) -> keras.Model:
        # Some functions look their own name up in a table: it cannot be given them.
        begins = whole if self.first_layer is None else whole.get_layer(self.first_layer)
        return keras.Model(begins.input, whole.output, name=self.name)


def read_h5(model: keras.Model, path: Path, network: str) -> None:
    """Reads an `.h5` file of weights: of Keras 3 (`.weights.h5`) or of Keras 2.

    Args:
        model: Takes the weights.
        path: The file.
        network: What the file should hold, for the message.

    Raises:
        UsageError: The file is missing, is no such file, or is one of another network.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such weights file")
    try:
        model.load_weights(path)
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path}: not the weights of {network} ({reason}); give a file that its "
            "save_weights wrote"
        ) from error
