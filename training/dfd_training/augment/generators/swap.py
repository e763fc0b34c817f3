"""The fit of the swap autoencoder, and swaps by it: painted, recoloured and pasted, as tools do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.generators.fitting import (
    FitState,
    GeneratorFitOptions,
    OnRound,
    painting_loss,
    run_fit,
)
from dfd_training.augment.generators.swap_model import (
    FACE_SIDE,
    MAP_SIDE,
    AlignedFace,
    SwapPlan,
    align,
    build_swap_model,
    geometry_map,
    loss_weights,
    place_back,
    random_warp,
)
from dfd_training.augment.generators.writer import RealFile, real_clips
from dfd_training.augment.synthesis.colour import ColourTransfer, transfer_colour
from dfd_training.augment.synthesis.detail import Picture, add_grain, unsharp
from dfd_training.augment.synthesis.geometry import WOBBLE_GRID, MaskRegion, soft_mask
from dfd_training.data.store import CropStore, StoredCrop

SWAP_FOLDER = "swap"
MIN_FACES = 6
MAX_FACES_A_CLIP = 40


@dataclass(frozen=True)
class Faces:
    """Aligned faces of several people.

    Attributes:
        images: uint8 [n, 96, 96, 3], RGB.
        maps: uint8 [n, 48, 48, 3], contours.
        weights: uint8 [n, 96, 96], what a pixel counts.
        person: int32 [n].
    """

    images: NDArray[np.uint8]
    maps: NDArray[np.uint8]
    weights: NDArray[np.uint8]
    person: NDArray[np.int32]


@dataclass(frozen=True)
class People:
    """The people that the decoder can paint.

    Attributes:
        groups: The group of each person; its place is the person's number.
        folds: The training fold of each.
        colours: Mean colour of each one's faces, CIELAB as OpenCV has it in 8 bits.
    """

    groups: tuple[str, ...]
    folds: tuple[int, ...]
    colours: tuple[tuple[float, float, float], ...]

    def save(self, path: Path) -> None:
        """Writes the people as JSON."""
        rows = zip(self.groups, self.folds, self.colours, strict=True)
        facts = [{"group": g, "fold": f, "colour": list(c)} for g, f, c in rows]
        path.write_text(json.dumps(facts, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> People:
        """Reads what `save` wrote.

        Raises:
            UsageError: When there is no such file, or it is no list of people.
        """
        try:
            facts = json.loads(path.read_text())
            return cls(
                tuple(str(row["group"]) for row in facts),
                tuple(int(row["fold"]) for row in facts),
                tuple((row["colour"][0], row["colour"][1], row["colour"][2]) for row in facts),
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UsageError(
                f"{path}: no people of a swap autoencoder: run dfd-train generate fit first"
            ) from error


def collect_faces(store: CropStore, *, min_faces: int = MIN_FACES) -> tuple[Faces, People]:
    """Aligns the faces of all people of whom the clips marked train show enough.

    Raises:
        UsageError: When fewer than two people are left.
    """
    by_group: dict[str, list[RealFile]] = {}
    for file in real_clips(store):
        by_group.setdefault(file.group, []).append(file)
    images: list[NDArray[np.uint8]] = []
    maps: list[NDArray[np.uint8]] = []
    weights: list[NDArray[np.uint8]] = []
    person: list[int] = []
    kept: list[tuple[str, int, tuple[float, float, float]]] = []
    for group, files in sorted(by_group.items()):
        if sum(len(file.positions) for file in files) < min_faces:
            continue
        faces = [face for file in files for face in _faces_of(store, file)]
        for face in faces:
            images.append(cv2.cvtColor(face.image, cv2.COLOR_BGR2RGB).astype(np.uint8))
            maps.append(geometry_map(face.landmarks, FACE_SIDE, MAP_SIDE))
            weights.append(loss_weights(face.landmarks, FACE_SIDE))
        person += [len(kept)] * len(faces)
        kept.append((group, files[0].fold, mean_colour([face.image for face in faces])))
    if len(kept) < 2:
        raise UsageError(
            f"{store.path}: {len(kept)} people with {min_faces} faces in clips marked train; a "
            "swap takes two"
        )
    groups, folds, colours = zip(*kept, strict=True)
    faces_of_all = Faces(
        np.stack(images), np.stack(maps), np.stack(weights), np.array(person, np.int32)
    )
    return faces_of_all, People(groups, folds, colours)


def _faces_of(store: CropStore, file: RealFile) -> list[AlignedFace]:
    step = -(-len(file.positions) // MAX_FACES_A_CLIP)
    positions = file.positions[::step]
    return [align(store.crop(file.shard, position), FACE_SIDE) for position in positions]


def mean_colour(faces: list[NDArray[np.uint8]]) -> tuple[float, float, float]:
    """Returns mean CIELAB of the middle of aligned BGR faces."""
    quarter = FACE_SIDE // 4
    middles = np.concatenate([face[quarter:-quarter, quarter:-quarter] for face in faces])
    light, a, b = cv2.mean(cv2.cvtColor(middles, cv2.COLOR_BGR2LAB))[:3]
    return float(light), float(a), float(b)


class FaceBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of one round: all people are drawn alike, however long their clips."""

    def __init__(self, faces: Faces, options: GeneratorFitOptions, number: int) -> None:
        super().__init__(workers=options.threads, use_multiprocessing=False, max_queue_size=4)
        self._faces = faces
        self._options = options
        self._number = number
        self._people = int(faces.person.max()) + 1
        self._starts = np.searchsorted(faces.person, np.arange(self._people + 1))

    def __len__(self) -> int:
        return self._options.steps

    def __getitem__(self, index: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
        """Returns the inputs, and RGB with what a pixel counts, float32 [b, 96, 96, 4]."""
        rng = np.random.default_rng((self._options.seed, self._number, index))
        size = self._options.batch_size
        people = rng.integers(self._people, size=size)
        chosen = rng.integers(self._starts[people], self._starts[people + 1])
        images, maps, weights = (
            values[chosen] for values in (self._faces.images, self._faces.maps, self._faces.weights)
        )
        for number in np.flatnonzero(rng.random(size) < 0.5):
            # Contours are symmetric in meaning: a mirrored face is a face of the same person.
            images[number] = images[number][:, ::-1]
            maps[number] = maps[number][:, ::-1]
            weights[number] = weights[number][:, ::-1]
        gain = rng.uniform(0.8, 1.2, (size, 1, 1, 1)) * rng.uniform(0.93, 1.07, (size, 1, 1, 3))
        target = np.clip(images / 255.0 * gain, 0.0, 1.0).astype(np.float32)
        warped = np.stack([random_warp(image, rng) for image in images])
        inputs = {
            "face": np.clip(warped / 255.0 * gain, 0.0, 1.0).astype(np.float32),
            "map": maps.astype(np.float32) / 255.0,
            "person": people.astype(np.int32),
        }
        counts = weights[..., None].astype(np.float32) / 80.0
        return inputs, np.concatenate([target, counts], axis=3)


def fit_swap(
    store: CropStore,
    out: Path,
    options: GeneratorFitOptions | None = None,
    *,
    on_round: OnRound = lambda share, loss: None,
    min_faces: int = MIN_FACES,
) -> FitState:
    """Fits the swap autoencoder on the clips marked train; an interrupted fit is resumed.

    Writes `people.json`, `model.weights.h5` and `fit.json` into `out`/swap.

    Raises:
        UsageError: When the clips show fewer than two people, or `out` was fitted on others.
    """
    options = options or GeneratorFitOptions()
    folder = out / SWAP_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    faces, people = collect_faces(store, min_faces=min_faces)
    known = folder / "people.json"
    if known.is_file() and People.load(known).groups != people.groups:
        raise UsageError(f"{folder}: was fitted on other people: give another --out")
    people.save(known)
    keras.utils.set_random_seed(options.seed)
    model = build_swap_model(SwapPlan(people=len(people.groups)))
    optimizer = keras.optimizers.Adam(options.learning_rate, beta_2=0.99, clipnorm=1.0)
    # A model of its own, so that what is saved holds no state of the optimizer.
    trainer = keras.Model(model.input, model.output)
    trainer.compile(optimizer=optimizer, loss=painting_loss, jit_compile=False)

    def train(batches: keras.utils.PyDataset) -> float:
        return float(trainer.fit(batches, epochs=1, verbose=0).history["loss"][0])

    def set_rate(rate: float) -> None:
        optimizer.learning_rate = rate

    return run_fit(
        model,
        lambda number: FaceBatches(faces, options, number),
        train,
        set_rate=set_rate,
        folder=folder,
        options=options,
        on_round=on_round,
    )


def load_swap(folder: Path) -> tuple[keras.Model, People]:
    """Loads a fitted swap autoencoder and its people.

    Raises:
        UsageError: When there is none in the folder.
    """
    people = People.load(folder / SWAP_FOLDER / "people.json")
    weights = folder / SWAP_FOLDER / "model.weights.h5"
    model = build_swap_model(SwapPlan(people=len(people.groups)))
    try:
        model.load_weights(weights)
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise UsageError(f"{weights}: cannot be loaded: {cause}: fit again") from error
    return model, people


_TRANSFERS = {
    ColourTransfer.NONE: 0.1,
    ColourTransfer.MEAN: 0.15,
    ColourTransfer.REINHARD: 0.35,
    ColourTransfer.COVARIANCE: 0.25,
    ColourTransfer.HISTOGRAM: 0.15,
}
_REGIONS = {
    MaskRegion.BROWS_TO_CHIN: 0.5,
    MaskRegion.FACE: 0.25,
    MaskRegion.INNER: 0.25,
}


@dataclass(frozen=True, slots=True)
class PasteSettings:
    """Settings with which painted faces are laid into the crops of one clip.

    Attributes:
        region: The mask's hull.
        grow: Scale of the mask round its centre; below 1 it is eroded.
        feather: Blur of its edge, share of the face's size.
        wobble: float32 [6, 6, 2], deformation of the mask, shares of the face's size.
        transfer: Transfer of the scene's colours to the face.
        transfer_share: Share of that transfer, in [0, 1].
        sharpen: Amount of unsharp masking; 0 for none.
        grain: Deviation of the grain laid over the face, grey levels; 0 for none.
        kernel: OpenCV's interpolation of the enlargement.
    """

    region: MaskRegion
    grow: float
    feather: float
    wobble: NDArray[np.float32]
    transfer: ColourTransfer
    transfer_share: float
    sharpen: float
    grain: float
    kernel: int

    def jittered(self, rng: np.random.Generator) -> PasteSettings:
        """Returns the settings one frame later: the mask's edge wanders, the colours flicker."""
        wobble = 0.9 * self.wobble + rng.normal(0, 0.004, self.wobble.shape)
        return dataclasses.replace(
            self,
            wobble=wobble.astype(np.float32),
            grow=float(self.grow + rng.normal(0, 0.005)),
            transfer_share=float(np.clip(self.transfer_share + rng.normal(0, 0.03), 0, 1)),
        )


def draw_paste(rng: np.random.Generator) -> PasteSettings:
    """Draws the settings of one clip."""
    regions, transfers = list(_REGIONS), list(_TRANSFERS)
    region = regions[int(rng.choice(len(regions), p=list(_REGIONS.values())))]
    transfer = transfers[int(rng.choice(len(transfers), p=list(_TRANSFERS.values())))]
    # The hull round the inner features is small: tools dilate it.
    grow = rng.uniform(1.05, 1.25) if region is MaskRegion.INNER else rng.uniform(0.86, 1.04)
    return PasteSettings(
        region=region,
        grow=float(grow),
        feather=float(np.exp(rng.uniform(np.log(0.01), np.log(0.08)))),
        wobble=rng.normal(0, 0.008, (WOBBLE_GRID, WOBBLE_GRID, 2)).astype(np.float32),
        transfer=transfer,
        transfer_share=float(rng.uniform(0.7, 1.0)),
        sharpen=float(rng.uniform(0.3, 1.6)) if rng.random() < 0.45 else 0.0,
        grain=float(rng.uniform(1.0, 3.5)) if rng.random() < 0.3 else 0.0,
        kernel=int(rng.choice([cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4])),
    )


def choose_donor(
    people: People,
    group: str,
    fold: int,
    colour: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    among: int = 5,
) -> int | None:
    """Returns a person of the same fold and another group, one of the nearest in tone.

    Args:
        people: The people that the decoder can paint.
        group: Group of the clip that is to be swapped.
        fold: Fold of the clip; identities of another fold are never used.
        colour: The clip's mean face colour, CIELAB.
        rng: Random generator.
        among: Number of the nearest to draw from.

    Returns:
        The person's number, or None when there is nobody else.
    """
    others = [
        number
        for number, (name, its) in enumerate(zip(people.groups, people.folds, strict=True))
        if its == fold and name != group
    ]
    if not others:
        return None
    # Light differs between rooms, hue and chroma of skin hardly: they count for more.
    weights = np.array([0.5, 1.5, 1.5])
    distances = [
        float(np.abs((np.array(people.colours[number]) - colour) * weights).sum())
        for number in others
    ]
    nearest = np.argsort(distances)[:among]
    return others[int(rng.choice(nearest))]


def paint(
    model: keras.Model, faces: Sequence[AlignedFace], person: int, *, batch_size: int = 16
) -> list[Picture]:
    """Paints a person with the poses and expressions of other faces.

    Returns:
        A picture a face, uint8 [96, 96, 3], BGR.
    """
    painted: list[Picture] = []
    for start in range(0, len(faces), batch_size):
        part = faces[start : start + batch_size]
        inputs = {
            "face": np.stack([face.image[:, :, ::-1] for face in part]).astype(np.float32) / 255.0,
            "map": np.stack([geometry_map(face.landmarks, FACE_SIDE, MAP_SIDE) for face in part])
            / np.float32(255.0),
            "person": np.full(len(part), person, np.int32),
        }
        values = keras.ops.convert_to_numpy(model(inputs, training=False))
        pictures = np.rint(np.asarray(values)[..., ::-1] * 255.0).clip(0, 255).astype(np.uint8)
        painted += [np.ascontiguousarray(picture) for picture in pictures]
    return painted


def paste(
    crop: StoredCrop,
    face: AlignedFace,
    painted: Picture,
    settings: PasteSettings,
    rng: np.random.Generator,
) -> Picture:
    """Lays a painted face over a crop.

    Args:
        crop: The real crop, with landmarks.
        face: The same, aligned.
        painted: uint8 [96, 96, 3], BGR.
        settings: Mask, colours, detail.
        rng: Random generator of the grain.

    Returns:
        uint8 BGR of the crop's size.
    """
    assert crop.landmarks is not None
    side = crop.image.shape[0]
    placed, covered = place_back(painted, face.matrix, side, kernel=settings.kernel)
    mask = soft_mask(
        crop.landmarks,
        (side, side),
        region=settings.region,
        grow=settings.grow,
        wobble=settings.wobble,
        feather=settings.feather,
    )
    mask = mask * covered
    placed = transfer_colour(
        placed, crop.image, mask, settings.transfer_share, method=settings.transfer
    )
    if settings.sharpen:
        placed = unsharp(placed, settings.sharpen, max(0.8, side / 200))
    if settings.grain:
        placed = add_grain(placed, settings.grain, rng)
    values = crop.image + mask[:, :, None] * (placed.astype(np.float32) - crop.image)
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


def swap_clip(
    model: keras.Model,
    crops: Sequence[StoredCrop],
    person: int,
    rng: np.random.Generator,
) -> list[Picture]:
    """Swaps the face of all crops of a clip for one person's, with one draw of settings."""
    faces = [align(crop, FACE_SIDE) for crop in crops]
    settings = draw_paste(rng)
    pictures: list[Picture] = []
    for crop, face, painted in zip(crops, faces, paint(model, faces, person), strict=True):
        settings = settings.jittered(rng)
        pictures.append(paste(crop, face, painted, settings, rng))
    return pictures


def clip_colour(crops: Sequence[StoredCrop]) -> tuple[float, float, float]:
    """Returns mean CIELAB of the faces of a clip."""
    return mean_colour([align(crop, FACE_SIDE).image for crop in crops])
