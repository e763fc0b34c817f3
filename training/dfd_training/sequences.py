"""Out-of-fold features of whole clips: what the sequence model is fitted on.

A frame model's features of clips that it was trained on look better than those of new clips.
So each clip's features come from the frame model that was fitted without the clip's fold. Each
clip of real footage gives several sequences: as it is, degraded, and as synthesised fakes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.degrade import degrade, draw_degradation
from dfd_training.fit_frame import training_rows
from dfd_training.models import load_frame_model
from dfd_training.pairs import NO_JITTER, draw_jitter, to_input, work_crop
from dfd_training.store import CropStore, StoredCrop
from dfd_training.synthesis import synthesise_clip
from dfd_training.synthesis.colour import Picture

MAX_GAP_S = 1.0
MIN_STEPS = 4
PREDICT_BATCH = 64
MIN_MARKED_SHARE = 0.8


class Variant(StrEnum):
    """What was done to a clip."""

    PLAIN = "plain"
    DEGRADED = "degraded"
    SELF_BLENDED = "self-blended"
    SWAPPED = "swapped"


REAL_VARIANTS = (
    Variant.PLAIN,
    Variant.DEGRADED,
    Variant.SELF_BLENDED,
    Variant.SWAPPED,
)
FAKE_VARIANTS = (Variant.PLAIN, Variant.DEGRADED, Variant.DEGRADED)


@dataclass(frozen=True)
class ClipSequence:
    """One person of one clip, in order of time.

    Attributes:
        path: of the clip.
        group: of the clip.
        source: of the clip.
        fold: the fold that the frame model did not see.
        variant: what was done to it.
        fake: whether it is one, true or synthesised.
        true_fake: whether it is a deepfake that somebody made.
        features: float32 [T, F].
        frame_logit: float32 [T].
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


@dataclass(frozen=True)
class _Track:
    row: pd.Series[str]
    fold: int
    shard: str
    positions: list[int]


def extract_sequences(
    store: CropStore,
    models: dict[int, Path],
    *,
    seed: int = 0,
    on_clip: Callable[[], None] = lambda: None,
) -> list[ClipSequence]:
    """Compute the sequences of all clips marked train.

    Args:
        store: the crops.
        models: for each fold, the frame model that was fitted without it.
        seed: of degradations and synthesis.
        on_clip: called after each track.

    Raises:
        UsageError: when a fold has no model, or there is no clip.
    """
    tracks = list_tracks(store)
    if not tracks:
        raise UsageError("the store holds no clip marked train")
    folds = sorted({track.fold for track in tracks})
    if missing := [fold for fold in folds if fold not in models]:
        raise UsageError(f"folds {missing} have no frame model: give one for each of {folds}")
    sequences: list[ClipSequence] = []
    for fold in folds:
        model = load_frame_model(models[fold])
        part = [track for track in tracks if track.fold == fold]
        for number, track in enumerate(part):
            donors = [other for other in part if other.row["group"] != track.row["group"]]
            rng = np.random.default_rng((seed, fold, number))
            sequences += _sequences_of(store, model, track, donors, rng)
            on_clip()
    return sequences


def list_tracks(store: CropStore) -> list[_Track]:
    """The people of all clips marked train, cut where they were out of sight."""
    rows = training_rows(store)
    rows = rows[rows["judged"]].sort_values(["shard", "track", "time_s"])
    tracks: list[_Track] = []
    for (shard, _), part in rows.groupby(["shard", "track"], sort=True):
        times = part["time_s"].to_numpy(np.float64)
        cuts = np.flatnonzero(np.diff(times) > MAX_GAP_S) + 1
        for piece in np.split(part["position"].to_numpy(np.int64), cuts):
            if len(piece) >= MIN_STEPS:
                first = part.iloc[0]
                tracks.append(_Track(first, int(first["fold"]), str(shard), piece.tolist()))
    return tracks


def _sequences_of(
    store: CropStore,
    model: keras.Model,
    track: _Track,
    donors: list[_Track],
    rng: np.random.Generator,
) -> Iterator[ClipSequence]:
    stored = [store.crop(track.shard, position) for position in track.positions]
    true_fake = track.row["label"] == "FAKE"
    size = int(model.input.shape[1])
    # Frames without landmarks stay untouched, so that a clip of them would be no fake.
    marked = sum(crop.landmarks is not None for crop in stored) / len(stored)
    for variant in FAKE_VARIANTS if true_fake else REAL_VARIANTS:
        synthesised = variant in (Variant.SELF_BLENDED, Variant.SWAPPED)
        if synthesised and marked < MIN_MARKED_SHARE:
            continue
        crops = _variant(store, stored, variant, donors, size=size, rng=rng)
        outputs = model.predict(crops.astype(np.float32), batch_size=PREDICT_BATCH, verbose=0)
        yield ClipSequence(
            path=str(track.row["path"]),
            group=str(track.row["group"]),
            source=str(track.row["source"]),
            fold=track.fold,
            variant=variant,
            fake=true_fake or synthesised,
            true_fake=true_fake,
            features=outputs["features"],
            frame_logit=outputs["fake_logit"],
        )


def _variant(
    store: CropStore,
    stored: list[StoredCrop],
    variant: Variant,
    donors: list[_Track],
    *,
    size: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """One sequence of crops, uint8 [T, size, size, 3], RGB."""
    if variant is Variant.PLAIN:
        return np.stack([to_input(work_crop(crop, NO_JITTER).image, size) for crop in stored])
    jitter = draw_jitter(rng)
    frames = [work_crop(crop, jitter) for crop in stored]
    pictures: list[Picture] = [frame.image for frame in frames]
    if variant is Variant.SELF_BLENDED:
        pictures = synthesise_clip(frames, rng)
    elif variant is Variant.SWAPPED:
        faces: list[StoredCrop] = []
        if donors:
            donor = donors[int(rng.integers(len(donors)))]
            chosen = rng.choice(donor.positions, min(8, len(donor.positions)), replace=False)
            faces = [store.crop(donor.shard, int(position)) for position in chosen]
        pictures = synthesise_clip(frames, rng, donors=faces)
    degradation = draw_degradation(rng)
    # Half of the fakes are shown undegraded, as half of the reals are nearly so.
    if variant is Variant.DEGRADED or rng.random() < 0.5:
        pictures = [degrade(picture, degradation, rng) for picture in pictures]
    return np.stack([to_input(picture, size, flip=jitter.flip) for picture in pictures])


def save_sequences(sequences: list[ClipSequence], path: Path) -> None:
    """Write sequences to one `.npz`: features and logits end to end, facts as text and numbers."""
    lengths = [len(sequence.frame_logit) for sequence in sequences]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            lengths=np.array(lengths, np.int64),
            features=np.concatenate([sequence.features for sequence in sequences]),
            frame_logit=np.concatenate([sequence.frame_logit for sequence in sequences]),
            fold=np.array([sequence.fold for sequence in sequences], np.int64),
            fake=np.array([sequence.fake for sequence in sequences]),
            true_fake=np.array([sequence.true_fake for sequence in sequences]),
            path=np.array([sequence.path for sequence in sequences]),
            group=np.array([sequence.group for sequence in sequences]),
            source=np.array([sequence.source for sequence in sequences]),
            variant=np.array([sequence.variant.value for sequence in sequences]),
        )
    partial.rename(path)


def load_sequences(path: Path) -> list[ClipSequence]:
    """Read what `save_sequences` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    starts = np.concatenate([[0], np.cumsum(arrays["lengths"])])
    return [
        ClipSequence(
            path=str(arrays["path"][i]),
            group=str(arrays["group"][i]),
            source=str(arrays["source"][i]),
            fold=int(arrays["fold"][i]),
            variant=Variant(str(arrays["variant"][i])),
            fake=bool(arrays["fake"][i]),
            true_fake=bool(arrays["true_fake"][i]),
            features=arrays["features"][starts[i] : starts[i + 1]],
            frame_logit=arrays["frame_logit"][starts[i] : starts[i + 1]],
        )
        for i in range(len(arrays["lengths"]))
    ]


def cached_sequences(
    store: CropStore,
    models: dict[int, Path],
    folder: Path,
    *,
    seed: int = 0,
    on_clip: Callable[[], None] = lambda: None,
) -> list[ClipSequence]:
    """The sequences, from the cache in `folder` when models, crops and seed are the same."""
    digest = hashlib.sha256(f"{seed}".encode())
    digest.update((store.path / "index.csv").read_bytes())
    for fold in sorted(models):
        digest.update(f"{fold}".encode() + models[fold].read_bytes())
    path = folder / f"sequences-{digest.hexdigest()[:16]}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save_sequences(extract_sequences(store, models, seed=seed, on_clip=on_clip), path)
    return load_sequences(path)
