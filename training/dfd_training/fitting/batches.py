"""Batches of one epoch, as Keras takes them on any backend."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import DfdError
from dfd_training.fitting.sources import CropSource

Float32 = NDArray[np.float32]


class FrameBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of one epoch; the same seed, epoch and index give the same batch.

    Args:
        source: of the crops.
        epoch: counted from 0.
        steps: batches.
        batch_size: crops a batch.
        seed: of the fit.
        threads: that draw batches ahead.

    Attributes:
        error: why a batch could not be drawn. A backend may wrap what a drawing thread raises in
            an error of its own.
    """

    def __init__(
        self,
        source: CropSource,
        *,
        epoch: int,
        steps: int,
        batch_size: int,
        seed: int,
        threads: int,
    ) -> None:
        super().__init__(workers=threads, use_multiprocessing=False, max_queue_size=6)
        self.error: DfdError | None = None
        self._source = source
        self._epoch = epoch
        self._steps = steps
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[Float32, Float32, Float32]:
        """Return crops [batch, size, size, 3] in 0..255, labels, 1 for fake, and weights.

        With two views the second half of the batch shows what the first half shows.
        """
        seed = (self._seed, self._epoch, index)
        try:
            crops, labels, weights = self._source.draw(self._batch_size, seed)
        except DfdError as error:
            self.error = error
            raise
        return crops.astype(np.float32), labels.astype(np.float32), weights
