"""What a fit left in its folder: how it went, and how long it took."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfd_edge.errors import UsageError

HISTORY = "history.csv"
RUN = "run.json"
MODEL = "best.keras"


@dataclass(frozen=True)
class Fit:
    """A folder that `dfd-train fit frame` or `dfd-train probe` wrote.

    Attributes:
        folder: where it is.
        history: one row an epoch; None where the fit has no epochs.
        options: what it was fitted with, by name; empty where it is not recorded.
    """

    folder: Path
    history: pd.DataFrame | None
    options: dict[str, Any]

    @property
    def model(self) -> Path | None:
        """The model that was kept."""
        path = self.folder / MODEL
        return path if path.is_file() else None

    @property
    def epochs(self) -> int | None:
        """Epochs done."""
        return None if self.history is None else len(self.history)

    @property
    def seconds(self) -> float | None:
        """What the epochs took together."""
        if self.history is None or "seconds" not in self.history:
            return None
        return float(self.history["seconds"].sum())

    @property
    def best_auc(self) -> float | None:
        """The highest AUC of an epoch on the fold that was held out from the fit."""
        if self.history is None or "val_auc" not in self.history:
            return None
        return float(self.history["val_auc"].max())

    @property
    def name(self) -> str:
        """What was fitted, as far as it is recorded."""
        return str(self.options.get("backbone", ""))


def is_fit(folder: Path) -> bool:
    """Whether a folder holds what a fit writes."""
    return (folder / HISTORY).is_file() or ((folder / RUN).is_file() and (folder / MODEL).is_file())


def read_fit(folder: Path) -> Fit:
    """Read the folder of a fit.

    Raises:
        UsageError: when it holds none, or its files are damaged.
    """
    if not is_fit(folder):
        raise UsageError(
            f"{folder}: no fit: neither {HISTORY} nor {RUN} with {MODEL}; give the folder that "
            "dfd-train fit frame wrote"
        )
    history = None
    if (folder / HISTORY).is_file():
        history = _read_history(folder / HISTORY)
    options: dict[str, Any] = {}
    if (folder / RUN).is_file():
        try:
            options = dict(json.loads((folder / RUN).read_text("utf-8")).get("options", {}))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UsageError(f"{folder / RUN}: not the record of a fit ({error})") from error
    return Fit(folder, history, options)


def history_panels(history: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Which columns of a history are drawn together, and what they are called, by quantity."""
    panels: dict[str, dict[str, str]] = {}
    for title, column in (("loss", "loss"), ("accuracy", "accuracy"), ("AUC", "auc")):
        names = {column: "training batches", f"val_{column}": "held-out fold"}
        found = {c: name for c, name in names.items() if c in history and history[c].notna().any()}
        if found:
            panels[title] = found
    return panels


def find_fit(out: Path, bundle: Path | None) -> Fit | None:
    """The fit beside an evaluation: in its folder, the one above, or the one above the bundle."""
    places = [out, out.resolve().parent]
    if bundle is not None:
        places.append(bundle.resolve().parent)
    return next((read_fit(place) for place in places if is_fit(place)), None)


def place_from(folder: Path, target: Path) -> str:
    """A path as it is written into a file of a folder, so that both may move together."""
    return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()


def _read_history(path: Path) -> pd.DataFrame:
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not the history of a fit ({error})") from error
    if "epoch" not in history or history.empty:
        raise UsageError(f"{path}: not the history of a fit: no column epoch, or no row")
    return history
