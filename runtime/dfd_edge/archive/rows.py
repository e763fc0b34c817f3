"""Rows of an archive: clips to judge, judgements, and the clips with their judgements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dfd_edge.errors import (
    DfdError,
    NotMediaError,
    SourceError,
    SourceFaultError,
    SourceNotFoundError,
    UnreachableError,
    UnsupportedError,
)
from dfd_edge.judging.results import Label, Verdict
from dfd_edge.sinks.provenance_columns import ProvenanceColumns

#: Version of the columns. It rises when a column is renamed, removed or changes its meaning.
SCHEMA_VERSION = 1


class Failure(StrEnum):
    """Why a clip has no verdict."""

    NOT_FOUND = "not_found"
    UNREACHABLE = "unreachable"
    NOT_MEDIA = "not_media"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    FAULT = "fault"
    MEMORY = "memory"
    TIME = "time"
    CRASH = "crash"


#: The first that fits an error is its kind.
_FAILURES: tuple[tuple[type[DfdError], Failure], ...] = (
    (SourceNotFoundError, Failure.NOT_FOUND),
    (UnreachableError, Failure.UNREACHABLE),
    (NotMediaError, Failure.NOT_MEDIA),
    (UnsupportedError, Failure.UNSUPPORTED),
    (SourceFaultError, Failure.FAULT),
    (SourceError, Failure.UNREADABLE),
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip to judge.

    Attributes:
        source: Path or address, which identifies the clip in the results.
        size: Bytes, where the listing says so.
        modified_s: Time of its last change in seconds since 1970, where the listing says so.
        expected: Its label in the manifest: "real", "fake" or None.
    """

    source: str
    size: int | None = None
    modified_s: float | None = None
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds of a clip in which somebody looked fake."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Person:
    """The verdict on one person; the fields are those of `dfd_edge.PersonVerdict`."""

    track: int
    label: Label
    p_fake: float | None
    logit: float | None
    judged_steps: int
    intervals: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Everything that depends on a clip's contents alone, and so holds for its copies too.

    Attributes:
        label, p_fake, logit, coverage, complete, reason, people, frames, duration_s, provider:
            As in `dfd_edge.Verdict`; label and scores are None where `error` is set.
        intervals: Seconds in which anybody looked fake, joined and in order.
        kind: "video" or "image"; None where the clip could not be opened.
        precision: Variant of the frame model that ran.
        seconds: Seconds from the worker's request to its answer, failed attempts included.
        attempts: Workers that tried, above 1 where some died.
        error: Why there is no verdict, in one line.
        failure: The kind of that.
        thumbnail: JPEG of the most suspicious crop with its evidence map, where asked for.
    """

    label: Label | None = None
    p_fake: float | None = None
    logit: float | None = None
    coverage: float = 0.0
    complete: bool = False
    reason: str | None = None
    people: tuple[Person, ...] = ()
    intervals: tuple[Span, ...] = ()
    frames: int = 0
    duration_s: float = 0.0
    kind: str | None = None
    provider: str | None = None
    precision: str | None = None
    seconds: float = 0.0
    attempts: int = 1
    error: str | None = None
    failure: Failure | None = None
    thumbnail: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, verdict: Verdict, *, kind: str, precision: str) -> Judgement:
        """Returns the judgement of a verdict."""
        people = tuple(
            Person(
                track=person.track,
                label=person.label,
                p_fake=person.p_fake,
                logit=person.logit,
                judged_steps=person.judged_steps,
                intervals=tuple(Span(i.start_s, i.end_s) for i in person.intervals),
            )
            for person in verdict.people
        )
        return cls(
            label=verdict.label,
            p_fake=verdict.p_fake,
            logit=verdict.logit,
            coverage=verdict.coverage,
            complete=verdict.complete,
            reason=verdict.reason,
            people=people,
            intervals=_joined([span for person in people for span in person.intervals]),
            frames=verdict.frames,
            duration_s=verdict.duration_s,
            kind=kind,
            provider=verdict.provider,
            precision=precision,
        )

    @classmethod
    def failed(cls, error: str, failure: Failure, **facts: Any) -> Judgement:  # noqa: ANN401
        """Returns the judgement of a clip that could not be judged; `facts` are more fields."""
        return cls(error=error, failure=failure, **facts)

    @classmethod
    def of_error(cls, error: DfdError) -> Judgement:
        """Returns the judgement of a clip that raised one of the program's own errors."""
        kinds = (failure for kind, failure in _FAILURES if isinstance(error, kind))
        return cls.failed(str(error), next(kinds, Failure.FAULT))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow:
    """One row of the results.

    Attributes:
        clip: The clip; size and time of change are those found when it was read.
        sha256: Hash of its contents, hexadecimal; None where they could not be read.
        judgement: None where another clip with the same contents is being judged.
        judged_s: When it was judged, in seconds since 1970.
        duplicate_of: Source of the clip whose judgement this is, where the contents are the same.
        frames: Rows of its judged frames, by the names of `FRAME_COLUMNS`.
        provenance: What the clip says of its origin, where asked for, with or without a verdict.
            Read for each copy too: a sidecar lies beside one name, not beside the contents.
    """

    clip: Clip
    sha256: str | None
    judgement: Judgement | None
    judged_s: float
    duplicate_of: str | None = None
    frames: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    provenance: ProvenanceColumns | None = field(default=None, repr=False)


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    """Returns the union of spans, in order."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        if joined and span.start_s <= joined[-1].end_s:
            joined[-1] = Span(joined[-1].start_s, max(joined[-1].end_s, span.end_s))
        else:
            joined.append(span)
    return tuple(joined)
