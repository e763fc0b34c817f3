"""Jitter of training crops: the runtime's geometry, moved, scaled, turned and flipped a bit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces import CropRegion, crop_region, extract_crop
from dfd_edge.faces.crop import cut
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.data.store import StoredCrop

Crop = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Jitter:
    """The difference between the model's crop and the runtime's; both crops of a pair share it.

    Attributes:
        scale: Factor of the side.
        shift: Along x and y, shares of the face's size.
        flip: Whether left and right change places.
        turn: Rotation round the face, degrees, counter-clockwise.
    """

    scale: float
    shift: tuple[float, float]
    flip: bool
    turn: float = 0.0


def draw_jitter(
    rng: np.random.Generator,
    *,
    turn: float = 0.0,
    scales: tuple[float, float] = (1.0, 1.0),
) -> Jitter:
    """Draws a jitter: the detector's boxes move and breathe by a few hundredths.

    Args:
        rng: Random generator.
        turn: Standard deviation of the rotation, degrees.
        scales: Least and greatest side of the crop, over that of the model's crop.
    """
    dx, dy = rng.normal(0.0, 0.03, 2)
    scale = scales[0] if scales[0] == scales[1] else rng.uniform(*scales)
    return Jitter(
        scale=float(np.exp(rng.normal(0.0, 0.06)) * scale),
        shift=(float(np.clip(dx, -0.08, 0.08)), float(np.clip(dy, -0.08, 0.08))),
        flip=bool(rng.random() < 0.5),
        turn=float(np.clip(rng.normal(0.0, turn), -3 * turn, 3 * turn)) if turn else 0.0,
    )


NO_JITTER = Jitter(scale=1.0, shift=(0.0, 0.0), flip=False)


def work_crop(stored: StoredCrop, jitter: Jitter) -> StoredCrop:
    """Cuts the model's square out of a stored crop, at native size.

    A rotation comes first, as a head is inclined before anything is forged. It resamples both
    crops of a pair alike.
    """
    if jitter.turn:
        stored = turned(stored, jitter.turn)
    side = float(max(stored.box[2] - stored.box[0], stored.box[3] - stored.box[1]))
    offset = np.array([*jitter.shift, *jitter.shift], np.float32) * side
    region = crop_region(stored.box + offset, stored.crop_scale * jitter.scale)
    origin = np.array([region.x0, region.y0], np.float32)
    return dataclasses.replace(
        stored,
        image=np.ascontiguousarray(cut(stored.image, region)),
        box=stored.box - np.tile(origin, 2),
        landmarks=None if stored.landmarks is None else stored.landmarks - origin,
    )


def turned(stored: StoredCrop, degrees: float) -> StoredCrop:
    """Rotates a stored crop round its face, counter-clockwise; new pixels repeat the border."""
    centre = stored.box.reshape(2, 2).mean(axis=0)
    matrix = cv2.getRotationMatrix2D(centre.tolist(), degrees, 1.0)
    height, width = stored.image.shape[:2]
    image = cv2.warpAffine(
        stored.image,
        matrix,
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    marks = stored.landmarks
    if marks is not None:
        marks = (marks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return dataclasses.replace(stored, image=np.asarray(image, np.uint8), landmarks=marks)


def to_input(picture: Picture, size: int, *, flip: bool = False) -> Crop:
    """Brings a square BGR picture to the model's input, RGB, by the runtime's own geometry."""
    crop = extract_crop(picture, CropRegion(0, 0, picture.shape[0]), size)
    return np.ascontiguousarray(crop[:, ::-1]) if flip else crop
