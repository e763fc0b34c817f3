"""Sequence logits of clips from the heads that never saw them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole
from dfd_training.models import load_sequence_model, save_model, takes_signals
from dfd_training.sequence.sequences import ClipSequence
from dfd_training.sequence.windows import pad

SCORES_NAME = "out_of_fold.npz"
MAX_LOGIT_CHANGE = 0.5
"""Mean change of the frame logits, over their spread, between precisions of one model."""

_LENGTH_STEP = 32

Logits = NDArray[np.float32]


def write_out_of_fold(
    folder: Path,
    sequences: Sequence[ClipSequence],
    logits: Sequence[Logits],
    heads: dict[int, keras.Model],
) -> None:
    """Writes the out-of-fold logits of sequences and the heads that gave them.

    Args:
        folder: Gets `out_of_fold.npz` and a `headK.keras` for each fold K.
        sequences: Those that the heads were fitted on.
        logits: float32 [T] of each.
        heads: For each fold, the one that was fitted without it.
    """
    for fold, head in heads.items():
        save_model(head, _head_path(folder, fold))
    with written_whole(folder / SCORES_NAME) as partial:
        np.savez(
            partial,
            sequence_logit=np.concatenate(logits),
            frame_logit=np.concatenate([sequence.frame_logit for sequence in sequences]),
            names=np.array([_name(sequence) for sequence in sequences]),
            digest=np.array(digest_of(sequences)),
        )


def read_out_of_fold(folder: Path, sequences: Sequence[ClipSequence]) -> list[Logits]:
    """Returns the out-of-fold sequence logits of sequences, one float32 [T] each.

    Those that `fit_sequence` wrote where it was fitted on these very sequences; else the heads
    that it left score them, as with features of another precision.

    Args:
        folder: The folder that `fit_sequence` wrote.
        sequences: The same clips that it was fitted on.

    Raises:
        UsageError: When there are no scores, or the sequences are of other clips, another seed or
            other frame models.
    """
    path = folder / SCORES_NAME
    if not path.is_file():
        raise UsageError(f"{path}: no out-of-fold scores: run dfd-train fit sequence first")
    with np.load(path, allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    lengths = [len(sequence.frame_logit) for sequence in sequences]
    if str(arrays["digest"]) == digest_of(sequences):
        return list(np.split(arrays["sequence_logit"], np.cumsum(lengths)[:-1]))
    if not _same_clips(arrays, sequences):
        raise UsageError(
            f"{path}: these scores are of other frame models, crops or another seed: fit the "
            "sequence again"
        )
    logits: list[Logits] = [np.empty(0, np.float32)] * len(sequences)
    for fold in sorted({sequence.fold for sequence in sequences}):
        head = load_sequence_model(_head_path(folder, fold))
        rows = [i for i, sequence in enumerate(sequences) if sequence.fold == fold]
        scored = score_sequences(head, [sequences[i] for i in rows])
        for i, part in zip(rows, scored, strict=True):
            logits[i] = part
    return logits


def digest_of(sequences: Sequence[ClipSequence]) -> str:
    """Returns a hash of the paths, frame logits and signals of sequences."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(sequence.path.encode())
        for steps in (sequence.frame_logit, sequence.signals, sequence.measured):
            digest.update(steps.tobytes())
    return digest.hexdigest()


def score_sequences(
    model: keras.Model, sequences: Sequence[ClipSequence]
) -> list[NDArray[np.float32]]:
    """Returns logits after each step, float32 [T] for each sequence."""
    # Sequences of similar length share a batch, padded to a multiple: Keras traces few shapes.
    buckets: dict[int, list[int]] = {}
    for number, sequence in enumerate(sequences):
        length = len(sequence.features)
        buckets.setdefault(-(-length // _LENGTH_STEP) * _LENGTH_STEP, []).append(number)
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(sequences)
    for length, numbers in buckets.items():
        part = [sequences[number] for number in numbers]
        features, mask = pad([sequence.features for sequence in part], length)
        inputs = {"features": features, "mask": mask}
        if takes_signals(model):
            flags = [sequence.measured[:, None].astype(np.float32) for sequence in part]
            inputs["signals"] = pad([sequence.signals for sequence in part], length)[0]
            inputs["measured"] = pad(flags, length)[0][..., 0]
        scored = model.predict(inputs, batch_size=32, verbose=0)
        for row, number in enumerate(numbers):
            steps = len(sequences[number].features)
            logits[number] = np.asarray(scored[row, :steps], np.float32)
    return logits


def _head_path(folder: Path, fold: int) -> Path:
    return folder / f"head{fold}.keras"


def _name(sequence: ClipSequence) -> str:
    return f"{sequence.path} {sequence.variant} {sequence.copy} {len(sequence.frame_logit)}"


def _same_clips(arrays: dict[str, NDArray[np.generic]], sequences: Sequence[ClipSequence]) -> bool:
    """Returns whether scores are of the same clips, with much the same frame logits."""
    if "names" not in arrays or arrays["names"].tolist() != [_name(s) for s in sequences]:
        return False
    before = np.asarray(arrays["frame_logit"], np.float64)
    after = np.concatenate([sequence.frame_logit for sequence in sequences]).astype(np.float64)
    return float(np.abs(after - before).mean()) <= MAX_LOGIT_CHANGE * float(before.std())
