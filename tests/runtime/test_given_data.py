"""Bytes, open files and arrays are judged as the file is."""

from __future__ import annotations

import io
import os
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest
from clip_maker import portrait

from dfd_edge import Detector, SourceError, UsageError
from dfd_edge.sources import expand
from dfd_edge.sources.image import read_image


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("photograph") / "photograph.png"
    cv2.imwrite(str(path), portrait())
    return path


def said(verdict):
    people = [(person.label, person.p_fake, person.judged_steps) for person in verdict.people]
    return verdict.label, verdict.p_fake, verdict.frames, verdict.duration_s, people


@pytest.mark.parametrize("kind", ["photograph", "face_clip"])
@pytest.mark.parametrize("given", [bytes, bytearray, memoryview, io.BytesIO, "file", "spooled"])
def test_a_file_by_its_contents(detector, request, kind, given):
    import tempfile

    path = request.getfixturevalue(kind)
    expected = said(detector.analyze(path))
    data = path.read_bytes()
    if given == "file":
        with path.open("rb") as file:
            file.seek(100)  # it is read from its start, wherever it stands
            assert said(detector.analyze(file)) == expected
            assert not file.closed
    elif given == "spooled":
        with tempfile.SpooledTemporaryFile() as file:
            file.write(data)
            assert said(detector.analyze(file, name="upload")) == expected
    else:
        verdict = detector.analyze(given(data), name="upload")
        assert said(verdict) == expected
        assert verdict.source == "upload"


def test_a_list_of_sources_may_hold_what_is_no_name(photograph, tmp_path):
    """What stands for itself is taken, and what is no source is refused alone."""

    class Named:
        def __fspath__(self) -> str:
            return str(tmp_path / "*.jpg")

    shutil.copy(photograph, tmp_path / "one.jpg")
    odd = [np.zeros((2, 2)), 0.5, {}, [1], np.float32(5), len, None, True]
    data = photograph.read_bytes()
    items, errors = expand([data, *odd, io.BytesIO(data), Named(), 3])
    assert [item.kind for item in items] == ["image", "image", "image", "camera"]
    assert items[2].name == str(tmp_path / "one.jpg")
    assert len(errors) == len(odd)
    assert all("give a path" in str(error) for error in errors)


def test_a_small_picture_takes_no_room_for_the_largest(photograph):
    """Under a limit of memory, room that nothing needs is room that is not there."""
    tracemalloc.start()
    try:
        read_image(photograph)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


def test_a_film_in_memory_is_watched(detector, face_clip):
    with detector.watch(io.BytesIO(face_clip.read_bytes())) as watch:
        assert sum(1 for _ in watch) == 15


@pytest.mark.parametrize(
    ("change", "colour"),
    [
        (lambda bgr: bgr, "bgr"),
        (lambda bgr: bgr[:, :, ::-1], "rgb"),
        (lambda bgr: np.dstack([bgr, np.zeros(bgr.shape[:2], np.uint8)]), "bgr"),
        (lambda bgr: np.dstack([bgr[:, :, ::-1], np.zeros(bgr.shape[:2], np.uint8)]), "rgb"),
        (np.asfortranarray, "bgr"),
    ],
)
def test_the_pixels_of_an_image(detector, photograph, change, colour):
    verdict = detector.analyze(change(portrait()), colour=colour, name="pixels")
    assert said(verdict) == said(detector.analyze(photograph))
    assert verdict.source == "pixels"


def test_grey_pixels(detector, tmp_path):
    grey = cv2.cvtColor(portrait(), cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    expected = said(detector.analyze(tmp_path / "grey.png"))
    assert said(detector.analyze(grey)) == said(detector.analyze(grey[:, :, None])) == expected


def test_an_array_is_not_changed(detector):
    pixels = portrait()
    detector.analyze(pixels)
    assert (pixels == portrait()).all()


@pytest.mark.parametrize(
    ("given", "options", "cause"),
    [
        (np.zeros((4, 64, 64, 3), np.uint8), {}, "push frames one by one"),
        (np.zeros((64, 64, 3), np.float32), {}, "dtype float32: give an image as uint8"),
        (np.zeros((64, 64, 2), np.uint8), {}, "shape"),
        (np.zeros((0, 64, 3), np.uint8), {}, "too small, 64x0"),
        (
            np.zeros((64, 64, 3), np.uint8),
            {"colour": "BGR"},
            "'BGR' is unknown; known are bgr, rgb",
        ),
        (
            np.zeros((64, 64, 3), np.uint8),
            {"colour": np.arange(2)},
            "colour array([0, 1]) is unknown",
        ),
        (None, {}, "source of type NoneType: give a path, an address, bytes"),
        ([np.zeros((64, 64, 3), np.uint8)], {}, "source of type list"),
        (3.5, {}, "source of type float"),
        (io.StringIO("words"), {}, 'gives str, not bytes: open it with mode "rb"'),
    ],
)
def test_what_is_no_source_is_refused(detector, given, options, cause):
    with pytest.raises(UsageError) as caught:
        detector.analyze(given, **options)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_gives_its_bytes_once_is_refused(detector):
    read_end, write_end = os.pipe()
    os.close(write_end)
    with open(read_end, "rb") as pipe, pytest.raises(UsageError, match="gives its bytes once"):  # noqa: PTH123
        detector.analyze(pipe)


def test_data_that_is_no_media_is_refused(detector):
    closed = io.BytesIO(b"x")
    closed.close()
    for given, cause in (
        (b"", "the file is empty"),
        (io.BytesIO(), "file object: the file is empty"),
        (b"no picture and no film, only words" * 9, "306 bytes: not a video"),
        (b"#EXTM3U\n/etc/passwd\n", "20 bytes: a playlist"),
        (closed, "the file object cannot be read"),
    ):
        with pytest.raises(SourceError) as caught:
            detector.analyze(given)
        assert cause in str(caught.value)
        assert "\n" not in str(caught.value)
