"""Synthesised fakes: changed inside the face, untouched outside, steady over a clip."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_training.augment.synthesis import draw_blend, face_swap, self_blend
from dfd_training.augment.synthesis.colour import ColourTransfer, transfer_colour
from dfd_training.augment.synthesis.detail import DetailChange, DetailKind, change_detail
from dfd_training.augment.synthesis.geometry import MaskRegion, soft_mask, warp_face
from dfd_training.data.store import StoredCrop


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_self_blend_changes_the_face_only(astronaut_crop: StoredCrop, seed: int) -> None:
    assert astronaut_crop.landmarks is not None
    image, marks = astronaut_crop.image, astronaut_crop.landmarks
    parameters = dataclasses.replace(draw_blend(np.random.default_rng(seed)), change_target=False)
    before = image.copy()
    fake = self_blend(image, marks, parameters)
    mask = parameters.mask(marks, image.shape[:2])
    outside = cv2.dilate(mask, np.ones((7, 7))) < 1e-3
    assert fake.shape == image.shape
    assert (image == before).all(), "the input was changed"
    assert (fake[outside] == image[outside]).all()
    inside = mask > 0.8 * parameters.ratio
    if inside.sum() > 50:
        assert np.abs(fake[inside].astype(int) - image[inside]).mean() > 0.05


def test_no_opacity_no_fake(astronaut_crop: StoredCrop, hopper_crop: StoredCrop) -> None:
    assert astronaut_crop.landmarks is not None
    assert hopper_crop.landmarks is not None
    blend = dataclasses.replace(
        draw_blend(np.random.default_rng(1)), ratio=0.0, change_target=False
    )
    image, marks = astronaut_crop.image, astronaut_crop.landmarks
    assert (self_blend(image, marks, blend) == image).all()
    swap = face_swap(image, marks, hopper_crop.image, hopper_crop.landmarks, blend)
    assert (swap == image).all()


@pytest.mark.parametrize("poisson", [False, True])
def test_a_swap_shows_the_donor_in_the_target(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop, poisson: bool
) -> None:
    assert astronaut_crop.landmarks is not None
    assert hopper_crop.landmarks is not None
    blend = dataclasses.replace(
        draw_blend(np.random.default_rng(3)), region=MaskRegion.FACE, ratio=1.0, feather=0.02
    )
    image, marks = astronaut_crop.image, astronaut_crop.landmarks
    fake = face_swap(image, marks, hopper_crop.image, hopper_crop.landmarks, blend, poisson=poisson)
    inside = blend.mask(marks, image.shape[:2]) > 0.9
    donor, _ = warp_face(hopper_crop.image, hopper_crop.landmarks, marks, image.shape[:2])

    def likeness(other: np.ndarray) -> float:
        luma = [cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)[inside] for part in (fake, other)]
        return float(np.corrcoef(luma[0], luma[1])[0, 1])

    assert likeness(donor) > likeness(image) + 0.1


def test_a_face_warped_onto_itself_stays(astronaut_crop: StoredCrop) -> None:
    assert astronaut_crop.landmarks is not None
    image, marks = astronaut_crop.image, astronaut_crop.landmarks
    face, covered = warp_face(image, marks, marks, image.shape[:2])
    inner = cv2.erode(covered, np.ones((9, 9))) > 0
    assert inner.sum() > 1000
    assert np.abs(face[inner].astype(int) - image[inner]).mean() < 1.0


@pytest.mark.parametrize("region", list(MaskRegion))
def test_each_region_is_a_part_of_the_face(astronaut_crop: StoredCrop, region: MaskRegion) -> None:
    marks = astronaut_crop.landmarks
    assert marks is not None
    still = np.zeros((6, 6, 2), np.float32)
    masks = [
        soft_mask(marks, (300, 300), region=region, grow=1.0, wobble=still, feather=feather)
        for feather in (0.004, 0.08)
    ]
    low, high = marks.min(axis=0), marks.max(axis=0)
    face = (high - low).prod()
    for mask in masks:
        assert 0.01 * face < mask.sum() < 1.1 * face
        assert mask.max() <= 1.0
    edge = [float(((mask > 0.05) & (mask < 0.95)).sum() / (mask > 0.05).sum()) for mask in masks]
    assert edge[0] < 0.5 * edge[1], "the sharp mask is as soft as the soft one"


@pytest.mark.parametrize("method", list(ColourTransfer))
def test_a_colour_transfer_brings_the_means_together(
    astronaut: np.ndarray, method: ColourTransfer
) -> None:
    tinted = np.clip(astronaut * np.array([0.6, 0.9, 1.1]) + 20, 0, 255).astype(np.uint8)
    mask = np.zeros(astronaut.shape[:2], np.float32)
    mask[60:200, 80:220] = 1.0
    matched = transfer_colour(tinted, astronaut, mask, method=method)

    def away(picture: np.ndarray) -> float:
        inside = mask > 0
        return float(np.abs(picture[inside].mean(axis=0) - astronaut[inside].mean(axis=0)).max())

    if method is ColourTransfer.NONE:
        assert (matched == tinted).all()
    else:
        assert away(matched) < 0.3 * away(tinted)


@pytest.mark.parametrize(
    ("kind", "sharper"),
    [
        (DetailKind.SHRINK, False),
        (DetailKind.MODEL_SIDE, False),
        (DetailKind.BLUR, False),
        (DetailKind.SMEAR, False),
        (DetailKind.SHARPEN, True),
        (DetailKind.NOISE, True),
    ],
)
def test_a_change_of_detail_goes_its_way(
    astronaut: np.ndarray, kind: DetailKind, sharper: bool
) -> None:
    def energy(picture: np.ndarray) -> float:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return float((cv2.Laplacian(grey, cv2.CV_32F) ** 2).mean())

    changed = change_detail(astronaut, DetailChange(kind, strength=0.5), face_px=200)
    again = change_detail(astronaut, DetailChange(kind, strength=0.5), face_px=200)
    assert (changed == again).all(), "the same change gives two pictures"
    assert (energy(changed) > energy(astronaut)) == sharper


def test_drifting_parameters_keep_their_forgery() -> None:
    rng = np.random.default_rng(2)
    steps = [draw_blend(rng)]
    for _ in range(20):
        steps.append(steps[-1].drifted(rng))
    for before, after in itertools.pairwise(steps):
        assert (before.shift != after.shift).all()
        assert np.abs(before.shift - after.shift).max() < 0.03
        assert after.region is before.region
