"""The fit of a generator: time budget, falling learning rate, checkpoints and the loss."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole

OnRound = Callable[[float, float], None]
"""Called with the share of the time used and the latest loss."""


@dataclass(frozen=True, slots=True)
class GeneratorFitOptions:
    """Options of the fit of a generator.

    Attributes:
        minutes: Minutes of training, those before a break included.
        rounds: Rounds of batches, instead of the minutes; 0 for as many as the minutes hold.
        batch_size: Pictures a batch.
        learning_rate: Learning rate of Adam at the start of the cosine.
        steps: Batches between two checkpoints.
        threads: Threads that draw batches.
        seed: Seed of everything drawn.
    """

    minutes: float = 15.0
    rounds: int = 0
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    steps: int = 100
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("minutes", "batch_size", "steps", "threads"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be above 0")


def rate_at(share: float, base: float) -> float:
    """Returns a cosine decay from `base` to a twentieth of it, after `share` of the way."""
    return base * (0.05 + 0.95 * 0.5 * (1.0 + float(np.cos(np.pi * min(1.0, share)))))


@dataclass
class FitState:
    """The state of a fit, kept beside its weights as `fit.json`."""

    seconds: float = 0.0
    rounds: int = 0
    losses: list[float] | None = None

    def save(self, folder: Path) -> None:
        """Writes the file, whole or not at all."""
        facts = {"seconds": self.seconds, "rounds": self.rounds, "losses": self.losses or []}
        with written_whole(folder / "fit.json") as partial:
            partial.write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder: Path) -> FitState:
        """Reads the file; a fresh state where there is none.

        Raises:
            UsageError: When the file is damaged.
        """
        path = folder / "fit.json"
        if not path.is_file():
            return cls()
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: not the state of a fit: delete {folder}") from error


def run_fit(
    model: keras.Model,
    batches: Callable[[int], keras.utils.PyDataset],
    train: Callable[[keras.utils.PyDataset], float],
    *,
    set_rate: Callable[[float], None],
    folder: Path,
    options: GeneratorFitOptions,
    on_round: OnRound = lambda share, loss: None,
) -> FitState:
    """Fits until the time is used, saving weights and state after each round of batches.

    Args:
        model: The model; its weights are saved as `model.weights.h5`, and read if they are there.
        batches: The batches of a round, by its number.
        train: Fits on them and returns the loss.
        set_rate: Sets the learning rate.
        folder: Folder of weights and state.
        options: Time, rate.
        on_round: Called after each round.
    """
    weights = folder / "model.weights.h5"
    state = FitState.load(folder) if weights.is_file() else FitState()
    if state.rounds:
        model.load_weights(weights)
    losses = state.losses or []
    while (share := _share(state, options)) < 1.0:
        start = time.monotonic()
        set_rate(rate_at(share, options.learning_rate))
        losses.append(train(batches(state.rounds)))
        save_weights_whole(model, weights)
        state = FitState(state.seconds + time.monotonic() - start, state.rounds + 1, losses)
        state.save(folder)
        on_round(_share(state, options), losses[-1])
    return state


def _share(state: FitState, options: GeneratorFitOptions) -> float:
    """Returns how much of the fit is done, from 0 to 1."""
    if options.rounds:
        return state.rounds / options.rounds
    return state.seconds / (60.0 * options.minutes)


def save_weights_whole(model: Any, path: Path) -> None:  # noqa: ANN401 - Keras is untyped
    """Saves weights under a temporary name and renames the file: it is whole or as before."""
    partial = path.with_name("partial.weights.h5")
    model.save_weights(partial)
    partial.replace(path)


def painting_loss(truth: Any, painted: Any) -> Any:  # noqa: ANN401 - tensors of any backend
    """Returns weighted L1, L1 of edges and structural dissimilarity (Wang et al., 2004), summed.

    Args:
        truth: float32 [b, h, w, 4]: RGB in 0..1, and what a pixel counts.
        painted: float32 [b, h, w, 3].
    """
    wanted, weight = truth[..., :3], truth[..., 3:]
    error = ops.mean(weight * ops.abs(wanted - painted))
    edges = 0.0
    for axis in (1, 2):
        before = _differences(wanted, axis) - _differences(painted, axis)
        edges = edges + ops.mean(weight[:, :-1, :-1] * ops.abs(before))
    return 2.0 * error + 2.0 * edges + 0.5 * ops.mean(_dissimilarity(wanted, painted))


def _differences(picture: Any, axis: int) -> Any:  # noqa: ANN401
    if axis == 1:
        return picture[:, 1:, :-1] - picture[:, :-1, :-1]
    return picture[:, :-1, 1:] - picture[:, :-1, :-1]


def _dissimilarity(first: Any, second: Any) -> Any:  # noqa: ANN401
    first, second = ops.mean(first, -1, keepdims=True), ops.mean(second, -1, keepdims=True)
    moments = ops.concatenate(
        [first, second, first * first, second * second, first * second], axis=-1
    )
    averages = ops.average_pool(moments, 7, strides=2, padding="valid")
    mean_1, mean_2 = averages[..., 0], averages[..., 1]
    spread_1 = averages[..., 2] - mean_1 * mean_1
    spread_2 = averages[..., 3] - mean_2 * mean_2
    shared = averages[..., 4] - mean_1 * mean_2
    likeness = (2 * mean_1 * mean_2 + 1e-4) * (2 * shared + 9e-4)
    likeness = likeness / (
        (mean_1 * mean_1 + mean_2 * mean_2 + 1e-4) * (spread_1 + spread_2 + 9e-4)
    )
    return 1.0 - likeness
