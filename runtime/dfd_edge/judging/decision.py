"""From logits to labels: calibration, scores of people, thresholds, hysteresis."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dfd_edge.judging.results import Interval, Label, PersonVerdict
from dfd_edge.manifest import Calibrator, DecisionSpec, PersonScore

#: A person looked fake in those seconds whose steps' mean score says so.
INTERVAL_WINDOW_S = 1.0
#: A live label has to last this long before it is shown or posted.
HOLD_S = 1.0
#: A shown label is left once the score has come this share of the way towards the other one.
LEAVE_SHARE = 0.25


def calibrated(logit: float, calibrator: Calibrator, *, share: float = 1.0) -> float:
    """Probability of fake by Platt scaling: sigmoid(slope * logit + share * intercept)."""
    scaled = calibrator.slope * logit + share * calibrator.intercept
    if scaled >= 0:
        return 1.0 / (1.0 + math.exp(-scaled))
    odds = math.exp(scaled)
    return odds / (1.0 + odds)


@dataclass(frozen=True, slots=True)
class Looks:
    """Judged steps of one person, added up.

    Attributes:
        steps: How many.
        shares: Sum of how much each counts, as `Decision.share` says.
        logits: Sum of their logits, each times its share.
        last: The last one's logit.
    """

    steps: int = 0
    shares: float = 0.0
    logits: float = 0.0
    last: float = 0.0

    def and_one(self, logit: float, share: float) -> Looks:
        """These and one more."""
        return Looks(self.steps + 1, self.shares + share, self.logits + share * logit, logit)


class Decision:
    """The rules of a bundle, ready to use.

    Args:
        spec: The `decision` part of the bundle's manifest.
    """

    def __init__(self, spec: DecisionSpec) -> None:
        self.spec = spec
        self.fake_threshold = spec.thresholds["fake"].probability
        self.real_threshold = spec.thresholds["real"].probability

    def p_frame(self, logit: float) -> float:
        """Calibrated probability of one crop."""
        return calibrated(logit, self.spec.calibrators["frame"])

    def p_step(self, logit: float) -> float:
        """Calibrated probability after one step of the sequence model."""
        return calibrated(logit, self.spec.calibrators["step"])

    def share(self, detail: float) -> float:
        """How much a judged step counts in a person's score: 1, or less where it is blurred."""
        half = self.spec.settle_detail
        return 1.0 if not half or math.isinf(detail) else detail / (detail + half)

    def p_person(self, looks: Looks) -> float:
        """Calibrated probability of a person, from one judged step or more."""
        calibrator = self.spec.calibrators["person"]
        if self.spec.person_score is PersonScore.LAST:
            return calibrated(looks.last, calibrator)
        settled = looks.steps + self.spec.settle_steps
        return calibrated(looks.logits / settled, calibrator, share=looks.shares / settled)

    def choose(self, frame_logit: float, step_logit: float) -> float:
        """The logit that a person's score is made of, as the manifest says."""
        return frame_logit if self.spec.person_score is PersonScore.FRAME else step_logit

    def label(self, p_fake: float) -> Label:
        """`fake`, `real` or, between the thresholds, `unsure`."""
        if p_fake >= self.fake_threshold:
            return Label.FAKE
        if p_fake <= self.real_threshold:
            return Label.REAL
        return Label.UNSURE

    def source(
        self, people: Iterable[PersonVerdict], *, face_seen: bool
    ) -> tuple[Label, float | None]:
        """Label and probability of a source from its people's verdicts.

        The probability is the highest among the people judged long enough; where nobody was, it
        is None and the label `unsure`, or `no_face` where no face was seen at all.
        """
        scores = [
            person.p_fake
            for person in people
            if person.p_fake is not None and person.judged_steps >= self.spec.min_steps
        ]
        if scores:
            return self.label(max(scores)), max(scores)
        return (Label.UNSURE if face_seen else Label.NO_FACE), None


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
        """Takes the label wanted at a time; returns whether `label` has become it."""
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
        """Takes the score at a time and returns the label to show."""
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
    """

    def __init__(self, track: int, decision: Decision, step_s: float) -> None:
        self.track = track
        self.last_s = 0.0
        self._decision = decision
        self._step_s = step_s
        self._looks = Looks()
        self._window: deque[tuple[float, float, float]] = deque()
        self._hysteresis = Hysteresis(decision)
        self._intervals: list[Interval] = []

    @property
    def judged_steps(self) -> int:
        """How many steps were judged."""
        return self._looks.steps

    def add(
        self, time_s: float, frame_logit: float, step_logit: float, detail: float = math.inf
    ) -> None:
        """Takes one judged step, with the detail of its crop."""
        logit = self._decision.choose(frame_logit, step_logit)
        share = self._decision.share(detail)
        self.last_s = time_s
        self._looks = self._looks.and_one(logit, share)
        self._window.append((time_s, logit, share))
        oldest_s = time_s - self._decision.spec.window_s
        while self._window[0][0] <= oldest_s:
            self._window.popleft()
        self._extend_intervals(time_s)
        if self.judged_steps >= self._decision.spec.min_steps:
            self._hysteresis.update(self.live_p_fake or 0.0, time_s)

    @property
    def live_p_fake(self) -> float | None:
        """Probability over the sliding window; None before the first judged step."""
        if not self._window:
            return None
        return self._decision.p_person(_together(self._window))

    @property
    def live_label(self) -> Label:
        """The label to show now."""
        return self._hysteresis.label

    def verdict(self, *, end_s: float | None = None) -> PersonVerdict:
        """The verdict over all judged steps so far; intervals end with the source at `end_s`."""
        if not self.judged_steps:
            return PersonVerdict(self.track, Label.UNSURE, None, 0)
        p_fake = self._decision.p_person(self._looks)
        enough = self.judged_steps >= self._decision.spec.min_steps
        label = self._decision.label(p_fake) if enough else Label.UNSURE
        intervals = tuple(self._intervals)
        if end_s is not None:
            intervals = tuple(Interval(i.start_s, min(i.end_s, end_s)) for i in intervals)
        return PersonVerdict(self.track, label, p_fake, self.judged_steps, intervals)

    def _extend_intervals(self, time_s: float) -> None:
        """Joins the last second to the intervals when its mean score says fake."""
        recent = [entry for entry in self._window if entry[0] > time_s - INTERVAL_WINDOW_S]
        p_recent = self._decision.p_person(_together(recent))
        enough = self.judged_steps >= self._decision.spec.min_steps
        if not enough or p_recent < self._decision.fake_threshold:
            return
        start_s, end_s = recent[0][0], time_s + self._step_s
        if self._intervals and start_s <= self._intervals[-1].end_s + self._step_s:
            start_s = min(start_s, self._intervals.pop().start_s)
        self._intervals.append(Interval(start_s, end_s))


def _together(entries: Sequence[tuple[float, float, float]]) -> Looks:
    """Judged steps, one or more, given as time, logit and share."""
    return Looks(
        len(entries),
        sum(share for _, _, share in entries),
        sum(share * logit for _, logit, share in entries),
        entries[-1][1],
    )
