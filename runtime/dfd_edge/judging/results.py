"""Results of frames, events, verdicts on people and sources, and their records.

Every type here is immutable; `to_record` returns its JSON Lines object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports the labels before it needs numpy
    import numpy as np
    from numpy.typing import NDArray

    from dfd_edge.provenance.record import Provenance

Record = dict[str, Any]

_PROBABILITY_DIGITS = 6
_TIME_DIGITS = 3
_SIGNAL_DIGITS = 3


class Label(StrEnum):
    """The four labels. `unsure`: between the thresholds, or too little was seen."""

    REAL = "real"
    FAKE = "fake"
    UNSURE = "unsure"
    NO_FACE = "no_face"


class EventKind(StrEnum):
    """Kinds of events."""

    GAP = "gap"
    RECONNECT = "reconnect"
    DROP = "drop"
    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds of the source, from `start_s` to `end_s`."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, eq=False)
class PersonResult:
    """One person in one judged frame.

    Attributes:
        track: Number of the person within the source, from 1.
        box: x0, y0, x1, y1 of the face in pixels of the frame.
        crop: x0, y0 and side in pixels of the square that the model saw.
        judged: Whether this face votes.
        reason: Why it does not: "too small", "blurred", "dark", "turned away", "left out" (only
            other faces are judged) or "not finite" (the model returns no finite numbers); else
            None.
        p_frame: Calibrated probability from this crop alone; None where it is not judged.
        p_step: Calibrated probability of the sequence model after this step, or None.
        p_fake: The person's score over the last seconds, or None before the first judged step.
        label: Live label, with hysteresis.
        evidence: float32 [h, w] over `crop`, in logits: where the frame's score comes from.
        frame_logit: Logit of the frame model, not calibrated; None where `p_frame` is.
        step_logit: Logit of the sequence model, not calibrated; None where `p_step` is.
        signals: Measurements of consecutive frames round the face, by name; None where it is not
            judged, where nothing was measured, and where the model takes none.
    """

    track: int
    box: tuple[float, float, float, float]
    crop: tuple[int, int, int]
    judged: bool
    reason: str | None = None
    p_frame: float | None = None
    p_step: float | None = None
    p_fake: float | None = None
    label: Label = Label.UNSURE
    evidence: NDArray[np.float32] | None = field(default=None, repr=False)
    frame_logit: float | None = None
    step_logit: float | None = None
    signals: Mapping[str, float] | None = field(default=None, repr=False)

    def to_record(self) -> Record:
        """Returns this person as an entry of a `frame` record."""
        return {
            "track": self.track,
            "box": [round(side, 1) for side in self.box],
            "p_frame": _probability(self.p_frame),
            "p_step": _probability(self.p_step),
            "p_fake": _probability(self.p_fake),
            "judged": self.judged,
            "reason": self.reason,
            "label": self.label.value,
            "signals": None if self.signals is None else _rounded(self.signals),
        }


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """One judged frame.

    Attributes:
        source: Name of the source.
        time_s: Time of the frame in seconds since the start of the source.
        people: The people in it, the largest face first.
        label: Live label of the source: that of the most suspicious person.
        staleness_ms: Milliseconds from capture to this result; None for files.
    """

    source: str
    time_s: float
    people: tuple[PersonResult, ...]
    label: Label
    staleness_ms: float | None = None

    @property
    def p_fake(self) -> float | None:
        """The highest score among the people in the frame, or None."""
        return max((p.p_fake for p in self.people if p.p_fake is not None), default=None)

    def to_record(self) -> Record:
        """Returns the JSON Lines object of this frame."""
        stale = None if self.staleness_ms is None else round(self.staleness_ms, 1)
        return {
            "record": "frame",
            "source": self.source,
            "time_s": round(self.time_s, _TIME_DIGITS),
            "staleness_ms": stale,
            "people": [person.to_record() for person in self.people],
        }


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a source, or a note on it: a gap, a second film in the file.

    Attributes:
        source: Name of the source.
        time_s: Seconds since the start of the source.
        kind: What happened.
        detail: One line for the reader.
        provenance: Of an `error`: what the file says of its origin, where it was read all the
            same; else None. Records of other kinds leave it out.
    """

    source: str
    time_s: float
    kind: EventKind
    detail: str = ""
    provenance: Provenance | None = None

    def to_record(self) -> Record:
        """Returns the JSON Lines object of this event."""
        record: Record = {
            "record": "event",
            "source": self.source,
            "time_s": round(self.time_s, _TIME_DIGITS),
            "kind": self.kind.value,
            "detail": self.detail,
        }
        if self.kind is EventKind.ERROR:
            record["provenance"] = _provenance(self.provenance)
        return record


@dataclass(frozen=True, slots=True)
class PersonSignals:
    """Measurements of consecutive frames round one person, over all judged steps.

    Attributes:
        measured_steps: Judged steps in which they were measured.
        without_burst: Judged steps that came without consecutive frames. In the others that were
            not measured, the frames were one picture repeated, or the face was too small or too
            near the border.
        means: Mean of each measurement over the measured steps, by name; None where there are
            none.
    """

    measured_steps: int
    without_burst: int
    means: Mapping[str, float] | None = field(repr=False, hash=False)

    def to_record(self) -> Record:
        """Returns them as a part of a `verdict` record."""
        return {
            "measured_steps": self.measured_steps,
            "without_burst": self.without_burst,
            "means": None if self.means is None else _rounded(self.means),
        }


@dataclass(frozen=True, slots=True)
class PersonVerdict:
    """The verdict on one person of a source.

    Attributes:
        track: Number of the person within the source, from 1.
        label: `real`, `fake` or `unsure`.
        p_fake: Calibrated probability over all judged steps; None where none was judged.
        judged_steps: Sampled frames in which this face was judged.
        intervals: Seconds in which this person looked fake.
        logit: Calibrated logit, whose sigmoid is `p_fake`; None where that is.
        signals: Measurements of consecutive frames; None where the model takes none.
    """

    track: int
    label: Label
    p_fake: float | None
    judged_steps: int
    intervals: tuple[Interval, ...] = ()
    logit: float | None = None
    signals: PersonSignals | None = None

    def to_record(self) -> Record:
        """Returns this person as an entry of a `verdict` record."""
        return {
            "track": self.track,
            "label": self.label.value,
            "p_fake": _probability(self.p_fake),
            "judged_steps": self.judged_steps,
            "intervals": [
                [round(i.start_s, _TIME_DIGITS), round(i.end_s, _TIME_DIGITS)]
                for i in self.intervals
            ],
            "signals": None if self.signals is None else self.signals.to_record(),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a source.

    Attributes:
        source: Name of the source.
        label: `real`, `fake`, `unsure` or `no_face`.
        p_fake: The highest among the people judged long enough; None where nobody was.
        coverage: Share of the sampled frames with a judged face, in [0, 1].
        frames: Sampled frames seen.
        duration_s: Seconds of the source that were seen; 0 for an image.
        people: Everyone seen, by track.
        provider: Provider that ran `frame.onnx`.
        first_verdict_s: Seconds of the source until a live label first said `real` or `fake`;
            None where none did, and for an image.
        realtime_factor: Seconds of the source judged per second; None for images and live sources.
        complete: False when part of the source was not judged.
        reason: Why `complete` is False, or why the label is `unsure` whatever the score, else None.
        logit: Calibrated logit, whose sigmoid is `p_fake`; None where that is.
        provenance: What the file says of its origin, which no score and no label depends on; None
            where it was not read.
    """

    source: str
    label: Label
    p_fake: float | None
    coverage: float
    frames: int
    duration_s: float
    people: tuple[PersonVerdict, ...]
    provider: str
    realtime_factor: float | None = None
    complete: bool = True
    reason: str | None = None
    first_verdict_s: float | None = None
    logit: float | None = None
    provenance: Provenance | None = None

    def to_record(self) -> Record:
        """Returns the JSON Lines object of this verdict."""
        factor, first_s = self.realtime_factor, self.first_verdict_s
        return {
            "record": "verdict",
            "source": self.source,
            "label": self.label.value,
            "p_fake": _probability(self.p_fake),
            "coverage": round(self.coverage, 4),
            "frames": self.frames,
            "duration_s": round(self.duration_s, _TIME_DIGITS),
            "first_verdict_s": None if first_s is None else round(first_s, _TIME_DIGITS),
            "people": [person.to_record() for person in self.people],
            "provider": self.provider,
            "realtime_factor": None if factor is None else round(factor, 2),
            "complete": self.complete,
            "reason": self.reason,
            "provenance": _provenance(self.provenance),
        }


def _provenance(provenance: Provenance | None) -> Record | None:
    return None if provenance is None else provenance.to_record()


def _rounded(signals: Mapping[str, float]) -> Record:
    return {name: round(value, _SIGNAL_DIGITS) for name, value in signals.items()}


def _probability(value: float | None) -> float | None:
    return None if value is None else round(value, _PROBABILITY_DIGITS)
