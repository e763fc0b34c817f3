"""People of clips: as rows of crops, and as sequences of out-of-fold features.

The sequence model and the calibration rest on these sequences.

A frame model's features of clips that it was trained on look better than those of new clips.
So each clip's features come from the frame model that was fitted without the clip's fold. Each
clip of real footage gives several sequences: as it is, degraded, and as synthesised fakes.
`dfd_training.sequence.extraction` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.faces.signals import NAMES
from dfd_edge.sinks.files import written_whole
from dfd_training.data.folds import training_rows
from dfd_training.data.store import CropStore

MIN_STEPS = 4


class Treatment(StrEnum):
    """Treatments of a clip."""

    PLAIN = "plain"
    DEGRADED = "degraded"
    SYNTHESISED = "synthesised"
    MADE = "made"
    MATCHED = "matched"


FOOTAGE = (Treatment.PLAIN, Treatment.DEGRADED)
"""Treatments that keep a whole clip of real footage, or of a true fake."""


@dataclass(frozen=True)
class ClipSequence:
    """One person of one clip, in order of time.

    Attributes:
        path: The clip.
        group: Group of the clip.
        source: Source of the clip.
        fold: The fold that the frame model did not see.
        variant: Its treatment; `synthesised`: forged on the fly, `made`: by a generator of
            the store, `matched`: a real clip at the times of such a fake.
        copy: Number of the sequence among those of the same clip and variant.
        fake: Whether it is one, true or synthesised.
        true_fake: Whether it is a deepfake that somebody made.
        generator: Generator of a fake, the kind of forgery for synthesised ones; "" for real ones.
        features: float32 [T, F].
        frame_logit: float32 [T].
        detail: float32 [T], variance of the Laplacian of each crop: low where it is blurred.
        face_px: float32 [T], size of the face in the file.
        family: Family of a deepfake that somebody made; "" for all others.
        signals: float32 [T, S], measurements of consecutive frames in the order of
            `dfd_edge.faces.signals.NAMES`; 0 where there are none, which is the default. Only
            footage as it is has any: degraded and synthesised crops are single pictures.
        measured: bool [T], whether the step has signals.
    """

    path: str
    group: str
    source: str
    fold: int
    variant: Treatment
    fake: bool
    true_fake: bool
    features: NDArray[np.float32]
    frame_logit: NDArray[np.float32]
    detail: NDArray[np.float32]
    face_px: NDArray[np.float32]
    copy: int = 0
    generator: str = ""
    family: str = ""
    signals: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, len(NAMES)), np.float32)
    )
    measured: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def __post_init__(self) -> None:
        steps = len(self.frame_logit)
        if not len(self.measured):
            object.__setattr__(self, "signals", np.zeros((steps, len(NAMES)), np.float32))
            object.__setattr__(self, "measured", np.zeros(steps, np.bool_))


_STEPS = ("features", "frame_logit", "detail", "face_px", "signals", "measured")
_NUMBERS = ("fold", "copy")
_TRUTHS = ("fake", "true_fake")
_TEXTS = ("path", "group", "source", "variant", "generator", "family")


def save_sequences(sequences: Sequence[ClipSequence], path: Path) -> None:
    """Writes sequences to one `.npz`: values of steps end to end, facts as text and numbers."""
    columns = {
        name: np.array([getattr(sequence, name) for sequence in sequences])
        for name in (*_NUMBERS, *_TRUTHS, *_TEXTS)
    }
    steps = {
        name: np.concatenate([getattr(sequence, name) for sequence in sequences]) for name in _STEPS
    }
    lengths = np.array([len(sequence.frame_logit) for sequence in sequences], np.int64)
    with written_whole(path) as partial:
        np.savez(partial, allow_pickle=False, lengths=lengths, **columns, **steps)


def load_sequences(path: Path) -> list[ClipSequence]:
    """Reads what `save_sequences` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    ends = np.cumsum(arrays["lengths"])
    return [
        ClipSequence(
            path=str(arrays["path"][i]),
            group=str(arrays["group"][i]),
            source=str(arrays["source"][i]),
            fold=int(arrays["fold"][i]),
            variant=Treatment(str(arrays["variant"][i])),
            copy=int(arrays["copy"][i]),
            fake=bool(arrays["fake"][i]),
            true_fake=bool(arrays["true_fake"][i]),
            generator=str(arrays["generator"][i]),
            family=str(arrays["family"][i]),
            **{name: arrays[name][end - length : end] for name in _STEPS},
        )
        for i, (end, length) in enumerate(zip(ends, arrays["lengths"], strict=True))
    ]


MAX_GAP_S = 1.0
PHOTOGRAPHS_A_FOLD = 200


@dataclass(frozen=True)
class Track:
    """One person of one clip, or of one fake that a generator made from it.

    Attributes:
        row: A row of the store's index, with the column `fold`.
        shard: Shard of the file.
        positions: In the shard, in order of time.
        time_s: float64, of each.
        face_px: float32, of each.
    """

    row: pd.Series[str]
    shard: str
    positions: NDArray[np.int64]
    time_s: NDArray[np.float64]
    face_px: NDArray[np.float32]

    def only(self, steps: NDArray[np.int64]) -> Track:
        """Returns the track with some of its steps."""
        return Track(
            self.row, self.shard, self.positions[steps], self.time_s[steps], self.face_px[steps]
        )

    @property
    def fold(self) -> int:
        """The fold that its footage lies in."""
        return int(self.row["fold"])

    @property
    def person(self) -> tuple[str, int]:
        """The clip of real footage and the person in it; a generated fake has its original's."""
        return str(self.row["original"] or self.row["path"]), int(self.row["track"])


def list_tracks(store: CropStore) -> list[Track]:
    """Returns the people of all clips marked train, split where they were out of sight."""
    return _tracks(training_rows(store), max_gap_s=MAX_GAP_S)


def list_generated(store: CropStore) -> list[Track]:
    """Returns the fakes that generators made of those clips; each lies in its original's fold."""
    rows = training_rows(store)
    fold_of = dict(zip(rows["path"], rows["fold"], strict=True))
    made = store.made[store.made["original"].isin(fold_of.keys())].copy()
    made["fold"] = made["original"].map(fold_of)
    return _tracks(made, max_gap_s=math.inf)


def list_photographs(store: CropStore, *, seed: int = 0) -> list[Track]:
    """Returns photographs marked train, at most `PHOTOGRAPHS_A_FOLD` of each fold and label."""
    rows = training_rows(store)
    alone = rows.groupby("shard")["shard"].transform("size") == 1
    stills = rows[alone & (rows["time_s"] == 0.0) & rows["judged"]]
    mixed = stills.sample(frac=1.0, random_state=seed)
    drawn = mixed.groupby(["fold", "label"]).head(PHOTOGRAPHS_A_FOLD)
    return _tracks(drawn, max_gap_s=math.inf, min_steps=1)


def _tracks(rows: pd.DataFrame, *, max_gap_s: float, min_steps: int = MIN_STEPS) -> list[Track]:
    rows = rows[rows["judged"]].sort_values(["shard", "track", "time_s"])
    tracks: list[Track] = []
    for (shard, _), part in rows.groupby(["shard", "track"], sort=True):
        times = part["time_s"].to_numpy(np.float64)
        cuts = np.flatnonzero(np.diff(times) > max_gap_s) + 1
        for piece in np.split(np.arange(len(part)), cuts):
            if len(piece) >= min_steps:
                positions = part["position"].to_numpy(np.int64)
                face_px = part["face_px"].to_numpy(np.float32)
                whole = Track(part.iloc[0], str(shard), positions, times, face_px)
                tracks.append(whole.only(piece))
    return tracks
