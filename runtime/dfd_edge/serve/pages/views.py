"""Data of the pages' templates: a judgement with its verdict, people and files, in words."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.judging.decision import Decision
from dfd_edge.judging.results import Label, Record
from dfd_edge.report import words
from dfd_edge.report.provenance import BADGES, ProvenanceView
from dfd_edge.report.words import Badge
from dfd_edge.serve.judging.store import Judgement, State
from dfd_edge.serve.pages import explaining

if TYPE_CHECKING:
    from dfd_edge.serve.service import Service

MOST_INTERVALS = 12
"""Suspicious passages of one person that get a button; the timeline shows all."""
STATE_WORDS = {
    State.QUEUED: "Waiting",
    State.RUNNING: "Being judged",
    State.DONE: "Done",
    State.FAILED: "Could not be judged",
    State.CANCELLED: "Cancelled",
}


@dataclass(frozen=True, slots=True)
class IntervalView:
    """A passage in which a person looked fake."""

    start_s: float
    text: str


@dataclass(frozen=True, slots=True)
class PersonView:
    """A person with a verdict; `signals` says what consecutive frames showed."""

    track: int
    badge: Badge
    text: str
    intervals: list[IntervalView]
    signals: str

    @classmethod
    def of(cls, person: Record, spec: DecisionSpec, *, still: bool) -> PersonView:
        """Returns the view of an entry of a `verdict` record."""
        intervals = [
            IntervalView(start, f"{words.clock(start)} to {words.clock(end)}")
            for start, end in person["intervals"][:MOST_INTERVALS]
        ]
        return cls(
            track=person["track"],
            badge=Badge.of(Label(person["label"])),
            text=explaining.person_text(person, spec, still=still),
            intervals=[] if still else intervals,
            signals=" ".join(words.signals_words(person)),
        )


@dataclass(frozen=True, slots=True)
class PendingView:
    """A judgement without a verdict: one that waits, runs, has failed or was cancelled."""

    id: str
    name: str
    state: State
    state_words: str
    error: Record | None
    provenance: ProvenanceView | None
    json: str

    @classmethod
    def of(cls, service: Service, judgement: Judgement) -> PendingView:
        """Returns the view of a judgement."""
        return cls(
            id=judgement.id,
            name=judgement.name,
            state=judgement.state,
            state_words=STATE_WORDS[judgement.state],
            error=judgement.error,
            provenance=ProvenanceView.of(judgement.provenance),
            json=json.dumps(service.describe(judgement)),
        )


@dataclass(frozen=True, slots=True)
class VerdictView:
    """A judgement with its verdict.

    Attributes:
        json: The judgement as the API gives it.
        provenance: What the file says of its origin; None where that was not read.
        limits: Thresholds as text; `limits_json` as numbers, for the timeline.
        media: Address of the original; None where it is not kept.
        kept: Until when it is kept, or why it is not, in words.
        facts, details: Names and values.
    """

    id: str
    name: str
    state: State
    json: str
    still: bool
    subject: str
    verdict: Record
    badge: Badge
    provenance: ProvenanceView | None
    headline: str
    text: str
    score: str
    p_fake: float | None
    duration_s: float
    fake_limit: float
    real_limit: float
    limits: dict[str, str]
    limits_json: str
    people: list[PersonView]
    rests_on: list[str]
    cannot_tell: list[str]
    facts: list[tuple[str, str]]
    details: dict[str, str]
    note: str
    sha256: str
    media: str | None
    kept: str
    records: str
    report: str

    @classmethod
    def of(cls, service: Service, judgement: Judgement) -> VerdictView:
        """Returns the view of a judgement that is done; reads its records.

        Args:
            service: Has the records and the rules of the bundle that judged.
            judgement: One that is done.
        """
        verdict = judgement.verdict
        assert verdict is not None
        rules = service.results.rules(judgement)
        still, manifest = rules.still, rules.manifest
        spec = Decision(rules.decision).for_stills().spec if still else rules.decision
        limits = {label: spec.thresholds[label].probability for label in ("fake", "real")}
        lines = (line for _, line in service.results.lines(judgement.id, "records"))
        frames = (record for record in map(json.loads, lines) if record["record"] == "frame")
        described = service.describe(judgement)
        links = described["links"]
        return cls(
            id=judgement.id,
            name=judgement.name,
            state=judgement.state,
            json=json.dumps(described),
            still=still,
            subject="Frame" if manifest.face.detector == "none" else "Face" if still else "Person",
            verdict=verdict,
            badge=Badge.of(Label(verdict["label"])),
            provenance=ProvenanceView.of(judgement.provenance),
            headline=explaining.headline(verdict),
            text=explaining.text(verdict, spec, still=still),
            score=words.score(verdict["p_fake"], spec),
            p_fake=verdict["p_fake"],
            duration_s=verdict["duration_s"],
            fake_limit=limits["fake"],
            real_limit=limits["real"],
            limits={label: words.threshold(spec, Label(label)) for label in limits},
            limits_json=json.dumps(limits),
            people=[
                PersonView.of(person, spec, still=still)
                for person in sorted(verdict["people"], key=lambda one: -(one["p_fake"] or 0.0))
            ],
            rests_on=explaining.rests_on(verdict, frames, spec, still=still),
            cannot_tell=explaining.cannot_tell(verdict, manifest),
            facts=_facts(verdict, still=still),
            details=_details(judgement, rules.run),
            note=judgement.note,
            sha256=judgement.sha256,
            media=None if judgement.media is None else links["media"],
            kept=_kept(judgement, service.settings.keep_days),
            records=links["records"],
            report=links["report"],
        )


def view_of(service: Service, judgement: Judgement) -> VerdictView | PendingView:
    """Returns the view of a judgement in whatever state."""
    kind = VerdictView if judgement.state is State.DONE else PendingView
    return kind.of(service, judgement)


def choice_of(judgement: Judgement) -> dict[str, str]:
    """Returns what a list to choose from shows of a judgement that is done."""
    label = words.NAMES[Label(judgement.label or Label.NO_FACE)].lower()
    name = PurePath(judgement.name).name or judgement.name
    return {
        "id": judgement.id,
        "name": name,
        "label": label,
        "submitted": _time(judgement.submitted_at),
    }


def origins_json() -> str:
    """Returns the badges of what files say of their origin, by outcome, for the list of files."""
    return json.dumps({outcome: asdict(badge) for outcome, badge in BADGES.items()})


def retention_words(keep_days: float) -> str:
    """Says how long originals are kept."""
    if keep_days == 0:
        return "Files are deleted as soon as they are judged; verdicts and records stay."
    days = words.count(1, "day", "days") if keep_days == 1 else f"{keep_days:g} days"
    return f"Files are deleted {days} after the verdict; verdicts and records stay."


def _facts(verdict: Record, *, still: bool) -> list[tuple[str, str]]:
    people = str(len(verdict["people"]))
    if still:
        return [("Faces", people)]
    facts = [
        (
            "Frames with a judged face",
            f"{words.percent(verdict['coverage'])} of {verdict['frames']}",
        ),
        ("People", people),
        ("Length seen", words.clock(verdict["duration_s"])),
    ]
    if verdict["first_verdict_s"] is not None:
        facts.append(("First answer after", words.clock(verdict["first_verdict_s"])))
    return facts


def _details(judgement: Judgement, run: Record) -> dict[str, str]:
    bundle, provider = run["bundle"], run["provider"]
    details: dict[str, Any] = {
        "Size": f"{judgement.bytes:,} bytes",
        "Added": _time(judgement.submitted_at),
        "Judged": _time(judgement.finished_at or judgement.submitted_at),
        "Model": f"{bundle['name']}, hash {bundle['hash']}",
        "Ran on": f"{provider['actual']}, {run['precision']}",
        "Program": f"dfd-edge {judgement.version}",
    }
    return details


def _kept(judgement: Judgement, keep_days: float) -> str:
    """Says until when the original is kept, or that it is not."""
    if judgement.media is None:
        if keep_days == 0:
            return "deleted as soon as it was judged; this service keeps none"
        return f"deleted, as this service keeps files for {keep_days:g} days"
    if judgement.finished_at is None:
        return "kept until it is judged"
    until = datetime.fromisoformat(judgement.finished_at) + timedelta(days=keep_days)
    return f"kept until {until:%Y-%m-%d %H:%M} UTC, then deleted"


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
