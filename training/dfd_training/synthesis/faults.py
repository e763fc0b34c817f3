"""Temporal faults: what goes wrong from frame to frame in a forged clip."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_training.synthesis.blend import LaidFace
from dfd_training.synthesis.colour import ColourChange, change_colour
from dfd_training.synthesis.detail import Picture


@dataclass(frozen=True, slots=True)
class TemporalFaults:
    """What goes wrong from frame to frame; nothing by default.

    Attributes:
        flicker: deviation of the forged part's colours, grey levels.
        fading: greatest loss of its opacity in a frame, in [0, 1].
        jitter: deviation of its place, share of the face's size.
        drifting: True where the donor's frames follow one another whatever the target's pose, so
            that the identity changes slowly.
        frozen_mouth: True where the mouth of one frame is seen in all.
        late: True where each frame is forged by the landmarks of the frame before.
        dropout: share of frames left real, in runs.
    """

    flicker: float = 0.0
    fading: float = 0.0
    jitter: float = 0.0
    drifting: bool = False
    frozen_mouth: bool = False
    late: bool = False
    dropout: float = 0.0


NO_FAULTS = TemporalFaults()
_RUN = 2.5  # mean length in frames of a run of dropped frames


def draw_faults(rng: np.random.Generator) -> TemporalFaults:
    """Draw the faults of one clip: one clip in five has none, most have one or two."""
    if rng.random() < 0.2:
        return NO_FAULTS
    return TemporalFaults(
        flicker=float(rng.uniform(1.0, 7.0)) if rng.random() < 0.35 else 0.0,
        fading=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.2 else 0.0,
        jitter=float(rng.uniform(0.004, 0.02)) if rng.random() < 0.35 else 0.0,
        drifting=bool(rng.random() < 0.25),
        frozen_mouth=bool(rng.random() < 0.15),
        late=bool(rng.random() < 0.2),
        dropout=float(rng.uniform(0.1, 0.35)) if rng.random() < 0.2 else 0.0,
    )


def flickering(laid: LaidFace, faults: TemporalFaults, rng: np.random.Generator) -> LaidFace:
    """The forged part with one frame's chance colours and opacity."""
    if faults.fading > 0:
        opacity = np.float32(1.0 - rng.uniform(0.0, faults.fading))
        laid = dataclasses.replace(laid, mask=laid.mask * opacity)
    return dataclasses.replace(laid, face=flickering_picture(laid.face, faults, rng))


def flickering_picture(
    picture: Picture, faults: TemporalFaults, rng: np.random.Generator
) -> Picture:
    """A picture with one frame's chance colours."""
    if faults.flicker <= 0:
        return picture
    common = rng.normal(0.0, faults.flicker)
    blue, green, red = (float(common + value) for value in rng.normal(0.0, faults.flicker / 2, 3))
    change = ColourChange((blue, green, red), contrast=1.0, gamma=1.0, saturation=1.0, hue=0.0)
    return change_colour(picture, change)


def draw_dropped(count: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of some frames are left real, in runs; never more than half of them."""
    dropped = np.zeros(count, bool)
    wanted = min(round(share * count), count // 2)
    # Tries that fall on dropped frames add nothing: their number is bounded.
    for _ in range(4 * count):
        missing = wanted - int(dropped.sum())
        if missing <= 0:
            break
        start = int(rng.integers(count))
        dropped[start : start + min(int(rng.geometric(1.0 / _RUN)), missing)] = True
    return dropped
