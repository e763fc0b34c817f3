"""A stream's frames are searched near the known faces alone, and no face is missed by that."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from clip_maker import portrait

from dfd_edge.faces import FaceDetector
from dfd_edge.faces.detector import box_overlap
from dfd_edge.faces.follower import MAX_STEP_S, WHOLE_EVERY_S, FaceFollower

STEP_S = 0.2
HEIGHT, WIDTH = 720, 1280
#: The part of the portrait that is shown: the head and what surrounds it.
HEAD = portrait()[30:250, 130:330]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def scene(*places: tuple[int, int], scale: float = 2.0) -> np.ndarray:
    """A wall with heads whose upper left corners lie at these x and y."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    wall = 110 + 20 * np.sin(columns / 90) + 15 * np.cos(rows / 70)
    picture = np.repeat(wall.astype(np.uint8)[:, :, None], 3, axis=2)
    head = cv2.resize(HEAD, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for x, y in places:
        picture[y : y + head.shape[0], x : x + head.shape[1]] = head
    return picture


def follow(follower: FaceFollower, frames: list[np.ndarray], start_s: float = 0.0) -> list[bool]:
    """Searches frames; returns for each whether that was near the known faces alone."""
    near = []
    for number, frame in enumerate(frames):
        before = follower.near
        follower.detect(frame, start_s + number * STEP_S)
        near.append(follower.near > before)
    return near


def test_a_moving_face_is_found_where_a_whole_search_finds_it(detector):
    follower = FaceFollower(detector)
    for number in range(10):
        frame = scene((400 + 12 * number, 180 + 4 * number))
        (found,) = follower.detect(frame, number * STEP_S)
        (wanted,) = detector.detect(frame)
        assert np.abs(found.box - wanted.box).max() < 0.06 * wanted.size
        assert np.abs(found.keypoints - wanted.keypoints)[:4].max() < 0.06 * wanted.size
    assert follower.near >= 5


def test_a_still_picture_is_searched_whole_once_a_second(detector):
    near = follow(FaceFollower(detector), [scene((500, 200))] * 12)
    whole_at_s = [number * STEP_S for number, was_near in enumerate(near) if not was_near]
    assert np.diff(whole_at_s) == pytest.approx([WHOLE_EVERY_S] * 2)


@pytest.mark.parametrize("scale", [1.2, 1.5])
@pytest.mark.parametrize("place", [(0, 20), (940, 20), (960, 380), (40, 380)])
def test_another_face_is_found_in_the_frame_in_which_it_comes(detector, place, scale):
    """Also small ones, of 15 px of the model's input."""
    known = scene((480, 200))
    both = known.copy()
    x, y = place
    head = cv2.resize(HEAD, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    both[y : y + head.shape[0], x : x + head.shape[1]] = head
    wanted = detector.detect(both)
    assert len(wanted) == 2
    follower = FaceFollower(detector)
    assert follow(follower, [known, known]) == [False, True]
    found = follower.detect(both, 2 * STEP_S)
    assert [face.box.tolist() for face in found] == [face.box.tolist() for face in wanted]


def test_a_face_that_goes_is_not_kept(detector):
    follower = FaceFollower(detector)
    follow(follower, [scene((480, 200))] * 2)
    assert follower.detect(scene(), 2 * STEP_S) == []


def test_a_face_that_jumps_is_found_at_its_new_place(detector):
    follower = FaceFollower(detector)
    follow(follower, [scene((100, 200))] * 2)
    moved = scene((800, 260))
    (found,) = follower.detect(moved, 2 * STEP_S)
    assert box_overlap(found.box, detector.detect(moved)[0].box) > 0.99
    assert follower.near == 1


def test_two_faces_beside_each_other_share_a_square(detector):
    beside = scene((420, 250), (660, 250), scale=1.2)
    assert len(detector.detect(beside)) == 2
    assert follow(FaceFollower(detector), [beside] * 3) == [False, True, True]
    apart = scene((100, 250), (1000, 250), scale=1.2)
    assert len(detector.detect(apart)) == 2
    assert follow(FaceFollower(detector), [apart] * 3) == [False] * 3


@pytest.mark.parametrize(
    "times_s",
    [
        pytest.param((0.0, MAX_STEP_S + 0.1), id="long after the last frame"),
        pytest.param((5.0, 4.9), id="a clock that goes back"),
        pytest.param((1.0, 1.0), id="the same time again"),
    ],
)
def test_frames_that_do_not_follow_are_searched_whole(detector, times_s):
    follower = FaceFollower(detector)
    for time_s in times_s:
        follower.detect(scene((480, 200)), time_s)
    assert (follower.whole, follower.near) == (2, 0)


def test_a_frame_of_another_size_is_searched_whole(detector):
    follower = FaceFollower(detector)
    frame = scene((480, 200))
    assert follow(follower, [frame, cv2.resize(frame, (640, 360))]) == [False, False]
    assert follow(follower, [np.ascontiguousarray(frame[:, 200:])], 0.4) == [False]


def test_what_is_looked_at_thoroughly_is_searched_whole(detector):
    follower = FaceFollower(detector)
    for number in range(3):
        follower.detect(scene((480, 200)), number * STEP_S, thorough=True)
    assert follower.near == 0


def test_large_faces_are_searched_whole(detector):
    frame = np.ascontiguousarray(portrait()[20:260, 100:340])
    assert follow(FaceFollower(detector), [frame] * 3) == [False] * 3


def test_the_same_frames_give_the_same_faces(detector):
    frames = [scene((400 + 15 * number, 200)) for number in range(8)]
    runs = []
    for _ in range(2):
        follower = FaceFollower(detector)
        found = [follower.detect(frame, i * STEP_S)[0] for i, frame in enumerate(frames)]
        runs.append([face.box.tolist() for face in found])
    assert runs[0] == runs[1]
