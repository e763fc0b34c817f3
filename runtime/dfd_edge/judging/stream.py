"""One stream of frames: its people, their scores, and the verdict so far."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from dfd_edge.closing import Closing, native_calls
from dfd_edge.errors import UsageError
from dfd_edge.faces.selection import FacesOption
from dfd_edge.faces.signals import NAMES
from dfd_edge.judging.decision import Decision, PersonHistory
from dfd_edge.judging.people import FaceCrop, Observation, Observer
from dfd_edge.judging.results import (
    FrameResult,
    Label,
    PersonResult,
    PersonSignals,
    PersonVerdict,
    Verdict,
)
from dfd_edge.judging.steps import CarriedState, SequenceSteps, Step
from dfd_edge.sources.bursts import ForeseenBursts
from dfd_edge.sources.frames import Burst, FirstFrames, Pixels, Sampler
from dfd_edge.sources.seeking import PartSampler
from dfd_edge.sources.timing import MAX_CLOCK_S

if TYPE_CHECKING:
    from dfd_edge.bundle.manifest import Manifest
    from dfd_edge.faces.detector import FaceFinder
    from dfd_edge.inference.batcher import Batcher
    from dfd_edge.inference.session import FrameOutputs, Session

logger = logging.getLogger(__name__)

#: Reason of a face for which the model returns no finite number.
NOT_FINITE = "not finite"
#: Times beyond these bounds are not seconds: the unit that they look like, and its divisor.
_OTHER_UNITS = (
    (1e17, "nanoseconds", "1e9"),
    (1e14, "microseconds", "1e6"),
    (MAX_CLOCK_S, "milliseconds", "1e3"),
)
#: Resolution of a clock that is too coarse for frames, in seconds.
_COARSEST_S = 0.02
#: This many consecutive frames with steps in this range (in seconds) suggest milliseconds.
_DOUBTED_STEPS = 5
_DOUBTED_STEP_S = (8.0, 500.0)
#: People unseen for this long have left: the tracker matches nobody to them any more. Only their
#: verdict is kept, and only where they were judged long enough.
FORGET_AFTER_S = 60.0
_DECIDED = (Label.REAL, Label.FAKE)


@dataclass(slots=True, eq=False)
class _Person:
    """State of one person in a stream.

    Attributes:
        signals: Sums of the measurements, or None where the model takes none.
    """

    score: PersonHistory
    signals: _SignalSums | None = None
    carried: CarriedState = field(default_factory=CarriedState)
    last_seen_s: float = -math.inf

    def verdict(self, *, end_s: float | None = None) -> PersonVerdict:
        """Returns the verdict over all judged steps so far."""
        verdict = self.score.verdict(end_s=end_s)
        if self.signals is None:
            return verdict
        return dataclasses.replace(verdict, signals=self.signals.summary())


@dataclass(slots=True, eq=False)
class _SignalSums:
    """Measurements of one person, added up over the judged steps."""

    measured_steps: int = 0
    without_burst: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(NAMES)))

    def add(self, signals: NDArray[np.float32] | None, *, has_burst: bool) -> None:
        """Adds a judged step."""
        self.without_burst += not has_burst
        if signals is not None:
            self.measured_steps += 1
            self.sums += signals

    def summary(self) -> PersonSignals:
        """Returns the means."""
        steps = self.measured_steps
        means = _named(self.sums / steps) if steps else None
        return PersonSignals(steps, self.without_burst, means)


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Scores of one face in one frame."""

    frame_logit: float | None = None
    step_logit: float | None = None
    p_frame: float | None = None
    p_step: float | None = None
    evidence: NDArray[np.float32] | None = None


_NOT_JUDGED = _Scores()


@dataclass(slots=True)
class _Counts:
    frames: int = 0
    with_judged_face: int = 0
    with_face: int = 0
    seen_s: float = 0.0
    not_finite: int = 0
    last_s: float | None = None
    first_verdict_s: float | None = None


class Stream(Closing):
    """Judges the frames of one source; owns its tracker, sampler and the people's states.

    `Detector.stream()` returns one. Several threads may use a stream, one at a time; different
    streams share the loaded graphs and nothing else.

    Args:
        session: The loaded graphs.
        faces: The face detector, or None for models that judge whole frames.
        source: Name that results carry.
        rate_hz: Sampling rate; by default the bundle's own, at which the sequence model was
            trained. A bundle that judges the first frames takes none.
        decision: The rules of the bundle; by default those of the session.
        batcher: Runs the frame model on the crops of several streams together; by default
            this stream's go alone.
        judged_faces: Which faces are judged, as in `FaceChoice`.
        parts: Picks frames in parts of the source, in place of a rate.

    Attributes:
        takes_bursts: Whether the bundle compares consecutive frames: sources are to give bursts.

    Raises:
        UsageError: The rate or `judged_faces` is out of range, or the bundle takes no rate.
    """

    def __init__(
        self,
        session: Session,
        faces: FaceFinder | None,
        *,
        source: str = "stream",
        rate_hz: float | None = None,
        decision: Decision | None = None,
        batcher: Batcher | None = None,
        judged_faces: FacesOption = "all",
        parts: PartSampler | None = None,
    ) -> None:
        manifest = session.bundle.manifest
        self.source = source
        self.sampler: Sampler | FirstFrames | PartSampler
        self.sampler = parts or _sampler(manifest, rate_hz, source)
        self._session = session
        self.takes_bursts = manifest.sequence.signals is not None
        self._steps = SequenceSteps(session)
        self._decision = decision or Decision(session.decision)
        self._observer = Observer(
            faces, manifest.frame, faces=judged_faces, apart=parts is not None and parts.apart
        )
        self._people: dict[int, _Person] = {}
        self._left: list[PersonVerdict] = []
        self._counts = _Counts()
        self._lock = threading.RLock()
        self._closed = False
        self._pushed_s: float | None = None
        self._pushed = ForeseenBursts(self.sampler) if self.takes_bursts else None
        self._far_apart: int | None = 0  # steps so far; None where the times are seconds
        self._batcher = batcher
        self._joined: Batcher | None = batcher  # until it leaves
        if batcher is not None:
            batcher.join()

    def push(
        self,
        frame: NDArray[np.uint8],
        timestamp: SupportsFloat,
        *,
        captured_s: SupportsFloat | None = None,
    ) -> FrameResult | None:
        """Judges a frame if it is due.

        Args:
            frame: uint8 [height, width, 3], BGR. Not kept and not changed. Where the bundle
                measures consecutive frames, the luma of the two that may precede a due one is
                kept: push all frames that there are, at the source's own rate.
            timestamp: Time of the frame in seconds from any origin: a finite number of any type,
                fine enough to tell frames apart. Milliseconds and nanoseconds since 1970 are
                refused.
            captured_s: `time.monotonic()` when the frame was captured; the result then carries its
                staleness.

        Returns:
            The result, or None when the frame is not due at the sampling rate, or comes after the
            first frames where the bundle judges no others.

        Raises:
            UsageError: The stream is closed, or the frame or its time is not as stated.
        """
        _check(frame)
        time_s = _seconds(timestamp, "timestamp")
        if captured_s is not None:
            captured_s = _seconds(captured_s, "captured_s")
        with self._lock:
            self._doubt_unit(time_s)
            due = self.is_due(time_s)
            burst = None
            if self._pushed is not None and self._pushed.wants(time_s, due=due):
                burst = self._pushed.keep(frame, time_s)
            if not due:
                return None
            observation = self.observe(frame, time_s, captured_s=captured_s, burst=burst)
            return self.score([observation])[0]

    def _doubt_unit(self, time_s: float) -> None:
        """Warns once when the times of pushed frames look like milliseconds."""
        last_s, self._pushed_s = self._pushed_s, time_s
        if last_s is None or self._far_apart is None:
            return
        shortest_s, longest_s = _DOUBTED_STEP_S
        far = shortest_s <= time_s - last_s <= longest_s
        self._far_apart = self._far_apart + 1 if far else None
        if self._far_apart == _DOUBTED_STEPS:
            self._far_apart = None
            logger.warning(
                "%s: frames are pushed %.0f s apart: are their times milliseconds? Seconds are "
                "taken",
                self.source,
                time_s - last_s,
            )

    def is_due(self, time_s: float) -> bool:
        """Returns whether the frame at this time is judged; call it once per frame.

        Raises:
            UsageError: The stream is closed.
        """
        if self._closed:
            raise UsageError("the stream is closed; open a new one", source=self.source)
        return self.sampler.is_due(time_s)

    def observe(
        self,
        frame: Pixels,
        time_s: float,
        *,
        burst: Burst | None = None,
        captured_s: float | None = None,
        thorough: bool = False,
    ) -> Observation:
        """Detects, tracks and crops the faces of a due frame: the first half of `push`.

        Frames are observed in their order, by one thread at a time; earlier observations may be
        scored meanwhile. `burst` holds the consecutive frames that end with this one, which are
        measured where the model takes that; `thorough` spends the time of a still on small faces.
        """
        with native_calls():
            return self._observer.observe(
                frame,
                time_s,
                burst=burst if self.takes_bursts else None,
                captured_s=captured_s,
                thorough=thorough,
            )

    def score(self, observations: list[Observation]) -> list[FrameResult]:
        """Judges observations in their order: the second half of `push`.

        All crops go through the frame model in one batch, and all steps of the people through the
        sequence model, each person's with their own state. The number of observations per call does
        not change the scores by more than rounding does.
        """
        with native_calls(), self._lock:
            judged = [face for observation in observations for face in observation.judged]
            models = self._batcher or self._session
            outputs = models.run_frame(np.stack([f.crop for f in judged])) if judged else None
            logits = self._step(observations, outputs)
            results = []
            first = 0
            for observation in observations:
                count = len(observation.judged)
                rows = slice(first, first + count)
                first += count
                results.append(self._score_one(observation, outputs, rows, logits[rows]))
            return results

    def verdict(
        self,
        *,
        duration_s: float | None = None,
        realtime_factor: float | None = None,
        complete: bool = True,
        reason: str | None = None,
    ) -> Verdict:
        """Returns the verdict on everything seen so far, at any time, also after `close`.

        Args:
            duration_s: Seconds seen, where the caller knows better than the timestamps.
            realtime_factor: Seconds of the source judged per second, for files.
            complete: False when part of the source could not be judged.
            reason: Why not.
        """
        with self._lock:
            present = [person.verdict(end_s=duration_s) for person in self._people.values()]
            people = tuple(sorted([*self._left, *present], key=lambda person: person.track))
            counts = self._counts
            if (fault := self.fault) is not None:
                complete, reason = False, fault if reason is None else f"{fault}; {reason}"
            label, decisive = self._decision.source(people, face_seen=counts.with_face > 0)
            if not counts.frames:
                label = Label.UNSURE
            return Verdict(
                source=self.source,
                label=label,
                p_fake=None if decisive is None else decisive.p_fake,
                coverage=counts.with_judged_face / counts.frames if counts.frames else 0.0,
                frames=counts.frames,
                duration_s=counts.seen_s if duration_s is None else duration_s,
                people=people,
                provider=self._session.provider.actual,
                realtime_factor=realtime_factor,
                first_verdict_s=counts.first_verdict_s,
                complete=complete,
                reason=reason,
                logit=None if decisive is None else decisive.logit,
            )

    @property
    def fault(self) -> str | None:
        """Fault of the bundle that kept faces from being judged, or None."""
        faces = self._counts.not_finite
        if not faces:
            return None
        return (
            f"bundle {self._session.bundle.manifest.name} gave numbers that are not finite for "
            f"{faces} {'face' if faces == 1 else 'faces'}"
        )

    def leave(self) -> None:
        """Tells the batcher not to wait for crops of this stream. Safe to call twice."""
        with self._lock:
            if self._joined is not None:
                self._joined.leave()
                self._joined = None

    def close(self) -> None:
        """Ends the stream: no more frames are accepted. Safe to call twice."""
        with self._lock:
            self._closed = True
        self.leave()

    def _step(
        self, observations: list[Observation], outputs: FrameOutputs | None
    ) -> list[float | None]:
        """Takes the steps of the sequence model.

        Returns:
            The logit of each judged face; None where the frame model or this one gives no finite
            numbers.
        """
        steps: list[Step | None] = []
        for observation in observations:
            for face in observation.faces:
                self._person(face.track).last_seen_s = observation.time_s
            if outputs is None or not observation.judged:
                continue
            rows = range(len(steps), len(steps) + len(observation.judged))
            finite = outputs.finite(slice(rows.start, rows.stop))
            for row, face, usable in zip(rows, observation.judged, finite, strict=True):
                step = None
                if usable:
                    person = self._people[face.track].carried
                    step = Step(person, observation.time_s, outputs.features[row], face.signals)
                steps.append(step)
        taken = iter(self._steps.take([step for step in steps if step is not None]))
        return [None if step is None else next(taken) for step in steps]

    def _score_one(
        self,
        observation: Observation,
        outputs: FrameOutputs | None,
        rows: slice,
        logits: list[float | None],
    ) -> FrameResult:
        time_s = observation.time_s
        scores: dict[int, _Scores] = {}
        if outputs is not None and observation.judged:
            scores = self._scores(observation, outputs, rows, logits)
        self._count(observation, judged=len(scores))
        people = tuple(self._result(face, scores.get(face.track)) for face in observation.faces)
        self._forget(time_s)
        captured_s = observation.captured_s
        label = _most_suspicious(people)
        if self._counts.first_verdict_s is None and any(p.label in _DECIDED for p in people):
            self._counts.first_verdict_s = self._counts.seen_s
        return FrameResult(
            source=self.source,
            time_s=time_s,
            people=people,
            label=label,
            staleness_ms=None if captured_s is None else (time.monotonic() - captured_s) * 1e3,
        )

    def _scores(
        self,
        observation: Observation,
        outputs: FrameOutputs,
        rows: slice,
        logits: list[float | None],
    ) -> dict[int, _Scores]:
        """Returns the scores of the judged faces by track, where they are finite."""
        time_s = observation.time_s
        scores: dict[int, _Scores] = {}
        numbered = enumerate(observation.judged, start=rows.start)
        for (row, face), step_logit in zip(numbered, logits, strict=True):
            if step_logit is None:
                continue
            frame_logit = float(outputs.fake_logit[row])
            person = self._people[face.track]
            p_frame, p_step = person.score.add(time_s, frame_logit, step_logit, face.quality.detail)
            if person.signals is not None:
                person.signals.add(face.signals, has_burst=observation.has_burst)
            evidence = None if outputs.evidence is None else outputs.evidence[row]
            scores[face.track] = _Scores(frame_logit, step_logit, p_frame, p_step, evidence)
        return scores

    def _result(self, face: FaceCrop, scores: _Scores | None) -> PersonResult:
        score = self._people[face.track].score
        x0, y0, x1, y1 = (float(side) for side in face.box)
        found = scores or _NOT_JUDGED
        not_finite = face.quality.judged and scores is None
        return PersonResult(
            track=face.track,
            box=(x0, y0, x1, y1),
            crop=face.region,
            judged=scores is not None,
            reason=NOT_FINITE if not_finite else face.quality.reason,
            p_frame=found.p_frame,
            p_step=found.p_step,
            p_fake=score.live_p_fake,
            label=score.live_label,
            evidence=found.evidence,
            frame_logit=found.frame_logit,
            step_logit=found.step_logit,
            signals=None if scores is None or face.signals is None else _named(face.signals),
        )

    def _person(self, track: int) -> _Person:
        person = self._people.get(track)
        if person is None:
            score = PersonHistory(track, self._decision, self.sampler.period_s)
            signals = _SignalSums() if self.takes_bursts else None
            person = self._people[track] = _Person(score, signals)
        return person

    def _count(self, observation: Observation, *, judged: int) -> None:
        counts = self._counts
        counts.frames += 1
        counts.with_face += bool(observation.faces)
        counts.with_judged_face += bool(judged)
        if (not_finite := len(observation.judged) - judged) and not counts.not_finite:
            bundle = self._session.bundle
            logger.warning(
                "%s: %s: its model %s gives numbers that are not finite; such faces are not judged",
                self.source,
                bundle.path,
                bundle.manifest.name,
            )
        counts.not_finite += not_finite
        if counts.last_s is None:
            counts.seen_s = self.sampler.period_s
        else:
            counts.seen_s += max(0.0, observation.time_s - counts.last_s)
        counts.last_s = observation.time_s

    def _forget(self, time_s: float) -> None:
        """Reduces people who left to their verdicts, and drops passers-by.

        So memory and time per frame grow with the length of a live stream by these verdicts only.
        """
        if isinstance(self.sampler, PartSampler) and self.sampler.apart:
            return  # people are seen again after any time, and there are few frames
        min_steps = self._decision.spec.min_steps
        for track, person in list(self._people.items()):
            if time_s - person.last_seen_s > FORGET_AFTER_S:
                del self._people[track]
                if person.score.judged_steps >= min_steps:
                    self._left.append(person.verdict())


def _named(values: NDArray[np.floating]) -> dict[str, float]:
    return dict(zip(NAMES, values.tolist(), strict=True))


def _sampler(manifest: Manifest, rate_hz: float | None, source: str) -> Sampler | FirstFrames:
    sequence = manifest.sequence
    if sequence.first_frames is None:
        return Sampler(sequence.rate_hz if rate_hz is None else rate_hz)
    if rate_hz is not None:
        raise UsageError(
            f"a rate of {rate_hz:g} Hz was asked for, but model {manifest.name} judges each of "
            f"the first {sequence.first_frames} frames: leave the rate out",
            source=source,
        )
    return FirstFrames(sequence.first_frames, rate_hz=sequence.rate_hz)


def _most_suspicious(people: tuple[PersonResult, ...]) -> Label:
    labels = {person.label for person in people}
    for label in (Label.FAKE, Label.UNSURE, Label.REAL):
        if label in labels:
            return label
    return Label.NO_FACE


def _check(frame: NDArray[np.uint8]) -> None:
    shape = getattr(frame, "shape", None)
    dtype = getattr(frame, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise UsageError(
            f"frame of shape {shape} and dtype {dtype}: give uint8 [height, width, 3] in BGR order"
        )


def _seconds(value: SupportsFloat, name: str) -> float:
    """Returns a time given by the user, in seconds.

    Raises:
        UsageError: It is no number, not finite, too coarse, or not in seconds.
    """
    try:
        shown = f"{name} {value!r:.60}"
    except Exception:  # a number of too many digits, an object whose own `repr` fails
        shown = f"{name} of type {type(value).__name__}"
    number = not isinstance(value, bool | np.bool_) and np.ndim(value) == 0  # type: ignore[arg-type]
    try:
        seconds = float(value) if number and not isinstance(value, str | bytes) else None
    except (TypeError, ValueError):
        seconds = None
    except OverflowError:
        seconds = math.inf
    if seconds is None:
        raise UsageError(f"{shown}: give a number of seconds")
    if not math.isfinite(seconds):
        raise UsageError(f"{shown}: give finite seconds")
    for bound_s, unit, factor in _OTHER_UNITS:
        if abs(seconds) > bound_s:
            raise UsageError(
                f"{shown}: seconds are taken, and this looks like {unit}; divide it by {factor}"
            )
    if isinstance(value, np.floating) and np.spacing(abs(value)) > _COARSEST_S:
        raise UsageError(
            f"{shown}: {value.dtype} tells times of this size only {np.spacing(abs(value)):g} s "
            "apart; give float64, or count from the start of the stream"
        )
    return seconds
