"""Fakes of whole clips: one forgery whose place drifts a little from frame to frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.synthesis.blend import (
    BlendParameters,
    LaidFace,
    draw_blend,
    draw_part,
    draw_swap,
    laid_copy,
    laid_face,
)
from dfd_training.augment.synthesis.colour import ColourChange, change_colour
from dfd_training.augment.synthesis.detail import DetailChange, DetailKind, Picture
from dfd_training.augment.synthesis.forgery import FAR_DONOR, FAR_NEIGHBOUR, ForgeryKind, near_crop
from dfd_training.augment.synthesis.geometry import WOBBLE_GRID, MaskRegion, move_points, similarity
from dfd_training.augment.synthesis.rebuild import draw_rebuild, rebuild
from dfd_training.augment.synthesis.reenact import (
    ExpressionChange,
    draw_expression,
    draw_reenactment,
    express,
    reenact,
)
from dfd_training.data.store import StoredCrop


@dataclass(frozen=True, slots=True)
class TemporalFaults:
    """Faults from frame to frame; none by default.

    Attributes:
        flicker: Deviation of the forged part's colours, grey levels.
        fading: Greatest loss of its opacity in a frame, in [0, 1].
        jitter: Deviation of its place, share of the face's size.
        drifting: True where the donor's frames follow one another whatever the target's pose, so
            that the identity changes slowly.
        frozen_mouth: True where the mouth of one frame is seen in all.
        late: True where each frame is forged by the landmarks of the frame before.
        dropout: Share of frames left real, in runs.
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
    """Draws the faults of one clip: one clip in five has none, most have one or two."""
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
    """Returns the forged part with the random colours and opacity of one frame."""
    if faults.fading > 0:
        opacity = np.float32(1.0 - rng.uniform(0.0, faults.fading))
        laid = dataclasses.replace(laid, mask=laid.mask * opacity)
    return dataclasses.replace(laid, face=flickering_picture(laid.face, faults, rng))


def flickering_picture(
    picture: Picture, faults: TemporalFaults, rng: np.random.Generator
) -> Picture:
    """Returns a picture with the random colours of one frame."""
    if faults.flicker <= 0:
        return picture
    common = rng.normal(0.0, faults.flicker)
    blue, green, red = (float(common + value) for value in rng.normal(0.0, faults.flicker / 2, 3))
    change = ColourChange((blue, green, red), contrast=1.0, gamma=1.0, saturation=1.0, hue=0.0)
    return change_colour(picture, change)


def draw_dropped(count: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns which frames are left real, in runs; never more than half of them."""
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


_MOST_FAR_FRAMES = 0.3
_MOST_LAG, _LEAST_LAG = 6, 2
_FROZEN_MOUTH = BlendParameters(
    region=MaskRegion.MOUTH_AND_JAW,
    grow=1.0,
    wobble=np.zeros((WOBBLE_GRID, WOBBLE_GRID, 2), np.float32),
    feather=0.03,
    ratio=1.0,
    shift=np.zeros(2, np.float32),
    zoom=1.0,
    colour=ColourChange((0.0, 0.0, 0.0), contrast=1.0, gamma=1.0, saturation=1.0, hue=0.0),
    detail=DetailChange(DetailKind.NONE, strength=0.0),
    change_target=False,
    colour_share=1.0,
    keep_shape=1.0,
)


@dataclass(frozen=True, slots=True)
class _Face:
    """One frame with landmarks, as the forgery sees it.

    Attributes:
        crop: The frame.
        marks: float32 [468, 2], the landmarks that the forgery uses.
        number: Number of the frame among those with landmarks.
        count: Number of those frames.
    """

    crop: StoredCrop
    marks: NDArray[np.float32]
    number: int
    count: int

    @property
    def image(self) -> Picture:
        """The frame's picture."""
        return self.crop.image


_Forger = Callable[[_Face, np.random.Generator], Picture]


def synthesise_clip(
    frames: Sequence[StoredCrop],
    rng: np.random.Generator,
    *,
    donors: Sequence[StoredCrop] = (),
    kind: ForgeryKind | None = None,
    faults: TemporalFaults | None = None,
) -> list[Picture]:
    """Makes a fake of a clip.

    The parameters of the forgery are drawn once and are the same in all frames; its place and
    edge wander, and more goes wrong where faults say so.

    Args:
        frames: Crops of one person in order of time; those without landmarks stay untouched.
        rng: Random generator.
        donors: Crops of another person, for a face swap. Where their poses are far from most of
            the frames', the frames are blended with themselves instead.
        kind: Kind of forgery; None swaps faces where there are donors, and else blends each frame
            with itself.
        faults: Faults from frame to frame; None draws them.

    Returns:
        One picture a frame, uint8 BGR, of the frame's own size.

    Raises:
        UsageError: When a face swap has no donor with landmarks.
    """
    usable = [donor for donor in donors if donor.landmarks is not None]
    if kind is None:
        kind = ForgeryKind.FACE_SWAP if usable else ForgeryKind.SELF_BLEND
    faults = draw_faults(rng) if faults is None else faults
    marked = [frame for frame in frames if frame.landmarks is not None]
    pictures = [frame.image for frame in frames]
    if not marked:
        return pictures
    if kind is ForgeryKind.FACE_SWAP:
        if not usable:
            raise UsageError("a face swap needs donors with landmarks: give some")
        if _far_share(marked, usable) > _MOST_FAR_FRAMES:
            kind = ForgeryKind.SELF_BLEND
    forger = _forger(kind, marked, usable, faults, rng)
    frozen = _mouth_of(marked[int(rng.integers(len(marked)))]) if faults.frozen_mouth else None
    dropped = draw_dropped(len(marked), faults.dropout, rng)
    number = 0
    for place, frame in enumerate(frames):
        if frame.landmarks is None:
            continue
        if not dropped[number]:
            face = _Face(frame, _seen_marks(marked, number, faults, rng), number, len(marked))
            fake = forger(face, rng)
            pictures[place] = frozen(fake, face.marks) if frozen else fake
        number += 1
    return pictures


def nearest_pose(landmarks: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> int:
    """Returns the index of the pose among `others` that is nearest to `landmarks`, at unit size."""
    shape = _unit_shape(landmarks)
    return int(np.argmin([np.abs(_unit_shape(other) - shape).mean() for other in others]))


def _unit_shape(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = landmarks - landmarks.mean(axis=0)
    unit: NDArray[np.float32] = centred / max(float(np.sqrt((centred**2).mean())), 1e-6)
    return unit


def _marks(crop: StoredCrop) -> NDArray[np.float32]:
    assert crop.landmarks is not None
    return crop.landmarks


def _far_share(frames: Sequence[StoredCrop], donors: Sequence[StoredCrop]) -> float:
    poses = [_marks(donor) for donor in donors]
    far = 0
    for frame in frames:
        nearest = donors[nearest_pose(_marks(frame), poses)]
        far += near_crop(nearest, _marks(frame), FAR_DONOR) is None
    return far / len(frames)


def _seen_marks(
    frames: Sequence[StoredCrop], number: int, faults: TemporalFaults, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Returns the landmarks that a forger with these faults uses."""
    frame = frames[number]
    marks = _marks(frame)
    if faults.late and number > 0:
        before = frames[number - 1]
        # Crops of one track may differ in size; in each the face fills the same share.
        marks = _marks(before) * np.float32(frame.image.shape[1] / before.image.shape[1])
    if faults.jitter > 0:
        size = float(np.ptp(marks, axis=0).max())
        marks = marks + rng.normal(0.0, faults.jitter * size, 2).astype(np.float32)
    return marks


def _forger(
    kind: ForgeryKind,
    frames: list[StoredCrop],
    donors: list[StoredCrop],
    faults: TemporalFaults,
    rng: np.random.Generator,
) -> _Forger:
    match kind:
        case ForgeryKind.SELF_BLEND:
            # The source's copy is the changed one: only the face gives a fake clip away.
            blend = dataclasses.replace(draw_blend(rng), change_target=False)
            forger = _laying(blend, faults, _own_copy)
        case ForgeryKind.FACE_SWAP:
            forger = _laying(draw_swap(rng), faults, _donor_face(donors, drifting=faults.drifting))
        case ForgeryKind.PART_SWAP:
            part = dataclasses.replace(draw_part(rng), keep_shape=float(rng.uniform(0.4, 1.0)))
            lag = int(rng.integers(_LEAST_LAG, _MOST_LAG + 1))
            forger = _laying(part, faults, _other_frame(frames, lag))
        case ForgeryKind.REENACTED:
            forger = _reenacting(frames, faults, rng)
        case ForgeryKind.REBUILT:
            forger = _rebuilding(frames, faults, rng)
    return forger


_Layer = Callable[[_Face, BlendParameters], LaidFace]


def _laying(parameters: BlendParameters, faults: TemporalFaults, layer: _Layer) -> _Forger:
    """Lays something over each frame, its place wandering."""
    wandering = parameters

    def forge_frame(face: _Face, rng: np.random.Generator) -> Picture:
        nonlocal wandering
        wandering = wandering.drifted(rng)
        return flickering(layer(face, wandering), faults, rng).over(face.image)

    return forge_frame


def _own_copy(face: _Face, parameters: BlendParameters) -> LaidFace:
    return laid_copy(face.image, face.marks, parameters)


def _donor_face(donors: list[StoredCrop], *, drifting: bool) -> _Layer:
    poses = [_marks(donor) for donor in donors]

    def layer(face: _Face, parameters: BlendParameters) -> LaidFace:
        if not drifting:
            donor = donors[nearest_pose(face.marks, poses)]
            return laid_face(face.image, face.marks, donor.image, _marks(donor), parameters)
        # From the first donor to the last over the clip, each melting into the next.
        place = face.number * (len(donors) - 1) / max(face.count - 1, 1)
        first = int(place)
        second = min(first + 1, len(donors) - 1)
        shaped = dataclasses.replace(parameters, keep_shape=0.0)
        here, there = (
            laid_face(face.image, face.marks, donor.image, _marks(donor), shaped)
            for donor in (donors[first], donors[second])
        )
        share = np.float32(place - first)
        mixed = here.face + share * (there.face.astype(np.float32) - here.face)
        return dataclasses.replace(here, face=np.rint(mixed).astype(np.uint8))

    return layer


def _other_frame(frames: list[StoredCrop], lag: int) -> _Layer:
    """Returns a layer with a part of the frame some steps away: lips that belong to other words."""

    def layer(face: _Face, parameters: BlendParameters) -> LaidFace:
        other = frames[(face.number + lag) % len(frames)]
        giver = near_crop(other, face.marks, FAR_NEIGHBOUR) or face.crop
        return laid_face(face.image, face.marks, giver.image, _marks(giver), parameters)

    return layer


def _mouth_of(frame: StoredCrop) -> Callable[[Picture, NDArray[np.float32]], Picture]:
    """Lays the mouth of one frame over others."""

    def lay(picture: Picture, marks: NDArray[np.float32]) -> Picture:
        return laid_face(picture, marks, frame.image, _marks(frame), _FROZEN_MOUTH).over(picture)

    return lay


def _reenacting(
    frames: list[StoredCrop], faults: TemporalFaults, rng: np.random.Generator
) -> _Forger:
    """Moves one frame by the motion of all, or each frame by a motion of its own."""
    reenactment = draw_reenactment(rng)
    source = frames[int(rng.integers(len(frames)))]
    fixed = rng.random() < 0.5
    expression = draw_expression(rng)

    def forge_frame(face: _Face, rng: np.random.Generator) -> Picture:
        nonlocal expression
        near = near_crop(source, face.marks, FAR_NEIGHBOUR) if fixed else None
        if near is None:
            expression = _wander(expression, rng)
            driven = express(face.marks, expression)
            fake = reenact(face.image, face.marks, driven, reenactment)
        else:
            there = similarity(face.marks, _marks(near))
            placed = move_points(_marks(near), similarity(_marks(near), face.marks))
            shape = (face.image.shape[0], face.image.shape[1])
            fake = reenact(near.image, placed, face.marks, reenactment, placed=(there, shape))
        return flickering_picture(fake, faults, rng)

    return forge_frame


def _wander(expression: ExpressionChange, rng: np.random.Generator) -> ExpressionChange:
    """Returns the expression one frame later, most of it kept."""
    new = draw_expression(rng)
    mixed = {
        field.name: 0.8 * getattr(expression, field.name) + 0.4 * getattr(new, field.name)
        for field in dataclasses.fields(ExpressionChange)
    }
    mixed["lids"] = min(mixed["lids"], 0.95)
    return ExpressionChange(**mixed)


def _rebuilding(
    frames: list[StoredCrop], faults: TemporalFaults, rng: np.random.Generator
) -> _Forger:
    parameters = draw_rebuild(rng, frames[0].image.shape[1])

    def forge_frame(face: _Face, rng: np.random.Generator) -> Picture:
        return flickering_picture(rebuild(face.image, parameters, rng), faults, rng)

    return forge_frame
