"""The sampler keeps its rate whatever the source does."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_edge.errors import UsageError
from dfd_edge.sources.frames import EARLY_TOLERANCE, MIN_SPACING, Sampler


def due_times(sampler: Sampler, times_s: list[float]) -> list[float]:
    return [time_s for time_s in times_s if sampler.is_due(time_s)]


@given(
    fps=st.floats(5.0, 240.0),
    rate_hz=st.floats(0.5, 5.0),
    start_s=st.floats(-1e3, 1e6),
    seconds=st.floats(1.0, 20.0),
)
def test_a_steady_source_is_sampled_at_the_rate(fps, rate_hz, start_s, seconds):
    times_s = [start_s + n / fps for n in range(int(seconds * fps) + 1)]
    due = due_times(Sampler(rate_hz), times_s)
    assert abs(len(due) - (times_s[-1] - start_s) * rate_hz) <= 1.5


@given(
    fps=st.floats(12.0, 120.0),
    jitter=st.lists(st.floats(-0.3, 0.3), min_size=50, max_size=200),
)
def test_jitter_changes_no_more_than_one_frame(fps, jitter):
    times_s = [(n + shift) / fps for n, shift in enumerate(jitter)]
    due = due_times(Sampler(5.0), times_s)
    assert abs(len(due) - (times_s[-1] - times_s[0]) * 5.0) <= 2


@given(st.lists(st.floats(0.0, 3.0), min_size=2, max_size=200), st.floats(0.5, 30.0))
def test_due_frames_keep_their_distance(steps, rate_hz):
    sampler = Sampler(rate_hz)
    times_s = [sum(steps[: n + 1]) for n in range(len(steps))]
    due = due_times(sampler, times_s)
    closest = min((b - a for a, b in itertools.pairwise(due)), default=math.inf)
    assert closest >= MIN_SPACING * sampler.period_s * (1.0 - 1e-9)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=100))
def test_any_timestamps_are_taken(times_s):
    sampler = Sampler(5.0)
    assert sampler.is_due(times_s[0])
    for time_s in times_s[1:]:
        sampler.is_due(time_s)


def test_a_source_slower_than_the_rate_has_all_its_frames_judged():
    assert due_times(Sampler(5.0), [0.0, 0.5, 1.0, 1.5]) == [0.0, 0.5, 1.0, 1.5]


def test_a_source_at_the_rate_with_jitter_has_all_its_frames_judged():
    times_s = [0.0, 0.19, 0.41, 0.60, 0.79, 1.01, 1.19]
    assert due_times(Sampler(5.0), times_s) == times_s


def test_an_ntsc_source_does_not_drift():
    times_s = [n * 1001 / 30_000 for n in range(30 * 60 * 10)]
    due = due_times(Sampler(5.0), times_s)
    assert len(due) == pytest.approx(times_s[-1] * 5.0, abs=1.5)
    assert all(abs(time_s - n / 5.0) <= 1 / 29 for n, time_s in enumerate(due))


def test_after_a_jump_back_the_next_frame_is_due():
    sampler = Sampler(5.0)
    assert due_times(sampler, [10.0, 10.04, 3.0, 3.04, 3.2]) == [10.0, 3.0, 3.2]


def test_reordered_frames_are_not_due_twice():
    assert due_times(Sampler(5.0), [1.0, 0.96, 1.04, 1.0, 1.2, 1.16]) == [1.0, 1.2]


def test_a_frame_slightly_early_is_due():
    early_s = 0.2 * (1.0 - 0.9 * EARLY_TOLERANCE)
    assert due_times(Sampler(5.0), [0.0, early_s]) == [0.0, early_s]


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_makes_no_sense_is_refused(rate_hz):
    with pytest.raises(UsageError, match=r"give a number from 0\.001 to 1000"):
        Sampler(rate_hz)
