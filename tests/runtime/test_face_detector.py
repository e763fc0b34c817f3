"""Faces in pictures that the model does not see at first sight."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from clip_maker import portrait

from dfd_edge.faces.detector import FaceDetector, _tiles

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
