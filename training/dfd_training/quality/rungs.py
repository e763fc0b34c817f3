"""The rungs of the robustness ladder: what is done to whole frames before the runtime sees them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dfd_training.augment.degrade import Degradation, degrade
from dfd_training.augment.synthesis.colour import ColourChange, change_colour
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.quality.conditions import shrink


class Kind(StrEnum):
    """Kinds of rungs."""

    CLEAN = "clean"
    JPEG = "JPEG"
    H264 = "H.264"
    RESIZE = "resize"
    BLUR = "blur"
    NOISE = "noise"
    GAMMA = "gamma"
    SHIFT = "crop shift"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung.

    Attributes:
        kind: what is done.
        strength: JPEG quality; x264's constant rate factor; share of the frame's size; standard
            deviation of the blur in pixels or of the noise in grey levels; exponent; share of
            the face by which the crop is displaced.
        name: as tables and charts show it.
    """

    kind: Kind
    strength: float
    name: str


CLEAN = Rung(Kind.CLEAN, 0.0, "clean")
LADDER = (
    CLEAN,
    Rung(Kind.JPEG, 90, "JPEG 90"),
    Rung(Kind.JPEG, 70, "JPEG 70"),
    Rung(Kind.JPEG, 50, "JPEG 50"),
    Rung(Kind.JPEG, 30, "JPEG 30"),
    Rung(Kind.H264, 23, "H.264 CRF 23"),
    Rung(Kind.H264, 30, "H.264 CRF 30"),
    Rung(Kind.H264, 36, "H.264 CRF 36"),
    Rung(Kind.H264, 42, "H.264 CRF 42"),
    Rung(Kind.RESIZE, 0.5, "size 1/2"),
    Rung(Kind.RESIZE, 0.25, "size 1/4"),
    Rung(Kind.BLUR, 2.0, "blur 2 px"),
    Rung(Kind.NOISE, 8.0, "noise 8"),
    Rung(Kind.GAMMA, 0.6, "gamma 0.6"),
    Rung(Kind.GAMMA, 1.6, "gamma 1.6"),
    Rung(Kind.SHIFT, 0.05, "crop shift 5 %"),
    Rung(Kind.SHIFT, 0.10, "crop shift 10 %"),
)


def distort(rung: Rung, frame: Picture, rng: np.random.Generator) -> Picture:
    """Do to one frame what the rung says.

    Args:
        rung: a frame that it leaves alone (clean, H.264 of the whole clip, crop shift) comes
            back as it is.
        frame: uint8 [height, width, 3], BGR.
        rng: the source of the noise.

    Returns:
        uint8, smaller for `resize`, else the same shape.
    """
    match rung.kind:
        case Kind.JPEG:
            return degrade(frame, Degradation(jpeg=int(rung.strength)), rng)
        case Kind.BLUR:
            return degrade(frame, Degradation(blur=rung.strength), rng)
        case Kind.NOISE:
            return degrade(frame, Degradation(noise=rung.strength), rng)
        case Kind.RESIZE:
            return shrink(frame, rung.strength)
        case Kind.GAMMA:
            change = ColourChange((0.0, 0.0, 0.0), 1.0, rung.strength, 1.0, 0.0)
            return change_colour(frame, change)
    return frame
