"""Training pairs: one real and one fake crop, drawn one to one inside every source.

A network learns first where a picture comes from. So the real and the fake of a pair come from
the same source, are cut with the same jitter and go through the same degradation; a source
without fakes of its own gets synthesised ones.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.degrade import degrade, draw_degradation
from dfd_training.augment.jitter import Crop, Jitter, draw_jitter, to_input, work_crop
from dfd_training.augment.synthesis.clip import nearest_pose
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.augment.synthesis.forgery import ForgeryKind, forge, match_pair
from dfd_training.data.families import CropFile, FakeFamilies, crop_files
from dfd_training.data.store import CropStore, StoredCrop

_CROPPED_WIDTH = 1.25
_LIKE_CANDIDATES = 12

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairOptions:
    """Options of the drawing of pairs.

    Attributes:
        input_size: Side of the crops in pixels.
        true_share: Share of true fakes, in files that have them.
        true_source_weight: Factor by which sources with true fakes are drawn more often.
        made_share: Share of generators' fakes, in files that have them; what true fakes leave.
        made_matched: Share of generators' fakes whose real crop is brought to their sharpness.
        true_matched: Share of true fakes whose real crop is.
        self_blend: Weight of self-blended images among the fakes synthesised on the fly.
        face_swap: Weight of landmark swaps.
        part_swap: Weight of swapped mouths, eyes and lower faces.
        reenacted: Weight of faces warped to another expression.
        rebuilt: Weight of whole crops with a generator's traces.
        photograph_share: Share of pairs from photographs; the others come from clips.
        source_exponent: A source is drawn by this power of its number of groups.
        donor_candidates: People looked at for one of similar pose.
        codec_share: Share of pairs that pass a video codec.
        families: True fakes are drawn evenly over their families, those without an original too,
            beside a real face of similar size; else inside each source, with their originals only.
        closest: Least width of a crop, in faces; 0 for the store's crop scale.
        widest: Greatest width, likewise; both crops of a pair have the same. With `families`, a
            picture that is a face crop is cut at no more than 1.25.
        cutout_share: Share of pairs in which a part of both crops is covered.
        turn: Standard deviation of a rotation of both crops, in degrees; 0 for none.
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
    families: bool = False
    closest: float = 0.0
    widest: float = 0.0
    cutout_share: float = 0.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        widths = [width for width in (self.closest, self.widest) if width]
        if widths != sorted(widths) or not all(0.5 <= width <= 2.0 for width in widths):
            raise UsageError(
                f"widths of crops from {self.closest} to {self.widest} faces; 0.5 to 2.0, the "
                "smaller one first"
            )

    def at_crop_scale(self, crop_scale: float) -> PairOptions:
        """Returns the options with the widths that are 0 set to the store's crop scale."""
        return dataclasses.replace(
            self, closest=self.closest or crop_scale, widest=self.widest or crop_scale
        )

    def widths(self, file: CropFile) -> tuple[float, float]:
        """Returns least and greatest width of a crop of a file, in faces."""
        most = _CROPPED_WIDTH if file.cropped and self.families else self.widest
        return min(self.closest, most), min(self.widest, most)

    def kind_shares(self) -> dict[ForgeryKind, float]:
        """Returns the share of each kind among the fakes synthesised on the fly, summing to 1."""
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
class _Spot:
    """The place of a pair: one crop of a file, and its jitter."""

    source: _Source
    file: CropFile
    place: int
    jitter: Jitter


@dataclass(frozen=True)
class _Source:
    name: str
    photographs: bool
    groups: list[list[CropFile]]
    fakes: dict[str, list[CropFile]]  # shard of the real file -> its true fakes
    made: dict[str, dict[str, list[CropFile]]]  # shard of the real file -> generator -> its fakes


class PairSampler:
    """Draws pairs of a real and a fake crop.

    Args:
        store: The crop store.
        rows: The part of the store's index to draw from; generators' fakes of these files come in
            by themselves.
        options: Shares and sizes.

    Raises:
        UsageError: When the rows hold no judged real crop with landmarks.
    """

    def __init__(
        self, store: CropStore, rows: pd.DataFrame, options: PairOptions | None = None
    ) -> None:
        self._store = store
        self.options = (options or PairOptions()).at_crop_scale(store.crop_scale)
        self._sources = _sources(rows, store.made, families=self.options.families)
        if not self._sources:
            raise UsageError("no real crop with landmarks among the rows")
        self._weights = self._source_weights()
        drawn = rows[rows["judged"]] if self.options.families else rows.iloc[:0]
        self._families = FakeFamilies(drawn, crop_files(drawn))
        shares = self.options.kind_shares()
        self._kinds, self._kind_shares = list(shares), np.array(list(shares.values()))

    def draw(self, rng: np.random.Generator) -> tuple[Crop, Crop]:
        """Draws one pair.

        Returns:
            The real and the fake crop, uint8 [size, size, 3], RGB.
        """
        return self.draw_views(rng, 1)[0]

    def draw_views(self, rng: np.random.Generator, views: int) -> list[tuple[Crop, Crop]]:
        """Draws one pair and degrades it several times, each time by another draw.

        Returns:
            One pair a view, as `draw` gives it.
        """
        if self._families and rng.random() < self.options.true_share:
            pair, jitter, related = self._of_a_family(rng)
        else:
            spot = self._spot(rng)
            stored = None if self._families else self._ready_fake(spot, rng)
            pair = stored or self._synthesise(self._crop(spot), spot, rng)
            jitter, related = spot.jitter, True
        return [self._view(pair, jitter, rng, coded=not related) for _ in range(views)]

    def _spot(self, rng: np.random.Generator) -> _Spot:
        """Returns a real crop: of a source by its weight, a group and a file of it."""
        source = self._sources[int(rng.choice(len(self._sources), p=self._weights))]
        files = source.groups[int(rng.integers(len(source.groups)))]
        file = files[int(rng.integers(len(files)))]
        place = int(rng.integers(len(file.positions)))
        jitter = self._jitter(self.options.widths(file), rng)
        return _Spot(source, file, place, jitter)

    def _jitter(self, widths: tuple[float, float], rng: np.random.Generator) -> Jitter:
        """Returns a jitter for crops of some widths in faces."""
        low, high = (width / self._store.crop_scale for width in widths)
        return draw_jitter(rng, turn=self.options.turn, scales=(low, high))

    def _of_a_family(
        self, rng: np.random.Generator
    ) -> tuple[tuple[Picture, Picture], Jitter, bool]:
        """Returns a true fake beside its original, or else beside a real face of similar size.

        Returns:
            The pair, how it is cut, and whether the two are of one footage.
        """
        fake = self._families.draw(rng)
        file, real = fake.file, fake.original
        place = int(rng.integers(len(file.positions)))
        if real is not None:
            at = real.nearest(file.time_s[place])
        else:
            others = [self._spot(rng) for _ in range(_LIKE_CANDIDATES)]
            sizes = np.array([other.file.face_px[other.place] for other in others])
            other = others[int(np.argmin(np.abs(np.log(sizes / file.face_px[place]))))]
            real, at = other.file, other.place
        low, high = (
            min(ends)
            for ends in zip(self.options.widths(file), self.options.widths(real), strict=True)
        )
        jitter = self._jitter((low, high), rng)
        crops = [
            work_crop(self._store.crop(part.shard, int(part.positions[where])), jitter)
            for part, where in ((real, at), (file, place))
        ]
        pair = crops[0].image, crops[1].image
        landmarks = crops[0].landmarks
        if (
            fake.original is not None
            and landmarks is not None
            and rng.random() < self.options.true_matched
        ):
            pair = match_pair(*pair, landmarks, rng)
        return pair, jitter, fake.original is not None

    def _view(
        self,
        pair: tuple[Picture, Picture],
        jitter: Jitter,
        rng: np.random.Generator,
        *,
        coded: bool = False,
    ) -> tuple[Crop, Crop]:
        """Returns the pair as the model sees it; `coded` sends it through a codec in any case."""
        size = self.options.input_size
        if coded:
            pair = brought_to_one_size(pair)
            degradation = draw_degradation(rng, codec_share=0.7, always=True)
        else:
            degradation = draw_degradation(rng, codec_share=self.options.codec_share)
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
        """Returns a real crop and a stored fake that shows the same; None when none is drawn."""
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
        """Makes a fake on the fly, of a kind drawn by its share."""
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
        self, real: StoredCrop, source: _Source, file: CropFile, rng: np.random.Generator
    ) -> StoredCrop | None:
        """Returns another person of the same source, the nearest in pose of a few."""
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


def brought_to_one_size(pair: tuple[Picture, Picture]) -> tuple[Picture, Picture]:
    """Shrinks the larger of two square crops to the smaller's side: size must give nothing away."""
    side = min(picture.shape[0] for picture in pair)
    first, second = (
        picture
        if picture.shape[0] == side
        else np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        for picture in pair
    )
    return first, second


def cut_out(first: Crop, second: Crop, rng: np.random.Generator) -> None:
    """Covers one rectangle of both crops with one grey, in place (DeVries and Taylor, 2017)."""
    size = first.shape[0]
    width, height = (int(side) for side in rng.integers(size // 8, size // 3, 2))
    x, y = int(rng.integers(size - width)), int(rng.integers(size - height))
    grey = int(rng.integers(256))
    for crop in (first, second):
        crop[y : y + height, x : x + width] = grey


def _sources(rows: pd.DataFrame, all_made: pd.DataFrame, *, families: bool) -> list[_Source]:
    usable = rows[rows["judged"] & rows["has_landmarks"]]
    files = crop_files(usable)
    facts = usable.drop_duplicates("shard")
    shard_of = dict(zip(facts["path"], facts["shard"], strict=True))
    fakes_of = _fakes_of(facts, shard_of, files, families=families)
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
        still = all(files[shard].still for shard in real["shard"])
        made = {original: made_of[original] for original in own & made_of.keys()}
        sources.append(_Source(str(name), still, groups, fakes, made))
    return sources


def _fakes_of(
    facts: pd.DataFrame,
    shard_of: dict[str, str],
    files: dict[str, CropFile],
    *,
    families: bool,
) -> dict[str, list[CropFile]]:
    """Returns the true fakes of each real file, by the real file's shard."""
    found: dict[str, list[CropFile]] = {}
    alone: list[str] = []
    for row in facts[facts["label"] == "FAKE"].itertuples():
        original = shard_of.get(str(row.original))
        if original is None:
            alone.append(str(row.original or "none named"))
        else:
            found.setdefault(original, []).append(files[str(row.shard)])
    if alone and not families:
        logger.warning(
            "%d fake files are not drawn: their original is not among the rows (first: %s); "
            "--pairs families=yes draws them beside other real faces",
            len(alone),
            alone[0],
        )
    return found


def _made_of(made: pd.DataFrame, shard_of: dict[str, str]) -> dict[str, dict[str, list[CropFile]]]:
    """Returns generators' fakes of each real file: by the real file's shard, then by generator."""
    found: dict[str, dict[str, list[CropFile]]] = {}
    files = crop_files(made)
    for row in made.drop_duplicates("shard").itertuples():
        original = shard_of.get(str(row.original))
        if original is not None:
            by_generator = found.setdefault(original, {})
            by_generator.setdefault(str(row.generator), []).append(files[str(row.shard)])
    return found
