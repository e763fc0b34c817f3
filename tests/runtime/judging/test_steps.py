"""Steps of several frames go through the sequence model in one call, with the same results."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from dfd_edge.faces.signals import NAMES
from dfd_edge.inference.session import SequenceOutputs
from dfd_edge.judging.people import Observation
from dfd_edge.judging.pipeline import BATCH, judge_frames
from dfd_edge.judging.steps import CarriedState, SequenceSteps, Step
from dfd_edge.sources.frames import Frame

GAP_S = 1.0


class FadingSum:
    """A sequence model: each step adds its feature, and half of its first signal, to half the sum.

    Features of 13 give what is not finite.
    """

    def __init__(self, *, signals: bool = True) -> None:
        spec = SimpleNamespace(names=list(NAMES)) if signals else None
        sequence = SimpleNamespace(max_gap_s=GAP_S, state_width=1, signals=spec)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(sequence=sequence))
        self.shapes: list[tuple[int, ...]] = []

    def run_sequence(self, features, lengths, state, signals=None, measured=None):
        self.shapes.append(features.shape[:2])
        logits = np.zeros(features.shape[:2], np.float32)
        after = state.copy()
        for row, length in enumerate(lengths):
            for place in range(length):
                added = features[row, place, 0]
                if signals is not None:
                    added = added + measured[row, place] * signals[row, place, 0] / 2
                after[row] = np.nan if added == 13 else after[row] / 2 + added
                logits[row, place] = after[row, 0]
        return SequenceOutputs(logits, after)


def some_steps(people: list[CarriedState], *, seed: int = 0, faults: bool = False) -> list[Step]:
    """Steps of people who come and go, some after a gap or back in time, some not measured."""
    rng = np.random.default_rng(seed)
    steps = []
    time_s = 0.0
    for _ in range(30):
        time_s += float(rng.choice([0.2, 0.2, 0.2, GAP_S, 1.5, -0.1]))
        for person in people:
            if rng.random() < 0.3:
                continue
            feature = 13 if faults and rng.random() < 0.2 else rng.normal()
            signals = rng.normal(size=len(NAMES)).astype("f4") if rng.random() < 0.7 else None
            steps.append(Step(person, time_s, np.array([feature], np.float32), signals))
    return steps


@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("signals", [False, True])
@pytest.mark.parametrize("per_call", [2, 7, 1000])
def test_a_call_for_many_steps_gives_what_one_for_each_gives(
    per_call: int, signals: bool, faults: bool
) -> None:
    taken = []
    for count in (1, per_call):
        people = [CarriedState() for _ in range(3)]
        steps = some_steps(people, faults=faults)
        model = FadingSum(signals=signals)
        taker = SequenceSteps(model)  # type: ignore[arg-type]
        logits: list[float | None] = []
        for start in range(0, len(steps), count):
            logits += taker.take(steps[start : start + count])
        taken.append((logits, [(p.state, p.last_s) for p in people]))
        if not faults:
            assert len(model.shapes) == -(-len(steps) // count)
    (one_by_one, states), (together, same_states) = taken
    assert together == pytest.approx(one_by_one)
    assert (None in together) == faults
    assert same_states == states


def test_no_steps_are_no_call() -> None:
    model = FadingSum()
    assert SequenceSteps(model).take([]) == []  # type: ignore[arg-type]
    assert model.shapes == []


class Recorder:
    """A stream that keeps how many observations were scored at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def observe(self, pixels, time_s, *, burst=None):
        return Observation(time_s, ())

    def score(self, observations):
        self.calls.append(len(observations))
        return [observation.time_s for observation in observations]


def frames_then(count: int, error: Exception | None = None):
    for index in range(count):
        yield Frame(np.zeros((4, 4, 3), np.uint8), float(index), index)
    if error is not None:
        raise error


def test_after_the_first_results_a_file_goes_in_whole_batches() -> None:
    for _ in range(3):
        stream, results = Recorder(), []
        judge_frames(frames_then(29), stream, stop=threading.Event(), on_result=results.append)
        assert stream.calls == [1] * BATCH + [BATCH] * 6 + [1]
        assert results == list(range(29))


def test_frames_that_are_drawn_go_one_by_one() -> None:
    stream, drawn = Recorder(), []
    judge_frames(
        frames_then(20),
        stream,
        stop=threading.Event(),
        on_image=lambda frame, newest: drawn.append((frame.time_s, newest)),
    )
    assert stream.calls == [1] * 20
    assert drawn == [(float(index), float(index)) for index in range(20)]


def test_what_came_before_an_error_is_judged() -> None:
    results: list[float] = []
    with pytest.raises(OSError, match="gone"):
        judge_frames(
            frames_then(13, OSError("gone")),
            Recorder(),
            stop=threading.Event(),
            on_result=results.append,
        )
    assert results == list(range(13))
