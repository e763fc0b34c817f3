"""Options of the CNN-RNN recipe, and the files of its runs for the exporter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Resize

SHARES = (0.6, 0.15, 0.25)
"""Shares of the groups of `train`: fitted on, for early stopping, for the decision."""

RESIZE = Resize.BILINEAR
"""How the published code resizes, by `cv2.resize`."""

FRAME_NAME = "frame.keras"
SEQUENCE_NAME = "sequence.keras"
DECISION_NAME = "decision.json"
CARD_NAME = "card.json"
CROPS_NAME = "crops.npy"
_RUN_NAME = "run.json"


@dataclass(frozen=True, slots=True)
class CnnRnnOptions:
    """Options of the recipe; the defaults are the published ones.

    Attributes:
        backbone: Name of the frozen backbone in the registry.
        weights: "imagenet", "none" (random weights from `seed`), or a file of weights.
        frames: Number of frames of a clip, from its start.
        size: Side of the pictures in pixels.
        epochs: Maximum number of epochs.
        patience: Epochs without a lower loss on the groups for early stopping.
        batch_size: Clips per batch.
        learning_rate: Learning rate of Adam.
        dropout: Share of values dropped between the recurrent and the dense layers.
        head: A name in `dfd_training.recipes.networks.HEADS`.
        seed: Seed of all random choices.
    """

    backbone: str = "inception_v3"
    weights: str = "imagenet"
    frames: int = 20
    size: int = 224
    epochs: int = 100
    patience: int = 10
    batch_size: int = 8
    learning_rate: float = 1e-3
    dropout: float = 0.4
    head: str = "small"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; 1 or more")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate is {self.learning_rate}; above 0")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout is {self.dropout}; 0 or more and below 1")


def is_run(folder: Path) -> bool:
    """Returns whether a folder is that of a run, finished or not."""
    return (folder / _RUN_NAME).is_file()


@dataclass(frozen=True, slots=True)
class RecipeRun:
    """A finished run of a recipe for whole frames.

    Attributes:
        folder: Folder of the run.
        first_frames: Number of judged frames of a clip.
        rate_hz: Usual frames per second of the clips.
        resize: How pictures were resized; runs from before this was recorded averaged areas.
    """

    folder: Path
    first_frames: int
    rate_hz: float
    resize: Resize

    @classmethod
    def read(cls, folder: Path) -> RecipeRun:
        """Reads a finished run.

        Raises:
            UsageError: The folder holds no finished run of a recipe.
        """
        try:
            facts = json.loads((folder / _RUN_NAME).read_text("utf-8"))["recipe"]
            resize = Resize(facts.get("resize", Resize.AREA))
            run = cls(folder, int(facts["first_frames"]), float(facts["rate_hz"]), resize)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(
                f"{folder}: no finished run of a recipe: give a folder that `dfd-train recipe` "
                "wrote, or a model file"
            ) from error
        for name in (FRAME_NAME, SEQUENCE_NAME, DECISION_NAME, CARD_NAME, CROPS_NAME):
            if not (folder / name).is_file():
                raise UsageError(f"{folder / name}: is missing: run the recipe once more")
        return run
