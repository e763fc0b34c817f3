"""Batches of windows of clips, on which the sequence model is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.fitting.options import LossKind
from dfd_training.models import check_head
from dfd_training.sequence.sequences import MIN_STEPS, ClipSequence, Treatment


@dataclass(frozen=True, slots=True)
class FitSequenceOptions:
    """Options of the fit of the sequence model.

    Attributes:
        head: Name in the registry; for the signals head, nothing else here counts.
        epochs: Most epochs.
        steps: Batches an epoch.
        batch_size: Sequences a batch, half of them fake.
        max_steps: Longest window shown in training, steps.
        learning_rate: Learning rate of AdamW at the start of the cosine.
        weight_decay: Weight decay of AdamW.
        dropout: Share of values dropped.
        loss: "binary_crossentropy" or "focal".
        focal_gamma: Strength with which the focal loss plays down well classified steps.
        focal_alpha: Weight of fakes in the focal loss; reals weigh 1 less that.
        label_smoothing: Label smoothing of the loss.
        patience: Epochs without a better AUC before the fit ends.
        seed: Seed of everything drawn.
    """

    head: str = "gru"
    epochs: int = 30
    steps: int = 40
    batch_size: int = 32
    max_steps: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    loss: LossKind = LossKind.BINARY_CROSSENTROPY
    focal_gamma: float = 2.0
    focal_alpha: float = 0.5
    label_smoothing: float = 0.05
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_head(self.head)
        if self.max_steps < MIN_STEPS:
            raise UsageError(f"max_steps is {self.max_steps}; {MIN_STEPS} or more")
        for name in ("epochs", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; 1 or more")
        if self.batch_size < 2 or self.batch_size % 2:
            raise UsageError(f"batch size {self.batch_size} must be even: half of it is real")


class WindowBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of windows of random start and length, padded behind; fakes and reals one to one.

    A clip of each source is drawn as often fake as real. A window that starts in mid-clip
    teaches the head to begin from a zero state anywhere, as it does after a gap. A fake that a
    generator made goes with a real clip at such times as generators are given.
    """

    def __init__(
        self, sequences: list[ClipSequence], options: FitSequenceOptions, *, epoch: int
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._options = options
        self._epoch = epoch
        self._pools = _pools(sequences)
        weights = np.sqrt([len(groups) for groups in self._pools])
        self._weights = weights / weights.sum()

    def __len__(self) -> int:
        return self._options.steps

    def __getitem__(
        self, index: int
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[np.float32]]:
        """Returns inputs, labels [B, T] and weights [B, T] (0 on padding)."""
        rng = np.random.default_rng((self._options.seed, self._epoch, index))
        windows: list[tuple[NDArray[np.float32], bool]] = []
        for _ in range(self._options.batch_size // 2):
            groups = self._pools[int(rng.choice(len(self._pools), p=self._weights))]
            reals, fakes = groups[int(rng.integers(len(groups)))]
            fake = fakes[int(rng.integers(len(fakes)))]
            real = _like(fake, reals, rng)
            for sequence in (real, fake):
                longest = min(len(sequence.features), self._options.max_steps)
                length = int(rng.integers(min(MIN_STEPS, longest), longest + 1))
                start = int(rng.integers(len(sequence.features) - length + 1))
                windows.append((sequence.features[start : start + length], sequence.fake))
        features, mask = pad([window for window, _ in windows], self._options.max_steps)
        is_fake = np.array([truth for _, truth in windows], np.float32)
        labels = np.repeat(is_fake[:, None], self._options.max_steps, axis=1)
        return {"features": features, "mask": mask}, labels, mask.astype(np.float32)


def pad(
    features: list[NDArray[np.float32]], length: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stacks sequences [t, F] into [n, length, F], zeros behind; the mask is True on real steps."""
    stacked = np.zeros((len(features), length, features[0].shape[1]), np.float32)
    mask = np.zeros((len(features), length), np.bool_)
    for row, part in enumerate(features):
        stacked[row, : len(part)] = part
        mask[row, : len(part)] = True
    return stacked, mask


def _like(fake: ClipSequence, reals: list[ClipSequence], rng: np.random.Generator) -> ClipSequence:
    """Draws a real sequence whose steps are as far apart as the fake's, where there is one."""
    sparse = fake.variant is Treatment.MADE
    alike = [real for real in reals if (real.variant is Treatment.MATCHED) == sparse] or reals
    return alike[int(rng.integers(len(alike)))]


def _pools(
    sequences: list[ClipSequence],
) -> list[list[tuple[list[ClipSequence], list[ClipSequence]]]]:
    """Returns the groups of each source, and of each group the real and the fake sequences.

    A group belongs to the source of its real footage.
    """
    groups: dict[str, tuple[list[ClipSequence], list[ClipSequence]]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.group, ([], []))[sequence.fake].append(sequence)
    sources: dict[str, list[tuple[list[ClipSequence], list[ClipSequence]]]] = {}
    for reals, fakes in groups.values():
        if reals and fakes:
            sources.setdefault(reals[0].source, []).append((reals, fakes))
    pools = list(sources.values())
    if not pools:
        raise UsageError(
            "no group has both real and fake sequences to fit on: name in the table the `original` "
            "that a fake was made from, or give it the `group` of real clips"
        )
    return pools
