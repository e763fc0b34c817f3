"""Curves of a fit as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt


def write_curves(history: pd.DataFrame, path: Path) -> None:
    """Draw losses and validation AUC over the epochs, as PNG.

    Args:
        history: columns `epoch`, `loss`, `val_loss`, `val_auc`.
        path: of the picture.
    """
    figure, (losses, areas) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    losses.plot(history["epoch"], history["loss"], label="training")
    losses.plot(history["epoch"], history["val_loss"], label="held-out fold")
    losses.set(xlabel="epoch", ylabel="binary cross-entropy", title="Loss")
    losses.legend()
    areas.plot(history["epoch"], history["val_auc"], color="C1")
    areas.set(xlabel="epoch", ylabel="AUC", title="AUC on the held-out fold")
    for axes in (losses, areas):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
