"""The swap autoencoder and the aligned faces that it takes.

One encoder for all people, one decoder that paints the person it is given: the plan of the swap
tools since 2017 (one encoder, a decoder for each person), with a decoder modulated by a person's
embedding (Perez et al., "FiLM", 2018), so that a hundred people share what they have in common. The
encoder's code is narrow: expression, gaze and light pass, the person does not. Contours of the face
show the decoder where eyes and mouth are.

Faces are brought to one place and size, as swap tools train on them, and back into the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from dfd_training.augment.synthesis.detail import Picture
from dfd_training.augment.synthesis.geometry import similarity
from dfd_training.data.store import StoredCrop

FACE_SIDE = 96
MAP_SIDE = 48


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """Sizes of the network.

    Attributes:
        people: The decoder's persons.
        code: Width of the encoder's code.
        widths: Channels of the decoder at 6, 12, 24 and 48 pixels.
    """

    people: int
    code: int = 64
    widths: tuple[int, int, int, int] = (128, 96, 64, 40)


@keras.saving.register_keras_serializable(package="dfd_training")
class PixelShuffle(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Channels into pixels (Shi et al., 2016): [b, h, w, 4 c] to [b, 2 h, 2 w, c]."""

    def call(self, inputs: Any) -> Any:  # noqa: ANN401 - a tensor of any backend
        """Rearranges [b, h, w, 4 c] to [b, 2 h, 2 w, c]."""
        _, height, width, depth = inputs.shape
        channels = depth // 4
        parts = ops.reshape(inputs, (-1, height, width, 2, 2, channels))
        parts = ops.transpose(parts, (0, 1, 3, 2, 4, 5))
        return ops.reshape(parts, (-1, 2 * height, 2 * width, channels))


def build_swap_model(plan: SwapPlan) -> keras.Model:
    """Builds the autoencoder.

    Inputs: `face` float32 [b, 96, 96, 3], RGB in 0..1, of anybody; `map` float32 [b, 48, 48, 3],
    contours of the face to paint, in 0..1; `person` int32 [b]. Output: float32 [b, 96, 96, 3],
    RGB, about 0..1.
    """
    face = keras.Input((FACE_SIDE, FACE_SIDE, 3), name="face")
    contours = keras.Input((MAP_SIDE, MAP_SIDE, 3), name="map")
    person = keras.Input((), dtype="int32", name="person")

    values = layers.AveragePooling2D(2)(face)
    for width in (32, 64, 96):
        values = layers.Conv2D(width, 4, strides=2, padding="same")(values)
        values = layers.LeakyReLU(0.1)(values)
    code = layers.Dense(plan.code, name="code")(layers.Flatten()(values))

    traits = layers.Embedding(plan.people, 64, name="traits")(person)
    start = 6
    values = layers.Dense(start * start * plan.widths[0])(layers.Concatenate()([code, traits]))
    values = layers.Reshape((start, start, plan.widths[0]))(values)
    look = layers.Embedding(plan.people, 12 * 12 * 16, name="look")(person)
    look = layers.Reshape((12, 12, 16))(look)
    for number, width in enumerate(plan.widths[1:]):
        values = layers.Conv2D(4 * width, 3, padding="same")(values)
        values = PixelShuffle()(values)
        side = values.shape[1]
        shown = (
            contours if side == MAP_SIDE else layers.AveragePooling2D(MAP_SIDE // side)(contours)
        )
        parts = [values, shown, look] if number == 0 else [values, shown]
        values = layers.Concatenate()(parts)
        values = layers.Conv2D(width, 3 if number < 2 else 1, padding="same")(values)
        values = _modulate(values, traits)
    values = layers.Conv2D(12, 3, padding="same", bias_initializer=_HALF)(values)
    painted = PixelShuffle(name="painted")(values)
    return keras.Model({"face": face, "map": contours, "person": person}, painted)


_HALF = keras.initializers.Constant(0.5)


def _modulate(values: Any, traits: Any) -> Any:  # noqa: ANN401 - tensors of any backend
    width = values.shape[-1]
    scale = layers.Reshape((1, 1, width))(layers.Dense(width)(traits))
    shift = layers.Reshape((1, 1, width))(layers.Dense(width)(traits))
    values = layers.Add()([values, layers.Multiply()([values, scale]), shift])
    return layers.LeakyReLU(0.1)(values)


# Contours in the 468-point mesh.
_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_NOSE = ((168, 6, 197, 195, 5, 4, 1), (98, 97, 2, 326, 327))

_ANCHORS = ((33, 133), (263, 362), (61, 291))
_TEMPLATE = np.array([[0.33, 0.30], [0.67, 0.30], [0.5, 0.67]], np.float32)
"""Eyes and mouth as shares of the aligned square: brows, cheeks and chin lie inside it."""


@dataclass(frozen=True)
class AlignedFace:
    """A face in the aligned square.

    Attributes:
        image: uint8 [side, side, 3], BGR.
        landmarks: float32 [468, 2], pixels of `image`.
        matrix: float64 [2, 3], from pixels of the crop to pixels of `image`.
    """

    image: Picture
    landmarks: NDArray[np.float32]
    matrix: NDArray[np.float64]


def align(crop: StoredCrop, side: int) -> AlignedFace:
    """Turns, scales and shifts a crop so that eyes and mouth lie where the template has them.

    Args:
        crop: The crop, with landmarks.
        side: Side of the aligned square, pixels.
    """
    assert crop.landmarks is not None
    anchors = np.stack([crop.landmarks[list(pair)].mean(axis=0) for pair in _ANCHORS])
    matrix = similarity(anchors, _TEMPLATE * side)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    image = crop.image
    if scale < 0.6:
        # Bilinear sampling alone would alias.
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.uint8)
    face = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    landmarks = crop.landmarks @ matrix[:, :2].T + matrix[:, 2]
    return AlignedFace(np.asarray(face, np.uint8), landmarks.astype(np.float32), matrix)


def place_back(
    face: Picture, matrix: NDArray[np.float64], side: int, *, kernel: int = cv2.INTER_CUBIC
) -> tuple[Picture, NDArray[np.float32]]:
    """Brings an aligned face back to where it was in the crop.

    Returns:
        The face, uint8 [side, side, 3], and where the aligned square lies in the crop, float32
        [side, side], falling off towards the square's border.
    """
    inverse = cv2.invertAffineTransform(matrix)
    placed = cv2.warpAffine(
        face, inverse, (side, side), flags=kernel, borderMode=cv2.BORDER_REPLICATE
    )
    size = face.shape[0]
    inside = np.zeros((size, size), np.float32)
    border = max(2, size // 24)
    inside[border:-border, border:-border] = 1.0
    soft = cv2.GaussianBlur(inside, (0, 0), border / 2)
    covered = cv2.warpAffine(soft, inverse, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, np.uint8), np.asarray(covered, np.float32)


def geometry_map(landmarks: NDArray[np.float32], side: int, map_side: int) -> NDArray[np.uint8]:
    """Draws the contours of face, nose, eyes, brows and mouth.

    Args:
        landmarks: float32 [468, 2], pixels of a square of `side`.
        side: Side of the square.
        map_side: Side of the drawing.

    Returns:
        uint8 [map_side, map_side, 3]: face and nose; eyes and brows; lips and open mouth.
    """
    points = np.round(landmarks * (map_side / side) * 16).astype(np.int32)
    planes = [np.zeros((map_side, map_side), np.uint8) for _ in range(3)]

    def fill(plane: int, contour: tuple[int, ...], level: int) -> None:
        cv2.fillPoly(planes[plane], [points[list(contour)]], level, cv2.LINE_AA, shift=4)

    fill(0, _OVAL, 128)
    for line in _NOSE:
        cv2.polylines(planes[0], [points[list(line)]], False, 255, 1, cv2.LINE_AA, shift=4)
    for brow in _BROWS:
        fill(1, brow, 128)
    for eye in _EYES:
        fill(1, eye, 255)
    fill(2, _LIPS, 128)
    fill(2, _MOUTH, 255)
    return np.stack(planes, axis=2)


def loss_weights(landmarks: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Returns each pixel's weight in the loss: uint8 [side, side], face 80, eyes and mouth 255."""
    points = np.round(landmarks * 16).astype(np.int32)
    weights = np.full((side, side), 20, np.uint8)
    cv2.fillConvexPoly(weights, cv2.convexHull(points), 80, cv2.LINE_AA, shift=4)
    for contour in (*_EYES, _LIPS):
        grown = cv2.convexHull(points[list(contour)])
        cv2.fillConvexPoly(weights, grown, 255, cv2.LINE_AA, shift=4)
        cv2.polylines(weights, [grown], True, 255, max(2, side // 24), cv2.LINE_AA, shift=4)
    return weights


def random_warp(image: Picture, rng: np.random.Generator) -> Picture:
    """Deforms a face by a random grid, as Faceswap does, so that the encoder learns no outline."""
    side = image.shape[0]
    grid = np.linspace(0, side - 1, 5, dtype=np.float32)
    places = np.stack(np.meshgrid(grid, grid), axis=2)
    places += rng.normal(0, 0.02 * side, places.shape).astype(np.float32)
    field = cv2.resize(places, (side, side), interpolation=cv2.INTER_CUBIC)
    warped = cv2.remap(
        image, field[..., 0], field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)
