"""What is drawn into a frame: that it can be read, told apart, and lies where it should."""

from __future__ import annotations

import dataclasses
import itertools
import re

import cv2
import numpy as np
import pytest

from dfd_edge.judging.results import FrameResult, Label, PersonResult
from dfd_edge.view import drawing, overlay, timeline
from dfd_edge.view.drawing import COLOURS, Area, draw_evidence, lay_evidence, tag_area
from dfd_edge.view.overlay import Overlay, clock, draw_help
from dfd_edge.view.timeline import draw_timeline, judging_rate, timeline_area
from dfd_edge.view.window import KEYS

SIZES = [(426, 240), (640, 360), (1280, 720), (3840, 2160), (176, 144), (240, 426)]


def person(track=1, box=(100.0, 80.0, 200.0, 180.0), label=Label.FAKE, p_fake=0.93, **more):
    x0, y0, x1, _ = (round(side) for side in box)
    return PersonResult(
        track, box, (x0, y0, max(1, x1 - x0)), True, None, 0.9, 0.9, p_fake, label, **more
    )


def result(*people, time_s=1.0, staleness_ms=None):
    labels = {each.label for each in people}
    label = next((found for found in Label if found in labels), Label.NO_FACE)
    if Label.FAKE in labels:
        label = Label.FAKE
    return FrameResult("clip", time_s, people, label, staleness_ms)


def grey(size=(640, 360)):
    return np.full((size[1], size[0], 3), 90, np.uint8)


def drawn_by(overlay, image, time_s, newest, **options):
    """Draws a frame as an overlay of its source does."""
    return overlay.scene(image, time_s, newest).drawn(**options)


@pytest.fixture
def written(monkeypatch):
    """The texts that are written into a frame."""
    texts = []
    put = cv2.putText

    def noted(canvas, text, *more):
        texts.append(text)
        return put(canvas, text, *more)

    monkeypatch.setattr(drawing.cv2, "putText", noted)
    return texts


@pytest.fixture
def tags(monkeypatch):
    """The filled labels that are drawn: text and place of each."""
    drawn = []

    def noted(canvas, text, area, colour, unit):
        drawn.append((text, area))
        draw(canvas, text, area, colour, unit)

    draw = drawing.draw_tag
    monkeypatch.setattr(overlay, "draw_tag", noted)
    return drawn


class TestHeader:
    def test_a_live_source_shows_how_old_and_how_often(self, written):
        drawing_of = Overlay(0.8, 0.3)
        for step in range(21):
            newest = result(person(), time_s=step / 4, staleness_ms=87.4)
            drawn_by(drawing_of, grey(), step / 4, newest)
        assert written[-1] == "FAKE  P(fake) 0.93  5.0 s  87 ms old  4.0/s"

    def test_the_rate_falls_when_judging_hangs(self, written):
        drawing_of = Overlay(0.8, 0.3)
        for step in range(20):
            newest = result(person(), time_s=step / 5, staleness_ms=90.0)
            drawn_by(drawing_of, grey(), step / 5, newest)
        drawn_by(drawing_of, grey(), 20.0, newest)
        assert written[-1].endswith("0.0/s")

    def test_a_file_shows_neither(self, written):
        drawn_by(Overlay(0.8, 0.3), grey(), 1.0, result(person()))
        assert written[-1] == "FAKE  P(fake) 0.93  1.0 s"

    def test_a_picture_that_stands_still_says_so(self, written):
        scene = Overlay(0.8, 0.3).scene(grey(), 1.0, result(person()))
        scene.drawn()
        assert not written[-1].startswith("PAUSED")
        scene.drawn(paused=True)
        assert written[-1].startswith("PAUSED  FAKE")

    @pytest.mark.parametrize("size", SIZES)
    def test_it_fits(self, size, tags):
        drawing_of = Overlay(0.8, 0.3)
        for step in range(21):
            newest = result(person(), time_s=4000 + step / 4, staleness_ms=1234.5)
            drawn_by(drawing_of, grey(size), 4000 + step / 4, newest)
        text, area = tags[-1]
        assert re.match(r"FAKE  (P\(fake\) )?0.93", text)
        assert "1234 ms old" in text
        assert 0 <= area.left < area.right <= size[0]

    @pytest.mark.parametrize(
        ("time_s", "text"),
        [(9.96, "10.0 s"), (599.9, "599.9 s"), (600, "10:00"), (3725, "1:02:05")],
    )
    def test_long_times(self, time_s, text):
        assert clock(time_s) == text


@pytest.mark.parametrize(
    ("times_s", "now_s", "rate"),
    [
        ([], 3.0, None),
        ([3.0], 3.0, None),
        ([3.0, 2.8, 2.6], 3.0, 5.0),
        ([3.0, 2.8, 2.6], 3.3, 5.0),  # not late yet
        ([3.0, 2.8, 2.6], 4.6, 1.0),
        ([3.0, 2.8, 2.6], 9.0, 0.0),
        ([10.0, 9.5, 3.0], 10.0, 2.0),  # what is long ago does not count
    ],
)
def test_rate_of_judging(times_s, now_s, rate):
    assert judging_rate(times_s, now_s) == (None if rate is None else pytest.approx(rate))


class TestLabels:
    @pytest.mark.parametrize("size", SIZES[:4])
    def test_three_people_at_the_edges_keep_apart(self, size, tags):
        width, height = size
        side = height * 0.45
        people = [
            person(1, (-10.0, -5.0, side, side - 5), Label.FAKE, 0.99),
            person(2, (width - side, 2.0, width + 20.0, side), Label.UNSURE, 0.55),
            person(12, (width / 2, height - side, width / 2 + side, height + 9.0), Label.REAL, 0.1),
        ]
        people[1] = PersonResult(
            2, people[1].box, people[1].crop, False, "turned away", p_fake=0.5, label=Label.UNSURE
        )
        drawn = drawn_by(Overlay(0.8, 0.3), grey(size), 1.0, result(*people))
        strip = timeline_area(drawn, drawing.unit_of(drawn))
        assert [text for text, _ in tags][:3] == ["#1 fake 0.99", "#2 turned away", "#12 real 0.10"]
        for _, area in tags:
            assert area.left >= 0 and area.top >= 0 and area.right <= width
            assert not area.meets(strip)
        for (_, one), (_, other) in itertools.combinations(tags, 2):
            assert not one.meets(other)

    def test_people_close_together_keep_apart(self, tags):
        people = [person(n, (100.0 + 9 * n, 100.0, 180.0 + 9 * n, 180.0)) for n in range(1, 5)]
        drawn_by(Overlay(0.8, 0.3), grey(), 1.0, result(*people))
        assert len(tags) == 5
        for (_, one), (_, other) in itertools.combinations(tags, 2):
            assert not one.meets(other)

    def test_a_crowd_in_a_small_picture_is_drawn(self):
        people = [person(n, (5.0 * n, 60.0, 5.0 * n + 30, 90.0)) for n in range(1, 30)]
        drawn = drawn_by(Overlay(0.8, 0.3), grey((176, 144)), 1.0, result(*people))
        assert drawn.shape == (144, 176, 3)

    def test_a_label_is_moved_inside(self):
        assert tag_area("#1 fake", (-50, -50), 1.0, Area(0, 0, 640, 360)).left == 0
        assert tag_area("#1 fake", (900, 900), 1.0, Area(0, 0, 640, 360)).right == 640


class TestTimeline:
    thresholds = (0.8, 0.3)

    def history(self, *scores):
        """Five seconds in which people number 1, 2 ... have these scores."""
        return [
            result(
                *(person(track, p_fake=score) for track, score in enumerate(scores, start=1)),
                time_s=step / 5,
            )
            for step in range(26)
        ]

    def strip(self, *scores):
        canvas = np.zeros((720, 1280, 3), np.uint8)
        draw_timeline(canvas, 5.0, self.history(*scores), self.thresholds, 2.0)
        area = timeline_area(canvas, 2.0)
        return canvas[area.top : area.bottom]

    def gaps(self, strip, label=Label.FAKE):
        """Columns of the curve's own stretch in which the curve is not drawn."""
        height, width = strip.shape[:2]
        upper = strip[: height // 3 - 3, round(width * 0.76) : round(width * 0.95)]
        return int((~(upper == COLOURS[label]).all(axis=2).any(axis=0)).sum())

    def test_the_score_shows_against_the_thresholds(self):
        rows = []
        for label, score in ((Label.FAKE, 0.9), (Label.UNSURE, 0.5), (Label.REAL, 0.1)):
            canvas = np.zeros((720, 1280, 3), np.uint8)
            seen = [result(person(label=label, p_fake=score), time_s=n / 5) for n in range(26)]
            draw_timeline(canvas, 5.0, seen, self.thresholds, 2.0)
            column = (canvas[:, 1200] == COLOURS[label]).all(axis=1)
            hits = np.flatnonzero(column)
            rows.append(hits)
        fake_line, real_line = rows[0].max(), rows[2].min()
        assert rows[0].min() < fake_line < rows[1].min()
        assert rows[1].max() < real_line < rows[2].max()

    def test_one_person_has_a_plain_curve_and_several_have_their_own(self):
        assert self.gaps(self.strip(0.95)) == 0
        assert self.gaps(self.strip(0.95, 0.05)) == 0  # the first one's
        dashed = self.strip(0.05, 0.95)
        assert self.gaps(dashed) > 40
        dotted = self.strip(0.05, 0.06, 0.95)
        assert self.gaps(dotted) > self.gaps(dashed)

    def test_each_curve_ends_in_a_number_where_there_are_several(self, written):
        self.strip(0.95)
        assert not [text for text in written if text.startswith("#")]
        self.strip(0.95, 0.94, 0.1)
        assert [text for text in written if text.startswith("#")] == ["#1", "#2", "#3"]

    def test_numbers_of_close_scores_keep_apart(self):
        placed = timeline._spread([10.0, 10.5, 11.0, 99.0], 12.0, 0.0, 100.0)
        assert all(b - a >= 12.0 - 1e-9 for a, b in itertools.pairwise(placed))
        assert placed[0] >= 6.0
        assert placed[-1] <= 94.0 + 1e-9

    def test_the_thresholds_are_named(self, written):
        self.strip(0.5)
        assert "fake 0.80" in written
        assert "real 0.30" in written

    def test_what_was_not_judged_leaves_a_gap(self):
        seen = [result(person(p_fake=0.95), time_s=n / 5) for n in range(26) if not 8 <= n <= 18]
        canvas = np.zeros((720, 1280, 3), np.uint8)
        draw_timeline(canvas, 5.0, seen, self.thresholds, 2.0)
        strip = canvas[timeline_area(canvas, 2.0).top :]
        assert self.gaps(strip) > 100

    def test_results_that_came_later_are_not_in_a_picture_that_stands_still(self):
        drawing_of = Overlay(0.8, 0.3)
        still = drawing_of.scene(grey(), 1.0, result(person(), time_s=1.0))
        before = still.drawn()
        for step in range(200):
            drawn_by(drawing_of, grey(), 1.2 + step / 5, result(person(2), time_s=1.2 + step / 5))
        assert (dataclasses.replace(still).drawn() == before).all()


class TestEvidence:
    def test_the_window_and_the_report_draw_it_alike(self):
        crop = np.random.default_rng(1).integers(0, 255, (176, 176, 3)).astype(np.uint8)
        evidence = np.random.default_rng(2).normal(0, 4, (5, 5)).astype(np.float32)
        frame = np.zeros((360, 640, 3), np.uint8)
        frame[50:226, 100:276] = crop
        lay_evidence(frame, evidence, (100, 50, 176))
        inner = (slice(4, -4), slice(4, -4))  # lines at the edge reach a little beyond it
        assert (frame[50:226, 100:276][inner] == draw_evidence(crop, evidence)[inner]).all()

    @pytest.mark.parametrize("crop", [(-60, -40, 120), (600, 300, 120), (-50, -50, 900)])
    def test_a_crop_beyond_the_edge(self, crop):
        frame = grey()
        lay_evidence(frame, np.full((5, 5), 6.0, np.float32), crop)
        x, y = min(max(crop[0] + 60, 0), 639), min(max(crop[1] + 60, 0), 359)
        assert frame[y, x, 2] > 150

    def test_a_crop_outside_the_frame_changes_nothing(self):
        frame = grey()
        lay_evidence(frame, np.full((5, 5), 6.0, np.float32), (700, 0, 50))
        assert (frame == 90).all()

    def test_a_strong_map_does_not_cover_the_face(self):
        picture = np.random.default_rng(3).integers(0, 255, (176, 176, 3)).astype(np.uint8)
        drawn = draw_evidence(picture, np.full((5, 5), 40.0, np.float32)).astype(float)
        inner = (slice(20, -20), slice(20, -20), 0)
        assert np.corrcoef(picture[inner].ravel(), drawn[inner].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("size", SIZES)
def test_the_list_of_keys_fits(size, written):
    canvas = grey(size)
    draw_help(canvas, KEYS)
    assert [text for pair in KEYS for text in pair] == written
    changed = (canvas != 90).any(axis=2)
    assert changed.any()
    assert not changed[:, [0, -1]].any() or size[0] < 240
