"""From logits to labels: pooling of a person's steps, calibration, thresholds, hysteresis.

The pooling of steps stands here once: training fits the calibrators on what `pool` gives.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfd_edge.bundle.manifest import Calibrator, DecisionSpec, PersonScore, StillSpec
from dfd_edge.judging.results import FrameResult, Interval, Label, PersonVerdict

#: A person looked fake in those seconds whose steps' mean score says so.
INTERVAL_WINDOW_S = 1.0
#: A live label has to last this long before it is shown or posted.
HOLD_S = 1.0
#: A shown label is left once the score has come this share of the way towards the other one.
LEAVE_SHARE = 0.25

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, NDArray[np.float64])


def sigmoid(logit: float) -> float:
    """Returns the probability that belongs to a logit."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def calibrated(logit: float, calibrator: Calibrator) -> float:
    """Returns the probability of fake by Platt scaling: sigmoid(slope * logit + intercept)."""
    return sigmoid(calibrator.slope * logit + calibrator.intercept)


@dataclass(frozen=True, slots=True)
class Pooled(Generic[Number]):
    """Judged steps pooled: floats of one person, or arrays with a row a person or window.

    Attributes:
        logit: Mean over the steps of the logit times the step's share, shrunk for few steps.
        share: Mean of the shares, shrunk likewise: how much of the intercept counts.
    """

    logit: Number
    share: Number

    def scaled(self, slope: float, intercept: float) -> Number:
        """Returns the calibrated logits: what a calibrator gives before the sigmoid."""
        return slope * self.logit + intercept * self.share


def step_shares(details: ArrayLike, settle_detail: float) -> Floats:
    """Returns how much each judged step counts in a person's score.

    Args:
        details: Detail of the crops (variance of the Laplacian); infinite where not measured.
        settle_detail: Half of a step counts at this detail; 0 counts all steps fully.

    Returns:
        float64 of the shape of `details`, in [0, 1].
    """
    details = np.asarray(details, np.float64)
    shares = np.ones(details.shape)
    measured = np.isfinite(details) & (settle_detail > 0)
    np.divide(details, details + settle_detail, out=shares, where=measured)
    return shares


def pool(logits: Number, shares: Number, steps: Number, settle_steps: float) -> Pooled[Number]:
    """Pools judged steps that are added up.

    Args:
        logits: Sum of the steps' logits, each times its share.
        shares: Sum of the shares.
        steps: How many steps, 1 or more.
        settle_steps: A mean over n steps is multiplied by n / (n + settle_steps).
    """
    return Pooled(logits / (steps + settle_steps), shares / (steps + settle_steps))


def pool_windows(
    logits: ArrayLike,
    shares: ArrayLike,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    settle_steps: float = 0.0,
) -> Pooled[Floats]:
    """Pools windows of consecutive steps.

    Args:
        logits: Of all steps, [T].
        shares: Of all steps, [T], as `step_shares` gives them.
        starts: First step of each window, [N].
        lengths: Steps of each window, [N], 1 or more.
        settle_steps: As for `pool`.

    Returns:
        Arrays float64 [N].
    """
    weighed = np.asarray(logits, np.float64) * np.asarray(shares, np.float64)

    def sums(values: ArrayLike) -> Floats:
        running = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
        return np.asarray(running[starts + lengths] - running[starts], np.float64)

    return pool(sums(weighed), sums(shares), lengths.astype(np.float64), settle_steps)


@dataclass(frozen=True, slots=True)
class StepSums:
    """Judged steps of one person, added up.

    Attributes:
        steps: How many.
        shares: Sum of their shares, as `Decision.share` gives them.
        logits: Sum of their logits, each times its share.
        last: Logit of the last one.
    """

    steps: int = 0
    shares: float = 0.0
    logits: float = 0.0
    last: float = 0.0

    def and_one(self, logit: float, share: float) -> StepSums:
        """Returns these steps and one more."""
        return StepSums(self.steps + 1, self.shares + share, self.logits + share * logit, logit)


class Decision:
    """Decision rules of a bundle: pooling, calibration and thresholds.

    Args:
        spec: The `decision` part of the bundle's manifest.
    """

    def __init__(self, spec: DecisionSpec) -> None:
        self.spec = spec
        self.fake_threshold = spec.thresholds["fake"].probability
        self.real_threshold = spec.thresholds["real"].probability

    def for_stills(self) -> Decision:
        """Returns the rules for a still: one crop decides, by the decision on stills.

        A bundle without one decides by the calibrator of crops and the thresholds of clips.
        """
        still = self.spec.still or StillSpec(self.spec.calibrators["frame"], self.spec.thresholds)
        kinds = ("frame", "person")
        return Decision(
            dataclasses.replace(
                self.spec,
                person_score=PersonScore.FRAME,
                calibrators={**self.spec.calibrators, **dict.fromkeys(kinds, still.calibrator)},
                thresholds=still.thresholds,
                min_steps=1,
                settle_steps=0.0,
                settle_detail=0.0,
            )
        )

    def p_frame(self, logit: float) -> float:
        """Returns the calibrated probability of one crop."""
        return calibrated(logit, self.spec.calibrators["frame"])

    def p_step(self, logit: float) -> float:
        """Returns the calibrated probability after one step of the sequence model."""
        return calibrated(logit, self.spec.calibrators["step"])

    def share(self, detail: float) -> float:
        """Returns how much a judged step counts: 1, or less where the crop is blurred."""
        half = self.spec.settle_detail
        return float(step_shares(detail, half)) if half else 1.0

    def logit_of(self, sums: StepSums) -> float:
        """Returns the calibrated logit of a person, from one judged step or more."""
        if self.spec.person_score is PersonScore.LAST:
            pooled = Pooled(sums.last, 1.0)
        else:
            pooled = pool(sums.logits, sums.shares, float(sums.steps), self.spec.settle_steps)
        calibrator = self.spec.calibrators["person"]
        return pooled.scaled(calibrator.slope, calibrator.intercept)

    def p_person(self, sums: StepSums) -> float:
        """Returns the calibrated probability of a person, from one judged step or more."""
        return sigmoid(self.logit_of(sums))

    def choose(self, frame_logit: float, step_logit: float) -> float:
        """Returns the logit that a person's score is made of, as the manifest says."""
        return frame_logit if self.spec.person_score is PersonScore.FRAME else step_logit

    def label(self, p_fake: float) -> Label:
        """Returns `fake`, `real` or, between the thresholds, `unsure`."""
        if p_fake >= self.fake_threshold:
            return Label.FAKE
        if p_fake <= self.real_threshold:
            return Label.REAL
        return Label.UNSURE

    def source(
        self, people: Iterable[PersonVerdict], *, face_seen: bool
    ) -> tuple[Label, PersonVerdict | None]:
        """Returns the label of a source, and the person who decides it.

        That is the most suspicious among the people judged long enough. Without one the label is
        `unsure`, or `no_face` where no face was seen at all.
        """
        least = self.spec.min_steps
        judged = [p for p in people if p.p_fake is not None and p.judged_steps >= least]
        person = max(judged, key=lambda person: person.p_fake or 0.0, default=None)
        if person is None or person.p_fake is None:
            return (Label.UNSURE if face_seen else Label.NO_FACE), None
        return self.label(person.p_fake), person


class HeldLabel:
    """A label that changes once another one has lasted for `HOLD_S`.

    Args:
        label: The label at first, or None.
        at_once: A label that need not last.

    Attributes:
        label: The label that holds.
    """

    def __init__(self, label: Label | None = None, *, at_once: Label | None = None) -> None:
        self.label = self._candidate = label
        self._at_once = at_once
        self._since_s = 0.0

    def update(self, wanted: Label, time_s: float) -> bool:
        """Updates with the label wanted at a time; returns whether `label` changed."""
        if wanted is not self._candidate:
            self._candidate, self._since_s = wanted, time_s
        lasted = wanted is self._at_once or time_s - self._since_s >= HOLD_S
        if wanted is self.label or not lasted:
            return False
        self.label = wanted
        return True


class Hysteresis:
    """Keeps a live label from flickering.

    A label is entered when its threshold has been passed for `HOLD_S`, and left when the score
    has moved a quarter of the way to the opposite threshold, again for `HOLD_S`.
    """

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        margin = LEAVE_SHARE * (decision.fake_threshold - decision.real_threshold)
        self._leave_fake = decision.fake_threshold - margin
        self._leave_real = decision.real_threshold + margin
        self._held = HeldLabel(Label.UNSURE)
        self.label = Label.UNSURE

    def update(self, p_fake: float, time_s: float) -> Label:
        """Updates with the score at a time; returns the label to show."""
        wanted = self._wanted(p_fake)
        if self._held.update(wanted, time_s):
            self.label = wanted
        return self.label

    def _wanted(self, p_fake: float) -> Label:
        if self.label is Label.FAKE and p_fake >= self._leave_fake:
            return Label.FAKE
        if self.label is Label.REAL and p_fake <= self._leave_real:
            return Label.REAL
        return self._decision.label(p_fake)


class PersonHistory:
    """Score history of one person; its memory does not grow with the length of the stream.

    Args:
        track: Number of the person.
        decision: The bundle's rules.
        step_s: Seconds between two sampled frames.

    Attributes:
        live_p_fake: Probability over the sliding window; None before the first judged step.
        live_label: The label to show now.
    """

    def __init__(self, track: int, decision: Decision, step_s: float) -> None:
        self.track = track
        self.live_p_fake: float | None = None
        self.live_label = Label.UNSURE
        self._decision = decision
        self._step_s = step_s
        self._sums = StepSums()
        self._window: deque[tuple[float, float, float]] = deque()
        self._hysteresis = Hysteresis(decision)
        self._intervals: list[Interval] = []

    @property
    def judged_steps(self) -> int:
        """Number of judged steps."""
        return self._sums.steps

    def add(
        self, time_s: float, frame_logit: float, step_logit: float, detail: float = math.inf
    ) -> tuple[float, float]:
        """Adds a judged step.

        Args:
            time_s: Time of the frame in seconds.
            frame_logit: Logit of the frame model.
            step_logit: Logit of the sequence model after this step.
            detail: Detail of the crop; infinite where it was not measured.

        Returns:
            Calibrated probabilities of the crop and of the step.
        """
        decision = self._decision
        logit = decision.choose(frame_logit, step_logit)
        share = decision.share(detail)
        self._sums = self._sums.and_one(logit, share)
        self._window.append((time_s, logit, share))
        oldest_s = time_s - decision.spec.window_s
        while self._window[0][0] <= oldest_s:
            self._window.popleft()
        self._extend_intervals(time_s)
        self.live_p_fake = decision.p_person(_together(self._window))
        if self.judged_steps >= decision.spec.min_steps:
            self.live_label = self._hysteresis.update(self.live_p_fake, time_s)
        return decision.p_frame(frame_logit), decision.p_step(step_logit)

    def verdict(self, *, end_s: float | None = None) -> PersonVerdict:
        """Returns the verdict over all judged steps so far.

        Args:
            end_s: Where the source ends; intervals end there too.
        """
        if not self.judged_steps:
            return PersonVerdict(self.track, Label.UNSURE, None, 0)
        logit = self._decision.logit_of(self._sums)
        p_fake = sigmoid(logit)
        enough = self.judged_steps >= self._decision.spec.min_steps
        label = self._decision.label(p_fake) if enough else Label.UNSURE
        intervals = tuple(self._intervals)
        if end_s is not None:
            intervals = tuple(Interval(i.start_s, min(i.end_s, end_s)) for i in intervals)
        return PersonVerdict(self.track, label, p_fake, self.judged_steps, intervals, logit)

    def _extend_intervals(self, time_s: float) -> None:
        """Adds the last second to the intervals when its mean score is fake."""
        recent = [entry for entry in self._window if entry[0] > time_s - INTERVAL_WINDOW_S]
        p_recent = self._decision.p_person(_together(recent))
        enough = self.judged_steps >= self._decision.spec.min_steps
        if not enough or p_recent < self._decision.fake_threshold:
            return
        start_s, end_s = recent[0][0], time_s + self._step_s
        if self._intervals and start_s <= self._intervals[-1].end_s + self._step_s:
            start_s = min(start_s, self._intervals.pop().start_s)
        self._intervals.append(Interval(start_s, end_s))


def judge_still(
    result: FrameResult, decision: Decision
) -> tuple[FrameResult, tuple[PersonVerdict, ...], PersonVerdict | None]:
    """Judges a still: each face has one step, and no sequence.

    Args:
        result: The frame as a stream judged it.
        decision: The rules for stills.

    Returns:
        The result with the scores and labels of the still, the verdicts on its people, and the one
        who decides.
    """
    people, verdicts = [], []
    for person in result.people:
        history = PersonHistory(person.track, decision, step_s=0.0)
        p_frame = person.p_frame
        if person.frame_logit is not None:
            p_frame, _ = history.add(result.time_s, person.frame_logit, person.frame_logit)
        verdict = dataclasses.replace(history.verdict(), intervals=())
        verdicts.append(verdict)
        people.append(
            dataclasses.replace(
                person,
                p_frame=p_frame,
                p_step=None,
                step_logit=None,
                p_fake=verdict.p_fake,
                label=verdict.label,
            )
        )
    label, decisive = decision.source(verdicts, face_seen=bool(people))
    judged = dataclasses.replace(result, people=tuple(people), label=label)
    return judged, tuple(verdicts), decisive


def _together(entries: Sequence[tuple[float, float, float]]) -> StepSums:
    """Adds up judged steps, one or more, given as time, logit and share."""
    return StepSums(
        len(entries),
        sum(share for _, _, share in entries),
        sum(share * logit for _, logit, share in entries),
        entries[-1][1],
    )
