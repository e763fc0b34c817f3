"""A moving average of a model's weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

AVERAGE_EVERY = 10


class WeightAverage(keras.callbacks.Callback):  # type: ignore[misc] # Keras is untyped
    """Keeps a moving average of all weights, batch-norm statistics included.

    Averaged weights (Polyak and Juditsky, 1992) generalise better than the last ones and let
    the learning rate stay high for longer.

    Args:
        decay: of the average, a step of `AVERAGE_EVERY` batches.

    Attributes:
        weights: the averages in the order of the model's weights; None before the first batch.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self.weights: list[NDArray[np.float32]] | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Fold the current weights in, every tenth batch."""
        del logs
        if batch % AVERAGE_EVERY:
            return
        current = self.model.get_weights()
        if self.weights is None:
            self.weights = current
            return
        for average, weight in zip(self.weights, current, strict=True):
            np.multiply(average, self._decay, out=average)
            np.add(average, (1.0 - self._decay) * weight, out=average)
