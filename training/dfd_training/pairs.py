"""Training pairs: one real and one fake crop, drawn one to one inside every source.

What a network learns first is where a picture comes from. So each pair's real and fake come
from the same source, are cut with the same jitter and go through the same degradation; a source
without fakes of its own gets synthesised ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.degrade import degrade, draw_degradation
from dfd_training.jitter import Crop, Jitter, draw_jitter, to_input, work_crop
from dfd_training.store import CropStore, StoredCrop
from dfd_training.synthesis.balance import match_pair
from dfd_training.synthesis.clip import nearest_pose
from dfd_training.synthesis.colour import Picture
from dfd_training.synthesis.forgery import ForgeryKind, forge

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How pairs are drawn.

    Attributes:
        input_size: side of the crops in pixels.
        true_share: share of true fakes, in files that have them.
        true_source_weight: sources with true fakes are drawn so many times more often.
        made_share: share of generators' fakes, in files that have them; what true fakes leave.
        made_matched: share of generators' fakes whose real crop is brought to their sharpness.
        true_matched: share of true fakes whose real crop is.
        self_blend: weight of self-blended images among the fakes synthesised on the fly.
        face_swap: weight of landmark swaps.
        part_swap: weight of swapped mouths, eyes and lower faces.
        reenacted: weight of faces warped to another expression.
        rebuilt: weight of whole crops with a generator's traces.
        photograph_share: share of pairs from photographs; the others come from clips.
        source_exponent: a source is drawn by this power of its number of groups.
        donor_candidates: people looked at for one of similar pose.
        codec_share: share of pairs that pass a video codec.
        cutout_share: share of pairs in which a part of both crops is covered.
        turn: standard deviation of a rotation of both crops, in degrees; 0 for none.
    """

    input_size: int = 160
    true_share: float = 0.65
    true_source_weight: float = 4.0
    made_share: float = 0.3
    made_matched: float = 0.5
    true_matched: float = 0.1
    self_blend: float = 0.4
    face_swap: float = 0.25
    part_swap: float = 0.1
    reenacted: float = 0.1
    rebuilt: float = 0.1
    photograph_share: float = 0.25
    source_exponent: float = 0.35
    donor_candidates: int = 10
    codec_share: float = 0.25
    cutout_share: float = 0.0
    turn: float = 0.0

    def kind_shares(self) -> dict[ForgeryKind, float]:
        """The share of each kind among the fakes synthesised on the fly, summing to 1."""
        weights = {
            ForgeryKind.SELF_BLEND: self.self_blend,
            ForgeryKind.FACE_SWAP: self.face_swap,
            ForgeryKind.PART_SWAP: self.part_swap,
            ForgeryKind.REENACTED: self.reenacted,
            ForgeryKind.REBUILT: self.rebuilt,
        }
        total = sum(weights.values())
        if min(weights.values()) < 0 or total <= 0:
            raise UsageError(
                f"weights of kinds of forgery {weights} must be 0 or more, one above 0"
            )
        return {kind: weight / total for kind, weight in weights.items()}


@dataclass(frozen=True)
class _File:
    """The crops of one file: shard, positions, their times and the people they show."""

    shard: str
    positions: NDArray[np.int64]
    time_s: NDArray[np.float64]
    track: NDArray[np.int64]


@dataclass(frozen=True)
class _Spot:
    """Where a pair is drawn: one crop of a file, and how it is cut."""

    source: _Source
    file: _File
    place: int
    jitter: Jitter


@dataclass(frozen=True)
class _Source:
    name: str
    photographs: bool
    groups: list[list[_File]]
    fakes: dict[str, list[_File]]  # shard of the real file -> its true fakes
    made: dict[str, dict[str, list[_File]]]  # shard of the real file -> generator -> its fakes


class PairSampler:
    """Draws pairs of a real and a fake crop.

    Args:
        store: the crop store.
        rows: the part of the store's index to draw from; generators' fakes of these files come in
            by themselves.
        options: shares and sizes.

    Raises:
        UsageError: when the rows hold no judged real crop with landmarks.
    """

    def __init__(
        self, store: CropStore, rows: pd.DataFrame, options: PairOptions | None = None
    ) -> None:
        self._store = store
        self.options = options or PairOptions()
        self._sources = _sources(rows, store.made)
        if not self._sources:
            raise UsageError("no real crop with landmarks among the rows")
        self._weights = self._source_weights()
        shares = self.options.kind_shares()
        self._kinds, self._kind_shares = list(shares), np.array(list(shares.values()))

    def draw(self, rng: np.random.Generator) -> tuple[Crop, Crop]:
        """Draw one pair.

        Returns:
            The real and the fake crop, uint8 [size, size, 3], RGB.
        """
        return self.draw_views(rng, 1)[0]

    def draw_views(self, rng: np.random.Generator, views: int) -> list[tuple[Crop, Crop]]:
        """Draw one pair and degrade it several times, each time by another draw.

        Returns:
            One pair a view, as `draw` gives it.
        """
        source = self._sources[int(rng.choice(len(self._sources), p=self._weights))]
        files = source.groups[int(rng.integers(len(source.groups)))]
        file = files[int(rng.integers(len(files)))]
        place = int(rng.integers(len(file.positions)))
        spot = _Spot(source, file, place, draw_jitter(rng, turn=self.options.turn))
        pair = self._ready_fake(spot, rng) or self._synthesise(self._crop(spot), spot, rng)
        return [self._view(pair, spot.jitter, rng) for _ in range(views)]

    def _view(
        self, pair: tuple[Picture, Picture], jitter: Jitter, rng: np.random.Generator
    ) -> tuple[Crop, Crop]:
        degradation = draw_degradation(rng, codec_share=self.options.codec_share)
        size = self.options.input_size
        real, fake = (
            to_input(degrade(picture, degradation, rng), size, flip=jitter.flip) for picture in pair
        )
        if rng.random() < self.options.cutout_share:
            cut_out(real, fake, rng)
        return real, fake

    def _crop(self, spot: _Spot, place: int | None = None) -> StoredCrop:
        position = spot.file.positions[spot.place if place is None else place]
        return work_crop(self._store.crop(spot.file.shard, int(position)), spot.jitter)

    def _ready_fake(self, spot: _Spot, rng: np.random.Generator) -> tuple[Picture, Picture] | None:
        """A real crop and a stored fake that shows the same; None when none is drawn."""
        true_fakes = spot.source.fakes.get(spot.file.shard, [])
        made = spot.source.made.get(spot.file.shard, {})
        share = self.options.made_matched
        if true_fakes and rng.random() < self.options.true_share:
            candidates = true_fakes
            share = self.options.true_matched
        elif made and rng.random() < self.options.made_share:
            generators = sorted(made)
            candidates = made[generators[int(rng.integers(len(generators)))]]
        else:
            return None
        fake = candidates[int(rng.integers(len(candidates)))]
        nearest = int(np.argmin(np.abs(fake.time_s - spot.file.time_s[spot.place])))
        # A generator's fakes may be few: the real crop is the one that the fake was made from.
        partner = int(np.argmin(np.abs(spot.file.time_s - fake.time_s[nearest])))
        real = self._crop(spot, partner)
        stored = self._store.crop(fake.shard, int(fake.positions[nearest]))
        forged = work_crop(stored, spot.jitter).image
        if rng.random() < share and real.landmarks is not None:
            return match_pair(real.image, forged, real.landmarks, rng)
        return real.image, forged

    def _synthesise(
        self, real: StoredCrop, spot: _Spot, rng: np.random.Generator
    ) -> tuple[Picture, Picture]:
        """Make a fake on the fly, of a kind drawn by its share."""
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._kind_shares))]
        donor = neighbour = None
        if kind in (ForgeryKind.FACE_SWAP, ForgeryKind.PART_SWAP):
            donor = self._donor(real, spot.source, spot.file, rng)
        if kind in (ForgeryKind.PART_SWAP, ForgeryKind.REENACTED):
            same = np.flatnonzero(spot.file.track == spot.file.track[spot.place])
            place = int(same[int(rng.integers(len(same)))])
            neighbour = self._crop(spot, place) if place != spot.place else None
        if kind is ForgeryKind.FACE_SWAP and donor is None:
            kind = ForgeryKind.SELF_BLEND
        forged = forge(kind, real, rng, donor=donor, neighbour=neighbour)
        return forged.real, forged.fake

    def _donor(
        self, real: StoredCrop, source: _Source, file: _File, rng: np.random.Generator
    ) -> StoredCrop | None:
        """Another person of the same source, the nearest in pose of a few."""
        candidates: list[tuple[str, int]] = []
        for _ in range(self.options.donor_candidates):
            files = source.groups[int(rng.integers(len(source.groups)))]
            other = files[int(rng.integers(len(files)))]
            if all(item.shard != file.shard for item in files):
                position = other.positions[int(rng.integers(len(other.positions)))]
                candidates.append((other.shard, int(position)))
        if not candidates or real.landmarks is None:
            return None
        poses = [self._store.shard(shard).landmarks[position] for shard, position in candidates]
        return self._store.crop(*candidates[nearest_pose(real.landmarks, poses)])

    def _source_weights(self) -> NDArray[np.float64]:
        weights = np.array(
            [
                len(source.groups) ** self.options.source_exponent
                * (self.options.true_source_weight if source.fakes else 1.0)
                for source in self._sources
            ]
        )
        photographs = np.array([source.photographs for source in self._sources])
        share = self.options.photograph_share
        if photographs.any() and not photographs.all():
            weights[photographs] *= share / weights[photographs].sum()
            weights[~photographs] *= (1.0 - share) / weights[~photographs].sum()
        return np.asarray(weights / weights.sum(), np.float64)


def cut_out(first: Crop, second: Crop, rng: np.random.Generator) -> None:
    """Cover the same rectangle of both crops with one grey, in place (DeVries and Taylor, 2017)."""
    size = first.shape[0]
    width, height = (int(side) for side in rng.integers(size // 8, size // 3, 2))
    x, y = int(rng.integers(size - width)), int(rng.integers(size - height))
    grey = int(rng.integers(256))
    for crop in (first, second):
        crop[y : y + height, x : x + width] = grey


def _files(rows: pd.DataFrame) -> dict[str, _File]:
    """The files of rows, by their shards."""
    return {
        str(shard): _File(
            shard=str(shard),
            positions=part["position"].to_numpy(np.int64),
            time_s=part["time_s"].to_numpy(np.float64),
            track=part["track"].to_numpy(np.int64),
        )
        for shard, part in rows.groupby("shard")
    }


def _sources(rows: pd.DataFrame, all_made: pd.DataFrame) -> list[_Source]:
    usable = rows[rows["judged"] & rows["has_landmarks"]]
    files = _files(usable)
    facts = usable.drop_duplicates("shard")
    shard_of = dict(zip(facts["path"], facts["shard"], strict=True))
    fakes_of = _fakes_of(facts, shard_of, files)
    made_of = _made_of(all_made, shard_of)
    sources: list[_Source] = []
    for name, part in facts.groupby("source", sort=True):
        real = part[part["label"] == "REAL"]
        if real.empty:
            continue
        own = set(real["shard"])
        fakes = {original: found for original, found in fakes_of.items() if original in own}
        groups = [
            [files[shard] for shard in sorted(group["shard"])]
            for _, group in real.groupby("group", sort=True)
        ]
        still = all(_is_still(files[shard]) for shard in real["shard"])
        made = {original: made_of[original] for original in own & made_of.keys()}
        sources.append(_Source(str(name), still, groups, fakes, made))
    return sources


def _fakes_of(
    facts: pd.DataFrame, shard_of: dict[str, str], files: dict[str, _File]
) -> dict[str, list[_File]]:
    """The true fakes of each real file, by the real file's shard."""
    found: dict[str, list[_File]] = {}
    alone = 0
    for row in facts[facts["label"] == "FAKE"].itertuples():
        original = shard_of.get(str(row.original))
        if original is None:
            alone += 1
        else:
            found.setdefault(original, []).append(files[str(row.shard)])
    if alone:
        logger.warning("%d fake files have no original among the rows and are not drawn", alone)
    return found


def _made_of(made: pd.DataFrame, shard_of: dict[str, str]) -> dict[str, dict[str, list[_File]]]:
    """Generators' fakes of each real file: by the real file's shard, then by generator."""
    found: dict[str, dict[str, list[_File]]] = {}
    files = _files(made)
    for row in made.drop_duplicates("shard").itertuples():
        original = shard_of.get(str(row.original))
        if original is not None:
            by_generator = found.setdefault(original, {})
            by_generator.setdefault(str(row.generator), []).append(files[str(row.shard)])
    return found


def _is_still(file: _File) -> bool:
    return len(file.positions) == 1 and float(file.time_s[0]) == 0.0
