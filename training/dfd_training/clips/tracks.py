"""The people of a store's clips and photographs, each a row of crops in order of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_training.clips.sequences import MIN_STEPS
from dfd_training.fitting.rows import training_rows
from dfd_training.store import CropStore

MAX_GAP_S = 1.0
PHOTOGRAPHS_A_FOLD = 200


@dataclass(frozen=True)
class Track:
    """One person of one clip, or of one fake that a generator made from it.

    Attributes:
        row: a row of the store's index, with the column `fold`.
        shard: of the file.
        positions: in the shard, in order of time.
        time_s: float64, of each.
        face_px: float32, of each.
    """

    row: pd.Series[str]
    shard: str
    positions: NDArray[np.int64]
    time_s: NDArray[np.float64]
    face_px: NDArray[np.float32]

    def only(self, steps: NDArray[np.int64]) -> Track:
        """Some steps of it."""
        return Track(
            self.row, self.shard, self.positions[steps], self.time_s[steps], self.face_px[steps]
        )

    @property
    def fold(self) -> int:
        """The fold that its footage lies in."""
        return int(self.row["fold"])

    @property
    def person(self) -> tuple[str, int]:
        """The clip of real footage and the person in it; a made fake has its original's."""
        return str(self.row["original"] or self.row["path"]), int(self.row["track"])


def list_tracks(store: CropStore) -> list[Track]:
    """The people of all clips marked train, cut where they were out of sight."""
    return _tracks(training_rows(store), max_gap_s=MAX_GAP_S)


def list_made(store: CropStore) -> list[Track]:
    """The fakes that generators made of those clips; each lies in its original's fold."""
    rows = training_rows(store)
    fold_of = dict(zip(rows["path"], rows["fold"], strict=True))
    made = store.made[store.made["original"].isin(fold_of.keys())].copy()
    made["fold"] = made["original"].map(fold_of)
    return _tracks(made, max_gap_s=math.inf)


def list_photographs(store: CropStore, *, seed: int = 0) -> list[Track]:
    """Real photographs marked train, at most `PHOTOGRAPHS_A_FOLD` of each fold."""
    rows = training_rows(store)
    alone = rows.groupby("shard")["shard"].transform("size") == 1
    real = rows[alone & (rows["time_s"] == 0.0) & rows["judged"] & (rows["label"] == "REAL")]
    mixed = real.sample(frac=1.0, random_state=seed)
    drawn = mixed.groupby("fold").head(PHOTOGRAPHS_A_FOLD)
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
