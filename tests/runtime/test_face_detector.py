"""Faces in pictures that the model does not see at first sight."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from clip_maker import portrait

from dfd_edge.errors import BundleError
from dfd_edge.faces import onnx_model
from dfd_edge.faces.detector import FaceDetector, _fine_tiles, _placed, _tiles
from dfd_edge.faces.onnx_model import INPUT_SIDE, LEAST_SIDE

TIGHT = (slice(60, 220), slice(160, 290))


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.mark.parametrize("height", [100, 320, 2160])
def test_a_face_that_fills_the_picture_is_found(detector, height):
    """The box is where the whole photograph shows it, whatever the picture's size."""
    (whole,) = detector.detect(portrait())
    crop = np.ascontiguousarray(portrait()[TIGHT])
    scale = height / crop.shape[0]
    picture = cv2.resize(crop, None, fx=scale, fy=scale)
    found = detector.detect(picture)
    assert len(found) == 1
    corner = np.array([TIGHT[1].start, TIGHT[0].start] * 2)
    assert found[0].box / scale + corner == pytest.approx(whole.box, abs=12)


def test_an_empty_frame_costs_little_memory(detector):
    frame = np.full((2160, 3840, 3), 90, np.uint8)
    detector.detect(frame)
    tracemalloc.start()
    assert detector.detect(frame) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < frame.nbytes / 2


@pytest.mark.parametrize(
    ("width", "height", "count"),
    [(640, 480, 6), (1920, 1080, 8), (1080, 1920, 8), (16, 6000, None), (6000, 16, None)],
)
def test_tiles_cover_the_frame_and_are_few(width, height, count):
    tiles = _tiles(width, height)
    assert len(tiles) <= 12
    assert count in (None, len(tiles))
    seen = np.zeros((height, width), bool)
    for x0, y0, side in tiles:
        assert x0 >= 0
        assert y0 >= 0
        seen[y0 : y0 + side, x0 : x0 + side] = True
    assert seen.all()


def test_a_very_long_frame(detector):
    assert detector.detect(np.full((60000, 16, 3), 90, np.uint8)) == []


def wall(rows, columns, side, *, gap=0):
    """Heads side by side on grey, each its own, and the middle of each."""
    head = portrait()[0:260, 110:370]
    step = side + gap
    picture = np.full((rows * step, columns * step, 3), 127, np.uint8)
    middles = []
    for row in range(rows):
        for column in range(columns):
            face = head if (row + column) % 2 else head[:, ::-1]
            face = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
            light = 0.7 + 0.3 * ((row * columns + column) % 7) / 6
            y, x = row * step, column * step
            picture[y : y + side, x : x + side] = (face * light).astype(np.uint8)
            middles.append((x + side / 2, y + side / 2))
    return picture, np.array(middles)


@pytest.mark.parametrize(
    ("rows", "columns", "side", "gap"), [(20, 20, 150, 0), (12, 16, 150, 60), (7, 7, 400, 20)]
)
def test_every_face_of_a_tall_wall_is_found_once(detector, rows, columns, side, gap):
    picture, middles = wall(rows, columns, side, gap=gap)
    found = detector.detect(picture, thorough=True)
    centres = np.array([(face.box[:2] + face.box[2:]) / 2 for face in found])
    nearest = np.abs(centres[:, None] - middles[None]).max(axis=2).argmin(axis=1)
    assert len(set(nearest)) >= 0.98 * len(middles)
    assert len(found) == len(set(nearest))


def test_a_gallery_in_a_film_is_found(detector):
    """A call of 49: the whole frame shows some of the faces, which hid the others."""
    picture, middles = wall(7, 7, 154)
    assert len(detector.detect(picture)) == len(middles)


def test_a_large_face_costs_no_tiles(detector, monkeypatch):
    monkeypatch.setattr(FaceDetector, "_detect_small", None)
    assert len(detector.detect(cv2.resize(portrait(), (1920, 1920)))) == 1
    head = cv2.resize(portrait()[:260, 110:370], (1920, 1920))
    assert len(detector.detect(head, thorough=True)) == 1


def test_a_larger_face_hides_no_wall(detector):
    picture, middles = wall(20, 20, 150)
    picture[:450, :450] = cv2.resize(wall(1, 1, 260)[0], (450, 450))
    assert len(detector.detect(picture, thorough=True)) >= 0.95 * (len(middles) - 9)


@pytest.mark.parametrize("most", [24, 160])
@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (1920, 1080), (8192, 8192), (20000, 300), (16, 60000)]
)
def test_fine_tiles_cover_the_frame_and_are_few(width, height, most):
    tiles = _fine_tiles(width, height, most)
    assert 0 < len(tiles) <= most
    side = min(side for _, _, side in tiles)
    seen = np.zeros((height, width), bool)
    for x0, y0, own in tiles:
        if own == side:
            seen[y0 : y0 + own, x0 : x0 + own] = True
    assert seen.all()


@pytest.mark.parametrize("length", range(1, INPUT_SIDE + 1))
def test_a_side_lies_in_the_input_as_in_the_whole_square(length):
    start, side = _placed(length, trimmed=True)
    in_square, square = _placed(length, trimmed=False)
    assert square == INPUT_SIDE
    assert side % 32 == 0
    assert LEAST_SIDE <= side <= INPUT_SIDE
    assert start >= 0
    assert start + length <= side
    assert (in_square - start) % 32 == 0
    if side < INPUT_SIDE:
        assert min(start, side - start - length) >= 4


@pytest.mark.parametrize("tall", [False, True])
def test_a_wide_frame_shows_the_faces_that_its_square_does(detector, tall):
    """Rows or columns that a frame leaves empty are left out of the model's input."""
    frame = np.full((1280, 720, 3) if tall else (720, 1280, 3), 90, np.uint8)
    for start, picture in ((100, portrait()), (700, portrait()[:, ::-1])):
        y, x = (start, 104) if tall else (104, start)
        frame[y : y + 512, x : x + 512] = picture
    offset = np.array([280, 0] if tall else [0, 280])
    square = np.zeros((1280, 1280, 3), np.uint8)
    square[offset[1] :, offset[0] :][: frame.shape[0], : frame.shape[1]] = frame
    found, wanted = (
        sorted(detector.detect(picture), key=lambda face: face.box.sum())
        for picture in (frame, square)
    )
    assert len(found) == len(wanted) == 2
    for face, other in zip(found, wanted, strict=True):
        assert np.abs(face.box + np.tile(offset, 2) - other.box).max() < 0.06 * other.size
        assert face.score == pytest.approx(other.score, abs=0.1)
    assert ((192, 128) if tall else (128, 192)) in detector._models


def test_a_doubtful_face_is_searched_for_in_the_square(detector, monkeypatch):
    """So is a frame without a face: none is lost that the whole input shows."""
    frame = np.full((720, 1280, 3), 90, np.uint8)
    frame[104:616, 100:612] = portrait()
    searched = []

    def run(session, name, image):
        searched.append(image.shape[1:3])
        return onnx_model.run_face_model(session, name, image)

    monkeypatch.setattr("dfd_edge.faces.detector.run_face_model", run)
    (face,) = detector.detect(frame)
    assert face.score > 0.65
    assert searched == [(128, 192)]
    searched.clear()
    monkeypatch.setattr("dfd_edge.faces.detector._SURE_SCORE", face.score + 0.01)
    (again,) = detector.detect(frame)
    assert searched == [(128, 192), (192, 192)]
    assert again.score != face.score


def test_a_model_of_another_input_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "FACE_MODELS_DIR", tmp_path)
    (tmp_path / "other.onnx").write_bytes(b"no model of faces")
    with pytest.raises(BundleError, match="cannot be taken as 192x128"):
        onnx_model.open_face_model("other.onnx", threads=1, input_size=(128, 192))
