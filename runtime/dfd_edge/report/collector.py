"""Collects what a report shows of a run: scores over time, crops, events, verdicts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dfd_edge.judging.results import Event, EventKind, FrameResult, Record, Verdict
from dfd_edge.report.pictures import CropPicture, KeptCrops
from dfd_edge.sinks.sink import Images, Sink
from dfd_edge.sources.expand import SourceItem, SourceKind
from dfd_edge.text import json_line

if TYPE_CHECKING:
    from dfd_edge.view.overlay import Scene

MAX_POINTS = 4000
"""Points kept of one person: a little more than 13 minutes at 5 steps a second."""
MAX_FRAME_RECORDS = 100_000
"""Frame records that a page holds of all sources: five hours and a half at 5 Hz."""
_SIGNALS_WEIGHT = 4
"""One with measurements of consecutive frames is as long as this many others."""
MAX_PEOPLE = 24
"""People of one source whose scores and crops are kept."""
MAX_EVENTS = 100
"""Events of one source that a page lists."""
MAX_PICTURE_BYTES = 24 << 20
"""Bytes of pictures in a page; beyond, those of the least suspicious sources are dropped."""


class Point(NamedTuple):
    """One person in one sampled frame.

    Attributes:
        time_s: Seconds since the start of the source.
        p_fake: Score over the last seconds, None before the first judged step.
        p_frame: Score of this frame alone, None where the face was not judged.
        p_step: Score of the sequence model after this step, or None.
        reason: Why the face was not judged, else None.
    """

    time_s: float
    p_fake: float | None
    p_frame: float | None
    p_step: float | None
    reason: str | None


class Series:
    """Points in the order of their times, evenly thinned to at most `limit` of them.

    Args:
        limit: At this many points every second one is dropped, and only every second, fourth, ...
            of the later ones is kept.
    """

    def __init__(self, limit: int = MAX_POINTS) -> None:
        self.every = 1
        self._limit = limit
        self._taken = 0
        self._points: list[Point] = []

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: Point) -> None:
        """Adds the next point."""
        if self._taken % self.every == 0:
            self._points.append(point)
        self._taken += 1
        if len(self._points) >= self._limit:
            del self._points[1::2]
            self.every *= 2


@dataclass(slots=True, eq=False)
class PersonNotes:
    """Notes on one person.

    Attributes:
        series: Scores over time.
        judged: Sampled frames in which this face was judged.
        reasons: Number of frames in which it was not judged, by reason.
        crops: The most suspicious and the most ordinary crops.
    """

    series: Series = field(default_factory=Series)
    judged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    crops: KeptCrops = field(default_factory=KeptCrops)


@dataclass(slots=True, eq=False)
class SourceNotes:
    """Notes on one source.

    Attributes:
        name: What messages and records call it.
        still: Whether it is a picture.
        frames: Sampled frames seen.
        faceless: Frames in which no face was found.
        judged: Faces judged, over all frames and people.
        reasons: Faces not judged, by reason.
        people: By track, `MAX_PEOPLE` at most.
        events: Gaps, reconnects and drops, the first `MAX_EVENTS`.
        later_events: Number of later events.
        error: Why the source could not be judged, or not to its end; else None.
        provenance: Record of what the file says of its origin; None where that was not read.
        verdict: Its `verdict` record, None before the verdict.
        pictures_left_out: Whether its pictures were dropped.
        sha256: Hash of its file, hexadecimal; None where it is not known.
    """

    name: str
    still: bool = False
    frames: int = 0
    faceless: int = 0
    judged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    people: dict[int, PersonNotes] = field(default_factory=dict)
    events: list[Record] = field(default_factory=list)
    later_events: int = 0
    error: str | None = None
    provenance: Record | None = None
    verdict: Record | None = None
    pictures_left_out: bool = False
    sha256: str | None = None

    @property
    def picture_bytes(self) -> int:
        """Size of its pictures in bytes."""
        return sum(person.crops.size for person in self.people.values())

    def person(self, track: int) -> PersonNotes:
        """Returns the notes on a person; of too many people, the one judged least is dropped."""
        if track not in self.people:
            if len(self.people) >= MAX_PEOPLE:
                del self.people[min(self.people, key=lambda other: self.people[other].judged)]
            self.people[track] = PersonNotes()
        return self.people[track]

    def leave_pictures_out(self) -> None:
        """Drops its pictures."""
        self.pictures_left_out = True
        for person in self.people.values():
            person.crops.clear()


class Collector(Sink):
    """Keeps what a report shows of a run; thread-safe, and bounded in memory.

    Args:
        items: The sources that are to be judged.
        run: The record that describes the run.
        max_frame_records: Frame records kept; the page says how many are left out.
        max_picture_bytes: Bytes of pictures kept.
    """

    images = Images.JUDGED

    def __init__(
        self,
        items: Iterable[SourceItem],
        run: Record | None = None,
        *,
        max_frame_records: int = MAX_FRAME_RECORDS,
        max_picture_bytes: int = MAX_PICTURE_BYTES,
    ) -> None:
        self.run: Record = run or {}
        self.records: list[str] = [json_line(run)] if run else []
        self.frame_records_left_out = 0
        self.sources: dict[str, SourceNotes] = {
            item.name: SourceNotes(item.name, still=item.kind is SourceKind.IMAGE) for item in items
        }
        self._max_frame_records = max_frame_records
        self._max_picture_bytes = max_picture_bytes
        self._frame_records = 0
        self._lock = threading.Lock()

    def record(self, record: Record) -> None:
        """Adds the record of a frame, an event or a verdict."""
        with self._lock:
            if self._keeps(record):
                self.records.append(json_line(record))
            kind = record["record"]
            if record.get("kind") == EventKind.NOTE.value and record["source"] not in self.sources:
                return  # on a folder, which has no section
            notes = self._notes(record["source"])
            if kind == "frame" and notes.verdict is None:
                _take_frame(notes, record)
            elif kind == "event":
                _take_event(notes, record)
            elif kind == "verdict":
                notes.verdict = record
                notes.provenance = record.get("provenance") or notes.provenance
                self._bound_pictures()

    def frame(self, result: FrameResult) -> None:
        """Adds the result of a frame."""
        self.record(result.to_record())

    def event(self, event: Event) -> None:
        """Adds an event."""
        self.record(event.to_record())

    def verdict(self, verdict: Verdict) -> None:
        """Adds a verdict."""
        self.record(verdict.to_record())

    def image(self, scene: Scene) -> None:
        """Adds a decoded frame with the newest result; keeps the most extreme crops."""
        result = scene.result
        if result is None or result.time_s != scene.time_s:
            return  # not a frame that was judged
        with self._lock:
            notes = self._notes(result.source)
            if notes.verdict is not None:
                return
            for person in result.people:
                p_frame = person.p_frame
                if p_frame is None:
                    continue
                crops = notes.person(person.track).crops
                if crops.wants(scene.time_s, p_frame):
                    crops.add(CropPicture.of(scene.image, person, scene.time_s, p_frame))

    def _notes(self, source: str) -> SourceNotes:
        return self.sources.setdefault(source, SourceNotes(source))

    def _keeps(self, record: Record) -> bool:
        if record["record"] != "frame":
            return True
        if self._frame_records >= self._max_frame_records:
            self.frame_records_left_out += 1
            return False
        measured = any(person["signals"] for person in record["people"])
        self._frame_records += _SIGNALS_WEIGHT if measured else 1
        return True

    def _bound_pictures(self) -> None:
        """Drops pictures of the least suspicious finished sources."""
        holding = [notes for notes in self.sources.values() if notes.verdict and notes.people]
        sizes = {notes.name: notes.picture_bytes for notes in holding}
        over = sum(sizes.values()) - self._max_picture_bytes
        for notes in sorted(holding, key=_suspicion):
            if over <= 0:
                return
            if sizes[notes.name]:
                notes.leave_pictures_out()
                over -= sizes[notes.name]


def _take_frame(notes: SourceNotes, record: Record) -> None:
    notes.frames += 1
    notes.faceless += not record["people"]
    for entry in record["people"]:
        person = notes.person(entry["track"])
        reason = None
        if entry["judged"]:
            person.judged += 1
            notes.judged += 1
        else:
            reason = str(entry["reason"] or "not judged")
            person.reasons[reason] += 1
            notes.reasons[reason] += 1
        person.series.add(
            Point(record["time_s"], entry["p_fake"], entry["p_frame"], entry["p_step"], reason)
        )


def _take_event(notes: SourceNotes, record: Record) -> None:
    if record["kind"] == EventKind.ERROR.value:
        notes.error = record["detail"]
        notes.provenance = record.get("provenance") or notes.provenance
    elif len(notes.events) < MAX_EVENTS:
        notes.events.append(record)
    else:
        notes.later_events += 1


def _suspicion(notes: SourceNotes) -> float:
    p_fake = None if notes.verdict is None else notes.verdict["p_fake"]
    return -1.0 if p_fake is None else float(p_fake)
