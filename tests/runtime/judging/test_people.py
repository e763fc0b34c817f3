"""People in one picture get a verdict each, and the caller says whose."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import write_clip

from dfd_edge import Detector, Label, UsageError
from dfd_edge.cli.command import command
from dfd_edge.faces.selection import LEFT_OUT

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
SAME = 1e-5
HEIGHT = 360


def frames(path, count, *, every=1):
    """The first frames of a clip, scaled to `HEIGHT` lines: uint8 BGR."""
    with av.open(str(path)) as container:
        decoded = itertools.islice(container.decode(video=0), 0, count * every, every)
        images = [frame.to_ndarray(format="bgr24") for frame in decoded]
    return [
        cv2.resize(image, (2 * round(image.shape[1] * HEIGHT / image.shape[0] / 2), HEIGHT))
        for image in images
    ]


def side_by_side(path, left, right, count):
    pairs = zip(frames(left, count), frames(right, count), strict=False)
    return write_clip(
        path, [np.hstack(pair) for pair in pairs], rate=25, options={"g": "25", "crf": "16"}
    )


def judge(detector, path, **options):
    """The verdict, and for each track its results."""
    people = {}

    def keep(result):
        for person in result.people:
            people.setdefault(person.track, []).append(person)

    return detector.analyze(path, on_frame=keep, **options), people


def centre_x(results):
    return float(np.mean([(person.box[0] + person.box[2]) / 2 for person in results]))


@pytest.fixture(scope="module")
def detector():
    return Detector.load(precision="fp32")


@pytest.fixture(scope="module")
def pair_clip(tmp_path_factory):
    """A swapped face on the left of a real one of another person."""
    path = tmp_path_factory.mktemp("pair") / "pair.mp4"
    return side_by_side(
        path, SAMPLES / "swapped_astronaut.mp4", SAMPLES / "real_hopper.mp4", count=60
    )


@pytest.fixture(scope="module")
def near_and_far(tmp_path_factory):
    """The real face large, the swapped one smaller."""
    path = tmp_path_factory.mktemp("sizes") / "sizes.mp4"
    images = []
    for near, far in zip(
        frames(SAMPLES / "real_hopper.mp4", 40),
        frames(SAMPLES / "swapped_astronaut.mp4", 40),
        strict=True,
    ):
        image = np.full((HEIGHT, 2 * near.shape[1], 3), 60, np.uint8)
        image[:, : near.shape[1]] = near
        small = cv2.resize(far, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        image[60 : 60 + small.shape[0], near.shape[1] + 60 :][:, : small.shape[1]] = small
        images.append(image)
    return write_clip(path, images, options={"g": "25", "crf": "16"})


class TestTwoPeople:
    def test_a_verdict_each(self, detector, pair_clip):
        verdict, people = judge(detector, pair_clip)
        assert [person.judged_steps for person in verdict.people] == [12, 12]
        left, right = sorted(verdict.people, key=lambda person: centre_x(people[person.track]))
        assert left.p_fake > 0.7
        assert right.p_fake < 0.5
        assert left.label is not Label.REAL
        assert right.label is not Label.FAKE
        assert verdict.p_fake == left.p_fake
        assert bool(left.intervals) == (left.label is Label.FAKE)
        assert not right.intervals

    def test_pushed_frames_and_file(self, detector, pair_clip):
        _, people = judge(detector, pair_clip)
        pushed = {}
        with av.open(str(pair_clip)) as container, detector.stream() as stream:
            for frame in container.decode(video=0):
                result = stream.push(frame.to_ndarray(format="bgr24"), frame.time)
                for person in result.people if result else ():
                    pushed.setdefault(person.track, []).append(person)
        assert sorted(pushed) == sorted(people) == [1, 2]
        for track, results in people.items():
            apart = []
            for one, other in zip(results, pushed[track], strict=True):
                # The small copy in which faces are found, and the luma, went through BGR.
                shift = np.abs(np.subtract(one.box, other.box)).max()
                assert shift < 0.03 * (one.box[3] - one.box[1])
                apart.append((one.p_frame - other.p_frame, one.p_step - other.p_step))
            assert np.abs(apart).mean() < 0.03

    def test_a_swap_beside_a_real_face(self, detector, development_data, tmp_path):
        """Real footage: a face that a live tool swapped, and somebody else who is real."""
        swaps = development_data / "clips" / "swap"
        fake, real = swaps / "Emily_Winston_1_fake.mp4", swaps / "Tim_Norland_1_real.mp4"
        path = side_by_side(tmp_path / "pair.mp4", fake, real, count=100)
        verdict, people = judge(detector, path)
        left, right = sorted(
            (person for person in verdict.people if person.judged_steps >= 10),
            key=lambda person: centre_x(people[person.track]),
        )
        assert left.p_fake > right.p_fake
        assert verdict.p_fake == left.p_fake


class TestCuts:
    def test_a_cut_to_another_person(self, detector, tmp_path):
        """The second face appears where the first one was."""
        first = frames(SAMPLES / "real_astronaut.mp4", 40)
        second = frames(SAMPLES / "real_hopper.mp4", 40)
        verdict, people = judge(detector, write_clip(tmp_path / "cut.mp4", first + second))
        boxes = {track: np.array([person.box for person in people[track]]) for track in people}
        assert sorted(boxes) == [1, 2]
        centres = [(box[:, :2] + box[:, 2:]).mean(axis=0) / 2 for box in boxes.values()]
        sizes = [float((box[:, 3] - box[:, 1]).mean()) for box in boxes.values()]
        assert np.hypot(*(centres[0] - centres[1])) < 0.8 * max(sizes), "place alone would join"
        assert [person.judged_steps for person in verdict.people] == [8, 8]

    def test_one_person_is_one_track(self, detector):
        for name in ("real_astronaut.mp4", "real_hopper.mp4", "swapped_astronaut.mp4"):
            verdict = detector.analyze(SAMPLES / name)
            assert [person.judged_steps for person in verdict.people] == [20]

    def test_a_broadcast_with_cuts(self, detector, development_data):
        """A spectator in the dark, a singer from 2.8 s on, and other spectators from 7.2 s on."""
        path = development_data / "clips/real/face_recognition_short_hamilton_clip.mp4"
        seen, judged_s = {}, []

        def keep(result):
            judged_s.append(result.time_s)
            for person in result.people:
                seen.setdefault(person.track, []).append(result.time_s)

        detector.analyze(path, on_frame=keep)
        shots = ((0.0, 2.7), (2.7, 7.1), (7.1, 60.0))
        for track, times_s in seen.items():
            inside = [start <= times_s[0] <= times_s[-1] < end for start, end in shots]
            assert any(inside), f"track {track} goes on over a cut: {times_s}"
        of_singer = sum(2.7 < time_s < 7.1 for time_s in judged_s)  # the file may end before 7.2 s
        assert of_singer >= 10
        longest = max(len(times_s) for times_s in seen.values())
        assert longest == of_singer, "the singer stays one person"


class TestWhichFaces:
    def test_all_by_default(self, detector, near_and_far):
        verdict, _ = judge(detector, near_and_far)
        assert [person.judged_steps for person in verdict.people] == [8, 8]

    @pytest.mark.parametrize("faces", ["largest", "pixels"])
    def test_the_others_are_seen_and_not_judged(self, detector, near_and_far, faces):
        every, people = judge(detector, near_and_far)
        sizes = {t: min(p.box[3] - p.box[1] for p in rows) for t, rows in people.items()}
        near = max(sizes, key=sizes.get)
        (far,) = set(sizes) - {near}
        verdict, chosen = judge(
            detector, near_and_far, faces=faces if faces == "largest" else sizes[near] - 1.0
        )
        assert {person.reason for person in chosen[far]} == {LEFT_OUT}
        assert not any(person.judged for person in chosen[far])
        assert [person.box for person in chosen[far]] == [person.box for person in people[far]]
        assert all(person.judged for person in chosen[near])
        scores = {person.track: person for person in verdict.people}
        assert scores[far].p_fake is None
        assert scores[near].p_fake == verdict.p_fake
        before = next(person for person in every.people if person.track == near)
        assert verdict.p_fake == pytest.approx(before.p_fake, abs=SAME)

    def test_none_is_large_enough(self, detector, near_and_far):
        verdict = detector.analyze(near_and_far, faces=1000)
        assert verdict.label is Label.UNSURE
        assert verdict.coverage == 0.0

    def test_watched_and_pushed(self, detector, near_and_far):
        verdict, _ = judge(detector, near_and_far, faces="largest")
        with detector.watch(near_and_far, faces="largest") as watch:
            for _ in watch:
                pass
        assert watch.verdict().p_fake == pytest.approx(verdict.p_fake, abs=SAME)
        image = frames(near_and_far, 1)[0]
        with detector.stream(faces="largest") as stream:
            result = stream.push(image, 0.0)
        assert [person.judged for person in result.people] == [True, False]

    def test_an_image(self, detector, near_and_far, tmp_path):
        path = tmp_path / "both.png"
        cv2.imwrite(str(path), frames(near_and_far, 1)[0])
        assert [p.judged_steps for p in detector.analyze(path).people] == [1, 1]
        chosen = detector.analyze(path, faces="largest")
        assert [p.judged_steps for p in chosen.people] == [1, 0]

    def test_the_command_line(self, near_and_far):
        arguments = ["--json", "--faces", "largest", str(near_and_far)]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0
        records = [json.loads(line) for line in result.stdout.splitlines()]
        people = [p for r in records if r["record"] == "frame" for p in r["people"]]
        assert {person["reason"] for person in people} == {None, LEFT_OUT}

    def test_what_is_refused(self, detector, near_and_far):
        with pytest.raises(UsageError, match="faces 'some': give all, largest"):
            detector.stream(faces="some")
        result = CliRunner().invoke(command, ["--faces", "-1", str(near_and_far)])
        assert result.exit_code == 2
        assert "give all, largest, or the least size in pixels" in result.stderr
