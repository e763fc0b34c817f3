"""How far a fit of the frame model is: what it said, and what it needs to go on."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole

PROGRESS_NAME = "progress.npz"
HISTORY_NAME = "history.csv"

Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FrameEpoch:
    """One row of a fit's history.

    Attributes:
        epoch: counted from 0.
        stage: what learnt: whole, head or upper.
        loss: of training, mean over the epoch.
        accuracy: of training, share of crops on their side of logit 0.
        auc: of training, in 200 bins of the score, over the batches as the weights changed.
        val_loss: the same loss on the held-out fold, by averaged weights, as the next two.
        val_accuracy: share of held-out crops on their side of logit 0.
        val_auc: area under the ROC curve on the held-out fold.
        seconds: that the epoch took, validation included.
    """

    epoch: int
    stage: str
    loss: float
    accuracy: float
    auc: float
    val_loss: float
    val_accuracy: float
    val_auc: float
    seconds: float


@dataclass
class FrameProgress:
    """A fit after some of its epochs.

    Attributes:
        history: one row an epoch.
        variables: of the model, states of its random numbers included.
        average: the moving average of its weights.
        optimizer: its variables, of the last row's stage.
    """

    history: list[FrameEpoch] = field(default_factory=list)
    variables: Arrays = field(default_factory=list)
    average: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)

    def is_done(self, *, epochs: int, warmup_epochs: int, patience: int) -> bool:
        """Whether no epoch is left: all were done, or too many without a better AUC.

        Epochs of the warm-up do not count as such.
        """
        if len(self.history) >= epochs:
            return True
        if len(self.history) <= warmup_epochs:
            return False
        best = int(np.argmax([row.val_auc for row in self.history]))
        return len(self.history) - 1 - max(best, warmup_epochs) >= patience

    def table(self) -> pd.DataFrame:
        """The history as `history.csv` has it."""
        return pd.DataFrame([dataclasses.asdict(row) for row in self.history])

    def save(self, folder: Path) -> None:
        """Write `progress.npz`, then `history.csv`, each whole."""
        rows = [dataclasses.asdict(row) for row in self.history]
        arrays: dict[str, Any] = {"history": np.array(json.dumps(rows))}
        for name in ("variables", "average", "optimizer"):
            arrays |= {f"{name}.{n}": array for n, array in enumerate(getattr(self, name))}
        with written_whole(folder / PROGRESS_NAME) as partial, partial.open("wb") as stream:
            np.savez(stream, **arrays)
        with written_whole(folder / HISTORY_NAME) as partial:
            self.table().to_csv(partial, index=False)

    @classmethod
    def load(cls, folder: Path) -> FrameProgress:
        """Read what `save` wrote.

        Raises:
            UsageError: The file is missing or damaged.
        """
        path = folder / PROGRESS_NAME
        try:
            with np.load(path, allow_pickle=False) as saved:
                history = [FrameEpoch(**row) for row in json.loads(str(saved["history"]))]
                return cls(history, *(numbered(saved, name) for name in _PARTS))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{path}: nothing to go on from ({str(error).splitlines()[0]}): give another --out"
            ) from error


_PARTS = ("variables", "average", "optimizer")


def values_of(variables: Sequence[keras.Variable]) -> Arrays:
    """The values of Keras variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[keras.Variable], values: Arrays) -> None:
    """Give Keras variables the values that `values_of` took."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def numbered(saved: Any, name: str) -> Arrays:  # noqa: ANN401 - an NpzFile
    """The arrays `name.0`, `name.1` … of an `.npz` file."""
    count = sum(key.startswith(f"{name}.") for key in saved.files)
    return [saved[f"{name}.{number}"] for number in range(count)]
