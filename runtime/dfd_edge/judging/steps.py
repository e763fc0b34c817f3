"""Steps of the sequence model, those of several frames in one call.

A call costs far more than a step: 64 steps in one call take about twice the time of one alone. So
the steps of all frames that are scored together go through the model at once, each person a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.signals import NAMES

if TYPE_CHECKING:
    from dfd_edge.inference.session import SequenceOutputs, Session


@dataclass(slots=True, eq=False)
class CarriedState:
    """State of the sequence model that one person's steps carry on.

    Attributes:
        state: float32 [S], or None before the first step and after one that was not finite.
        last_s: Time of the last step in seconds.
    """

    state: NDArray[np.float32] | None = None
    last_s: float = -math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A judged face in a frame.

    Attributes:
        person: The person's state; changed when the step is taken.
        time_s: Time of the frame in seconds.
        features: float32 [F], finite.
        signals: float32 [len(signals.NAMES)], or None where nothing was measured.
    """

    person: CarriedState
    time_s: float
    features: NDArray[np.float32]
    signals: NDArray[np.float32] | None


@dataclass(slots=True, eq=False)
class _Run:
    """Steps of one person without a gap between them, by their numbers.

    Attributes:
        state: float32 [S], with which the first is taken.
    """

    person: CarriedState
    state: NDArray[np.float32]
    steps: list[int]


class SequenceSteps:
    """Takes steps of the sequence model.

    Args:
        session: The loaded graphs.
    """

    def __init__(self, session: Session) -> None:
        sequence = session.bundle.manifest.sequence
        self._session = session
        self._takes_signals = sequence.signals is not None
        self._max_gap_s = sequence.max_gap_s
        self._fresh = np.zeros(sequence.state_width, np.float32)

    def take(self, steps: list[Step]) -> list[float | None]:
        """Takes steps, each person's in the order of time, and changes the people's states.

        Returns:
            The logit after each step, None where it is not finite.
        """
        logits: list[float | None] = [None] * len(steps)
        runs = self._runs(steps)
        if not runs:
            return logits
        outputs = self._call(steps, runs)
        for row, (run, finite) in enumerate(zip(runs, outputs.finite(), strict=True)):
            if finite:
                run.person.state = outputs.next_state[row]
                for number, step in enumerate(run.steps):
                    logits[step] = float(outputs.fake_logit[row, number])
            elif len(run.steps) == 1:
                run.person.state = None
            else:  # as far as it is finite, and from a fresh state after each fault
                self._take_one_by_one(steps, run, logits)
        return logits

    def _runs(self, steps: Iterable[Step]) -> list[_Run]:
        newest: dict[int, _Run] = {}
        runs: list[_Run] = []
        for number, step in enumerate(steps):
            person = step.person
            goes_on = 0.0 <= step.time_s - person.last_s <= self._max_gap_s
            person.last_s = step.time_s
            run = newest.get(id(person))
            if run is not None and goes_on:
                run.steps.append(number)
                continue
            carries = run is None and goes_on and person.state is not None
            state = person.state if carries and person.state is not None else self._fresh
            newest[id(person)] = run = _Run(person, state, [number])
            runs.append(run)
        return runs

    def _take_one_by_one(self, steps: list[Step], run: _Run, logits: list[float | None]) -> None:
        state = run.state
        for number in run.steps:
            outputs = self._call(steps, [_Run(run.person, state, [number])])
            finite = bool(outputs.finite()[0])
            logits[number] = float(outputs.fake_logit[0, 0]) if finite else None
            run.person.state = outputs.next_state[0] if finite else None
            state = outputs.next_state[0] if finite else self._fresh

    def _call(self, steps: list[Step], runs: list[_Run]) -> SequenceOutputs:
        """Runs the model, each run a row; rows that are shorter end with zeros."""
        rows, longest = len(runs), max(len(run.steps) for run in runs)
        features = np.zeros((rows, longest, len(steps[0].features)), np.float32)
        signals = np.zeros((rows, longest, len(NAMES)), np.float32)
        measured = np.zeros((rows, longest), np.float32)
        for row, run in enumerate(runs):
            for place, number in enumerate(run.steps):
                step = steps[number]
                features[row, place] = step.features
                if step.signals is not None:
                    signals[row, place], measured[row, place] = step.signals, 1.0
        inputs: dict[str, NDArray[Any]] = {
            "features": features,
            "lengths": np.array([len(run.steps) for run in runs], np.int32),
            "state": np.stack([run.state for run in runs]),
        }
        if self._takes_signals:
            inputs |= {"signals": signals, "measured": measured}
        return self._session.run_sequence(**inputs)
