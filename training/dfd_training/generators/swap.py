"""Swaps by the fitted autoencoder: another person painted, recoloured and pasted, as tools do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from dfd_training.generators.aligned import AlignedFace, align, geometry_map, place_back
from dfd_training.generators.swap_fit import People, mean_colour
from dfd_training.generators.swap_model import FACE_SIDE, MAP_SIDE
from dfd_training.store import StoredCrop
from dfd_training.synthesis.detail import Picture, add_grain, unsharp
from dfd_training.synthesis.masks import WOBBLE_GRID, MaskRegion, soft_mask
from dfd_training.synthesis.transfer import ColourTransfer, transfer_colour

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
    """How painted faces are laid into the crops of one clip.

    Attributes:
        region: the mask's hull.
        grow: scale of the mask round its centre; below 1 it is eroded.
        feather: blur of its edge, share of the face's size.
        wobble: float32 [6, 6, 2], deformation of the mask, shares of the face's size.
        transfer: how the face takes the scene's colours.
        transfer_share: how far.
        sharpen: amount of unsharp masking; 0 for none.
        grain: deviation of the grain laid over the face, grey levels; 0 for none.
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
        """The settings a frame later: the mask's edge wanders, the colours flicker a little."""
        wobble = 0.9 * self.wobble + rng.normal(0, 0.004, self.wobble.shape)
        return dataclasses.replace(
            self,
            wobble=wobble.astype(np.float32),
            grow=float(self.grow + rng.normal(0, 0.005)),
            transfer_share=float(np.clip(self.transfer_share + rng.normal(0, 0.03), 0, 1)),
        )


def draw_paste(rng: np.random.Generator) -> PasteSettings:
    """Draw the settings of one clip."""
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
    """A person of the same fold and another group, of the nearest in tone.

    Args:
        people: whom the decoder can paint.
        group: of the clip that is to be swapped.
        fold: of the clip; identities of another fold are never used.
        colour: the clip's mean face colour, CIELAB.
        rng: the source of chance.
        among: so many of the nearest are drawn from.

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
    """Paint a person with the poses and expressions of other faces.

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
    """Lay a painted face over a crop.

    Args:
        crop: the real crop, with landmarks.
        face: the same, aligned.
        painted: uint8 [96, 96, 3], BGR.
        settings: mask, colours, detail.
        rng: of the grain.

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
    """Swap the face of all crops of a clip for one person's, with one draw of settings."""
    faces = [align(crop, FACE_SIDE) for crop in crops]
    settings = draw_paste(rng)
    pictures: list[Picture] = []
    for crop, face, painted in zip(crops, faces, paint(model, faces, person), strict=True):
        settings = settings.jittered(rng)
        pictures.append(paste(crop, face, painted, settings, rng))
    return pictures


def clip_colour(crops: Sequence[StoredCrop]) -> tuple[float, float, float]:
    """Mean CIELAB of the faces of a clip."""
    return mean_colour([align(crop, FACE_SIDE).image for crop in crops])
