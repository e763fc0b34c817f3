"""Fakes of whole clips: one forgery whose place drifts a little from frame to frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfd_training.store import StoredCrop
from dfd_training.synthesis.blend import draw_blend
from dfd_training.synthesis.colour import Picture
from dfd_training.synthesis.face_swap import face_swap
from dfd_training.synthesis.self_blend import self_blend


def synthesise_clip(
    frames: Sequence[StoredCrop],
    rng: np.random.Generator,
    *,
    donors: Sequence[StoredCrop] = (),
) -> list[Picture]:
    """Make a fake of a clip.

    The parameters of the forgery are drawn once; the mask's place and edge wander. With donors
    the face of another person is laid over each frame, from the donor's frame whose pose is
    nearest; without, each frame is blended with itself.

    Args:
        frames: crops of one person in order of time; those without landmarks stay untouched.
        rng: the source of chance.
        donors: crops of another person.

    Returns:
        One picture a frame, uint8 BGR, of the frame's own size.
    """
    # The source's copy is the changed one, so that nothing but the face tells a fake clip.
    parameters = dataclasses.replace(draw_blend(rng), change_target=False)
    usable = [(donor.image, donor.landmarks) for donor in donors if donor.landmarks is not None]
    poses = [landmarks for _, landmarks in usable]
    fakes: list[Picture] = []
    for frame in frames:
        parameters = parameters.drifted(rng)
        if frame.landmarks is None:
            fakes.append(frame.image)
        elif usable:
            donor, pose = usable[nearest_pose(frame.landmarks, poses)]
            fakes.append(face_swap(frame.image, frame.landmarks, donor, pose, parameters))
        else:
            fakes.append(self_blend(frame.image, frame.landmarks, parameters))
    return fakes


def nearest_pose(landmarks: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> int:
    """Which of `others`, brought to unit size, lies nearest to `landmarks` (float32 [468, 2])."""
    shape = _unit_shape(landmarks)
    return int(np.argmin([np.abs(_unit_shape(other) - shape).mean() for other in others]))


def _unit_shape(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = landmarks - landmarks.mean(axis=0)
    unit: NDArray[np.float32] = centred / max(float(np.sqrt((centred**2).mean())), 1e-6)
    return unit
