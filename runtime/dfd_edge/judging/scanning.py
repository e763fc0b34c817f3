"""Scanning: a film is looked at here and there, then closely where it looked fake or unsure.

A short forged passage hardly moves the score of a whole film. So the second look judges each
passage by itself: by the bundle's own score over windows of a second and more.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dfd_edge.judging.decision import Decision, StepSums, sigmoid
from dfd_edge.judging.recording import OnResult, Reading, judge_recording
from dfd_edge.judging.results import FrameResult, Interval, Label, PersonVerdict, Verdict
from dfd_edge.judging.stream import Stream
from dfd_edge.sources.frames import Frame
from dfd_edge.sources.seeking import Chosen, PartSampler, Spread, passages

if TYPE_CHECKING:
    from dfd_edge.judging.recording import Recording

#: Seconds between two moments of the first look.
SPACING_S = 2.0
#: Seconds before and after a doubtful moment that are looked at: a passage of one second that holds
#: the moment does not end outside.
AROUND_S = 1.2
#: Lengths in seconds of the windows that are judged; a passage is as long as the first at least.
_WINDOWS_S = (1.0, 2.0, 5.0, 10.0)

Steps = Sequence[tuple[float, float]]
"""Times in seconds and logits of the judged steps of a person, in order."""


@dataclass(slots=True)
class _Look:
    """Results of one look."""

    results: list[FrameResult] = field(default_factory=list)

    def steps(self, decision: Decision) -> dict[int, list[tuple[float, float]]]:
        """Returns the times and logits of the judged steps of each track."""
        steps: dict[int, list[tuple[float, float]]] = {}
        for result in self.results:
            for person in result.people:
                if person.frame_logit is not None and person.step_logit is not None:
                    logit = decision.choose(person.frame_logit, person.step_logit)
                    steps.setdefault(person.track, []).append((result.time_s, logit))
        return steps


def scan_recording(
    open_recording: Callable[[], Recording],
    open_stream: Callable[[PartSampler], Stream],
    reading: Reading,
    decision: Decision,
    rate_hz: float,
) -> Verdict:
    """Scans a recording for passages that look fake.

    Args:
        open_recording: Opens it; called once for each look.
        open_stream: Opens what judges the frames that a sampler picks.
        reading: How far it is read, and what is called.
        decision: The rules of the bundle.
        rate_hz: Frames judged per second in the second look.

    Returns:
        The verdict of the first look, to which those are added, as people of their own, who look
        fake in a passage; its seconds are their intervals, and the label is `fake` then.

    Raises:
        SourceError: It cannot be decoded.
    """
    started_s = time.perf_counter()
    first, second = _Look(), _Look()
    coarse = PartSampler(Spread(None, SPACING_S, reading.duration_s), rate_hz)
    recording = open_recording()
    verdict = judge_recording(
        recording, open_stream(coarse), _heard(reading, first.results.append, part=0)
    )
    undecidable = getattr(recording, "doubt", None) is not None
    if coarse.throughout or undecidable or reading.stop.is_set():
        return verdict
    parts = passages(
        (max(0.0, time_s - AROUND_S), time_s + AROUND_S) for time_s in _doubtful_s(first, decision)
    )
    people: list[PersonVerdict] = []
    frames = verdict.frames
    reason = f"{verdict.reason}; nothing in it was looked at closely"
    if parts:
        known = max((person.track for person in verdict.people), default=0)
        looked = judge_recording(
            open_recording(),
            open_stream(PartSampler(Chosen(parts), rate_hz, apart=False)),
            _heard(reading, second.results.append, part=1, after=known),
        )
        people = _fakes(looked, second, decision, rate_hz, after=known)
        frames += looked.frames
        close_s = sum(part.end_s - part.start_s for part in parts)
        reason = f"{verdict.reason}; {close_s:.1f} s of it were looked at closely"
    if reading.stop.is_set():
        reason = "stopped before its end"
    factor = verdict.duration_s / max(time.perf_counter() - started_s, 1e-9)
    verdict = dataclasses.replace(verdict, frames=frames, reason=reason, realtime_factor=factor)
    return _with_fakes(verdict, people)


def _doubtful_s(look: _Look, decision: Decision) -> list[float]:
    """Returns the times at which a face alone looks fake or leaves it open, in order."""
    steps = look.steps(decision).values()
    return sorted({time_s for own in steps for time_s, x in own if _is_doubtful(x, decision)})


def _fakes(
    verdict: Verdict, look: _Look, decision: Decision, rate_hz: float, *, after: int
) -> list[PersonVerdict]:
    """Returns the people of a close look who look fake in a passage, numbered after `after`."""
    steps = look.steps(decision)
    fakes = []
    for person in verdict.people:
        found = judge_passages(steps.get(person.track, []), decision, rate_hz)
        if found is not None:
            logit, intervals = found
            fakes.append(
                dataclasses.replace(
                    person,
                    track=person.track + after,
                    label=Label.FAKE,
                    p_fake=sigmoid(logit),
                    logit=logit,
                    intervals=intervals,
                )
            )
    return fakes


def judge_passages(
    steps: Steps, decision: Decision, rate_hz: float
) -> tuple[float, tuple[Interval, ...]] | None:
    """Finds the passages in which a person looks fake.

    Args:
        steps: Times in seconds and logits of the person's judged steps, in order.
        decision: The rules of the bundle.
        rate_hz: Steps per second.

    Returns:
        The highest calibrated logit of a window that is called fake, and the seconds of all such
        windows; None where there are none.
    """
    highest = -math.inf
    spans: list[tuple[float, float]] = []
    for window_s in _WINDOWS_S:
        count = max(decision.spec.min_steps, math.ceil(window_s * rate_hz))
        for window, logit in _windows(steps, decision, count, rate_hz):
            if decision.label(sigmoid(logit)) is Label.FAKE:
                highest = max(highest, logit)
                spans.append(_trimmed(window, decision, rate_hz))
    if not spans:
        return None
    return highest, tuple(Interval(part.start_s, part.end_s) for part in passages(spans))


def _windows(
    steps: Steps, decision: Decision, count: int, rate_hz: float
) -> Iterator[tuple[Steps, float]]:
    """Yields windows of so many steps that follow each other, with their calibrated logits."""
    running = [0.0]
    for _, logit in steps:
        running.append(running[-1] + logit)
    for last in range(count, len(steps) + 1):
        window = steps[last - count : last]
        if window[-1][0] - window[0][0] > 1.5 * (count - 1) / rate_hz:
            continue  # the face was not seen in between
        total = running[last] - running[last - count]
        yield window, decision.logit_of(StepSums(count, float(count), total, window[-1][1]))


def _trimmed(window: Steps, decision: Decision, rate_hz: float) -> tuple[float, float]:
    """Returns the seconds of a window without the steps at its ends that look real alone."""
    times_s = [time_s for time_s, logit in window if _is_doubtful(logit, decision)]
    times_s = times_s or [time_s for time_s, _ in window]
    return times_s[0], times_s[-1] + 1.0 / rate_hz


def _is_doubtful(logit: float, decision: Decision) -> bool:
    """Returns whether a step alone looks fake or leaves it open."""
    alone = StepSums().and_one(logit, 1.0)
    return decision.label(decision.p_person(alone)) is not Label.REAL


def _heard(reading: Reading, keep: OnResult, *, part: int, after: int = 0) -> Reading:
    """Returns how one look is read: results are kept too, and each look is half of the progress.

    Args:
        reading: How the recording is read.
        keep: Gets each result.
        part: 0 for the first look, 1 for the second.
        after: Number after which the people of this look are numbered.
    """

    def renumbered(result: FrameResult) -> FrameResult:
        people = tuple(dataclasses.replace(p, track=p.track + after) for p in result.people)
        return dataclasses.replace(result, people=people)

    def on_frame(result: FrameResult) -> None:
        keep(result)
        if reading.on_frame is not None:
            reading.on_frame(renumbered(result))

    def on_image(frame: Frame, result: FrameResult | None) -> None:
        if reading.on_image is not None:
            reading.on_image(frame, None if result is None else renumbered(result))

    def on_progress(done_s: float, whole_s: float | None) -> None:
        if reading.on_progress is not None and whole_s is not None:
            reading.on_progress(0.5 * (part * whole_s + done_s), whole_s)

    return dataclasses.replace(
        reading,
        on_frame=on_frame,
        on_image=None if reading.on_image is None else on_image,
        on_progress=on_progress,
        on_event=reading.on_event if part == 0 else None,
    )


def _with_fakes(verdict: Verdict, people: Sequence[PersonVerdict]) -> Verdict:
    """Returns a verdict to which people were added who look fake in a passage."""
    if not people:
        return verdict
    known = [person for person in verdict.people if person.p_fake == verdict.p_fake]
    worst = max((*people, *known), key=lambda person: person.p_fake or 0.0)
    return dataclasses.replace(
        verdict,
        label=Label.FAKE,
        p_fake=worst.p_fake,
        logit=worst.logit,
        people=(*verdict.people, *people),
    )
