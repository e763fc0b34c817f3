"""The record of a run: settings, facts, progress to go on from, and curves."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.inference.processor import processor_name
from dfd_edge.sinks.files import written_whole
from dfd_training.data.store import CropStore
from dfd_training.fitting.precision import accelerators
from dfd_training.fitting.settings import read_settings, to_toml

RUN_NAME = "run.json"
SETTINGS_NAME = "settings.toml"
PROGRESS_NAME = "progress.npz"
HISTORY_NAME = "history.csv"

_MAY_CHANGE = {"epochs", "patience", "threads"}
"""Settings that a run may be resumed with other values of."""

_DISTRIBUTIONS = ("dfd-edge", "keras", "numpy", "opencv-python", "pandas", "scikit-learn")
_BACKENDS = ("tensorflow", "jax", "torch")


def write_record(
    out: Path, tables: Mapping[str, Any], *, data: Mapping[str, object], **results: object
) -> None:
    """Writes `settings.toml` and `run.json` into a run's folder.

    Args:
        out: The folder.
        tables: The dataclasses of settings by the names of their tables; those of the fit itself
            are called `fit`. Programs find them in `run.json` too, there as `options`.
        data: Facts about the run's data.
        results: More for `run.json`.
    """
    with written_whole(out / SETTINGS_NAME) as partial:
        partial.write_text(to_toml(tables), "utf-8")
    settings = {
        "options" if name == "fit" else name: dataclasses.asdict(options)
        for name, options in tables.items()
    }
    facts = {
        **settings,
        "seed": tables["fit"].seed,
        "data": dict(data),
        "versions": versions(),
        "backend": keras.backend.backend(),
        "machine": machine(),
        **results,
    }
    with written_whole(out / RUN_NAME) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def check_resumed(out: Path, tables: Mapping[str, Any]) -> None:
    """Refuses to go on with a run with other settings than it was begun with.

    Raises:
        UsageError: A setting is another; how many epochs there are at most may change.
    """
    path = out / SETTINGS_NAME
    if not path.is_file():
        return
    begun = read_settings(path, {name: type(options) for name, options in tables.items()})
    for table, options in tables.items():
        for name, before in begun[table].items():
            now = getattr(options, name)
            if before != now and name not in _MAY_CHANGE:
                raise UsageError(
                    f"{path}: the run was begun with {table}.{name} = {before!s}, which is now "
                    f"{now!s}: give the same settings (--settings {path}) or another --out"
                )


def data_facts(store: CropStore) -> dict[str, object]:
    """Returns the facts of a store: settings, numbers of rows, hashes of its tables."""
    tables = [path for path in (store.path / "index.csv", store.path / "made.csv") if path.exists()]
    return {
        "store": store.settings,
        "rows": len(store.index),
        "made_rows": len(store.made),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables},
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python, libraries and those backends that are installed."""
    found = {"python": platform.python_version()}
    for name in (*_DISTRIBUTIONS, *_BACKENDS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """Returns the system, its processor, its cores and the GPUs that Keras' backend sees."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": usable,
        "gpus": list(accelerators()),
    }


Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FrameEpoch:
    """One row of a fit's history.

    Attributes:
        epoch: Counted from 0.
        stage: Name of the stage: whole, head or upper.
        loss: Training loss, mean over the epoch.
        accuracy: Training accuracy, share of crops on their side of logit 0.
        auc: Training AUC, in 200 bins of the score, over the batches as the weights changed.
        val_loss: The same loss on the held-out fold, by averaged weights, as the next two.
        val_accuracy: Share of held-out crops on their side of logit 0.
        val_auc: Area under the ROC curve on the held-out fold.
        seconds: Duration of the epoch, validation included.
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
        history: One row an epoch.
        variables: Variables of the model, states of its random numbers included.
        average: The moving average of its weights.
        optimizer: Its variables, of the last row's stage.
    """

    history: list[FrameEpoch] = field(default_factory=list)
    variables: Arrays = field(default_factory=list)
    average: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)

    def is_done(self, *, epochs: int, warmup_epochs: int, patience: int) -> bool:
        """Returns whether no epoch is left: all were done, or too many without a better AUC.

        Epochs of the warm-up do not count as such.
        """
        if len(self.history) >= epochs:
            return True
        if len(self.history) <= warmup_epochs:
            return False
        best = int(np.argmax([row.val_auc for row in self.history]))
        return len(self.history) - 1 - max(best, warmup_epochs) >= patience

    def table(self) -> pd.DataFrame:
        """Returns the history as `history.csv` has it."""
        return pd.DataFrame([dataclasses.asdict(row) for row in self.history])

    def save(self, folder: Path) -> None:
        """Writes `progress.npz`, then `history.csv`, each whole."""
        rows = [dataclasses.asdict(row) for row in self.history]
        arrays: dict[str, Any] = {"history": np.array(json.dumps(rows))}
        for name in ("variables", "average", "optimizer"):
            arrays |= {f"{name}.{n}": array for n, array in enumerate(getattr(self, name))}
        with written_whole(folder / PROGRESS_NAME) as partial:
            np.savez(partial, **arrays)
        with written_whole(folder / HISTORY_NAME) as partial:
            self.table().to_csv(partial, index=False)

    @classmethod
    def load(cls, folder: Path) -> FrameProgress:
        """Reads what `save` wrote.

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
    """Returns the values of Keras variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[keras.Variable], values: Arrays) -> None:
    """Gives Keras variables the values that `values_of` took."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def numbered(saved: Any, name: str) -> Arrays:  # noqa: ANN401 - an NpzFile
    """Returns the arrays `name.0`, `name.1` … of an `.npz` file."""
    count = sum(key.startswith(f"{name}.") for key in saved.files)
    return [saved[f"{name}.{number}"] for number in range(count)]


_PANELS = (
    ("loss", "Loss", "loss"),
    ("accuracy", "Accuracy", "share on their side of 0.5"),
    ("auc", "AUC", "area under the ROC curve"),
)


def write_curves(history: pd.DataFrame, path: Path) -> None:
    """Writes the figure of `draw_curves` as PNG; the file is replaced once it is whole."""
    with written_whole(path) as partial:
        draw_curves(history).savefig(partial, dpi=110)


def draw_curves(history: pd.DataFrame) -> Figure:
    """Draws loss, accuracy and AUC of training and of the held-out fold over whole epochs.

    Args:
        history: Columns `epoch`, from 0 (drawn from 1 on), and `loss`, `accuracy`, `auc`, each
            also with `val_` before it; a panel that has neither is left out. Where a column
            `stage` changes, a line is drawn.
    """
    panels = [panel for panel in _PANELS if {panel[0], f"val_{panel[0]}"} & set(history.columns)]
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)
    for axes, (name, title, unit) in zip(all_axes[0], panels, strict=True):
        for column, label, colour in (
            (name, "training", "C0"),
            (f"val_{name}", "held-out fold", "C1"),
        ):
            if column in history:
                epochs = history["epoch"] + 1
                axes.plot(epochs, history[column], label=label, color=colour, marker=".")
        for epoch, stage in _changes(history):
            axes.axvline(epoch + 0.5, color="grey", linestyle="--", linewidth=1, label=stage)
        axes.set(xlabel="epoch", ylabel=unit, title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _changes(history: pd.DataFrame) -> list[tuple[float, str]]:
    """Returns the first epoch and the name of each stage but the first."""
    if "stage" not in history:
        return []
    begins = history[history["stage"] != history["stage"].shift()].iloc[1:]
    return [
        (float(epoch), f"from here: {stage}")
        for epoch, stage in zip(begins["epoch"], begins["stage"], strict=True)
    ]
