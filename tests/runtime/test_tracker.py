"""One number for each person, however they move, hide, cross and leave."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_edge import UsageError
from dfd_edge.faces import Face, FaceDetector, TrackedFace, Tracker, crop_region
from dfd_edge.faces.crop import cut
from dfd_edge.faces.selection import HOLD_S, FaceChoice, parse_faces
from dfd_edge.faces.tracker import Appearance, assign

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
STEP_S = 0.2
SIZE = 100.0
PLAIN = settings(max_examples=60, deadline=None, derandomize=True)


def face_at(x, y=300.0, size=SIZE):
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    return Face(box=box, keypoints=np.zeros((6, 2), np.float32), score=0.9)


def first_frame(name):
    with av.open(str(SAMPLES / name)) as container:
        return next(container.decode(video=0)).to_ndarray(format="bgr24")


@pytest.fixture(scope="module")
def looks():
    """Two people, each a uint8 BGR [150, 150, 3] cut-out round a box of 100 px."""
    import cv2

    finder = FaceDetector()
    people = []
    for name in ("real_astronaut.mp4", "real_hopper.mp4"):
        frame = first_frame(name)
        (face,) = finder.detect(frame)
        people.append(cv2.resize(cut(frame, crop_region(face.box, 1.5)), (150, 150)))
    return people


def picture(looks, places, *, light=1.0):
    """A frame with these people (look, x), the last in front."""
    frame = np.full((600, 1200, 3), 90, np.uint8)
    for look, x in places:
        left = round(x) - 75
        frame[225:375, left : left + 150] = looks[look]
    return np.clip(frame * light, 0, 255).astype(np.uint8)


def numbers(tracker, people, time_s, frame=None):
    """Track of each named person; `people` maps a name to a face."""
    tracked = tracker.update(list(people.values()), time_s, frame)
    return dict(zip(people, (face.track for face in tracked), strict=True))


class TestAssignment:
    @pytest.mark.parametrize("seed", range(40))
    def test_no_other_pairing_costs_less(self, seed):
        random = np.random.default_rng(seed)
        rows, columns = random.integers(1, 5, 2)
        costs = random.normal(0.0, 1.5, (rows, columns))
        costs[random.random((rows, columns)) < 0.2] = np.inf
        pairs = assign(costs, unpaired=1.2)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        got = sum(costs[pair] for pair in pairs) + 1.2 * (rows - len(pairs))
        least = min(
            sum(costs[pair] for pair in zip(some, others, strict=True)) + 1.2 * (rows - count)
            for count in range(min(rows, columns) + 1)
            for some in itertools.combinations(range(rows), count)
            for others in itertools.permutations(range(columns), count)
        )
        assert got == pytest.approx(least)

    @pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
    def test_nobody(self, shape):
        assert assign(np.zeros(shape), unpaired=1.0) == []

    def test_the_nearest_first_would_be_wrong(self):
        costs = np.array([[0.1, 0.2], [0.15, 2.0]])
        assert assign(costs, unpaired=1.5) == [(0, 1), (1, 0)]


class TestMotion:
    @PLAIN
    @given(
        speeds=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=4),
        seed=st.integers(0, 10_000),
        missed=st.floats(0.0, 0.4),
    )
    def test_nobody_changes_numbers_and_no_boxes_mix(self, speeds, seed, missed):
        """People in rows of their own, at up to 1.5 face sizes a second, trembling and missed."""
        random = np.random.default_rng(seed)
        tracker = Tracker()
        seen = {}
        for step in range(40):
            people = {}
            for person, speed in enumerate(speeds):
                if step > 2 and random.random() < missed:
                    continue
                shake = random.normal(0.0, 0.02 * SIZE, 2)
                size = SIZE * random.uniform(0.95, 1.05)
                x = 600.0 + speed * SIZE * step * STEP_S
                people[person] = face_at(x + shake[0], 150.0 + 160.0 * person + shake[1], size)
            order = list(people)
            random.shuffle(order)
            tracked = tracker.update([people[person] for person in order], step * STEP_S)
            for person, item in zip(order, tracked, strict=True):
                if step - seen.get(person, (0, step))[1] > 5:
                    seen.pop(person)  # a second unseen may end a track
                assert seen.setdefault(person, (item.track, step))[0] == item.track
                seen[person] = (item.track, step)
                shift = np.abs(item.face.box - people[person].box).max()
                assert shift < 0.5 * SIZE, "the box is that of this person"
        assert len({track for track, _ in seen.values()}) == len(seen)

    @PLAIN
    @given(
        speed=st.floats(0.8, 2.5),
        hidden=st.integers(0, 3),
        offset=st.floats(0.0, 0.2),
        seed=st.integers(0, 10_000),
    )
    def test_two_people_cross_unseen_by_their_looks(self, speed, hidden, offset, seed):
        """The one behind is not found for up to three frames; motion alone tells who is who."""
        random = np.random.default_rng(seed)
        tracker = Tracker()
        first = None
        start = 2.0 * SIZE
        meeting = start / (speed * SIZE * STEP_S)
        for step in range(int(2 * meeting) + 2):
            way = speed * SIZE * STEP_S * (step + offset)
            shake = random.normal(0.0, 0.01 * SIZE, 2)
            people = {"front": face_at(600.0 - start + way + shake[0], 300.0)}
            if abs(step + offset - meeting) > hidden / 2:
                people["behind"] = face_at(600.0 + start - way + shake[1], 320.0)
            got = numbers(tracker, people, step * STEP_S)
            first = first or got
            assert got == {name: first[name] for name in got}

    def test_a_box_is_expected_where_its_motion_takes_it(self):
        tracker = Tracker()
        for step in range(5):
            tracker.update([face_at(100.0 + 60.0 * step)], step * STEP_S)
        # Unseen for a second: 2.4 sizes from where it was last, 0.5 from where it is expected.
        (item,) = tracker.update([face_at(580.0)], 9 * STEP_S)
        assert item.track == 1

    def test_who_returns_after_the_gap_is_new(self):
        tracker = Tracker(max_gap_s=2.0)
        assert numbers(tracker, {"a": face_at(100)}, 0.0) == {"a": 1}
        assert numbers(tracker, {"a": face_at(100)}, 2.0) == {"a": 1}
        assert numbers(tracker, {"a": face_at(100)}, 4.1) == {"a": 2}

    def test_people_enter_and_leave(self):
        tracker = Tracker()
        assert numbers(tracker, {"a": face_at(100)}, 0.0) == {"a": 1}
        both = {"b": face_at(500), "a": face_at(105)}
        assert numbers(tracker, both, 0.2) == {"a": 1, "b": 2}
        assert numbers(tracker, {"b": face_at(510)}, 0.4) == {"b": 2}
        rest = {"c": face_at(900), "b": face_at(515)}
        assert numbers(tracker, rest, 0.6) == {"b": 2, "c": 3}

    def test_time_that_jumps_back_ends_all(self):
        tracker = Tracker()
        numbers(tracker, {"a": face_at(100)}, 5.0)
        assert numbers(tracker, {"a": face_at(100)}, 1.0) == {"a": 2}

    def test_much_larger_is_somebody_else(self):
        tracker = Tracker()
        numbers(tracker, {"a": face_at(300)}, 0.0)
        assert numbers(tracker, {"a": face_at(300, size=2 * SIZE)}, 0.2) == {"a": 2}


class TestLooks:
    @pytest.mark.parametrize(
        ("turns_back", "hidden"), [(False, 1), (False, 2), (False, 3), (True, 2), (True, 3)]
    )
    def test_two_people_meet(self, looks, turns_back, hidden):
        """They cross, or turn back where they meet: motion cannot know which, looks can."""
        tracker = Tracker()
        first = None
        for step in range(21):
            away = 24.0 * (abs(10 - step) if turns_back else 10 - step)
            xs = {0: 600.0 - away, 1: 600.0 + away}
            frame = picture(looks, [(1, xs[1]), (0, xs[0])])
            people = {0: face_at(xs[0])}
            if abs(step - 10) >= hidden:
                people[1] = face_at(xs[1])
            got = numbers(tracker, people, step * STEP_S, frame)
            first = first or got
            assert got == {name: first[name] for name in got}, step

    def test_a_cut_to_another_person_ends_the_track(self, looks):
        tracker = Tracker()
        shown = [0, 0, 0, 1, 1, 0, 0]
        got = [
            numbers(tracker, {"x": face_at(500)}, n * STEP_S, picture(looks, [(look, 500)]))["x"]
            for n, look in enumerate(shown)
        ]
        assert got == [1, 1, 1, 2, 2, 1, 1], "and a cut back within the gap finds it again"

    def test_a_cut_beside_somebody_who_stays(self, looks):
        tracker = Tracker()
        for n, look in enumerate([0, 0, 1, 1]):
            people = {"x": face_at(300), "y": face_at(800)}
            frame = picture(looks, [(look, 300), (1, 800)])
            got = numbers(tracker, people, n * STEP_S, frame)
            assert got == {"x": 1 if look == 0 else 3, "y": 2}

    @pytest.mark.parametrize("light", [0.4, 0.7, 1.4])
    def test_light_that_is_switched_does_not(self, looks, light):
        tracker = Tracker()
        for n, now in enumerate([1.0, 1.0, light, light, 1.0]):
            frame = picture(looks, [(0, 500)], light=now)
            assert numbers(tracker, {"x": face_at(500)}, n * STEP_S, frame) == {"x": 1}

    def test_the_same_picture_has_not_changed(self, looks):
        frame = picture(looks, [(0, 500), (1, 800)])
        one, again = (Appearance.of(frame, face_at(500).box) for _ in range(2))
        other = Appearance.of(frame, face_at(800).box)
        assert one.colour_change(again) == pytest.approx(0.0, abs=1e-5)
        assert one.pattern_change(again) < 0.3
        assert not one.is_other(again)
        assert one.is_other(other)

    @pytest.mark.parametrize("x", [-40.0, 0.0, 1200.0, 1260.0])
    def test_a_face_at_the_edge_has_looks_too(self, looks, x):
        look = Appearance.of(picture(looks, [(0, 500)]), face_at(x).box)
        assert np.isfinite(look.pattern).all()
        assert float(look.colours @ look.colours) == pytest.approx(1.0, abs=1e-4)

    def test_a_black_picture(self):
        black = np.zeros((600, 1200, 3), np.uint8)
        tracker = Tracker()
        for n in range(3):
            assert numbers(tracker, {"x": face_at(500)}, n * STEP_S, black) == {"x": 1}


def of_sizes(**sizes):
    """Tracked faces: a=1, b=2 and so on, of these sizes."""
    return [
        TrackedFace(track="abc".index(name) + 1, face=face_at(100, size=size))
        for name, size in sizes.items()
    ]


def judged(choice, time_s, **sizes):
    faces = of_sizes(**sizes)
    refusals = choice.refusals(faces, time_s)
    return [
        "abc"[face.track - 1]
        for face, refusal in zip(faces, refusals, strict=True)
        if refusal is None
    ]


class TestChoice:
    def test_all(self):
        assert judged(FaceChoice("all"), 0.0, a=10, b=100) == ["a", "b"]

    def test_at_least_so_many_pixels(self):
        assert judged(FaceChoice(64), 0.0, a=63.5, b=64, c=200) == ["b", "c"]

    def test_the_largest(self):
        assert judged(FaceChoice("largest"), 0.0, a=80, b=100) == ["b"]

    def test_two_of_a_size_do_not_take_turns(self):
        choice = FaceChoice("largest")
        assert judged(choice, 0.0, a=100, b=99) == ["a"]
        assert judged(choice, 0.2, a=99, b=105) == ["a"]
        assert judged(choice, 0.4, a=99, b=130) == ["b"]

    def test_the_largest_is_waited_for_a_moment(self):
        choice = FaceChoice("largest")
        assert judged(choice, 0.0, a=100, b=50) == ["a"]
        assert judged(choice, 0.2, b=50) == []
        assert judged(choice, HOLD_S + 0.01, b=50) == ["b"]

    @pytest.mark.parametrize(
        ("text", "value"), [("all", "all"), ("largest", "largest"), ("64", 64.0), ("0.5", 0.5)]
    )
    def test_what_is_typed(self, text, value):
        assert parse_faces(text) == value

    @pytest.mark.parametrize("text", ["", "0", "-3", "nan", "inf", "some", "Largest"])
    def test_what_is_refused(self, text):
        with pytest.raises(UsageError, match="give all, largest, or the least size"):
            parse_faces(text)

    @pytest.mark.parametrize("value", [True, None, 0, -1.0, "64"])
    def test_what_the_api_refuses(self, value):
        with pytest.raises(UsageError, match="give all, largest"):
            FaceChoice(value)
