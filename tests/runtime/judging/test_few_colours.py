"""Animations are judged whole, and pictures of few colours are not decided on."""

from __future__ import annotations

import functools
import io
import tracemalloc

import cv2
import numpy as np
import pytest
from clip_maker import face_frames, plain_frames, portrait
from PIL import Image

from dfd_edge import Detector, Label
from dfd_edge.errors import SourceError
from dfd_edge.sources import SourceItem, SourceKind
from dfd_edge.sources.conversion import few_colours
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.image import AnimatedWebP


@pytest.fixture(scope="module")
def detector():
    return Detector.load()


def pillow(frame):
    return Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))


def animation(path, frames, *, step_ms=100, **options):
    first, *others = [pillow(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=step_ms, loop=0, **options)
    return path


@pytest.mark.parametrize("name", ["moving.webp", "moving.png", "moving.apng"])
def test_every_frame_of_an_animation_is_judged(tmp_path, detector, name):
    """The face comes after a second: the first frame alone shows none."""
    frames = plain_frames(10) + face_frames(20)
    path = animation(tmp_path / name, frames)
    assert SourceItem.of(path).kind is SourceKind.VIDEO
    verdict = detector.analyze(path)
    assert verdict.label is not Label.NO_FACE
    assert verdict.frames == 15
    assert verdict.coverage == pytest.approx(2 / 3, abs=0.1)
    assert verdict.duration_s == pytest.approx(3.0, abs=0.11)
    assert (verdict.complete, verdict.reason) == (True, None)


@pytest.mark.parametrize("options", [{"quality": 90}, {"lossless": True}])
def test_an_animated_webp_is_put_together_as_pillow_does(tmp_path, options):
    """Frames that cover a part of the canvas, with and without transparency, and none shown."""
    rng = np.random.default_rng(3)
    canvas, frames = np.zeros((96, 128, 4), np.uint8), []
    for _ in range(8):
        x, y = rng.integers(0, 80), rng.integers(0, 60)
        canvas = canvas.copy()
        canvas[y : y + 30, x : x + 40] = [*rng.integers(0, 255, 3), rng.choice([0, 255])]
        frames.append(Image.fromarray(canvas, "RGBA"))
    path = tmp_path / "parts.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, **options)
    with Image.open(path) as expected, AnimatedWebP(path, name="parts") as opened:
        read = list(opened.frames(Sampler(1000)))
        assert (opened.width, opened.height, len(read)) == (128, 96, expected.n_frames)
        assert opened.duration_s == pytest.approx(1.6)
        for number, frame in enumerate(read):
            expected.seek(number)
            rgba = np.asarray(expected.convert("RGBA"))
            seen = rgba[:, :, :3] * (rgba[:, :, 3:] / 255.0)
            assert frame.time_s == pytest.approx(0.2 * number)
            assert np.abs(frame.image[:, :, ::-1] - seen).mean() < 1.0


def test_a_webp_of_one_frame_is_a_still(tmp_path):
    path = tmp_path / "one.webp"
    frame = pillow(plain_frames(1)[0])
    frame.save(path, save_all=True, duration=100)
    assert SourceItem.of(path).kind is SourceKind.IMAGE


def test_a_damaged_frame_is_told(tmp_path, detector):
    path = animation(tmp_path / "moving.webp", face_frames(20))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"VP8 ")
    data[at + 8 : at + 18] = bytes(10)
    path.write_bytes(data)
    verdict = detector.analyze(path)
    assert (verdict.complete, verdict.frames) == (False, 10)
    assert "damaged" in verdict.reason
    path.write_bytes(data[: len(data) // 2])
    assert not detector.analyze(path).complete


def test_a_forged_length_takes_no_memory(tmp_path, detector):
    path = animation(tmp_path / "moving.webp", face_frames(4))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"ANMF")
    data[at + 4 : at + 8] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    try:
        verdict = detector.analyze(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not verdict.complete
    assert peak < 64 << 20


def test_a_canvas_too_large_and_a_frame_outside_it_are_refused(tmp_path, detector):
    path = animation(tmp_path / "moving.webp", plain_frames(3))
    data = bytearray(path.read_bytes())
    (tmp_path / "large.webp").write_bytes(data[:24] + b"\xff\x3f\x00" * 2 + data[30:])
    with pytest.raises(SourceError, match="too large, 16384x16384"):
        detector.analyze(tmp_path / "large.webp")
    at = data.index(b"ANMF") + 8
    data[at + 6 : at + 9] = b"\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="outside its canvas"):
        detector.analyze(path)


def encoded(image, **options):
    data = io.BytesIO()
    image.save(data, **options)
    return data.getvalue()


@functools.cache
def palette_pictures():
    photograph = pillow(portrait())
    dithered = photograph.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    return {
        "palette.png": encoded(dithered, format="PNG"),
        "palette.bmp": encoded(dithered, format="BMP"),
        "palette.tif": encoded(dithered, format="TIFF"),
        "16 colours.png": encoded(photograph.quantize(16), format="PNG"),
        "1 bit.png": encoded(photograph.convert("1"), format="PNG"),
        "1 bit.pbm": encoded(photograph.convert("1"), format="PPM"),
        "palette as truecolour.webp": encoded(
            dithered.convert("RGB"), format="WEBP", lossless=True
        ),
        "still.gif": encoded(photograph, format="GIF"),
    }


@pytest.mark.parametrize("name", palette_pictures())
def test_pictures_of_few_colours_are_not_decided_on(tmp_path, detector, name):
    path = tmp_path / name
    path.write_bytes(palette_pictures()[name])
    verdict = detector.analyze(path)
    assert verdict.label is Label.UNSURE
    if not name.endswith(".gif"):  # one frame of a film is too little in any case
        assert verdict.p_fake is not None
        assert "few colours" in verdict.reason
        assert {person.label for person in verdict.people} == {Label.UNSURE}


@pytest.mark.parametrize("name", ["moving.gif", "moving.png"])
def test_films_of_few_colours_are_not_decided_on(tmp_path, detector, name):
    frames = [pillow(frame).quantize(64, Image.Quantize.FASTOCTREE) for frame in face_frames(20)]
    path = tmp_path / name
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    verdict = detector.analyze(path)
    assert verdict.label is Label.UNSURE
    assert verdict.p_fake is not None
    assert "few colours" in verdict.reason


def test_photographs_are_decided_on():
    """Colour, grey, dark and small ones have colours enough."""
    photograph = portrait()
    grey = cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY)
    for image in (
        photograph,
        cv2.merge([grey] * 3),
        cv2.resize(photograph, (64, 64)),
        (photograph // 4).astype(np.uint8),
        cv2.imdecode(cv2.imencode(".jpg", photograph, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], 1),
    ):
        assert not few_colours(image)
