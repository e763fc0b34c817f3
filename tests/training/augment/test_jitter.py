"""Rotation of training crops: picture, box and landmarks stay together."""

from __future__ import annotations

import numpy as np
import pytest

from dfd_training.augment.jitter import NO_JITTER, Jitter, draw_jitter, turned, work_crop
from dfd_training.data.store import CropStore, StoredCrop
from dfd_training.fitting.pairs import PairOptions, PairSampler


def crop_with_dots() -> StoredCrop:
    """Bright dots on black where the landmarks are."""
    image = np.zeros((200, 200, 3), np.uint8)
    marks = np.array([[100.0, 60.0], [140.0, 100.0], [70.0, 120.0]], np.float32)
    for x, y in marks.astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    box = np.array([60.0, 60.0, 140.0, 140.0], np.float32)
    return StoredCrop(image=image, box=box, landmarks=marks, crop_scale=1.5)


@pytest.mark.parametrize("degrees", [-12.0, 5.0, 20.0])
def test_landmarks_follow_the_picture(degrees: float) -> None:
    stored = crop_with_dots()
    after = turned(stored, degrees)
    assert after.landmarks is not None
    for x, y in after.landmarks.round().astype(int):
        assert after.image[y, x].min() > 200
    before = stored.landmarks
    assert before is not None
    assert np.abs(after.landmarks - before).max() > 2, "something moved"
    radius = np.linalg.norm(before - 100.0, axis=1)
    np.testing.assert_allclose(np.linalg.norm(after.landmarks - 100.0, axis=1), radius, rtol=1e-4)


def test_nothing_turns_unless_it_is_asked_for() -> None:
    stored = crop_with_dots()
    plain = work_crop(stored, NO_JITTER)
    assert (plain.image == work_crop(stored, Jitter(1.0, (0.0, 0.0), False, 0.0)).image).all()
    assert (plain.image != work_crop(stored, Jitter(1.0, (0.0, 0.0), False, 8.0)).image).any()
    drawn = [draw_jitter(np.random.default_rng(seed)) for seed in range(20)]
    assert {jitter.turn for jitter in drawn} == {0.0}
    drawn = [draw_jitter(np.random.default_rng(seed), turn=4.0) for seed in range(200)]
    angles = np.array([jitter.turn for jitter in drawn])
    assert 3.0 < angles.std() < 5.0
    assert np.abs(angles).max() <= 12.0


def test_both_crops_of_a_pair_turn_alike(small_store: CropStore) -> None:
    """Of a pair that is not forged the two crops stay equal, whatever the angle."""
    options = PairOptions(input_size=64, true_share=0.0, turn=10.0)
    sampler = PairSampler(small_store, small_store.index, options)
    sampler._synthesise = lambda real, *_: (real.image, real.image)  # type: ignore[method-assign]
    still = PairSampler(small_store, small_store.index, PairOptions(input_size=64, true_share=0.0))
    still._synthesise = sampler._synthesise  # type: ignore[method-assign]
    for seed in range(4):
        real, fake = sampler.draw(np.random.default_rng(seed))
        # Noise is drawn for each crop; all else is the same.
        assert np.abs(real.astype(int) - fake).mean() < 12
    assert any(
        (sampler.draw(np.random.default_rng(n))[0] != still.draw(np.random.default_rng(n))[0]).any()
        for n in range(4)
    )
