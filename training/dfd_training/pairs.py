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
from dfd_edge.faces import CropRegion, crop_region, extract_crop
from dfd_edge.faces.crop import CROP_SCALE, cut
from dfd_training.degrade import degrade, draw_degradation
from dfd_training.store import CropStore, StoredCrop
from dfd_training.synthesis import draw_blend, face_swap, self_blend
from dfd_training.synthesis.clip import nearest_pose
from dfd_training.synthesis.colour import Picture, change_colour, change_detail

Crop = NDArray[np.uint8]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How pairs are drawn.

    Attributes:
        input_size: side of the crops in pixels.
        swap_share: share of synthesised fakes that are landmark swaps; the others are
            self-blended.
        true_share: share of fakes that are true ones, in sources that have them.
        true_source_weight: sources with true fakes are drawn so many times more often.
        photograph_share: share of pairs from photographs; the others come from clips.
        poisson_share: share of landmark swaps blended by Poisson's equation.
        donor_candidates: people looked at for one of similar pose.
    """

    input_size: int = 160
    swap_share: float = 0.3
    true_share: float = 0.6
    true_source_weight: float = 3.0
    photograph_share: float = 0.35
    poisson_share: float = 0.1
    donor_candidates: int = 6


@dataclass(frozen=True, slots=True)
class Jitter:
    """How the model's crop differs from the runtime's: the same for both crops of a pair."""

    scale: float
    shift: tuple[float, float]
    flip: bool


def draw_jitter(rng: np.random.Generator) -> Jitter:
    """Draw a jitter: the detector's boxes move and breathe by a few hundredths."""
    dx, dy = rng.normal(0.0, 0.03, 2)
    return Jitter(
        scale=float(np.exp(rng.normal(0.0, 0.06))),
        shift=(float(np.clip(dx, -0.08, 0.08)), float(np.clip(dy, -0.08, 0.08))),
        flip=bool(rng.random() < 0.5),
    )


NO_JITTER = Jitter(scale=1.0, shift=(0.0, 0.0), flip=False)


def work_crop(stored: StoredCrop, jitter: Jitter) -> StoredCrop:
    """Cut the model's square out of a stored crop, at native size."""
    side = float(max(stored.box[2] - stored.box[0], stored.box[3] - stored.box[1]))
    offset = np.array([*jitter.shift, *jitter.shift], np.float32) * side
    region = crop_region(stored.box + offset, CROP_SCALE * jitter.scale)
    origin = np.array([region.x0, region.y0], np.float32)
    return StoredCrop(
        image=np.ascontiguousarray(cut(stored.image, region)),
        box=stored.box - np.tile(origin, 2),
        landmarks=None if stored.landmarks is None else stored.landmarks - origin,
    )


def to_input(picture: Picture, size: int, *, flip: bool = False) -> Crop:
    """Bring a square BGR picture to the model's input, RGB, by the runtime's own geometry."""
    crop = extract_crop(picture, CropRegion(0, 0, picture.shape[0]), size)
    return np.ascontiguousarray(crop[:, ::-1]) if flip else crop


@dataclass(frozen=True)
class _File:
    """The crops of one file: shard, positions and their times."""

    shard: str
    positions: NDArray[np.int64]
    time_s: NDArray[np.float64]


@dataclass(frozen=True)
class _Source:
    name: str
    photographs: bool
    groups: list[list[_File]]
    fakes: dict[str, list[_File]]  # shard of the real file -> its fakes


class PairSampler:
    """Draws pairs of a real and a fake crop.

    Args:
        store: the crop store.
        rows: the part of the store's index to draw from.
        options: shares and sizes.

    Raises:
        UsageError: when the rows hold no judged real crop with landmarks.
    """

    def __init__(
        self, store: CropStore, rows: pd.DataFrame, options: PairOptions | None = None
    ) -> None:
        self._store = store
        self.options = options or PairOptions()
        self._sources = _sources(rows)
        if not self._sources:
            raise UsageError("no real crop with landmarks among the rows")
        self._weights = self._source_weights()

    def draw(self, rng: np.random.Generator) -> tuple[Crop, Crop]:
        """Draw one pair.

        Returns:
            The real and the fake crop, uint8 [size, size, 3], RGB.
        """
        source = self._sources[int(rng.choice(len(self._sources), p=self._weights))]
        files = source.groups[int(rng.integers(len(source.groups)))]
        file = files[int(rng.integers(len(files)))]
        place = int(rng.integers(len(file.positions)))
        jitter = draw_jitter(rng)
        real = work_crop(self._store.crop(file.shard, int(file.positions[place])), jitter)
        true_fakes = source.fakes.get(file.shard, [])
        if true_fakes and rng.random() < self.options.true_share:
            fake_file = true_fakes[int(rng.integers(len(true_fakes)))]
            nearest = int(np.argmin(np.abs(fake_file.time_s - file.time_s[place])))
            stored = self._store.crop(fake_file.shard, int(fake_file.positions[nearest]))
            pair = real.image, work_crop(stored, jitter).image
        else:
            pair = self._synthesise(real, source, file, rng)
        degradation = draw_degradation(rng)
        size = self.options.input_size
        first, second = (
            to_input(degrade(picture, degradation, rng), size, flip=jitter.flip) for picture in pair
        )
        return first, second

    def _synthesise(
        self, real: StoredCrop, source: _Source, file: _File, rng: np.random.Generator
    ) -> tuple[Picture, Picture]:
        """Make a real and a fake that differ inside the mask only."""
        assert real.landmarks is not None
        parameters = draw_blend(rng)
        if rng.random() < self.options.swap_share:
            donor = self._donor(real, source, file, rng)
            if donor is not None and donor.landmarks is not None:
                fake = face_swap(
                    real.image,
                    real.landmarks,
                    donor.image,
                    donor.landmarks,
                    parameters,
                    poisson=bool(rng.random() < self.options.poisson_share),
                )
                return real.image, fake
        fake = self_blend(real.image, real.landmarks, parameters)
        if parameters.change_target:
            changed = change_colour(real.image, parameters.colour)
            return change_detail(changed, parameters.detail), fake
        return real.image, fake

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
                np.sqrt(len(source.groups))
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


def _sources(rows: pd.DataFrame) -> list[_Source]:
    usable = rows[rows["judged"] & rows["has_landmarks"]]
    files: dict[str, _File] = {}
    for shard, part in usable.groupby("shard"):
        files[str(shard)] = _File(
            shard=str(shard),
            positions=part["position"].to_numpy(np.int64),
            time_s=part["time_s"].to_numpy(np.float64),
        )
    facts = usable.drop_duplicates("shard")
    shard_of = dict(zip(facts["path"], facts["shard"], strict=True))
    fakes_of = _fakes_of(facts, shard_of, files)
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
        sources.append(_Source(str(name), still, groups, fakes))
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


def _is_still(file: _File) -> bool:
    return len(file.positions) == 1 and float(file.time_s[0]) == 0.0
