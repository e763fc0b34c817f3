"""The parts of a report: what is kept of a run, under which bounds, and how it is put."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_edge.bundle.manifest import Calibrator, DecisionSpec, PersonScore, Threshold
from dfd_edge.faces.signals import NAMES
from dfd_edge.judging.results import (
    Event,
    EventKind,
    FrameResult,
    Interval,
    Label,
    PersonResult,
    PersonSignals,
    PersonVerdict,
    Verdict,
)
from dfd_edge.report import words
from dfd_edge.report.charts import timeline, timeline_words
from dfd_edge.report.collector import MAX_EVENTS, MAX_PEOPLE, Collector, Point, Series
from dfd_edge.report.pictures import (
    APART_S,
    KEPT,
    PICTURE_PX,
    CropPicture,
    KeptCrops,
    draw_evidence,
)
from dfd_edge.report.views import MAX_PEOPLE as MAX_PEOPLE_SHOWN
from dfd_edge.report.views import source_views
from dfd_edge.sources import SourceItem, SourceKind
from dfd_edge.text import json_line
from dfd_edge.view.drawing import COLOURS
from dfd_edge.view.overlay import Scene

SPEC = DecisionSpec(
    person_score=PersonScore.FRAME,
    calibrators={name: Calibrator(1.0, 0.0) for name in ("frame", "step", "person")},
    thresholds={
        "real": Threshold(0.3752, 0.1, 0.071, 14, 0.297),
        "fake": Threshold(0.8795, 0.02, 0.018, 165, 0.046),
    },
)


def crop(time_s: float, p_frame: float, size: int = 10) -> CropPicture:
    return CropPicture(time_s, p_frame, b"x" * size, None)


def person(track: int = 1, p_frame: float | None = 0.5, reason: str | None = None) -> PersonResult:
    return PersonResult(
        track=track,
        box=(40.0, 40.0, 90.0, 90.0),
        crop=(30, 30, 75),
        judged=reason is None,
        reason=reason,
        p_frame=None if reason else p_frame,
        p_step=None if reason else p_frame,
        p_fake=None if reason else p_frame,
        evidence=None if reason else np.full((5, 5), 3.0, np.float32),
    )


def see(collector: Collector, source: str, time_s: float, *people: PersonResult) -> None:
    """A judged frame, as `Run` hands it on: the record, then the image."""
    result = FrameResult(source, time_s, people, Label.UNSURE)
    collector.record(result.to_record())
    image = np.full((120, 160, 3), round(time_s * 7) % 200, np.uint8)
    collector.image(Scene(source, image, time_s, result))


def finish(collector: Collector, source: str, p_fake: float | None) -> None:
    people = (PersonVerdict(1, Label.UNSURE, p_fake, 4),)
    verdict = Verdict(source, Label.UNSURE, p_fake, 1.0, 4, 1.0, people, "cpu")
    collector.record(verdict.to_record())


class TestKeptCrops:
    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=300))
    def test_few_are_kept_and_the_extremes_are_among_them(self, scores):
        kept = KeptCrops()
        for step, score in enumerate(scores):
            if kept.wants(step / 5, score):
                kept.add(crop(step / 5, score))
        shown = kept.suspicious + kept.ordinary
        assert len(kept.suspicious) <= KEPT
        assert len(kept.ordinary) <= KEPT
        assert len({c.time_s for c in shown}) == len(shown), "none is shown twice"
        assert kept.suspicious[0].p_frame == max(scores)
        assert min(c.p_frame for c in shown) == min(scores)
        for kind in (kept._highest.kept, kept._lowest.kept):
            times = sorted(c.time_s for c in kind)
            assert all(b - a >= APART_S for a, b in itertools.pairwise(times))

    def test_what_is_not_wanted_is_not_kept(self):
        kept = KeptCrops()
        kept.add(crop(0.0, 0.9))
        kept.add(crop(0.2, 0.9))
        assert not kept.wants(0.2, 0.9)
        assert kept.size == 10

    def test_a_single_crop_is_the_most_suspicious_one(self):
        kept = KeptCrops()
        kept.add(crop(0.0, 0.1))
        assert len(kept.suspicious) == 1
        assert kept.ordinary == []


class TestBounds:
    def test_series_are_thinned_evenly(self):
        series = Series(limit=100)
        for step in range(10_000):
            series.add(Point(step / 5, 0.5, 0.5, 0.5, None))
        times = [point.time_s for point in series]
        assert 50 <= len(times) <= 100
        assert times[0] == 0.0
        assert times[-1] > 0.97 * 10_000 / 5
        assert len({round(b - a, 6) for a, b in itertools.pairwise(times)}) == 1
        assert times[1] - times[0] == pytest.approx(series.every / 5)

    def test_a_long_run_keeps_few_crops_of_few_people(self):
        collector = Collector([], max_frame_records=50)
        for step in range(400):
            people = [person(track, p_frame=(step * 7 + track) % 97 / 97) for track in (1, 2)]
            see(collector, "camera 0", step * 1.0, *people, person(100 + step))
        notes = collector.sources["camera 0"]
        assert len(notes.people) <= MAX_PEOPLE
        assert {1, 2} <= set(notes.people), "passers-by go first"
        crops = notes.people[1].crops
        assert len(crops.suspicious + crops.ordinary) == 2 * KEPT
        assert notes.picture_bytes < MAX_PEOPLE * 2 * KEPT * 2 * 10_000
        assert len(collector.records) == 50
        assert collector.frame_records_left_out == 350
        assert notes.people[1].judged == 400, "the counts go on"

    def test_records_with_signals_count_as_several(self):
        collector = Collector([], max_frame_records=8)
        measured = dataclasses.replace(person(), signals=dict.fromkeys(NAMES, -1.234))
        for step in range(5):
            see(collector, "camera 0", step / 5, measured)
        assert len(collector.records) == 2
        assert collector.frame_records_left_out == 3
        plain = FrameResult("a", 0.0, (person(),), Label.UNSURE).to_record()
        assert len(collector.records[0]) < 6 * len(json_line(plain))

    def test_the_least_suspicious_sources_give_up_their_pictures(self):
        collector = Collector([], max_picture_bytes=30_000)
        names = {f"{number:02}": number / 20 for number in range(20)}
        for name, p_fake in names.items():
            for step in range(8):
                see(collector, name, step * 1.0, person(p_frame=step / 10))
            finish(collector, name, p_fake)
        left_out = [n.pictures_left_out for n in collector.sources.values()]
        assert left_out == sorted(left_out, reverse=True)
        assert 0 < sum(left_out) < 20
        assert sum(n.picture_bytes for n in collector.sources.values()) <= 30_000
        assert collector.sources["19"].picture_bytes > 0

    def test_events_are_listed_up_to_a_number(self):
        collector = Collector([])
        for number in range(MAX_EVENTS + 7):
            collector.record(Event("cam", number, EventKind.GAP, "away").to_record())
        assert len(collector.sources["cam"].events) == MAX_EVENTS
        assert collector.sources["cam"].later_events == 7

    def test_what_comes_after_the_verdict_is_left_out(self):
        collector = Collector([])
        see(collector, "cam", 0.0, person())
        finish(collector, "cam", 0.5)
        see(collector, "cam", 5.0, person(p_frame=0.9))
        notes = collector.sources["cam"]
        assert notes.frames == 1
        assert [c.time_s for c in notes.people[1].crops.suspicious] == [0.0]

    def test_only_the_judged_frame_is_cut(self):
        collector = Collector([])
        result = FrameResult("clip", 1.0, (person(),), Label.UNSURE)
        for newest in (result, None):
            collector.image(Scene("clip", np.zeros((120, 160, 3), np.uint8), 1.04, newest))
        assert not collector.sources


def test_notes_count_what_was_not_judged():
    collector = Collector([SourceItem(SourceKind.VIDEO, "clip", "clip")])
    see(collector, "clip", 0.0, person(), person(2, reason="blurred"))
    see(collector, "clip", 0.2, person(2, reason="dark"))
    see(collector, "clip", 0.4)
    notes = collector.sources["clip"]
    assert (notes.frames, notes.faceless, notes.judged) == (3, 1, 1)
    assert notes.reasons == {"blurred": 1, "dark": 1}
    assert notes.people[2].reasons == {"blurred": 1, "dark": 1}
    assert not notes.people[2].crops.suspicious


class TestEvidence:
    grey = np.full((PICTURE_PX, PICTURE_PX, 3), 100, np.uint8)

    def test_nothing_that_speaks_for_fake_leaves_the_picture_as_it_is(self):
        drawn = draw_evidence(self.grey, np.full((5, 5), -3.0, np.float32))
        assert (drawn == self.grey).all()

    def test_the_tint_lies_where_the_evidence_is_and_is_outlined(self):
        evidence = np.full((5, 5), -1.0, np.float32)
        evidence[0, 0] = 9.0
        drawn = draw_evidence(self.grey, evidence)
        assert (self.grey == 100).all(), "the picture itself is left alone"
        corner, far = drawn[4, 4].astype(int), drawn[-4, -4]
        tint = np.array(COLOURS[Label.FAKE])
        assert np.abs(corner - tint).sum() < np.abs(100 - tint).sum() / 2
        assert (far == 100).all()
        assert (drawn.min(axis=2) > 200).any(), "a light line"
        assert (drawn.max(axis=2) < 60).any(), "with dark sides"

    def test_weak_evidence_stays_weak(self):
        strong, weak = (
            draw_evidence(self.grey, np.full((5, 5), logit, np.float32)) for logit in (6.0, 0.5)
        )
        changes = [np.abs(drawn.astype(int) - self.grey).mean() for drawn in (strong, weak)]
        assert changes[0] > 4 * changes[1] > 0

    def test_a_crop_beyond_the_edge_of_the_frame(self):
        outside = PersonResult(1, (0.0, 0.0, 9.0, 9.0), (-30, -30, 75), True, p_frame=0.5)
        picture = CropPicture.of(np.full((60, 60, 3), 90, np.uint8), outside, 0.0, 0.5)
        decoded = cv2.imdecode(np.frombuffer(picture.plain, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (150, 150, 3), "twice its size at most"
        assert picture.side == 150
        assert picture.evidence is None
        assert np.abs(decoded[70:, 70:].astype(int) - 90).max() < 8, "the frame"
        for beyond in (decoded[:50], decoded[:, :50]):
            assert np.abs(beyond.astype(int) - 160).max() < 8, "flat, where the edge is repeated"

    def test_a_large_crop_is_shrunk(self):
        inside = PersonResult(1, (0.0, 0.0, 9.0, 9.0), (10, 10, 300), True, p_frame=0.5)
        picture = CropPicture.of(np.full((400, 400, 3), 90, np.uint8), inside, 0.0, 0.5)
        decoded = cv2.imdecode(np.frombuffer(picture.plain, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (PICTURE_PX, PICTURE_PX, 3)
        assert np.abs(decoded.astype(int) - 90).max() < 8


class TestTimeline:
    def figure(self, times, intervals=(), reasons=()):
        series = Series()
        for time_s in times:
            series.add(Point(time_s, 0.5, 0.6, 0.4, None))
        for time_s, reason in reasons:
            series.add(Point(time_s, None, None, None, reason))
        spans = tuple(Interval(*span) for span in intervals)
        entry = PersonVerdict(3, Label.UNSURE, 0.5, len(times), spans).to_record()
        return timeline(series, entry, SPEC, step_s=0.2, end_s=4.0), series, entry

    def test_a_gap_breaks_the_line(self):
        figure, _, _ = self.figure([0.0, 0.2, 2.0, 2.2])
        score = next(trace for trace in figure["data"] if "together" in trace["name"])
        assert score["x"] == [0.0, 0.2, None, 2.0, 2.2]
        assert score["y"] == [0.5, 0.5, None, 0.5, 0.5]

    def test_suspicious_seconds_are_shaded_and_both_thresholds_drawn_and_named(self):
        figure, _, _ = self.figure([0.0, 0.2], intervals=[(0.4, 1.6), (2.0, 2.5)])
        shapes = figure["layout"]["shapes"]
        assert [(s["x0"], s["x1"]) for s in shapes if s["type"] == "rect"] == [
            (0.4, 1.6),
            (2.0, 2.5),
        ]
        lines = [s for s in shapes if s["type"] == "line"]
        assert [line["y0"] for line in lines] == [0.8795, 0.3752]
        assert lines[0]["line"]["dash"] != lines[1]["line"]["dash"], "not by colour alone"
        texts = [note["text"] for note in figure["layout"]["annotations"]]
        assert texts == ["fake from 0.8795", "real up to 0.3752"]

    def test_frames_that_were_not_judged_are_marked_with_their_reason(self):
        figure, _, _ = self.figure([0.0], reasons=[(0.2, "dark"), (0.4, "blurred")])
        (marks,) = [trace for trace in figure["data"] if trace["name"] == "not judged"]
        assert marks["text"] == ["dark", "blurred"]
        assert max(marks["y"]) < 0, "off the scale of scores"

    def test_the_words_say_what_the_figure_shows(self):
        _, series, entry = self.figure([0.0, 0.2])
        assert timeline_words(entry, series) == (
            "Scores of person 3 over time: from 0.50 to 0.50, at the end 0.50."
        )
        assert "No frame" in timeline_words(entry, Series())


def verdict(label, p_fake, *steps):
    people = tuple(PersonVerdict(n, label, p_fake, count) for n, count in enumerate(steps, 1))
    return Verdict("clip", label, p_fake, 0.5, 10, 2.0, people, "cpu").to_record()


class TestWords:
    @pytest.mark.parametrize(
        ("record", "still", "parts"),
        [
            (verdict(Label.FAKE, 0.93, 9), False, ["0.93", "at or above 0.8795", "can be wrong"]),
            (verdict(Label.FAKE, 0.93, 9, 9), False, ["The highest score of a person is 0.93"]),
            (verdict(Label.REAL, 0.1, 9), False, ["0.10", "at or below 0.3752", "pass it unseen"]),
            (verdict(Label.UNSURE, 0.5, 9), False, ["between 0.3752 and 0.8795"]),
            (verdict(Label.UNSURE, None, 1), False, ["Too little", "1 frame of", "needs 4"]),
            (verdict(Label.UNSURE, None, 0), True, ["could not be judged"]),
            (verdict(Label.NO_FACE, None), False, ["does not make the clip real"]),
            (verdict(Label.NO_FACE, None), True, ["does not make the picture real"]),
        ],
    )
    def test_verdicts(self, record, still, parts):
        text = words.verdict_words(record, SPEC, still=still)
        for part in parts:
            assert part in text

    @pytest.mark.parametrize(
        ("p", "text"),
        [
            (0.5, "0.50"),
            (0.8762, "0.8762"),
            (0.8841, "0.8841"),
            (0.8, "0.80"),
            (0.998, "0.9980"),
            (None, "-"),
        ],
    )
    def test_a_score_shows_on_which_side_of_a_threshold_it_lies(self, p, text):
        assert words.score(p, SPEC) == text

    @given(st.floats(0.0, 1.0))
    def test_a_shown_score_never_contradicts_the_label(self, p):
        shown = float(words.score(p, SPEC))
        for limit in SPEC.thresholds.values():
            if abs(p - limit.probability) > 5e-5:
                assert (shown > limit.probability) == (p > limit.probability)

    @pytest.mark.parametrize(
        ("time_s", "text"),
        [(0.0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1:00.0 min"), (3671.25, "61:11.2 min")],
    )
    def test_times(self, time_s, text):
        assert words.clock(time_s) == text

    def test_long_lists_of_seconds_are_cut(self):
        text = words.spans([[n, n + 0.5] for n in range(30)])
        assert text.endswith("and 18 more")

    def test_thresholds(self):
        text = words.threshold_words(SPEC, Label.FAKE)
        assert "at most 2 % of real clips" in text
        assert "of 165 training clips" in text
        assert "1.8 %" in text
        assert "4.6 %" in text


class TestPeople:
    def shown(self, *steps, still=False):
        kind = SourceKind.IMAGE if still else SourceKind.VIDEO
        collector = Collector([SourceItem(kind, "clip", "clip")])
        people = tuple(
            PersonVerdict(n, Label.UNSURE, n / 100, count) for n, count in enumerate(steps, 1)
        )
        record = Verdict("clip", Label.UNSURE, 0.5, 1.0, 40, 8.0, people, "cpu").to_record()
        collector.record(record)
        (view,) = source_views(list(collector.sources.values()), SPEC, step_s=0.2)
        return [p.track for p in view.people], [p.track for p in view.more_people]

    def test_those_seen_too_briefly_get_a_line(self):
        assert self.shown(9, 1, 4, 3) == ([3, 1], [4, 2])

    def test_what_consecutive_frames_showed_is_said_of_those_shown(self):
        means = dict.fromkeys(NAMES, 0.0) | {"face_noise": np.log(0.4)}
        people = (
            PersonVerdict(1, Label.REAL, 0.1, 9, signals=PersonSignals(7, 2, means)),
            PersonVerdict(2, Label.REAL, 0.1, 9),
        )
        collector = Collector([SourceItem(SourceKind.VIDEO, "clip", "clip")])
        collector.record(Verdict("clip", Label.REAL, 0.1, 1.0, 9, 2.0, people, "cpu").to_record())
        (view,) = source_views(list(collector.sources.values()), SPEC, step_s=0.2)
        first, second = view.people
        assert first.signals[0] == "Consecutive frames were compared in 7 of 9 judged frames."
        assert any("noise in the face is 0.4 of that of the background" in s for s in first.signals)
        assert second.signals == []

    def test_where_nobody_was_seen_long_enough_those_seen_longest_are_shown(self):
        assert self.shown(1, 3, 2, 0, 0) == ([2, 3, 1], [5, 4])

    def test_a_crowd_is_cut(self):
        shown, others = self.shown(*[5] * 40)
        assert shown == list(range(40, 40 - MAX_PEOPLE_SHOWN, -1))
        assert len(others) == 40 - MAX_PEOPLE_SHOWN

    def test_a_picture_has_one_look_at_each(self):
        assert self.shown(1, 1, 0, still=True) == ([3, 2, 1], [])
