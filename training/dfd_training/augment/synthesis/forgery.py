"""One pair of a real and a forged picture, for each kind of forgery.

The real picture of a pair is often changed too: whatever the forgery does to the whole face's
colour, sharpness or size happens to real footage as well, and must not give the label away. What is
left to learn is what only a forgery leaves: two kinds of picture in one, a border, a warp, the
period of a decoder.

Forging also softens a face: it is warped, shrunk and painted by a network. Real footage is soft as
well, by its lens, its codec or its size, and a network that learns "soft is fake" calls it fake. So
the two pictures of a pair are brought to equal sharpness.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.synthesis.blend import (
    BlendParameters,
    LaidFace,
    changed_copy,
    draw_blend,
    draw_part,
    draw_swap,
    face_swap,
    laid_copy,
    laid_face,
)
from dfd_training.augment.synthesis.colour import change_colour, draw_colour
from dfd_training.augment.synthesis.detail import Picture, change_detail, shrink_and_back
from dfd_training.augment.synthesis.geometry import Box, move_points, points_box, similarity
from dfd_training.augment.synthesis.rebuild import draw_rebuild, rebuild
from dfd_training.augment.synthesis.reenact import (
    draw_expression,
    draw_reenactment,
    express,
    reenact,
)
from dfd_training.data.store import StoredCrop

VIEW_SIDE = 160
"""Sharpness is measured at about the size at which a model sees a crop, in pixels."""

_MOST_SHARPENING = 1.5
_MUCH_SHARPER = 1.5
_SIGMAS = (0.9, 1.8, 3.5)


def sharpness(picture: Picture, box: Box) -> float:
    """Returns the mean squared Laplacian inside a box, at the size at which a model sees it."""
    laplacian = _laplacian(picture, box)
    return float((laplacian * laplacian).mean()) if laplacian.size else 0.0


def match_sharpness(picture: Picture, box: Box, wanted: float, rng: np.random.Generator) -> Picture:
    """Softens or sharpens a whole picture until its sharpness inside a box is as wanted.

    The picture is mixed with a softer copy of itself. Blurring is linear, so the sharpness of
    the mixture is a quadratic in its share, and its root is the share to take.

    Args:
        picture: uint8 [height, width, 3].
        box: Where sharpness is measured.
        wanted: The sharpness to reach; it is not reached where it would take strong sharpening.
        rng: Chooses how the picture is softened, by a blur or by shrinking.

    Returns:
        uint8, same shape.
    """
    own = _laplacian(picture, box)
    if own.size < 64:
        return picture
    energy = float((own * own).mean())
    shrink = rng.random() < 0.5
    softer, level = picture, own
    for sigma in _SIGMAS:
        softer = _soften(picture, sigma, shrink=shrink and wanted < energy)
        level = _laplacian(softer, box)
        if float((level * level).mean()) <= wanted or wanted >= energy:
            break
    # |own + share * (level - own)|^2 = wanted
    step = level - own
    square, cross = float((step * step).mean()), float((own * step).mean())
    if square < 1e-6:
        return picture
    root = np.sqrt(max(cross * cross - square * (energy - wanted), 0.0))
    share = float(np.clip((-cross - root) / square, -_MOST_SHARPENING, 1.0))
    return np.asarray(cv2.addWeighted(picture, 1 - share, softer, share, 0), np.uint8)


def match_pair(
    real: Picture, fake: Picture, landmarks: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Picture, Picture]:
    """Brings the two faces of a pair to about equal sharpness.

    Args:
        real: uint8 [height, width, 3], BGR.
        fake: uint8, same shape.
        landmarks: float32 [468, 2] of the face, pixels.
        rng: Random generator.

    Returns:
        The two pictures, one of them softened or sharpened as a whole.
    """
    box = points_box(landmarks, real.shape[:2])
    of_real, of_fake = sharpness(real, box), sharpness(fake, box)
    about = float(np.exp(rng.normal(-0.06, 0.3)))
    if of_fake > _MUCH_SHARPER * of_real:
        # Sharpening would show in the real picture: the fake is softened.
        return real, match_sharpness(fake, box, of_real * about, rng)
    return match_sharpness(real, box, of_fake * about, rng), fake


def _soften(picture: Picture, sigma: float, *, shrink: bool) -> Picture:
    scale = max(1.0, picture.shape[1] / VIEW_SIDE)
    if shrink:
        return shrink_and_back(picture, 1.0 / (1.0 + sigma * scale), up=cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma * scale), np.uint8)


def _laplacian(picture: Picture, box: Box) -> NDArray[np.float32]:
    part = picture[box.inside]
    if min(part.shape[:2]) < 8:
        return np.zeros((0, 0), np.float32)
    grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
    factor = VIEW_SIDE / picture.shape[1]
    if factor < 1.0:
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.Laplacian(grey, cv2.CV_32F), np.float32)


class ForgeryKind(StrEnum):
    """Kinds of forgery.

    `SELF_BLEND`: a part of the face is laid over a changed copy of itself. `FACE_SWAP`: the face
    of another person is laid over it. `PART_SWAP`: mouth, eyes or lower face of another frame, of
    another person or of another expression are laid over it. `REENACTED`: the whole head is
    warped to another expression or pose. `REBUILT`: the whole picture passes through what
    imitates a network's encoder and decoder.
    """

    SELF_BLEND = "self-blend"
    FACE_SWAP = "face swap"
    PART_SWAP = "part swap"
    REENACTED = "reenacted"
    REBUILT = "rebuilt"


@dataclass(frozen=True, slots=True)
class Forged:
    """A real and a forged picture.

    Attributes:
        real: uint8 [height, width, 3], BGR.
        fake: uint8, same shape.
        mask: float32 [height, width] in [0, 1]: where `fake` was forged; all ones where it was
            forged as a whole.
    """

    real: Picture
    fake: Picture
    mask: NDArray[np.float32]


_POISSON_SHARE = 0.03
# Beyond these distances of shape (share of the face's size) one face warped onto the other is a
# caricature: one is seen from the front and the other from the side.
FAR_DONOR, FAR_NEIGHBOUR = 0.025, 0.03
_MOST_TURN_DEG = 10.0
_MATCHED_SHARE = 0.6
_AGREES_INSIDE_SHARE = 0.3
_SAME_DETAIL_SHARE = 0.4


def forge(
    kind: ForgeryKind,
    target: StoredCrop,
    rng: np.random.Generator,
    *,
    donor: StoredCrop | None = None,
    neighbour: StoredCrop | None = None,
) -> Forged:
    """Forges a picture, and prepares the real picture of the pair.

    Args:
        kind: The kind of change.
        target: The real face, with landmarks; it is not changed.
        rng: Random generator.
        donor: Another person of similar pose; a `FACE_SWAP` needs one. One whose pose is far from
            the target's is not used, and the target is blended with itself.
        neighbour: Another frame of the same clip, for `PART_SWAP` and `REENACTED`; without one
            these move the target's own features.

    Raises:
        UsageError: When the target has no landmarks, they span no area, or a needed donor is
            missing.
    """
    if target.landmarks is None:
        raise UsageError("a face without landmarks cannot be forged: choose a crop that has them")
    if kind is ForgeryKind.FACE_SWAP and (donor is None or donor.landmarks is None):
        raise UsageError("a face swap needs a donor with landmarks: give one")
    donor = near_crop(donor, target.landmarks, FAR_DONOR)
    neighbour = near_crop(neighbour, target.landmarks, FAR_NEIGHBOUR)
    if kind is ForgeryKind.FACE_SWAP and donor is None:
        kind = ForgeryKind.SELF_BLEND
    match kind:
        case ForgeryKind.SELF_BLEND:
            forged = _self_blend(target.image, target.landmarks, rng)
        case ForgeryKind.FACE_SWAP:
            assert donor is not None
            forged = _face_swap(target.image, target.landmarks, donor, rng)
        case ForgeryKind.PART_SWAP:
            forged = _part_swap(target.image, target.landmarks, rng, donor, neighbour)
        case ForgeryKind.REENACTED:
            forged = _reenacted(target.image, target.landmarks, rng, neighbour)
        case ForgeryKind.REBUILT:
            forged = _rebuilt(target.image, target.landmarks, rng)
    return forged


def near_crop(
    other: StoredCrop | None, landmarks: NDArray[np.float32], farthest: float
) -> StoredCrop | None:
    """Returns the other crop, if its face has nearly the same shape and pose."""
    if other is None or other.landmarks is None:
        return None
    size = max(float(np.ptp(landmarks, axis=0).max()), 1.0)
    placed = move_points(other.landmarks, similarity(other.landmarks, landmarks))
    return other if float(np.abs(placed - landmarks).mean()) <= farthest * size else None


def _self_blend(image: Picture, landmarks: NDArray[np.float32], rng: np.random.Generator) -> Forged:
    parameters = draw_blend(rng)
    # Either copy is a possible real picture: one agrees with the fake inside, one outside. Pairs
    # of the second kind are the easier ones to learn from.
    agrees_inside = rng.random() < _AGREES_INSIDE_SHARE
    if not (parameters.change_target or agrees_inside):
        return _forged(_resampled(image, rng), image, laid_copy(image, landmarks, parameters))
    changed = changed_copy(image, landmarks, parameters)
    source, target = (image, changed) if parameters.change_target else (changed, image)
    laid = laid_copy(source, landmarks, parameters, change=False)
    return _forged(_resampled(source if agrees_inside else target, rng), target, laid)


def _forged(real: Picture, target: Picture, laid: LaidFace) -> Forged:
    return Forged(real, laid.over(target), laid.spread_mask(target.shape))


def _face_swap(
    image: Picture,
    landmarks: NDArray[np.float32],
    donor: StoredCrop,
    rng: np.random.Generator,
) -> Forged:
    assert donor.landmarks is not None
    parameters = draw_swap(rng)
    if rng.random() < _POISSON_SHARE:
        fake = face_swap(image, landmarks, donor.image, donor.landmarks, parameters, poisson=True)
        box = parameters.box(landmarks, image.shape[:2])
        mask = box.spread(parameters.mask(box.points(landmarks), box.shape), image.shape[:2])
        return _mostly_matched(Forged(image, fake, mask), landmarks, rng)
    laid = laid_face(image, landmarks, donor.image, donor.landmarks, parameters)
    if rng.random() < 0.3:
        recoloured = change_colour(laid.face, draw_colour(rng, 0.35))
        laid = dataclasses.replace(laid, face=recoloured)
    real = image
    if rng.random() < _SAME_DETAIL_SHARE:
        size = float(np.ptp(landmarks, axis=0).max())
        real = _resampled(change_detail(image, parameters.detail, face_px=size), rng)
    return _mostly_matched(_forged(real, image, laid), landmarks, rng)


def _part_swap(
    image: Picture,
    landmarks: NDArray[np.float32],
    rng: np.random.Generator,
    donor: StoredCrop | None,
    neighbour: StoredCrop | None,
) -> Forged:
    parameters = draw_part(rng)
    choice = rng.random()
    if neighbour is not None and choice < 0.5:
        giver, kept = neighbour, rng.uniform(0.3, 1.0)
    elif donor is not None and choice < 0.75:
        giver, kept = donor, rng.uniform(0.0, 0.5)
    else:
        giver, kept = None, 0.0
    if giver is None:
        laid = _own_part(image, landmarks, parameters, rng)
    else:
        assert giver.landmarks is not None
        parameters = dataclasses.replace(parameters, keep_shape=float(kept))
        laid = laid_face(image, landmarks, giver.image, giver.landmarks, parameters)
    return _mostly_matched(_forged(image, image, laid), landmarks, rng)


def _own_part(
    image: Picture,
    landmarks: NDArray[np.float32],
    parameters: BlendParameters,
    rng: np.random.Generator,
) -> LaidFace:
    """Returns the part of the face with another expression, as it will lie over the picture."""
    box = parameters.box(landmarks, image.shape[:2])
    points = box.points(landmarks)
    driven = express(points, draw_expression(rng, pose=False))
    face = reenact(box.cut(image), points, driven, draw_reenactment(rng))
    size = float(np.ptp(landmarks, axis=0).max())
    face = change_detail(face, parameters.detail, face_px=size)
    return LaidFace(face, parameters.mask(points, box.shape), box)


def _reenacted(
    image: Picture,
    landmarks: NDArray[np.float32],
    rng: np.random.Generator,
    neighbour: StoredCrop | None,
) -> Forged:
    reenactment = draw_reenactment(rng)
    choice = rng.random()
    if neighbour is not None and choice < 0.65:
        assert neighbour.landmarks is not None
        there = similarity(landmarks, neighbour.landmarks)
        back = similarity(neighbour.landmarks, landmarks)
        other = move_points(neighbour.landmarks, back)
        turn = float(np.rad2deg(np.arctan2(there[1, 0], there[0, 0])))
        # A frame turned far would show where its own picture ends.
        if choice < 0.35 and abs(turn) <= _MOST_TURN_DEG:
            fake = reenact(
                neighbour.image,
                other,
                landmarks,
                reenactment,
                placed=(there, (image.shape[0], image.shape[1])),
            )
        else:
            fake = reenact(image, landmarks, other, reenactment)
    else:
        fake = reenact(image, landmarks, express(landmarks, draw_expression(rng)), reenactment)
    pair = Forged(image, fake, np.ones(image.shape[:2], np.float32))
    return _mostly_matched(pair, landmarks, rng)


def _rebuilt(image: Picture, landmarks: NDArray[np.float32], rng: np.random.Generator) -> Forged:
    fake = rebuild(image, draw_rebuild(rng, image.shape[1]), rng)
    if rng.random() < 0.3:
        fake = change_colour(fake, draw_colour(rng, 0.3))
    pair = Forged(image, fake, np.ones(image.shape[:2], np.float32))
    return _mostly_matched(pair, landmarks, rng)


def _mostly_matched(
    pair: Forged, landmarks: NDArray[np.float32], rng: np.random.Generator
) -> Forged:
    if rng.random() > _MATCHED_SHARE:
        return pair
    real, fake = match_pair(pair.real, pair.fake, landmarks, rng)
    return dataclasses.replace(pair, real=real, fake=fake)


def _resampled(picture: Picture, rng: np.random.Generator) -> Picture:
    """Usually shifts the picture by less than a pixel: forging resamples, and so do cameras."""
    if rng.random() < 0.3:
        return picture
    move = np.array([[1.0, 0.0, rng.uniform(-0.5, 0.5)], [0.0, 1.0, rng.uniform(-0.5, 0.5)]])
    moved = cv2.warpAffine(
        picture, move, (picture.shape[1], picture.shape[0]), borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)
