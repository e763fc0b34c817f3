"""Out-of-fold features of whole clips: what the sequence model and the calibration rest on.

A frame model's features of clips that it was trained on look better than those of new clips.
So each clip's features come from the frame model that was fitted without the clip's fold. Each
clip of real footage gives several sequences: as it is, degraded, and as synthesised fakes.
`dfd_training.clips.extraction` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MIN_STEPS = 4


class Variant(StrEnum):
    """What was done to a clip."""

    PLAIN = "plain"
    DEGRADED = "degraded"
    SYNTHESISED = "synthesised"
    MADE = "made"
    MATCHED = "matched"


FOOTAGE = (Variant.PLAIN, Variant.DEGRADED)
"""Variants that are a whole clip of real footage, or of a fake that somebody made."""


@dataclass(frozen=True)
class ClipSequence:
    """One person of one clip, in order of time.

    Attributes:
        path: of the clip.
        group: of the clip.
        source: of the clip.
        fold: the fold that the frame model did not see.
        variant: what was done to it; `synthesised`: forged on the fly, `made`: by a generator of
            the store, `matched`: a real clip at the times of such a fake.
        copy: number of the sequence among those of the same clip and variant.
        fake: whether it is one, true or synthesised.
        true_fake: whether it is a deepfake that somebody made.
        generator: what made a fake, the kind of forgery for synthesised ones; "" for real ones.
        features: float32 [T, F].
        frame_logit: float32 [T].
        detail: float32 [T], variance of the Laplacian of each crop: low where it is blurred.
        face_px: float32 [T], size of the face in the file.
    """

    path: str
    group: str
    source: str
    fold: int
    variant: Variant
    fake: bool
    true_fake: bool
    features: NDArray[np.float32]
    frame_logit: NDArray[np.float32]
    detail: NDArray[np.float32]
    face_px: NDArray[np.float32]
    copy: int = 0
    generator: str = ""


_STEPS = ("features", "frame_logit", "detail", "face_px")
_NUMBERS = ("fold", "copy")
_TRUTHS = ("fake", "true_fake")
_TEXTS = ("path", "group", "source", "variant", "generator")


def save_sequences(sequences: Sequence[ClipSequence], path: Path) -> None:
    """Write sequences to one `.npz`: what each step has end to end, facts as text and numbers."""
    partial = path.with_suffix(".partial")
    columns = {
        name: np.array([getattr(sequence, name) for sequence in sequences])
        for name in (*_NUMBERS, *_TRUTHS, *_TEXTS)
    }
    steps = {
        name: np.concatenate([getattr(sequence, name) for sequence in sequences]) for name in _STEPS
    }
    lengths = np.array([len(sequence.frame_logit) for sequence in sequences], np.int64)
    with partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, lengths=lengths, **columns, **steps)
    partial.rename(path)


def load_sequences(path: Path) -> list[ClipSequence]:
    """Read what `save_sequences` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    ends = np.cumsum(arrays["lengths"])
    return [
        ClipSequence(
            path=str(arrays["path"][i]),
            group=str(arrays["group"][i]),
            source=str(arrays["source"][i]),
            fold=int(arrays["fold"][i]),
            variant=Variant(str(arrays["variant"][i])),
            copy=int(arrays["copy"][i]),
            fake=bool(arrays["fake"][i]),
            true_fake=bool(arrays["true_fake"][i]),
            generator=str(arrays["generator"][i]),
            **{name: arrays[name][end - length : end] for name in _STEPS},
        )
        for i, (end, length) in enumerate(zip(ends, arrays["lengths"], strict=True))
    ]
