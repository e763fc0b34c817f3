"""Faces in pictures that the model does not see at first sight."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from clip_maker import portrait

from dfd_edge.faces.detector import FaceDetector, _fine_tiles, _tiles

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
