"""Heads and faces drawn anew by a network: the same person, in the network's texture.

The best live swaps are still given away by a face that a network painted beside hair, neck and
background of a camera's pixels; a wholly generated head, by being painted all over. Both are
imitated from a real crop: it is brought to the side at which a generator would work, goes through a
network, comes back to its size, and is kept whole or inside a mask of the face.

The networks are head autoencoders, or super-resolution networks, which invent detail in their own
texture: many generators end in one, and swap tools run one over the pasted face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.generators.heads import face_size, resize_to
from dfd_training.augment.generators.tfjs import list_models, read_layers_model
from dfd_training.augment.synthesis.detail import Picture, jpeg, unsharp
from dfd_training.augment.synthesis.geometry import WOBBLE_GRID, MaskRegion, soft_mask
from dfd_training.data.store import StoredCrop

FACE_SIDES = (128, 160, 224)
"""Sides at which swap tools paint faces, pixels."""

MAX_ENLARGEMENT = 1.5
MAX_FACTOR = 4
MIN_SHRUNK_FACE = 70.0

Redraw = Callable[[Picture], Picture]
"""Draws a square picture, uint8 [s, s, 3] BGR, anew at the same size."""


@dataclass(frozen=True, slots=True)
class RedrawSettings:
    """Settings with which the crops of one clip are drawn anew.

    Attributes:
        face_px: Size of the face where the network works.
        sharpen: Amount of unsharp masking at the crop's size; 0 for none.
        kernel: OpenCV's interpolation of the enlargement.
        keep_colours: Give the drawing the crop's own colours and shading.
        face_only: Keep the drawing inside the mask alone.
        grow: Scale of the mask round its centre.
        feather: Blur of its edge, share of the face's size.
        wobble: float32 [6, 6, 2], deformation of the mask, shares of the face's size.
    """

    face_px: int
    sharpen: float
    kernel: int
    keep_colours: bool
    face_only: bool
    grow: float
    feather: float
    wobble: NDArray[np.float32]


def draw_redrawing(rng: np.random.Generator, *, face_only: bool) -> RedrawSettings:
    """Draws the settings of one clip."""
    return RedrawSettings(
        face_px=int(rng.choice(FACE_SIDES)),
        sharpen=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.35 else 0.0,
        kernel=int(rng.choice([cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4])),
        keep_colours=bool(rng.random() < 0.9),
        face_only=face_only,
        grow=float(rng.uniform(0.92, 1.1)),
        feather=float(np.exp(rng.uniform(np.log(0.015), np.log(0.08)))),
        wobble=rng.normal(0, 0.008, (WOBBLE_GRID, WOBBLE_GRID, 2)).astype(np.float32),
    )


def redraw_crops(
    crops: Sequence[StoredCrop], redraw: Redraw, settings: RedrawSettings
) -> list[Picture]:
    """Draws crops anew, whole or inside the face; each keeps its size.

    Args:
        crops: The crops, with landmarks where `settings.face_only`.
        redraw: The network.
        settings: Settings of the clip.

    Returns:
        A picture a crop, uint8 BGR.
    """
    return [_redraw_crop(crop, redraw, settings) for crop in crops]


def _redraw_crop(crop: StoredCrop, redraw: Redraw, settings: RedrawSettings) -> Picture:
    side = crop.image.shape[0]
    if not settings.face_only or crop.landmarks is None:
        return _redraw_square(crop.image, face_size(crop), redraw, settings)
    mask = soft_mask(
        crop.landmarks,
        (side, side),
        region=MaskRegion.FACE,
        grow=settings.grow,
        feather=settings.feather,
        wobble=settings.wobble,
    )
    left, top, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    square = min(side, round(1.1 * max(width, height)))
    if square < 8:
        return crop.image.copy()
    x = int(np.clip(left + (width - square) // 2, 0, side - square))
    y = int(np.clip(top + (height - square) // 2, 0, side - square))
    inside = (slice(y, y + square), slice(x, x + square))
    base = np.ascontiguousarray(crop.image[inside])
    drawn = _redraw_square(base, face_size(crop), redraw, settings)
    result = crop.image.copy()
    result[inside] = blend(drawn, base, mask[inside])
    return result


def _redraw_square(
    image: Picture, face_px: float, redraw: Redraw, settings: RedrawSettings
) -> Picture:
    side = image.shape[0]
    # Generators paint at a side of their own: small faces are enlarged for it and shrunk after.
    scale = min(MAX_ENLARGEMENT, settings.face_px / max(face_px, 1.0))
    drawn = redraw(resize_to(image, max(16, round(side * scale))))
    if drawn.shape[0] != side:
        kernel = settings.kernel if drawn.shape[0] < side else cv2.INTER_AREA
        drawn = np.asarray(cv2.resize(drawn, (side, side), interpolation=kernel), np.uint8)
    if settings.keep_colours:
        drawn = _with_colours_of(drawn, image, face_px / 10.0)
    if settings.sharpen:
        drawn = unsharp(drawn, settings.sharpen, max(0.8, face_px / 160))
    return drawn


def _with_colours_of(drawn: Picture, image: Picture, sigma: float) -> Picture:
    """Replaces all that is coarser than `sigma` pixels by the crop's own."""
    step = max(1, round(sigma / 3))
    side = image.shape[0]
    small = max(4, side // step)
    difference = resize_to(image, small).astype(np.float32) - resize_to(drawn, small)
    coarse = cv2.GaussianBlur(difference, (0, 0), max(0.5, sigma * small / side))
    coarse = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.rint(drawn + coarse).clip(0, 255), np.uint8)


def redraw_by(model: keras.Model, multiple: int = 8) -> Redraw:
    """Wraps a head autoencoder, RGB in 0..1, whose sides must be multiples of `multiple`."""

    def redraw(picture: Picture) -> Picture:
        side = picture.shape[0]
        room = -side % multiple
        padded = cv2.copyMakeBorder(picture, 0, room, 0, room, cv2.BORDER_REFLECT_101)
        values = np.asarray(padded[None, :, :, ::-1], np.float32) / 255.0
        drawn = np.asarray(keras.ops.convert_to_numpy(model(values, training=False)))[0]
        levels = np.rint(drawn[:side, :side, ::-1] * 255.0).clip(0, 255)
        return np.ascontiguousarray(levels.astype(np.uint8))

    return redraw


def blend(face: Picture, base: Picture, mask: NDArray[np.float32]) -> Picture:
    """Lays one picture over another: mask x face + (1 - mask) x base."""
    values = base + mask[:, :, None] * (face.astype(np.float32) - base)
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


@dataclass(frozen=True, slots=True)
class ShrinkSettings:
    """Settings with which pictures are shrunk before a network enlarges them.

    Attributes:
        factor: Factor of the network.
        soften: Blur before shrinking, as a share of the factor; 0 averages areas.
        quality: JPEG quality of the shrunk picture, or None.
    """

    factor: int
    soften: float
    quality: int | None


class Upscaler:
    """The super-resolution networks of one package, by their factor.

    Args:
        package: A `.tgz` with layers models of TensorFlow.js, input and output RGB in 0..255.

    Raises:
        UsageError: When the package cannot be read or holds no network that enlarges a picture
            by 2 to 4.
    """

    def __init__(self, package: Path) -> None:
        self._models: dict[int, keras.Model] = {}
        for name in list_models(package):
            model = read_layers_model(package, name)
            factor = _factor(model)
            if 2 <= factor <= MAX_FACTOR:
                self._models[factor] = model
        if not self._models:
            raise UsageError(f"{package}: holds no network that enlarges a picture by 2 to 4")

    @property
    def factors(self) -> tuple[int, ...]:
        """Factors by which the networks enlarge."""
        return tuple(sorted(self._models))

    def draw(self, rng: np.random.Generator, face_px: float) -> ShrinkSettings:
        """Draws settings under which a face of this size keeps its features."""
        able = [factor for factor in self.factors if face_px / factor >= MIN_SHRUNK_FACE]
        return ShrinkSettings(
            factor=int(rng.choice(able or [min(self.factors)])),
            soften=0.0 if rng.random() < 0.5 else float(rng.uniform(0.3, 0.6)),
            quality=int(rng.integers(60, 96)) if rng.random() < 0.3 else None,
        )

    def redraw_by(self, settings: ShrinkSettings) -> Redraw:
        """Returns shrinking and enlarging as one step that keeps a picture's size."""

        def redraw(picture: Picture) -> Picture:
            side = picture.shape[0]
            small = _shrink(picture, max(8, round(side / settings.factor)), settings)
            return resize_to(self.enlarge(small, settings.factor), side)

        return redraw

    def enlarge(self, picture: Picture, factor: int) -> Picture:
        """Enlarges a picture, uint8 [h, w, 3] BGR, to [factor h, factor w, 3]."""
        large = _run(self._models[factor], picture[None, :, :, ::-1].astype(np.float32))[0]
        return np.ascontiguousarray(np.rint(large[:, :, ::-1]).clip(0, 255).astype(np.uint8))


def _run(model: keras.Model, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    # Called instead of predicted with: each crop has another size, and predict traces each anew.
    output = model(pictures, training=False)
    return np.asarray(keras.ops.convert_to_numpy(output), np.float32)


def _factor(model: keras.Model) -> int:
    shape = _run(model, np.zeros((1, 16, 16, 3), np.float32)).shape
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[1] % 16:
        return 0
    return int(shape[1]) // 16


def _shrink(image: Picture, side: int, settings: ShrinkSettings) -> Picture:
    kernel = cv2.INTER_AREA
    if settings.soften:
        sigma = max(0.3, settings.soften * image.shape[0] / side)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
        kernel = cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(image, (side, side), interpolation=kernel), np.uint8)
    return small if settings.quality is None else jpeg(small, settings.quality)
