"""The rules that turn logits into labels."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_edge.bundle.manifest import Calibrator, DecisionSpec, PersonScore, Threshold
from dfd_edge.judging.decision import (
    Decision,
    Hysteresis,
    PersonHistory,
    StepSums,
    calibrated,
    pool_windows,
    step_shares,
)
from dfd_edge.judging.results import Interval, Label, PersonVerdict

STEP_S = 0.2


def threshold(probability):
    return Threshold(probability=probability, target_rate=0.05, rate=0.04, n=100, upper_bound=0.1)


def spec(person_score=PersonScore.SEQUENCE):
    plain = Calibrator(slope=1.0, intercept=0.0)
    return DecisionSpec(
        person_score=person_score,
        calibrators={
            "frame": Calibrator(slope=2.0, intercept=0.5),
            "step": plain,
            "person": plain,
        },
        thresholds={"real": threshold(0.3), "fake": threshold(0.8)},
    )


@pytest.fixture
def decision():
    return Decision(spec())


def history(decision, logits, *, start_s=0.0, frame_logit=0.0):
    person = PersonHistory(1, decision, STEP_S)
    for number, logit in enumerate(logits):
        person.add(start_s + number * STEP_S, frame_logit, logit)
    return person


@given(st.floats(-1e4, 1e4))
def test_calibration_stays_a_probability(logit):
    assert 0.0 <= calibrated(logit, Calibrator(slope=3.0, intercept=-1.0)) <= 1.0


def test_calibration_is_platt_scaling():
    expected = 1.0 / (1.0 + math.exp(-(2.0 * 0.7 + 0.5)))
    assert Decision(spec()).p_frame(0.7) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p_fake", "label"),
    [
        (0.0, Label.REAL),
        (0.3, Label.REAL),
        (0.31, Label.UNSURE),
        (0.79, Label.UNSURE),
        (0.8, Label.FAKE),
        (1.0, Label.FAKE),
    ],
)
def test_labels_by_threshold(decision, p_fake, label):
    assert decision.label(p_fake) is label


class TestPerson:
    def test_fewer_than_four_steps_are_unsure(self, decision):
        verdict = history(decision, [9.0] * 3).verdict()
        assert verdict.label is Label.UNSURE
        assert verdict.judged_steps == 3
        assert verdict.intervals == ()

    def test_four_steps_are_enough(self, decision):
        assert history(decision, [9.0] * 4).verdict().label is Label.FAKE
        assert history(decision, [-9.0] * 4).verdict().label is Label.REAL

    def test_the_score_is_the_mean_of_the_logits(self, decision):
        verdict = history(decision, [0.0, 1.0, 2.0, 3.0]).verdict()
        assert verdict.p_fake == pytest.approx(1.0 / (1.0 + math.exp(-1.5)))

    def test_the_manifest_chooses_the_logits(self):
        by_frame = Decision(spec(PersonScore.FRAME))
        person = history(by_frame, [9.0] * 10, frame_logit=-9.0)
        assert person.verdict().label is Label.REAL

    def test_the_live_score_forgets_what_is_older_than_its_window(self, decision):
        person = history(decision, [9.0] * 50 + [-9.0] * 60)
        assert person.live_p_fake == pytest.approx(decision.p_person(StepSums(50, 50.0, -450.0)))
        assert person.verdict().p_fake > person.live_p_fake

    def test_a_short_look_counts_less_where_the_manifest_says_so(self):
        slow = Decision(dataclasses.replace(spec(), settle_steps=4.0))
        short, long = history(slow, [2.0] * 4), history(slow, [2.0] * 396)
        assert short.verdict().p_fake == pytest.approx(1.0 / (1.0 + math.exp(-1.0))), "half of it"
        assert long.verdict().p_fake == pytest.approx(1.0 / (1.0 + math.exp(-1.98)))
        assert short.live_p_fake == short.verdict().p_fake
        assert history(slow, [-2.0] * 4).verdict().p_fake == pytest.approx(
            1.0 - short.verdict().p_fake
        ), "towards one half from either side"
        assert short.verdict().label is Label.UNSURE
        assert long.verdict().label is Label.FAKE

    def test_blurred_crops_count_less_where_the_manifest_says_so(self):
        soft = Decision(dataclasses.replace(spec(), settle_detail=30.0))
        person = PersonHistory(1, soft, STEP_S)
        for number, (logit, detail) in enumerate([(-2.0, 270.0), (4.0, 10.0)] * 4):
            person.add(number * STEP_S, 0.0, logit, detail)
        expected = (-2.0 * 0.9 + 4.0 * 0.25) / 2
        assert person.verdict().p_fake == pytest.approx(1.0 / (1.0 + math.exp(-expected)))
        assert person.live_p_fake == pytest.approx(person.verdict().p_fake)
        unmeasured = history(soft, [2.0] * 8).verdict().p_fake
        assert unmeasured == pytest.approx(1.0 / (1.0 + math.exp(-2.0)))

    @pytest.mark.parametrize("detail", [0.0, 1e-9])
    def test_a_crop_without_detail_says_nothing(self, detail):
        soft = Decision(dataclasses.replace(spec(), settle_detail=30.0))
        person = PersonHistory(1, soft, STEP_S)
        for number in range(8):
            person.add(number * STEP_S, 0.0, 9.0, detail)
        assert person.verdict().p_fake == pytest.approx(0.5)
        assert person.verdict().label is Label.UNSURE

    def test_nobody_judged(self, decision):
        verdict = PersonHistory(1, decision, STEP_S).verdict()
        assert verdict.label is Label.UNSURE
        assert verdict.p_fake is None

    def test_intervals_name_the_seconds_that_looked_fake(self, decision):
        person = history(decision, [-5.0] * 25 + [9.0] * 25 + [-9.0] * 25)
        (interval,) = person.verdict().intervals
        assert interval.start_s == pytest.approx(5.0, abs=0.6)
        assert interval.end_s == pytest.approx(10.0, abs=0.6)

    def test_two_intervals(self, decision):
        person = history(decision, [9.0] * 20 + [-9.0] * 30 + [9.0] * 20)
        first, second = person.verdict().intervals
        assert first.start_s == 0.0
        assert first.end_s < 5.2
        assert 9.0 < second.start_s < second.end_s == pytest.approx(14.0)

    def test_no_interval_in_a_real_clip(self, decision):
        assert history(decision, [-3.0] * 40).verdict().intervals == ()

    def test_memory_does_not_grow(self, decision):
        person = history(decision, [1.0, -1.0] * 5000)
        assert len(person._window) <= 51

    @given(st.lists(st.floats(-20, 20), min_size=1, max_size=100))
    def test_intervals_are_in_order_and_apart(self, logits):
        decision = Decision(spec())
        intervals = history(decision, logits).verdict().intervals
        assert all(isinstance(i, Interval) and i.start_s < i.end_s for i in intervals)
        assert all(a.end_s < b.start_s for a, b in itertools.pairwise(intervals))


class TestPooling:
    """The rule by which training pools is the one by which the runtime judges."""

    @given(
        st.lists(st.tuples(st.floats(-20, 20), st.floats(0, 500)), min_size=2, max_size=40),
        st.sampled_from([0.0, 1.5, 8.0]),
        st.sampled_from([0.0, 30.0]),
    )
    def test_windows_pooled_together_score_as_people_judged_step_by_step(
        self, steps, settle_steps, settle_detail
    ):
        decision = Decision(
            dataclasses.replace(spec(), settle_steps=settle_steps, settle_detail=settle_detail)
        )
        logits, details = np.array(steps).T
        starts = np.array([0, 0, len(steps) // 2])
        lengths = np.array([len(steps), 1, len(steps) - len(steps) // 2])
        pooled = pool_windows(
            logits, step_shares(details, settle_detail), starts, lengths, settle_steps
        )
        calibrator = decision.spec.calibrators["person"]
        together = pooled.scaled(calibrator.slope, calibrator.intercept)
        for start, length, logit in zip(starts, lengths, together, strict=True):
            person = PersonHistory(1, decision, STEP_S)
            for number in range(start, start + length):
                person.add(number * STEP_S, 0.0, logits[number], details[number])
            assert person.verdict().logit == pytest.approx(logit, abs=1e-9)

    def test_a_crop_that_was_not_measured_counts_fully(self):
        assert step_shares([math.inf, 30.0, 0.0], 30.0).tolist() == [1.0, 0.5, 0.0]
        assert step_shares([math.inf, 0.0], 0.0).tolist() == [1.0, 1.0]


class TestHysteresis:
    def run(self, decision, scores):
        hysteresis = Hysteresis(decision)
        return [hysteresis.update(p, n * STEP_S) for n, p in enumerate(scores)]

    def test_a_label_has_to_hold(self, decision):
        labels = self.run(decision, [0.9] * 10)
        assert labels[:5] == [Label.UNSURE] * 5
        assert labels[5:] == [Label.FAKE] * 5

    def test_a_flicker_changes_nothing(self, decision):
        labels = self.run(decision, [0.1] * 10 + [0.9, 0.9, 0.9] + [0.1] * 10)
        assert set(labels[6:]) == {Label.REAL}

    def test_fake_is_left_below_a_lower_threshold(self, decision):
        still = self.run(decision, [0.9] * 10 + [0.7] * 10)
        assert still[-1] is Label.FAKE
        left = self.run(decision, [0.9] * 10 + [0.6] * 10)
        assert left[-1] is Label.UNSURE


class TestSource:
    def person(self, track, p_fake, steps):
        return PersonVerdict(track, Label.UNSURE, p_fake, steps)

    def test_the_most_suspicious_person_decides(self, decision):
        people = [self.person(1, 0.1, 20), self.person(2, 0.9, 20)]
        assert decision.source(people, face_seen=True) == (Label.FAKE, people[1])

    def test_people_hardly_seen_do_not_count(self, decision):
        people = [self.person(1, 0.1, 20), self.person(2, 0.99, 3)]
        assert decision.source(people, face_seen=True) == (Label.REAL, people[0])

    def test_nobody_seen_long_enough(self, decision):
        people = [self.person(1, 0.01, 3)]
        assert decision.source(people, face_seen=True) == (Label.UNSURE, None)

    def test_no_face_is_never_real(self, decision):
        assert decision.source([], face_seen=False) == (Label.NO_FACE, None)
