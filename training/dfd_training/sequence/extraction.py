"""Extraction: sequences of all clips marked train, by frame models that never saw them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces.crop import crop_detail
from dfd_training.augment.degrade import degrade, draw_degradation
from dfd_training.augment.jitter import NO_JITTER, draw_jitter, to_input, work_crop
from dfd_training.augment.synthesis import ForgeryKind, synthesise_clip
from dfd_training.augment.synthesis.clip import nearest_pose
from dfd_training.data.families import family_of
from dfd_training.data.store import CropStore, StoredCrop, no_signals
from dfd_training.models.scoring import FrameModel, FrameScorer
from dfd_training.sequence.sequences import (
    FOOTAGE,
    MIN_STEPS,
    ClipSequence,
    Track,
    Treatment,
    list_generated,
    list_photographs,
    list_tracks,
    load_sequences,
    save_sequences,
)

EXTRACTION_VERSION = 2
"""To be raised by whoever changes what the same crops, models and seed give.

That is this module, and what it draws from: degradations, codecs, jitter and synthesis. Sequences
in caches of other versions are computed anew.
"""

MIN_MARKED_SHARE = 0.8
DONOR_CANDIDATES = 4
_SAME_TIME_S = 1e-3

CLIP_TREATMENTS = (Treatment.PLAIN, Treatment.DEGRADED, Treatment.DEGRADED)
COMMON_KINDS = (ForgeryKind.SELF_BLEND, ForgeryKind.FACE_SWAP)
"""Every real clip is forged in these ways, and in one of the others."""
OTHER_KINDS = tuple(kind for kind in ForgeryKind if kind not in COMMON_KINDS)

FoldModels = dict[int, Path]
"""For each fold, the frame model that was fitted without it."""

Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class _Case:
    """The material of one sequence, before any model has scored it.

    Attributes:
        track: The person.
        variant: Treatment of the crops.
        copy: Number among those of the same variant.
        generator: Generator of a fake; "" for a real clip.
        crops: uint8 [T, size, size, 3], RGB.
        like: For a fake of a generator, the variant of the real clip that it is matched with.
        steps: int64, the steps of the real clip that the generator was given.
        signals: float32 [T, S] of footage as it is, NaN where there are none; else None.
    """

    track: Track
    variant: Treatment
    copy: int
    generator: str
    crops: Crops
    like: Treatment = Treatment.PLAIN
    steps: NDArray[np.int64] | None = None
    signals: NDArray[np.float32] | None = None


def extract_sequences(
    store: CropStore,
    models: FoldModels,
    *,
    precisions: Sequence[str] = ("fp32",),
    seed: int = 0,
    synthesise: bool = True,
    on_clip: Callable[[], None] = lambda: None,
) -> dict[str, list[ClipSequence]]:
    """Computes the sequences of all clips marked train.

    Args:
        store: The crops.
        models: For each fold, the frame model that was fitted without it.
        precisions: Variants of the frame models; all of them score the same crops.
        seed: Seed of degradations and synthesis.
        synthesise: Whether real clips are forged too, where true fakes are few.
        on_clip: Called after each track.

    Returns:
        By precision, the sequences, each time in the same order.

    Raises:
        UsageError: When a fold has no model, a model lacks a precision or takes crops of another
            scale than the store's, or there is no clip.
    """
    tracks = list_tracks(store)
    if not tracks:
        raise UsageError(
            "the store holds no clip marked train: a sequence model needs clips; photographs alone "
            "are judged by the frame model, which `dfd-export bundle FRAME --crops STORE` exports"
        )
    made: dict[tuple[str, int], list[Track]] = {}
    for track in list_generated(store):
        made.setdefault(track.person, []).append(track)
    sequences: dict[str, list[ClipSequence]] = {precision: [] for precision in precisions}
    for fold, scorers, size in _scorers(store, tracks, models, precisions):
        part = [track for track in tracks if track.fold == fold]
        for number, track in enumerate(part):
            others = [other for other in part if other.row["group"] != track.row["group"]]
            rng = np.random.default_rng((seed, fold, number))
            cases = _footage(store, track, size=size, rng=rng)
            if synthesise and track.row["label"] == "REAL":
                cases += _synthesised(store, track, others, size=size, rng=rng)
                for copy, fake in enumerate(made.get(track.person, [])):
                    cases += _made(store, fake, track, copy, size=size, rng=rng)
            for precision, scorer in scorers.items():
                sequences[precision] += _scored(scorer, cases)
            on_clip()
    return sequences


extract_footage = partial(extract_sequences, synthesise=False)
"""As `extract_sequences`, without forged copies of real clips."""


def extract_photographs(
    store: CropStore,
    models: FoldModels,
    *,
    precisions: Sequence[str] = ("fp32",),
    seed: int = 0,
    on_clip: Callable[[], None] = lambda: None,
) -> dict[str, list[ClipSequence]]:
    """Scores photographs marked train, as they are and degraded: sequences of one step.

    The arguments are those of `extract_sequences`.

    Returns:
        By precision, the sequences; none where the store has no photographs.

    Raises:
        UsageError: When a fold has no model, or a model lacks a precision or takes crops of another
            scale than the store's.
    """
    tracks = list_photographs(store, seed=seed)
    sequences: dict[str, list[ClipSequence]] = {precision: [] for precision in precisions}
    for fold, scorers, size in _scorers(store, tracks, models, precisions):
        part = [track for track in tracks if track.fold == fold]
        for number, track in enumerate(part):
            rng = np.random.default_rng((seed, fold, number))
            cases = _footage(store, track, size=size, rng=rng, variants=FOOTAGE)
            for precision, scorer in scorers.items():
                sequences[precision] += _scored(scorer, cases)
            on_clip()
    return sequences


def _scorers(
    store: CropStore, tracks: list[Track], models: FoldModels, precisions: Sequence[str]
) -> Iterator[tuple[int, dict[str, FrameScorer], int]]:
    """Yields each fold's frame models by precision, loaded one fold at a time, and their size."""
    folds = sorted({track.fold for track in tracks})
    if missing := [fold for fold in folds if fold not in models]:
        raise UsageError(f"folds {missing} have no frame model: give one for each of {folds}")
    found = {(f, p): FrameModel.find(models[f], p, store=store) for f in folds for p in precisions}
    for fold in folds:
        scorers = {precision: found[fold, precision].open() for precision in precisions}
        (size,) = {scorer.input_size for scorer in scorers.values()}
        yield fold, scorers, size


def _footage(
    store: CropStore,
    track: Track,
    *,
    size: int,
    rng: np.random.Generator,
    variants: tuple[Treatment, ...] = CLIP_TREATMENTS,
) -> list[_Case]:
    """Returns the cases of a clip as it is and degraded."""
    stored = _stored(store, track)
    signals = store.shard(track.shard).signals[track.positions]
    generator = "" if track.row["label"] == "REAL" else str(track.row["generator"] or "unknown")
    return [
        _Case(
            track,
            variant,
            variants[:number].count(variant),
            generator,
            _plain(stored, size) if variant is Treatment.PLAIN else _degraded(stored, size, rng),
            signals=signals if variant is Treatment.PLAIN else None,
        )
        for number, variant in enumerate(variants)
    ]


def _synthesised(
    store: CropStore,
    track: Track,
    others: list[Track],
    *,
    size: int,
    rng: np.random.Generator,
) -> list[_Case]:
    """Returns fakes of a real clip; none where the mesh saw no face in many of its crops."""
    stored = _stored(store, track)
    # Frames without landmarks stay untouched, so that a clip of them would be no fake.
    if sum(crop.landmarks is not None for crop in stored) < MIN_MARKED_SHARE * len(stored):
        return []
    donors = _donors(store, stored, others, rng)
    kinds = [*COMMON_KINDS, OTHER_KINDS[int(rng.integers(len(OTHER_KINDS)))]]
    if not donors:
        kinds.remove(ForgeryKind.FACE_SWAP)
    cases: list[_Case] = []
    for copy, kind in enumerate(kinds):
        jitter = draw_jitter(rng)
        frames = [work_crop(crop, jitter) for crop in stored]
        pictures = synthesise_clip(frames, rng, donors=donors, kind=kind)
        # Half of the fakes are shown undegraded, as half of the reals are nearly so.
        if rng.random() < 0.5:
            degradation = draw_degradation(rng)
            pictures = [degrade(picture, degradation, rng) for picture in pictures]
        crops = np.stack([to_input(picture, size, flip=jitter.flip) for picture in pictures])
        cases.append(_Case(track, Treatment.SYNTHESISED, copy, kind.value, crops))
    return cases


def _donors(
    store: CropStore, stored: list[StoredCrop], others: list[Track], rng: np.random.Generator
) -> list[StoredCrop]:
    """Returns crops of another person, the nearest in pose of a few candidates."""
    pose = next(crop.landmarks for crop in stored if crop.landmarks is not None)
    candidates: list[list[StoredCrop]] = []
    for number in rng.permutation(len(others))[:DONOR_CANDIDATES]:
        donor = others[int(number)]
        chosen = rng.choice(donor.positions, min(8, len(donor.positions)), replace=False)
        faces = [store.crop(donor.shard, int(position)) for position in np.sort(chosen)]
        faces = [face for face in faces if face.landmarks is not None]
        if faces:
            candidates.append(faces)
    if not candidates:
        return []
    return candidates[nearest_pose(pose, [_marks(faces[0]) for faces in candidates])]


def _marks(crop: StoredCrop) -> NDArray[np.float32]:
    assert crop.landmarks is not None
    return crop.landmarks


def _made(
    store: CropStore,
    fake: Track,
    real: Track,
    copy: int,
    *,
    size: int,
    rng: np.random.Generator,
) -> list[_Case]:
    """Returns a generator's fake, to be matched with the real clip at the same times.

    Generators are given some of a clip's crops, farther apart than the runtime's; without the
    real clip at those times the distance between two steps would give a fake away.
    """
    same = np.abs(real.time_s[:, None] - fake.time_s[None, :]) < _SAME_TIME_S
    steps, given = np.nonzero(same)
    if len(steps) < MIN_STEPS:
        return []
    fake = fake.only(given)
    stored = _stored(store, fake)
    like = FOOTAGE[int(rng.integers(len(FOOTAGE)))]
    crops = _plain(stored, size) if like is Treatment.PLAIN else _degraded(stored, size, rng)
    return [_Case(fake, Treatment.MADE, copy, str(fake.row["generator"]), crops, like, steps)]


def _scored(scorer: FrameScorer, cases: list[_Case]) -> list[ClipSequence]:
    """Returns the sequences of one person of one clip."""
    sequences = [_sequence(scorer, case) for case in cases]
    for case in cases:
        if case.steps is not None:
            whole = next(s for s in sequences if s.variant is case.like and not s.fake)
            sequences.append(_at_steps(whole, case.steps, case.copy))
    return sequences


def _sequence(scorer: FrameScorer, case: _Case) -> ClipSequence:
    features, frame_logit = scorer.score(case.crops)
    row = case.track.row
    true_fake = case.generator != "" and case.variant in FOOTAGE
    signals = no_signals(len(case.crops)) if case.signals is None else case.signals
    measured = np.asarray(np.isfinite(signals).all(axis=1), np.bool_)
    return ClipSequence(
        path=str(row["path"]),
        group=str(row["group"]),
        source=str(row["source"]),
        fold=case.track.fold,
        variant=case.variant,
        copy=case.copy,
        fake=case.generator != "",
        true_fake=true_fake,
        generator=case.generator,
        family=family_of(str(row["kind"]), case.generator) if true_fake else "",
        features=features,
        frame_logit=frame_logit,
        detail=np.array([crop_detail(crop) for crop in case.crops], np.float32),
        face_px=case.track.face_px,
        signals=np.where(measured[:, None], signals, np.float32(0.0)),
        measured=measured,
    )


def _at_steps(real: ClipSequence, steps: NDArray[np.int64], copy: int) -> ClipSequence:
    """Returns some steps of a real clip, without signals, which its fake does not have either."""
    return dataclasses.replace(
        real,
        variant=Treatment.MATCHED,
        copy=copy,
        features=real.features[steps],
        frame_logit=real.frame_logit[steps],
        detail=real.detail[steps],
        face_px=real.face_px[steps],
        signals=np.zeros_like(real.signals[steps]),
        measured=np.zeros(len(steps), np.bool_),
    )


def _stored(store: CropStore, track: Track) -> list[StoredCrop]:
    return [store.crop(track.shard, int(position)) for position in track.positions]


def _plain(stored: list[StoredCrop], size: int) -> Crops:
    """Returns the crops as the runtime cuts them."""
    return np.stack([to_input(work_crop(crop, NO_JITTER).image, size) for crop in stored])


def _degraded(stored: list[StoredCrop], size: int, rng: np.random.Generator) -> Crops:
    """Returns the crops cut a little differently, all with one degradation."""
    jitter, degradation = draw_jitter(rng), draw_degradation(rng)
    pictures = [degrade(work_crop(crop, jitter).image, degradation, rng) for crop in stored]
    return np.stack([to_input(picture, size, flip=jitter.flip) for picture in pictures])


class Extract(Protocol):
    """Type of `extract_sequences` and `extract_photographs`."""

    def __call__(
        self,
        store: CropStore,
        models: FoldModels,
        *,
        precisions: Sequence[str],
        seed: int,
        on_clip: Callable[[], None],
    ) -> dict[str, list[ClipSequence]]:
        """Returns sequences by precision."""


def cached_sequences(
    store: CropStore,
    models: FoldModels,
    folder: Path,
    *,
    extract: Extract = extract_sequences,
    precisions: Sequence[str] = ("fp32",),
    seed: int = 0,
    on_clip: Callable[[], None] = lambda: None,
) -> dict[str, list[ClipSequence]]:
    """Returns sequences, cached in `folder` by models, crops, version and seed.

    Args:
        store: The crops.
        models: For each fold, the frame model that was fitted without it.
        folder: Folder of the cache.
        extract: `extract_sequences`, `extract_footage` or `extract_photographs`, which the rest
            is for.
        precisions: Precisions of the frame models.
        seed: Seed of everything drawn.
        on_clip: Called after each track that is computed.
    """
    names = {extract_photographs: "photographs", extract_footage: "footage"}
    name = names.get(extract, "sequences")
    paths = {p: folder / f"{name}-{_digest(store, models, p, seed)}.npz" for p in precisions}
    missing = [precision for precision, path in paths.items() if not path.is_file()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        made = extract(store, models, precisions=missing, seed=seed, on_clip=on_clip)
        for precision, sequences in made.items():
            save_sequences(sequences, paths[precision])
    return {precision: load_sequences(path) for precision, path in paths.items()}


def _digest(store: CropStore, models: FoldModels, precision: str, seed: int) -> str:
    """Returns a hash of all that sequences depend on, in hexadecimal.

    Raises:
        UsageError: A model takes crops of another scale than the store's.
    """
    tables = [path for name in ("index.csv", "made.csv") if (path := store.path / name).is_file()]
    settings = {
        "version": EXTRACTION_VERSION,
        "precision": precision,
        "seed": seed,
        "store": store.settings,
        "tables": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables},
        "models": {
            fold: FrameModel.find(models[fold], precision, store=store).digest
            for fold in sorted(models)
        },
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
