"""Forged clips: one forgery over all frames, with the faults that were asked for."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from dfd_edge.errors import UsageError
from dfd_training.augment.synthesis import ForgeryKind, TemporalFaults, draw_faults, synthesise_clip
from dfd_training.augment.synthesis.clip import NO_FAULTS
from dfd_training.data.store import StoredCrop


def change(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second).mean())


def test_a_clip_keeps_one_forgery_that_drifts(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop
) -> None:
    frames = [astronaut_crop] * 6
    fakes, other = (
        synthesise_clip(
            frames,
            np.random.default_rng(seed),
            donors=[hopper_crop],
            kind=ForgeryKind.FACE_SWAP,
            faults=NO_FAULTS,
        )
        for seed in (5, 6)
    )
    steps = [change(a, b) for a, b in itertools.pairwise(fakes)]
    assert all(step > 0 for step in steps), "nothing drifts"
    assert max(steps) < change(fakes[0], other[0]), "frames differ more than two forgeries"


@pytest.mark.parametrize("kind", list(ForgeryKind))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_kind_forges_every_frame(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop, kind: ForgeryKind, seed: int
) -> None:
    fakes = synthesise_clip(
        [astronaut_crop] * 4,
        np.random.default_rng(seed),
        donors=[hopper_crop] * 2,
        kind=kind,
        faults=NO_FAULTS,
    )
    for fake in fakes:
        assert fake.shape == astronaut_crop.image.shape
        assert fake.dtype == np.uint8
        assert (fake != astronaut_crop.image).any()


def test_a_frame_without_landmarks_stays_as_it_is(astronaut_crop: StoredCrop) -> None:
    blind = dataclasses.replace(astronaut_crop, landmarks=None)
    for seed in range(5):
        fakes = synthesise_clip([blind, astronaut_crop, blind], np.random.default_rng(seed))
        assert (fakes[0] == astronaut_crop.image).all()
        assert (fakes[2] == astronaut_crop.image).all()
    assert len(synthesise_clip([blind], np.random.default_rng(0))) == 1


def test_a_swap_of_a_clip_needs_a_donor(astronaut_crop: StoredCrop) -> None:
    with pytest.raises(UsageError, match="donors"):
        synthesise_clip([astronaut_crop], np.random.default_rng(0), kind=ForgeryKind.FACE_SWAP)


def swapped(
    frames: list[StoredCrop], donors: list[StoredCrop], faults: TemporalFaults
) -> list[np.ndarray]:
    return synthesise_clip(
        frames,
        np.random.default_rng(8),
        donors=donors,
        kind=ForgeryKind.FACE_SWAP,
        faults=faults,
    )


def test_flicker_and_jitter_make_frames_differ_more(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop
) -> None:
    frames = [astronaut_crop] * 8

    def unrest(faults: TemporalFaults) -> float:
        fakes = swapped(frames, [hopper_crop], faults)
        return float(np.mean([change(a, b) for a, b in itertools.pairwise(fakes)]))

    calm = unrest(NO_FAULTS)
    assert unrest(TemporalFaults(flicker=6.0)) > 1.2 * calm
    assert unrest(TemporalFaults(fading=0.5)) > 1.2 * calm
    assert unrest(TemporalFaults(jitter=0.02)) > 1.2 * calm


def test_dropouts_leave_frames_real_but_never_most(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop
) -> None:
    for share, most in ((0.3, 0.3), (1.0, 0.5)):
        fakes = swapped([astronaut_crop] * 20, [hopper_crop], TemporalFaults(dropout=share))
        real = np.mean([(fake == astronaut_crop.image).all() for fake in fakes])
        assert 0.0 < real <= most


def test_late_tracking_forges_by_the_frame_before(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop
) -> None:
    assert astronaut_crop.landmarks is not None
    moved = dataclasses.replace(
        astronaut_crop, landmarks=astronaut_crop.landmarks + np.float32(12.0)
    )
    frames = [astronaut_crop, moved, moved]
    on_time = swapped(frames, [hopper_crop], NO_FAULTS)
    late = swapped(frames, [hopper_crop], TemporalFaults(late=True))
    assert change(on_time[0], late[0]) == 0.0
    assert change(on_time[1], late[1]) > 5 * change(on_time[2], late[2])


def test_an_identity_drifts_from_donor_to_donor(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop
) -> None:
    darker = dataclasses.replace(hopper_crop, image=hopper_crop.image[:, :, ::-1].copy())
    frames = [astronaut_crop] * 9
    steady = swapped(frames, [hopper_crop, darker], NO_FAULTS)
    drifting = swapped(frames, [hopper_crop, darker], TemporalFaults(drifting=True))
    assert change(drifting[0], drifting[-1]) > 1.5 * change(steady[0], steady[-1])


def test_a_frozen_mouth_is_that_of_one_frame(astronaut_crop: StoredCrop) -> None:
    """Frames of changing brightness at the mouth all show about one of them when frozen."""
    marks = astronaut_crop.landmarks
    assert marks is not None
    x, y = np.round(marks[[13, 14]].mean(axis=0)).astype(int)
    frames = []
    for number in range(6):
        image = astronaut_crop.image.copy()
        # Stripes of a direction of their own in each frame: colour transfer keeps these.
        stripes = image[y - 12 : y + 12, x - 12 : x + 12]
        stripes[(slice(None, None, 4), slice(None)) if number % 2 else np.s_[:, ::4]] = 255
        frames.append(dataclasses.replace(astronaut_crop, image=image))

    def mouths(faults: TemporalFaults) -> list[np.ndarray]:
        fakes = synthesise_clip(
            frames, np.random.default_rng(1), kind=ForgeryKind.REBUILT, faults=faults
        )
        return [fake[y - 8 : y + 8, x - 8 : x + 8] for fake in fakes]

    own, frozen = mouths(NO_FAULTS), mouths(TemporalFaults(frozen_mouth=True))
    assert change(frozen[0], frozen[1]) < 0.5 * change(own[0], own[1])


def test_drawn_faults_are_of_all_sorts() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_faults(rng) for _ in range(400)]
    for field in dataclasses.fields(TemporalFaults):
        share = np.mean([bool(getattr(faults, field.name)) for faults in drawn])
        assert 0.03 < share < 0.6, field.name
    assert 0.1 < np.mean([faults == NO_FAULTS for faults in drawn]) < 0.5
