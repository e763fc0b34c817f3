"""A stream gives the same scores however its frames arrive, and keeps people apart."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip_maker import face_frames, plain_frames, portrait, write_clip

from dfd_edge import Detector, Label, SourceError, UsageError
from dfd_edge.faces.crop import Quality
from dfd_edge.faces.signals import NAMES
from dfd_edge.judging.decision import StepSums, sigmoid
from dfd_edge.judging.people import FaceCrop, Observation
from dfd_edge.judging.stream import FORGET_AFTER_S
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler

SAMPLES = Path(__file__).resolve().parents[3] / "samples"

SAME = 1e-5


class All:
    """Wants every frame."""

    def is_due(self, time_s):
        return True


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


@pytest.fixture(scope="module")
def crops(detector):
    return crops_of(detector)


def crops_of(detector):
    """Ten different crops of a face, uint8 RGB."""
    size = detector.bundle.manifest.frame.input_size
    views = face_frames(200)[::20]
    return [np.asarray(cv2.resize(view[20:220, 60:260], (size, size)), np.uint8) for view in views]


def observe(time_s, faces, *, judged=True, signals=None):
    """An observation of (track, crop) pairs; all faces have the same signals."""
    box = np.array([10, 10, 110, 110], np.float32)
    quality = Quality(True) if judged else Quality(False, "blurred")
    return Observation(
        time_s,
        tuple(
            FaceCrop(track, box, (0, 0, 120), crop, quality, signals=signals)
            for track, crop in faces
        ),
    )


def scores(results):
    """p_frame, p_step and p_fake of every person in every result."""
    return [
        (round(result.time_s, 6), p.track, p.p_frame, p.p_step, p.p_fake)
        for result in results
        for p in result.people
    ]


def assert_same(one, other, *, signals=SAME):
    """The same scores of crops, and of steps within what signals may differ by."""
    assert [row[:2] for row in one] == [row[:2] for row in other]
    apart = np.abs(np.array([row[2:] for row in one]) - [row[2:] for row in other])
    assert apart[:, 0].max() <= SAME
    assert apart.max() <= signals


def pushed(detector, path):
    """Every frame of a file pushed one by one."""
    results = []
    with VideoFile(path) as video, detector.stream() as stream:
        for frame in video.frames(All()):
            result = stream.push(frame.image, frame.time_s)
            if result is not None:
                results.append(result)
        return results, stream.verdict()


class TestSameScores:
    def test_file_and_pushed_frames(self, detector, face_clip):
        from_file = []
        verdict = detector.analyze(face_clip, on_frame=from_file.append)
        from_frames, pushed_verdict = pushed(detector, face_clip)
        assert len(from_file) == 15
        assert len({row[2] for row in scores(from_file)}) > 10, "the scores differ among frames"
        # The luma of pushed frames went through BGR.
        assert_same(scores(from_file), scores(from_frames), signals=0.01)
        assert verdict.p_fake == pytest.approx(pushed_verdict.p_fake, abs=0.01)
        assert verdict.label is pushed_verdict.label
        assert verdict.coverage == pushed_verdict.coverage == 1.0

    def test_file_and_watched_file(self, detector, face_clip):
        from_file = []
        detector.analyze(face_clip, on_frame=from_file.append)
        with detector.watch(face_clip) as watch:
            watched = list(watch)
        assert_same(scores(from_file), scores(watched))
        assert watch.dropped == 0

    def test_drawing_changes_no_score(self, detector, face_clip):
        plain, drawn, images = [], [], []
        detector.analyze(face_clip, on_frame=plain.append)
        detector.analyze(
            face_clip, on_frame=drawn.append, on_image=lambda frame, _: images.append(frame.index)
        )
        assert_same(scores(plain), scores(drawn))
        assert images == list(range(75))

    def test_only_judged_images_where_asked(self, detector, face_clip):
        results, images = [], []
        detector.analyze(
            face_clip,
            on_frame=results.append,
            on_image=lambda frame, result: images.append((frame.time_s, result)),
            every_image=False,
        )
        assert [time_s for time_s, _ in images] == [result.time_s for result in results]
        assert [result for _, result in images] == results

    def test_any_number_of_frames_at_once(self, detector, crops):
        observations = [observe(n / 5, [(1, crop)]) for n, crop in enumerate(crops)]
        together = detector.stream().score(observations)
        stream = detector.stream()
        alone = [stream.score([observation])[0] for observation in observations]
        assert_same(scores(together), scores(alone))

    def test_streams_side_by_side(self, detector, crops):
        first = [observe(n / 5, [(1, crop)]) for n, crop in enumerate(crops)]
        second = [observe(n / 5, [(1, crop)]) for n, crop in enumerate(crops[::-1])]
        wanted = [scores(detector.stream().score(first)), scores(detector.stream().score(second))]
        streams = [detector.stream(), detector.stream()]
        got = [[], []]
        for pair in zip(first, second, strict=True):
            for number, observation in enumerate(pair):
                got[number] += streams[number].score([observation])
        assert_same(scores(got[0]), wanted[0])
        assert_same(scores(got[1]), wanted[1])

    def test_streams_in_threads(self, detector, face_clip):
        wanted, _ = pushed(detector, face_clip)
        got = [None] * 3

        def work(number):
            got[number] = pushed(detector, face_clip)[0]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for results in got:
            assert_same(scores(results), scores(wanted))


class TestPeople:
    def test_two_people_in_a_frame_do_not_mix(self, detector, crops):
        both = [
            observe(n / 5, [(1, crop), (2, other)])
            for n, (crop, other) in enumerate(zip(crops, crops[::-1], strict=True))
        ]
        alone = [observe(n / 5, [(1, crop)]) for n, crop in enumerate(crops)]
        rows = [row for row in scores(detector.stream().score(both)) if row[1] == 1]
        assert_same(rows, scores(detector.stream().score(alone)))

    def test_two_real_faces_get_a_track_and_a_verdict_each(self, detector, tmp_path):
        pairs = zip(face_frames(50), face_frames(50, mirrored=True), strict=True)
        path = write_clip(tmp_path / "two.mp4", [np.hstack(pair) for pair in pairs])
        verdict = detector.analyze(path)
        assert [person.judged_steps for person in verdict.people] == [10, 10]
        assert verdict.p_fake == max(person.p_fake for person in verdict.people)

    def test_a_gap_resets_the_state(self, detector, crops):
        gap_s = detector.bundle.manifest.sequence.max_gap_s
        times_s = [0.0, 0.2, 0.4, 0.4 + gap_s + 0.2]
        stream = detector.stream()
        rows = scores(
            stream.score([observe(t, [(1, c)]) for t, c in zip(times_s, crops, strict=False)])
        )
        fresh = scores(detector.stream().score([observe(0.0, [(1, crops[3])])]))
        assert rows[3][3] == pytest.approx(fresh[0][3], abs=SAME)

    def test_a_short_gap_carries_the_state(self, detector, crops):
        stream = detector.stream()
        rows = scores(
            stream.score(
                [observe(t, [(1, c)]) for t, c in zip([0.0, 0.2, 0.8], crops, strict=False)]
            )
        )
        fresh = scores(detector.stream().score([observe(0.0, [(1, crops[2])])]))
        assert abs(rows[2][3] - fresh[0][3]) > SAME

    def test_what_cannot_be_judged_does_not_vote(self, detector, crops):
        stream = detector.stream()
        stream.score([observe(n / 5, [(1, crop)]) for n, crop in enumerate(crops[:5])])
        before = stream.verdict()
        (result,) = stream.score([observe(1.0, [(1, crops[9])], judged=False)])
        (person,) = result.people
        assert not person.judged
        assert person.reason == "blurred"
        assert person.p_frame is None
        assert person.p_step is None
        after = stream.verdict()
        assert after.p_fake == before.p_fake
        assert after.frames == 6
        assert after.coverage == pytest.approx(5 / 6)

    def test_more_faces_than_one_batch(self, detector, crops):
        faces = [(track, crops[track % len(crops)]) for track in range(1, 12)]
        (result,) = detector.stream().score([observe(0.0, faces)])
        assert len(result.people) == 11
        single = detector.stream().score([observe(0.0, [faces[10]])])[0].people[0]
        assert result.people[10].p_frame == pytest.approx(single.p_frame, abs=SAME)

    def test_passers_by_are_forgotten(self, detector, crops):
        stream = detector.stream()
        stream.score([observe(0.0, [(1, crops[0])])])
        stream.score(
            [observe(FORGET_AFTER_S + 1 + n / 5, [(2, crop)]) for n, crop in enumerate(crops)]
        )
        assert [person.track for person in stream.verdict().people] == [2]

    def test_people_who_left_keep_their_verdict(self, detector, crops):
        stream = detector.stream()
        stream.score([observe(n / 5, [(1, crop), (3, crop)]) for n, crop in enumerate(crops)])
        (before, _) = stream.verdict().people
        later = FORGET_AFTER_S + 5
        stream.score([observe(later + n / 5, [(2, crop)]) for n, crop in enumerate(crops)])
        after = stream.verdict().people
        assert [person.track for person in after] == [1, 2, 3]
        assert after[0] == before

    @pytest.mark.parametrize("bundle", ["tiny_bundle", "signals_bundle"])
    def test_people_who_left_take_no_room_beside_their_verdict(self, request, bundle):
        detector = Detector.load(request.getfixturevalue(bundle))
        signals = np.linspace(0.0, 1.0, len(NAMES), dtype=np.float32)
        crops = crops_of(detector)
        stream = detector.stream()

        def visit(number):
            for n in range(50):
                time_s = number * (FORGET_AFTER_S + 20) + n / 5
                crop = crops[n % len(crops)]
                stream.score([observe(time_s, [(number, crop)], signals=signals)])

        def traced():
            gc.collect()  # it also frees what Python keeps for objects to come
            return tracemalloc.get_traced_memory()[0]

        for number in range(1, 4):
            visit(number)
        tracemalloc.start()
        try:
            before = traced()
            for number in range(4, 24):
                visit(number)
            after = traced()
        finally:
            tracemalloc.stop()
        people = stream.verdict().people
        assert len(people) == 23
        assert [person.signals is not None for person in people] == [stream.takes_bursts] * 23
        assert (after - before) / 20 < (4000 if stream.takes_bursts else 2000)


class TestVerdicts:
    def test_no_face(self, detector, plain_clip):
        verdict = detector.analyze(plain_clip)
        assert verdict.label is Label.NO_FACE
        assert verdict.p_fake is None
        assert verdict.coverage == 0.0
        assert verdict.frames == 10

    def test_too_little_seen(self, detector, tmp_path):
        path = write_clip(tmp_path / "short.mp4", face_frames(10))
        verdict = detector.analyze(path)
        assert verdict.label is Label.UNSURE
        assert verdict.p_fake is None
        assert 0 < verdict.people[0].judged_steps < 4

    def test_part_of_a_clip_without_a_face(self, detector, tmp_path):
        path = write_clip(tmp_path / "half.mp4", face_frames(50) + plain_frames(50))
        verdict = detector.analyze(path)
        assert verdict.coverage == pytest.approx(0.5, abs=0.06)

    def test_a_truncated_clip_is_judged_on_what_decodes(self, detector, face_clip, tmp_path):
        path = tmp_path / "cut.mp4"
        path.write_bytes(face_clip.read_bytes()[: face_clip.stat().st_size * 2 // 3])
        verdict = detector.analyze(path)
        assert not verdict.complete
        assert "cut off" in verdict.reason
        assert verdict.people[0].judged_steps >= 4
        assert verdict.duration_s < 2.9

    def test_duration(self, detector, face_clip):
        verdict = detector.analyze(face_clip, duration_s=1.0)
        assert verdict.frames == 5
        assert verdict.duration_s == 1.0
        assert not verdict.complete

    def test_stop_gives_the_verdict_so_far(self, detector, face_clip):
        stop = threading.Event()
        verdict = detector.analyze(face_clip, on_frame=lambda _: stop.set(), stop=stop)
        assert 0 < verdict.frames < 15
        assert not verdict.complete

    def test_an_error_in_a_callback_is_not_swallowed(self, detector, face_clip):
        def fail(result):
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            detector.analyze(face_clip, on_frame=fail)

    def test_results_carry_the_logits_that_the_verdict_is_pooled_from(self, detector, face_clip):
        results = []
        verdict = detector.analyze(face_clip, on_frame=results.append)
        decision = detector.decision
        people = [person for result in results for person in result.people if person.judged]
        sums = StepSums()
        for person in people:
            assert person.p_frame == decision.p_frame(person.frame_logit)
            assert person.p_step == decision.p_step(person.step_logit)
            sums = sums.and_one(decision.choose(person.frame_logit, person.step_logit), 1.0)
        assert verdict.p_fake == pytest.approx(decision.p_person(sums), abs=SAME)
        assert sigmoid(verdict.logit) == verdict.p_fake
        assert "logit" not in str(verdict.to_record())

    def test_intervals_stay_inside_the_clip(self, detector, face_clip):
        verdict = detector.analyze(face_clip)
        spans = [interval for person in verdict.people for interval in person.intervals]
        assert all(0.0 <= span.start_s < span.end_s <= verdict.duration_s for span in spans)

    def test_the_first_verdict_is_the_first_label_that_says_something(self):
        labels = []
        clip = SAMPLES / "swapped_astronaut.mp4"
        verdict = Detector.load().analyze(
            clip, on_frame=lambda r: labels.append((r.time_s, r.label))
        )
        told = [time_s for time_s, label in labels if label in (Label.REAL, Label.FAKE)]
        assert verdict.first_verdict_s == pytest.approx(told[0] + 0.2)  # a frame stands for 0.2 s
        assert 1.0 <= verdict.first_verdict_s < 4.0

    def test_without_a_verdict_there_is_no_first_one(self, detector, plain_clip):
        assert detector.analyze(plain_clip).first_verdict_s is None

    def test_missing_file(self, detector):
        with pytest.raises(SourceError, match=r"gone\.mp4: no such file"):
            detector.analyze("gone.mp4")

    def test_the_rate_can_be_changed(self, detector, face_clip):
        assert detector.analyze(face_clip, rate_hz=10.0).frames == 30


class TestImages:
    def test_an_image_has_a_frame_score_only(self, detector, tmp_path):
        path = tmp_path / "portrait.png"
        cv2.imwrite(str(path), portrait())
        results = []
        verdict = detector.analyze(path, on_frame=results.append)
        (person,) = results[0].people
        assert person.p_step is None
        assert person.p_fake == person.p_frame == verdict.p_fake
        assert verdict.label is detector.decision.label(verdict.p_fake)
        assert verdict.frames == 1
        assert verdict.realtime_factor is None
        assert verdict.first_verdict_s is None

    def test_a_tight_crop(self, detector, tmp_path):
        path = tmp_path / "face.png"
        cv2.imwrite(str(path), portrait()[70:190, 165:285])
        assert detector.analyze(path).people

    def test_an_image_without_a_face(self, detector, tmp_path):
        path = tmp_path / "plain.png"
        cv2.imwrite(str(path), plain_frames(1)[0])
        verdict = detector.analyze(path)
        assert verdict.label is Label.NO_FACE
        assert verdict.p_fake is None


class TestPush:
    def test_a_frame_that_is_not_due_gives_nothing(self, detector):
        frame = face_frames(1)[0]
        with detector.stream() as stream:
            assert stream.push(frame, timestamp=0.0) is not None
            assert stream.push(frame, timestamp=0.05) is None
            assert stream.push(frame, timestamp=0.2) is not None

    def test_any_origin_of_time(self, detector, face_clip):
        with VideoFile(face_clip) as video:
            frames = list(video.frames(Sampler(5.0)))
        stream, other = detector.stream(), detector.stream()
        from_zero = [other.push(frame.image, frame.time_s) for frame in frames]
        late = [stream.push(frame.image, 1e6 + frame.time_s) for frame in frames]
        assert all(late)
        assert [r.people[0].p_step for r in late] == pytest.approx(
            [r.people[0].p_step for r in from_zero], abs=SAME
        )

    def test_timestamps_that_jump_back(self, detector):
        frames = face_frames(10)
        with detector.stream() as stream:
            for time_s, frame in zip([10.0, 10.2, 10.4, 1.0, 1.2, 1.4], frames, strict=False):
                assert stream.push(frame, time_s) is not None
            assert stream.verdict().duration_s == pytest.approx(1.0, abs=0.01)

    def test_staleness_is_told(self, detector):
        import time

        with detector.stream() as stream:
            captured_s = time.monotonic() - 0.5
            result = stream.push(face_frames(1)[0], 0.0, captured_s=captured_s)
        assert result.staleness_ms >= 500

    @pytest.mark.parametrize(
        "frame",
        [
            np.zeros((10, 10), np.uint8),
            np.zeros((10, 10, 4), np.uint8),
            np.zeros((10, 10, 3), np.float32),
            np.zeros((0, 10, 3), np.uint8),
            "frame",
        ],
    )
    def test_what_is_no_frame_is_refused(self, detector, frame):
        with pytest.raises(UsageError, match="BGR"):
            detector.stream().push(frame, 0.0)

    @pytest.mark.parametrize(
        ("timestamp", "said"),
        [
            (float("nan"), "give finite seconds"),
            (-np.inf, "give finite seconds"),
            pytest.param(10**400, "give finite seconds", id="400 digits"),
            pytest.param(10**5000, "timestamp of type int: give finite", id="5000 digits"),
            (None, "give a number of seconds"),
            ("1.5", "give a number of seconds"),
            (True, "give a number of seconds"),
            (np.True_, "give a number of seconds"),
            (1 + 2j, "give a number of seconds"),
            (np.array([1.0, 2.0]), "give a number of seconds"),
            (np.datetime64("2026-01-01"), "give a number of seconds"),
            (1_796_030_681_487_726_741, "looks like nanoseconds; divide it by 1e9"),
            (np.float32(1.8e18), "looks like nanoseconds"),
            (1_796_030_681_487_726, "looks like microseconds"),
            (1_796_030_681_487.7, "looks like milliseconds; divide it by 1e3"),
            (np.float32(1.8e9), "float32 tells times of this size only 128 s apart"),
            (np.float16(100), "float16 tells"),
        ],
    )
    def test_a_timestamp_that_is_no_time_is_refused(self, detector, timestamp, said):
        with detector.stream() as stream, pytest.raises(UsageError, match=said) as caught:
            stream.push(face_frames(1)[0], timestamp)
        assert str(caught.value).startswith("timestamp ")

    def test_a_capture_time_that_is_none_is_refused(self, detector):
        with detector.stream() as stream, pytest.raises(UsageError, match="captured_s '0'"):
            stream.push(face_frames(1)[0], 0.0, captured_s="0")

    @pytest.mark.parametrize("kind", [int, Fraction, Decimal, np.float32, np.int64, np.uint8])
    def test_numbers_of_any_kind_are_times(self, detector, kind):
        with detector.stream(rate_hz=1.0) as stream:
            results = [stream.push(face_frames(1)[0], kind(number)) for number in range(4)]
        assert [result.time_s for result in results] == [0.0, 1.0, 2.0, 3.0]
        assert all(type(result.time_s) is float for result in results)

    def test_times_before_zero(self, detector):
        with detector.stream() as stream:
            results = [stream.push(face_frames(1)[0], -1.0 + n / 5) for n in range(5)]
        assert all(results)

    def test_milliseconds_from_zero_are_doubted_once(self, detector, caplog):
        with detector.stream("camera") as stream:
            for number in range(12):
                stream.push(plain_frames(1)[0], number * 40)
        (record,) = caplog.records
        assert (
            "camera: frames are pushed 40 s apart: are their times milliseconds?" in record.message
        )

    def test_seconds_are_not_doubted(self, detector, caplog):
        for step_s in (0.04, 1.0, 600.0):
            with detector.stream("camera") as stream:
                for number in range(12):
                    stream.push(plain_frames(1)[0], number * step_s)
        assert not caplog.records

    def test_a_closed_stream_takes_nothing_and_keeps_its_verdict(self, detector):
        with detector.stream() as stream:
            stream.push(face_frames(1)[0], 0.0)
        with pytest.raises(UsageError, match="closed"):
            stream.push(face_frames(1)[0], 1.0)
        assert stream.verdict().frames == 1

    def test_a_closed_detector_opens_no_stream(self, tiny_bundle):
        with Detector.load(tiny_bundle) as detector:
            stream = detector.stream()
        assert stream.push(face_frames(1)[0], 0.0) is not None
        with pytest.raises(UsageError, match="closed"):
            detector.stream()
