"""Data of the template for each source and person: texts, pictures and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.judging.results import Label, Record
from dfd_edge.report import words
from dfd_edge.report.charts import timeline, timeline_words
from dfd_edge.report.collector import PersonNotes, SourceNotes
from dfd_edge.report.figures import Chart
from dfd_edge.report.html import data_uri
from dfd_edge.report.pictures import CropPicture
from dfd_edge.report.provenance import ProvenanceView
from dfd_edge.report.words import Badge

MAX_PEOPLE = 12
"""People of one source that are shown in full; the others get one line each."""
MAX_SEEN_BRIEFLY = 3
"""People shown in full where nobody was seen long enough for a verdict."""
_ORDER = (Label.FAKE, Label.UNSURE, Label.REAL, Label.NO_FACE)


NOT_JUDGED = Badge("Not judged", "✕", "failed")


@dataclass(frozen=True, slots=True)
class CropView:
    """A crop, plain and with its evidence map, as data URIs."""

    time: str
    score: str
    side: int
    plain: str
    evidence: str | None


@dataclass(frozen=True, slots=True)
class PersonView:
    """A person of a source; `chart` is None where there is no timeline.

    `signals` are sentences on what consecutive frames showed.
    """

    track: int
    badge: Badge
    score: str
    p_fake: float | None
    judged_steps: int
    spans: str
    signals: list[str]
    suspicious: list[CropView]
    ordinary: list[CropView]
    chart: Chart | None
    every: int


@dataclass(frozen=True, slots=True)
class SourceView:
    """A judged source.

    Attributes:
        faces: All detected faces, judged or not.
        provenance: What the file says of its origin; None where that was not read.
    """

    anchor: str
    name: str
    short_name: str
    badge: Badge
    text: str
    score: str
    p_fake: float | None
    duration: str
    coverage: str
    faces: int
    notes: SourceNotes
    verdict: Record
    people: list[PersonView]
    more_people: list[PersonView]
    provenance: ProvenanceView | None


@dataclass(frozen=True, slots=True)
class FailedView:
    """A source that could not be judged; `provenance` as of one that was."""

    anchor: str
    name: str
    error: str | None
    provenance: ProvenanceView | None


def failed_views(failed: list[SourceNotes]) -> list[FailedView]:
    """Returns the sources that could not be judged."""
    return [
        FailedView(f"failed-{number}", notes.name, notes.error, ProvenanceView.of(notes.provenance))
        for number, notes in enumerate(failed, start=1)
    ]


def source_views(
    judged: list[SourceNotes], spec: DecisionSpec, *, step_s: float
) -> list[SourceView]:
    """Returns the judged sources, the most suspicious first.

    Args:
        judged: Notes that have a verdict.
        spec: Decision rules of the bundle.
        step_s: Seconds between two sampled frames.
    """
    pairs = [(notes, notes.verdict) for notes in judged if notes.verdict is not None]
    pairs.sort(key=lambda pair: _rank(pair[1]))
    return [
        _source_view(f"source-{number}", notes, verdict, spec, step_s)
        for number, (notes, verdict) in enumerate(pairs, start=1)
    ]


def _rank(verdict: Record) -> tuple[int, float]:
    return _ORDER.index(Label(verdict["label"])), -(verdict["p_fake"] or 0.0)


def _source_view(
    anchor: str, notes: SourceNotes, verdict: Record, spec: DecisionSpec, step_s: float
) -> SourceView:
    people, others = _by_importance(verdict, spec, still=notes.still)
    return SourceView(
        anchor=anchor,
        name=notes.name,
        short_name=PurePath(notes.name).name or notes.name,
        badge=Badge.of(Label(verdict["label"])),
        text=words.verdict_words(verdict, spec, still=notes.still),
        score=words.score(verdict["p_fake"], spec),
        p_fake=verdict["p_fake"],
        duration=words.clock(verdict["duration_s"]),
        coverage=words.percent(verdict["coverage"]),
        faces=notes.judged + notes.reasons.total(),
        notes=notes,
        verdict=verdict,
        people=[_person_view(anchor, person, notes, spec, step_s) for person in people],
        more_people=[_person_view(anchor, person, notes, spec, step_s) for person in others],
        provenance=ProvenanceView.of(notes.provenance),
    )


def _by_importance(
    verdict: Record, spec: DecisionSpec, *, still: bool
) -> tuple[list[Record], list[Record]]:
    """Returns the people to show in full, and the others; the most suspicious first."""
    ranked = sorted(verdict["people"], key=lambda person: -(person["p_fake"] or 0.0))
    least = 0 if still else spec.min_steps
    shown = [person for person in ranked if person["judged_steps"] >= least][:MAX_PEOPLE]
    if not shown:
        longest = sorted(ranked, key=lambda person: -person["judged_steps"])
        shown = longest[:MAX_SEEN_BRIEFLY]
    return shown, [person for person in ranked if person not in shown]


def _person_view(
    anchor: str, person: Record, notes: SourceNotes, spec: DecisionSpec, step_s: float
) -> PersonView:
    kept = notes.people.get(person["track"], PersonNotes())
    chart = None
    if not notes.still and person["judged_steps"] and len(kept.series):
        end_s = notes.verdict["duration_s"] if notes.verdict is not None else 0.0
        drawn = timeline(kept.series, person, spec, step_s=step_s, end_s=end_s)
        name = f"{anchor}-figure-{person['track']}"
        chart = Chart(name, "", timeline_words(person, kept.series), drawn)
    return PersonView(
        track=person["track"],
        badge=Badge.of(Label(person["label"])),
        score=words.score(person["p_fake"], spec),
        p_fake=person["p_fake"],
        judged_steps=person["judged_steps"],
        spans=words.spans(person["intervals"]),
        signals=words.signals_words(person),
        suspicious=[_crop_view(crop, spec) for crop in kept.crops.suspicious],
        ordinary=[_crop_view(crop, spec) for crop in kept.crops.ordinary],
        chart=chart,
        every=kept.series.every,
    )


def _crop_view(crop: CropPicture, spec: DecisionSpec) -> CropView:
    return CropView(
        time=words.clock(crop.time_s),
        score=words.score(crop.p_frame, spec),
        side=crop.side,
        plain=data_uri(crop.plain),
        evidence=None if crop.evidence is None else data_uri(crop.evidence),
    )
