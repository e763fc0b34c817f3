"""Curves of a fit as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from dfd_edge.outputs.files import written_whole

_PANELS = (
    ("loss", "Loss", "loss"),
    ("accuracy", "Accuracy", "share on their side of 0.5"),
    ("auc", "AUC", "area under the ROC curve"),
)


def write_curves(history: pd.DataFrame, path: Path) -> None:
    """Draw loss, accuracy and AUC of training and of the held-out fold over the epochs, as PNG.

    Args:
        history: columns `epoch`, and `loss`, `accuracy`, `auc`, each also with `val_` before it;
            a panel that has neither is left out. Where a column `stage` changes, a line is drawn.
        path: of the picture; it is replaced once it is whole.
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
                axes.plot(history["epoch"], history[column], label=label, color=colour, marker=".")
        for epoch, stage in _changes(history):
            axes.axvline(epoch - 0.5, color="grey", linestyle="--", linewidth=1, label=stage)
        axes.set(xlabel="epoch", ylabel=unit, title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=110)


def _changes(history: pd.DataFrame) -> list[tuple[float, str]]:
    """The first epoch of each stage but the first, and what it is called."""
    if "stage" not in history:
        return []
    begins = history[history["stage"] != history["stage"].shift()].iloc[1:]
    return [
        (float(epoch), f"from here: {stage}")
        for epoch, stage in zip(begins["epoch"], begins["stage"], strict=True)
    ]
