"""Networks that reconstruct a whole head, so that a decoder's texture lies over all of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import keras
from keras import layers

PATCH_SIDE = 96
"""Side of the patches that the networks are trained on; they run at any multiple of `shrink`."""


class Upsampling(StrEnum):
    """How a decoder enlarges; each leaves traces of its own."""

    TRANSPOSED = "transposed"
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """One autoencoder of whole crops.

    Attributes:
        upsampling: of the decoder.
        shrink: the code is so many times smaller than the picture: 4 or 8.
        code: channels of the code.
    """

    upsampling: Upsampling
    shrink: int
    code: int

    @property
    def name(self) -> str:
        """Names the network's folder."""
        return f"{self.upsampling}{self.shrink}"


HEAD_PLANS = (
    HeadPlan(Upsampling.TRANSPOSED, shrink=8, code=16),
    HeadPlan(Upsampling.NEAREST, shrink=8, code=12),
)

_WIDTHS = (24, 40, 64)


def build_head_model(plan: HeadPlan) -> keras.Model:
    """Build an autoencoder: float32 [b, h, w, 3], RGB in 0..1, in and out.

    It is fully convolutional: height and width are any multiple of `plan.shrink`.
    """
    depth = {4: 2, 8: 3}[plan.shrink]
    picture = keras.Input((None, None, 3), name="picture")
    values = picture
    for width in _WIDTHS[:depth]:
        values = layers.Conv2D(width, 4, strides=2, padding="same")(values)
        values = layers.LeakyReLU(0.1)(values)
    values = layers.Conv2D(plan.code, 1, name="code")(values)
    values = layers.Conv2D(_WIDTHS[depth - 1], 3, padding="same")(values)
    values = layers.LeakyReLU(0.1)(values)
    more = layers.Conv2D(_WIDTHS[depth - 1], 3, padding="same")(values)
    values = layers.Add()([values, layers.LeakyReLU(0.1)(more)])
    for width in (*reversed(_WIDTHS[: depth - 1]), 16):
        values = _enlarged(values, width, plan.upsampling)
        values = layers.LeakyReLU(0.1)(values)
    half = keras.initializers.Constant(0.5)
    painted = layers.Conv2D(3, 3, padding="same", bias_initializer=half, name="painted")(values)
    return keras.Model(picture, painted)


def _enlarged(values: Any, width: int, upsampling: Upsampling) -> Any:  # noqa: ANN401
    if upsampling is Upsampling.TRANSPOSED:
        return layers.Conv2DTranspose(width, 4, strides=2, padding="same")(values)
    return layers.Conv2D(width, 3, padding="same")(layers.UpSampling2D(2)(values))


def build_critic() -> keras.Model:
    """A critic of patches (Isola et al., 2017): a logit for each patch of about 30 pixels."""
    picture = keras.Input((PATCH_SIDE, PATCH_SIDE, 3))
    values = picture
    for width in (16, 32, 48):
        values = layers.Conv2D(width, 4, strides=2, padding="same")(values)
        values = layers.LeakyReLU(0.2)(values)
    return keras.Model(picture, layers.Conv2D(1, 3, padding="same")(values))
