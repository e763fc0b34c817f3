"""The parts of an exploration: drawing of files, detectors, charts, sheets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfd_edge.report.figures import BarChart, Series, shortened
from dfd_training.explore import search
from dfd_training.explore.charts import chart_png
from dfd_training.explore.detectors import DetectorSet, HaarOptions, Pass, PassResult, overlap
from dfd_training.explore.drawing import contact_sheet, draw_boxes, from_bytes, wrapped
from dfd_training.explore.figures import detector_rows, file_charts
from dfd_training.explore.search import (
    Detections,
    FileFacts,
    excerpt,
    first_frame,
    read_facts,
    spaced_frames,
)
from sample_clips import moving, write_clip


def test_a_few_long_clips_do_not_press_the_others_into_one_bar() -> None:
    facts = [FileFacts(f"{n}", False, 64, 64, 2.0 + n % 10, 25.0) for n in range(100)]
    facts.append(FileFacts("film", False, 64, 64, 7200.0, 25.0))
    charts = file_charts(facts, dict.fromkeys([item.path for item in facts], "REAL"))
    length = charts["length"]
    assert length.categories[-1].endswith("and more")
    assert sum(length.series[0].values) == 101
    assert sum(value > 0 for value in length.series[0].values) > 5


def test_names_in_a_chart_are_no_markup() -> None:
    hostile = '<a href="javascript:alert(1)">$x$</a>'
    chart = BarChart("n", "t", "", (hostile,), (Series("REAL", (1.0,), "#237a44"),), "files")
    figure = chart.figure()
    assert "<a" not in figure["layout"]["annotations"][0]["text"]
    assert "<a" not in figure["data"][0]["customdata"][0]
    assert chart_png(chart).startswith(b"\x89PNG"), "a dollar sign is no formula"


def test_a_long_name_keeps_its_ends() -> None:
    assert shortened("a" * 60) == "a" * 60
    short = shortened("/data/" + "x" * 90 + "/clip.mp4", 30)
    assert len(short) == 30
    assert short.startswith("/data/")
    assert short.endswith("/clip.mp4")


@pytest.fixture(scope="module")
def searcher() -> DetectorSet:
    return DetectorSet(with_smile=True)


def test_detectors_agree_on_a_portrait(searcher: DetectorSet, astronaut: NDArray[np.uint8]) -> None:
    found = searcher.search(astronaut)
    assert set(found) == set(searcher.passes)
    (frontal,) = found[Pass.FRONTAL].boxes
    (blazeface,) = found[Pass.BLAZEFACE].boxes
    assert overlap(frontal, blazeface) > 0.5
    assert found[Pass.EYES].boxes
    for x0, y0, x1, y1 in found[Pass.EYES].boxes:
        assert frontal[0] <= (x0 + x1) / 2 <= frontal[2]
        assert frontal[1] <= (y0 + y1) / 2 <= (frontal[1] + frontal[3]) / 2, "eyes lie above"
    for _, y0, _, y1 in found[Pass.SMILE].boxes:
        assert (y0 + y1) / 2 >= (frontal[1] + frontal[3]) / 2, "a smile lies below"
    assert all(item.cpu_ms > 0 for item in found.values())


def test_places_do_not_depend_on_the_size_of_the_frame(
    searcher: DetectorSet, astronaut: NDArray[np.uint8]
) -> None:
    large = np.ascontiguousarray(np.repeat(np.repeat(astronaut, 4, axis=0), 4, axis=1))
    (small_box,) = searcher.search(astronaut)[Pass.BLAZEFACE].boxes
    (large_box,) = searcher.search(large)[Pass.BLAZEFACE].boxes
    assert overlap(small_box, large_box) > 0.8


def test_dlib_finds_the_same_face(searcher: DetectorSet, astronaut: NDArray[np.uint8]) -> None:
    pytest.importorskip("dlib", reason="the extra `dlib` is not installed")
    found = searcher.search(astronaut)
    (face,) = found[Pass.DLIB].boxes
    assert overlap(face, found[Pass.FRONTAL].boxes[0]) > 0.4


def test_nothing_is_found_where_there_is_nothing(searcher: DetectorSet) -> None:
    found = searcher.search(np.full((200, 320, 3), 128, np.uint8))
    assert not any(item.boxes for item in found.values())


def test_shapes_and_colours_of_the_cascades() -> None:
    """Frontal: green rectangle; profile: blue rectangle; eye: red circle; smile: red rectangle."""
    box = (0.25, 0.25, 0.75, 0.75)
    wanted = {
        Pass.FRONTAL: ("green", True),
        Pass.PROFILE: ("blue", True),
        Pass.EYES: ("red", False),
        Pass.SMILE: ("red", True),
    }
    for item, (name, rectangle) in wanted.items():
        canvas = draw_boxes(
            np.full((200, 200, 3), 255, np.uint8), {item: PassResult((box,), 1.0)}, [item]
        )
        corner, side = canvas[150, 150], canvas[100, 150]
        assert (corner != 255).any() == rectangle, f"{item} has corners"
        strongest = ("blue", "green", "red")[int(side.argmax())]
        assert strongest == name, item


def test_figures_of_detectors() -> None:
    here, there = (0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.9, 0.9)

    def frame(haar: tuple, blazeface: tuple) -> dict[Pass, PassResult]:
        return {
            Pass.FRONTAL: PassResult(haar, 30.0),
            Pass.PROFILE: PassResult((), 10.0),
            Pass.EYES: PassResult((), 5.0),
            Pass.BLAZEFACE: PassResult(blazeface, 2.0),
        }

    detections = [
        Detections(
            "r", (frame((here, there), (here,)), frame((), (here,))), (0.0, 1.0), 0, b"", None
        ),
        Detections("f", (frame((here,), ()),), (0.0,), 0, b"", None),
    ]
    rows = {row.name: row for row in detector_rows(detections, {"r": "REAL", "f": "FAKE"})}
    assert "dlib HOG" not in rows
    haar, blazeface = rows["Haar cascades"], rows["BlazeFace (this project)"]
    assert haar.frames == 3
    assert haar.share == pytest.approx(2 / 3)
    assert haar.share_by_label == {"REAL": 0.5, "FAKE": 1.0}
    assert haar.per_frame == pytest.approx(1.0)
    assert haar.unmatched == pytest.approx(2 / 3)
    assert haar.cpu_ms == 40.0
    assert blazeface.share_by_label == {"REAL": 1.0, "FAKE": 0.0}
    assert blazeface.unmatched == 0.5
    assert detections[0].faces("Haar cascades") == [2, 0]
    assert detections[0].faces("dlib HOG") == []


def test_frames_are_spread_over_a_clip(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving(astronaut, 0, count=20))
    times = [frame.time_s for frame in spaced_frames(clip, 4)]
    assert times == pytest.approx([0.3, 0.8, 1.3, 1.8])
    numbers = [frame.index for frame in spaced_frames(clip, 64)]
    assert len(numbers) == len(set(numbers)) > 15, "no frame is given twice"
    assert [f.time_s for f in spaced_frames(clip, 2, max_seconds=1.0)] == pytest.approx([0.3, 0.8])
    facts = read_facts("clip.mp4", root=tmp_path)
    assert (facts.width, facts.height, facts.rate_hz) == (300, 300, 10.0)
    assert facts.length_s == pytest.approx(2.0)
    assert not facts.still


def test_an_excerpt_keeps_to_its_bound(
    tmp_path: Path, astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clip.mp4", moving(astronaut, 0, count=12))
    usual = excerpt("clip.mp4", root=tmp_path)
    assert usual is not None
    monkeypatch.setattr(search, "EXCERPT_BYTES", len(usual) - 1)
    smaller = excerpt("clip.mp4", root=tmp_path)
    assert smaller is not None
    assert len(smaller) < len(usual)
    monkeypatch.setattr(search, "EXCERPT_BYTES", 500)
    assert excerpt("clip.mp4", root=tmp_path) is None
    (tmp_path / "broken.mp4").write_bytes(b"\x00" * 100)
    assert excerpt("broken.mp4", root=tmp_path) is None


def test_a_contact_sheet_holds_every_picture() -> None:
    images = [np.full((40 + 10 * n, 60, 3), (0, 0, 255), np.uint8) for n in range(5)]
    sheet = contact_sheet(images, ["word"] * 5, columns=2, cell=(60, 80))
    red = (sheet == (0, 0, 255)).all(axis=2).sum()
    assert red == sum(image.shape[0] * image.shape[1] for image in images)


def test_a_small_picture_is_enlarged_to_twice_its_size_at_most() -> None:
    tiny = np.full((30, 30, 3), (0, 0, 255), np.uint8)
    sheet = contact_sheet([tiny], ["word"], columns=1, cell=(360, 360))
    assert (sheet == (0, 0, 255)).all(axis=2).sum() == 60 * 60


@pytest.mark.parametrize(
    "caption",
    [
        "REAL a_very_long_name_of_a_file_that_does_not_fit_into_one_line_of_its_tile.mp4",
        "FAKE none by Haar cascades, BlazeFace, dlib HOG",
        "REAL Ελληνικά и кириллица.mp4",
        "REAL line\nbreak.mp4",
        "",
    ],
)
def test_captions_are_whole(caption: str) -> None:
    lines = wrapped(caption, 128)
    letters = "".join(caption.split())
    assert "".join("".join(lines).split()) == letters
    assert len(lines) >= len(letters) // 30
    tile = np.full((40, 128, 3), 255, np.uint8)
    sheet = contact_sheet([tile], [caption], columns=1, cell=(128, 40))
    assert (sheet[:, :8] == 255).all(), "nothing is written beside the tile"
    assert (sheet[:, -6:] == 255).all()
    assert (sheet[-8:] == 255).all(), "nor below the sheet's last line"
    assert (sheet < 128).any() == bool(caption)


def test_boxes_beyond_the_picture_are_drawn_at_its_edge() -> None:
    blank = np.full((100, 120, 3), 255, np.uint8)
    found = {Pass.BLAZEFACE: PassResult(((-0.2, -0.1, 1.3, 1.2),), 1.0)}
    canvas = draw_boxes(blank, found, [Pass.BLAZEFACE])
    green = np.abs(canvas.astype(int) - (60, 190, 40)).max(axis=2) < 30
    for side in (green[:6, 70:], green[-6:, 70:], green[40:, :6], green[40:, -6:]):
        assert side.any(), "all four sides can be seen"
    assert (canvas[10:24, 4:60] < 100).any(), "the label stands inside"


def test_a_face_tile_shows_nothing_but_the_picture(
    tmp_path: Path, searcher: DetectorSet, astronaut: NDArray[np.uint8]
) -> None:
    """A tight crop is shown as it is, and not with its border repeated."""
    ((x0, y0, x1, y1),) = searcher.search(astronaut)[Pass.BLAZEFACE].boxes
    height, width = astronaut.shape[:2]
    tight = astronaut[
        max(0, int(y0 * height)) : int(y1 * height), max(0, int(x0 * width)) : int(x1 * width)
    ]
    cv2.imwrite(str(tmp_path / "tight.png"), tight)
    shown = first_frame("tight.png", root=tmp_path, haar=HaarOptions(), with_smile=False)
    assert shown.picture is not None
    assert shown.face is not None
    face = from_bytes(shown.face)
    assert face.shape[0] == face.shape[1] <= min(tight.shape[:2])
    small = cv2.resize(tight, face.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(face.astype(int) - small).mean() < 25
    rows = np.abs(np.diff(face.astype(int), axis=0)).mean(axis=(1, 2))
    assert rows.min() > 0.5, "no row repeats the one above"


def test_parameters_of_the_cascades_change_what_they_find(
    searcher: DetectorSet, astronaut: NDArray[np.uint8]
) -> None:
    ((x0, _, x1, _),) = searcher.search(astronaut)[Pass.FRONTAL].boxes
    wide = round((x1 - x0) * astronaut.shape[1])

    def faces(**values: float) -> tuple[tuple[float, ...], ...]:
        return DetectorSet(haar=HaarOptions(**values)).search(astronaut)[Pass.FRONTAL].boxes

    assert faces(least_px=2 * wide) == (), "the face is smaller"
    assert len(faces(least_px=wide // 2)) == 1
    assert faces(neighbours=100) == ()
    assert len(faces(neighbours=3)) == 1
    assert faces(scale=1.1) != faces(scale=1.3), "other sizes are searched"
