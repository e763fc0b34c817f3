"""Synthesised fakes: changed inside the face, untouched outside, steady over a clip."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_training.store import StoredCrop
from dfd_training.synthesis import draw_blend, face_swap, self_blend, synthesise_clip
from dfd_training.synthesis.face_swap import warp_face
from dfd_training.synthesis.masks import MaskRegion


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_self_blend_changes_the_face_only(astronaut_crop: StoredCrop, seed: int) -> None:
    assert astronaut_crop.landmarks is not None
    image, marks = astronaut_crop.image, astronaut_crop.landmarks
    parameters = dataclasses.replace(draw_blend(np.random.default_rng(seed)), change_target=False)
    before = image.copy()
    fake = self_blend(image, marks, parameters)
    mask = parameters.mask(marks, image.shape[:2])
    assert fake.shape == image.shape
    assert (image == before).all(), "the input was changed"
    assert (fake[mask < 1e-3] == image[mask < 1e-3]).all()
    inside = mask > 0.8 * parameters.ratio
    if inside.sum() > 50:
        assert np.abs(fake[inside].astype(int) - image[inside]).mean() > 0.1


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
    donor = warp_face(hopper_crop.image, hopper_crop.landmarks, marks, image.shape[:2])[:, :, :3]

    def likeness(other: np.ndarray) -> float:
        luma = [cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)[inside] for part in (fake, other)]
        return float(np.corrcoef(luma[0], luma[1])[0, 1])

    assert likeness(donor) > likeness(image) + 0.1


def test_a_clip_keeps_one_forgery_that_drifts(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop
) -> None:
    frames = [astronaut_crop] * 6
    fakes = synthesise_clip(frames, np.random.default_rng(5), donors=[hopper_crop])
    other = synthesise_clip(frames, np.random.default_rng(6), donors=[hopper_crop])
    steps = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(fakes)]
    between = np.abs(fakes[0].astype(int) - other[0]).mean()
    assert all(step > 0 for step in steps), "nothing drifts"
    assert max(steps) < between, "two frames differ more than two forgeries"


def test_a_frame_without_landmarks_stays_as_it_is(astronaut_crop: StoredCrop) -> None:
    blind = dataclasses.replace(astronaut_crop, landmarks=None)
    fakes = synthesise_clip([blind, astronaut_crop], np.random.default_rng(0))
    assert (fakes[0] == astronaut_crop.image).all()
