"""Films that are pictures one after the other: JPEGs with the EXIF of a camera, and bare ones."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from clip_maker import face_frames, run_ffmpeg
from PIL import Image

from dfd_edge import Detector
from dfd_edge.sources import SourceItem, SourceKind, VideoFile
from dfd_edge.sources.frames import Sampler

#: Where a mark in the upper left corner is seen, by EXIF orientation.
SEEN = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}


def jpegs(frames, orientation=None):
    """The frames as JPEGs; by default without EXIF."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        exif[0x010F] = "Maker"
    data = io.BytesIO()
    for frame in frames:
        picture = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
        picture.save(data, format="JPEG", quality=95, **({"exif": exif} if orientation else {}))
    return data.getvalue()


def marked():
    """Upper left quarter white; 60 high, 80 wide."""
    image = np.full((60, 80, 3), 30, np.uint8)
    image[:30, :40] = 240
    return image


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mov"])
@pytest.mark.parametrize("orientation", SEEN)
def test_exif_in_frames(tmp_path, suffix, orientation):
    """FFmpeg hands EXIF on as a kind of side data that PyAV may not know."""
    (tmp_path / "frames.mjpeg").write_bytes(jpegs([marked()] * 5, orientation))
    path = tmp_path / f"film{suffix}"
    run_ffmpeg("-f", "mjpeg", "-i", tmp_path / "frames.mjpeg", "-c", "copy", path)
    with VideoFile(path) as film:
        images = [frame.image for frame in film.frames(Sampler(25))]
    assert len(images) == 5
    for image in images:
        assert image.shape == ((60, 80, 3) if orientation < 5 else (80, 60, 3))
        bright = [
            [half.mean() for half in np.array_split(rows, 2, axis=1)]
            for rows in np.array_split(image, 2, axis=0)
        ]
        assert np.unravel_index(np.argmax(bright), (2, 2)) == SEEN[orientation]


def test_side_data_that_pyav_does_not_name(tmp_path, monkeypatch):
    """The turn is still read where it comes behind what has no name."""
    from av.sidedata.sidedata import SideDataContainer

    from dfd_edge.sources.orientation import orientation_of

    (tmp_path / "frames.mjpeg").write_bytes(jpegs([marked()], 6))
    with av.open(str(tmp_path / "frames.mjpeg"), format="mjpeg") as opened:
        (frame,) = opened.decode(video=0)

    def unknown(self, frame):
        raise ValueError("31 is not a valid Type")

    if not frame.rotation:
        pytest.skip("this FFmpeg reads no turn from EXIF")
    assert orientation_of(frame).degrees == 270
    monkeypatch.setattr(SideDataContainer, "__init__", unknown, raising=False)
    assert orientation_of(frame).degrees == 270


@pytest.mark.parametrize("name", ["pictures.mjpeg", "pictures.MJPG"])
def test_bare_jpegs_one_after_the_other(tmp_path, tiny_bundle, name):
    path = tmp_path / name
    path.write_bytes(jpegs(face_frames(50)))
    assert SourceItem.of(path).kind is SourceKind.VIDEO
    verdict = Detector.load(tiny_bundle).analyze(path)
    assert (verdict.frames, verdict.coverage, verdict.complete) == (10, 1.0, True)
    assert verdict.duration_s == pytest.approx(2.0)


def test_a_jpeg_under_the_name_of_a_film_is_the_still_that_it_is(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(jpegs(face_frames(1)))
    assert SourceItem.of(path).kind is SourceKind.IMAGE
