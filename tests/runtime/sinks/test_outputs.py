"""Files that are written: whole or not at all, and readable."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from clip_maker import face_frames

from dfd_edge.errors import UsageError
from dfd_edge.judging.results import (
    FrameResult,
    Interval,
    Label,
    PersonResult,
    PersonVerdict,
    Verdict,
)
from dfd_edge.sinks.console import ProgressLine, live_line, verdict_line
from dfd_edge.sinks.csv_file import COLUMNS, PROVENANCE_COLUMNS, CsvFile
from dfd_edge.sinks.files import written_whole
from dfd_edge.sinks.video_file import VideoFileWriter
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_edge.view.overlay import COLOURS, Overlay


def result(time_s=1.0, *, label=Label.FAKE, box=(80.0, 60.0, 180.0, 170.0), evidence=True):
    x0, y0, x1, _ = box
    person = PersonResult(
        track=1,
        box=box,
        crop=(round(x0) - 20, round(y0) - 20, round(x1 - x0) + 40),
        judged=True,
        p_frame=0.9,
        p_step=0.8,
        p_fake=0.85,
        label=label,
        evidence=np.full((5, 5), 3.0, np.float32) if evidence else None,
    )
    return FrameResult("clip.mp4", time_s, (person,), label)


class TestWrittenWhole:
    def test_the_file_appears_at_the_end(self, tmp_path):
        path = tmp_path / "out.csv"
        with written_whole(path) as partial:
            partial.write_text("rows")
            assert not path.exists()
            assert partial.suffix == ".csv"
        assert path.read_text() == "rows"
        assert list(tmp_path.iterdir()) == [path]

    def test_after_an_error_nothing_stays(self, tmp_path):
        path = tmp_path / "out.csv"
        path.write_text("before")
        with pytest.raises(RuntimeError), written_whole(path) as partial:
            partial.write_text("half")
            raise RuntimeError
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_in_which_nothing_was_written_takes_no_place(self, tmp_path):
        path = tmp_path / "out.mp4"
        path.write_text("before")
        with written_whole(path) as partial:
            VideoFileWriter(partial).close()
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_missing_folder_is_named(self, tmp_path):
        with (
            pytest.raises(UsageError, match="cannot be written"),
            written_whole(tmp_path / "gone" / "out.csv"),
        ):
            pass


def test_csv_has_a_row_for_each_person(tmp_path):
    path = tmp_path / "out.csv"
    with CsvFile(path) as file:
        file.frame(result())
        file.frame(FrameResult("clip.mp4", 1.2, (), Label.NO_FACE))
    (row,) = csv.DictReader(path.open())
    assert row["source"] == "clip.mp4"
    assert row["track"] == "1"
    assert float(row["p_fake"]) == 0.85
    assert row["label"] == "fake"


def test_csv_rows_that_come_after_the_end_are_left_out(tmp_path):
    with CsvFile(tmp_path / "out.csv") as file:
        pass
    file.frame(result())
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "cell"),
    [
        ("=cmd|'/c calc'!A0.mp4", "./=cmd|'/c calc'!A0.mp4"),
        ("+1.mp4", "./+1.mp4"),
        ("-1.mp4", "./-1.mp4"),
        ("@SUM(A1).mp4", "./@SUM(A1).mp4"),
        ("\t=1.mp4", "./\t=1.mp4"),
        ("\uff1d1.mp4", "./\uff1d1.mp4"),
        ("clips/=1.mp4", "clips/=1.mp4"),
        ('a,"b"\n=1.mp4', 'a,"b"\n=1.mp4'),
        ("camera 0", "camera 0"),
        ("a\udcff.mp4", r"a\xff.mp4"),
    ],
)
def test_no_name_in_a_csv_is_a_formula(tmp_path, source, cell):
    with CsvFile(tmp_path / "out.csv") as file:
        file.frame(dataclasses.replace(result(), source=source))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as text:
        (row,) = csv.DictReader(text)
    assert row["source"] == cell
    assert row["label"] == "fake"


def test_the_columns_of_a_csv_are_documented():
    page = (Path(__file__).parents[3] / "docs" / "outputs.md").read_text(encoding="utf-8")
    table = page.partition("## CSV")[2].partition("\n## ")[0]
    documented = [
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert documented == [*COLUMNS, *PROVENANCE_COLUMNS]


def drawn_by(overlay, image, time_s, newest, **options):
    """Draws a frame as an overlay of its source does."""
    return overlay.scene(image, time_s, newest).drawn(**options)


class TestOverlay:
    @pytest.mark.parametrize("size", [(176, 144), (640, 360), (360, 640), (3840, 2160)])
    def test_any_size(self, size):
        image = np.full((size[1], size[0], 3), 90, np.uint8)
        drawn = drawn_by(Overlay(0.8, 0.3), image, 1.0, result())
        assert drawn.shape == image.shape
        assert drawn.dtype == np.uint8
        assert (image == 90).all(), "the frame itself is left alone"
        tag = np.array(COLOURS[Label.FAKE])
        assert (drawn == tag).all(axis=2).mean() > 0.005

    @pytest.mark.parametrize("label", list(Label))
    def test_colour_tells_the_verdict(self, label):
        image = np.full((360, 640, 3), 90, np.uint8)
        drawn = drawn_by(Overlay(0.8, 0.3), image, 1.0, result(label=label))
        assert (drawn == np.array(COLOURS[label])).all(axis=2).any()

    def test_evidence_can_be_left_out(self):
        image = np.full((360, 640, 3), 90, np.uint8)
        overlay = Overlay(0.8, 0.3)
        shown = drawn_by(overlay, image, 1.0, result())
        hidden = drawn_by(overlay, image, 1.0, result(), evidence=False)
        inside = (slice(100, 140), slice(100, 160))
        assert (shown[inside] != 90).any()
        assert (hidden[inside] == 90).all()

    def test_a_face_beyond_the_edge(self):
        image = np.full((120, 160, 3), 90, np.uint8)
        drawn_by(Overlay(0.8, 0.3), image, 1.0, result(box=(-40.0, -30.0, 220.0, 190.0)))

    def test_before_any_result(self):
        drawn = drawn_by(Overlay(0.8, 0.3), np.full((120, 160, 3), 90, np.uint8), 0.0, None)
        assert drawn.shape == (120, 160, 3)

    def test_the_timeline_forgets(self):
        overlay = Overlay(0.8, 0.3)
        image = np.zeros((90, 120, 3), np.uint8)
        for number in range(500):
            drawn_by(overlay, image, number / 5, result(number / 5))
        assert len(overlay._history) <= 102


class TestVideoFileWriter:
    def test_what_was_written_can_be_read(self, tmp_path):
        path = tmp_path / "out.mp4"
        writer = VideoFileWriter(path)
        frames = face_frames(25, size=(321, 241))
        for number, image in enumerate(frames):
            writer.add(image, number / 25)
        writer.close()
        with VideoFile(path) as video:
            read = list(video.frames(Sampler(1000.0)))
        assert [frame.time_s for frame in read] == pytest.approx([n / 25 for n in range(25)])
        assert read[0].image.shape == (240, 320, 3)
        assert np.abs(read[5].image.astype(int) - frames[5][:240, :320]).mean() < 6

    def test_a_size_that_changes(self, tmp_path):
        writer = VideoFileWriter(tmp_path / "out.mp4")
        writer.add(face_frames(1)[0], 0.0)
        writer.add(face_frames(1, size=(640, 480))[0], 0.1)
        writer.close()
        with VideoFile(tmp_path / "out.mp4") as video:
            assert [f.image.shape for f in video.frames(Sampler(1000.0))] == [(240, 320, 3)] * 2

    def test_frames_that_come_after_the_end_are_left_out(self, tmp_path):
        writer = VideoFileWriter(tmp_path / "out.mp4")
        image = face_frames(1)[0]
        writer.add(image, 0.0)
        writer.close()
        writer.add(image, 0.1)
        writer.close()
        with VideoFile(tmp_path / "out.mp4") as video:
            assert len(list(video.frames(Sampler(1000.0)))) == 1

    def test_an_unknown_suffix_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match=r"\.mp4"):
            VideoFileWriter(tmp_path / "out.txt")


def test_verdict_line_says_what_matters():
    person = PersonVerdict(1, Label.FAKE, 0.93, 50, (Interval(1.2, 4.6),))
    verdict = Verdict(
        "clip.mp4", Label.FAKE, 0.93, 0.98, 50, 10.0, (person,), "cpu", 12.34, False, "cut off"
    )
    line = verdict_line(verdict)
    for part in ("FAKE", "clip.mp4", "0.93", "98%", "12.3x", "1.2-4.6 s", "(cut off)"):
        assert part in line


def test_progress_shows_time_left_and_wipes_its_line():
    file = io.StringIO()
    progress = ProgressLine(file, enabled=True)
    progress.start("clip.mp4")
    progress.update(5.0, 10.0)
    progress.clear()
    text = file.getvalue()
    assert "50%" in text
    assert "s left" in text
    assert text.endswith("\r\x1b[K")


def test_a_name_cannot_steer_the_terminal():
    file = io.StringIO()
    progress = ProgressLine(file, enabled=True)
    progress.start("clip\x1b[2J.mp4")
    progress.update(5.0, 10.0)
    assert "clip\\x1b[2J.mp4" in file.getvalue()
    assert "\x1b[2J" not in live_line(dataclasses.replace(result(), source="\x1b[2J"))


def test_progress_is_silent_off_terminals(tmp_path):
    with (tmp_path / "log").open("w") as file:
        progress = ProgressLine(file)
        progress.update(5.0, 10.0)
        progress.clear()
    assert (tmp_path / "log").read_text() == ""
