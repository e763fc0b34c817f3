"""Still pictures: read upright, or refused in one line."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from dfd_edge.errors import SourceError
from dfd_edge.sources import read_image


def picture():
    """Upper left quarter white; 60 high, 80 wide."""
    image = np.full((60, 80, 3), 30, np.uint8)
    image[:30, :40] = 240
    return image


def encoded(suffix):
    done, data = cv2.imencode(suffix, picture())
    assert done
    return data.tobytes()


def with_exif(jpeg, orientation):
    """Puts an EXIF block that holds nothing but the orientation into a JPEG."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + bytes(4)
    block = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encoded(suffix))
    image = read_image(path)
    assert image.shape == (60, 80, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture()).mean() < 3


@pytest.mark.parametrize(
    ("orientation", "shape", "bright"),
    [
        (1, (60, 80), (0, 0)),
        (2, (60, 80), (0, 1)),
        (3, (60, 80), (1, 1)),
        (4, (60, 80), (1, 0)),
        (5, (80, 60), (0, 0)),
        (6, (80, 60), (0, 1)),
        (7, (80, 60), (1, 1)),
        (8, (80, 60), (1, 0)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, shape, bright):
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_exif(encoded(".jpg"), orientation))
    image = read_image(path)
    assert image.shape[:2] == shape
    halves = [
        [half.mean() for half in np.array_split(rows, 2, axis=1)]
        for rows in np.array_split(image, 2, axis=0)
    ]
    assert np.unravel_index(np.argmax(halves), (2, 2)) == bright


def with_thumbnail(jpeg):
    """A JPEG that carries a smaller one, with its own end marker, before its scan."""
    small = cv2.imencode(".jpg", picture()[::4, ::4])[1].tobytes()
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + jpeg[2:]


def huge_png():
    data = bytearray(encoded(".png"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"no picture at all, only words" * 3, "not a picture"),
        (encoded(".jpg")[:300], "cut off"),
        (with_thumbnail(encoded(".jpg"))[:-20], "cut off"),
        (encoded(".png")[:60], "cut off"),
        (encoded(".png")[:60] + b"IEND", "cut off"),
        (huge_png(), "too large, 100000x100000"),
    ],
)
def test_bad_pictures_are_refused_in_one_line(tmp_path, capfd, content, cause):
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=cause) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [encoded(".jpg"), with_thumbnail(encoded(".jpg"))])
def test_a_motion_photo_is_a_picture(tmp_path, content):
    """Telephones append a clip of megabytes to the picture."""
    path = tmp_path / "motion.jpg"
    path.write_bytes(content + bytes(2_000_000))
    assert read_image(path).shape == (60, 80, 3)


def test_data_after_a_png(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(".png") + bytes(2_000_000))
    assert read_image(path).shape == (60, 80, 3)


def test_missing(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        read_image(tmp_path / "gone.jpg")


def test_tiny(tmp_path):
    path = tmp_path / "dot.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    with pytest.raises(SourceError, match="too small, 4x4"):
        read_image(path)
