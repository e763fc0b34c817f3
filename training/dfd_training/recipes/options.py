"""What can be set of the CNN-RNN recipe."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_edge.errors import UsageError

SHARES = (0.6, 0.15, 0.25)
"""Shares of the groups of `train`: fitted on, for early stopping, for the decision."""


@dataclass(frozen=True, slots=True)
class CnnRnnOptions:
    """How the recipe is followed; the defaults are the published ones.

    Attributes:
        backbone: name in the registry, frozen.
        weights: "imagenet", "none" (random ones, of `seed`), or a file of weights.
        frames: of a clip, every one from the first on.
        size: side of the pictures in pixels.
        epochs: at most so many.
        patience: epochs without a lower loss on the groups for early stopping.
        batch_size: clips a batch.
        learning_rate: of Adam.
        dropout: share of values dropped between the recurrent and the dense layers.
        seed: of everything drawn.
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
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; 1 or more")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate is {self.learning_rate}; above 0")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout is {self.dropout}; 0 or more and below 1")
