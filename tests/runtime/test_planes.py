"""Pictures on a decoder's planes: each part has the pixels that the whole picture would have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from clip_maker import face_frames, portrait, run_ffmpeg, write_clip

from dfd_edge import Detector
from dfd_edge.faces import FaceDetector
from dfd_edge.sources.conversion import Converter
from dfd_edge.sources.frames import AllFrames, Frame, Picture, Sampler, resized
from dfd_edge.sources.orientation import Orientation
from dfd_edge.sources.planes import PlanePicture, has_parts
from dfd_edge.sources.video import VideoFile

SIZE = (736, 480)
FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"]
BT709, BT601, BT2020 = 1, 6, 9
LIMITED, FULL = 1, 2


def noisy_frame(
    form: str, *, size: tuple[int, int] = SIZE, matrix: int = BT709, levels: int = LIMITED
) -> VideoFrame:
    """A frame of smooth noise in all planes, of every brightness and colour."""
    rng = np.random.default_rng(0)
    frame = VideoFrame(*size, form)
    frame.colorspace, frame.color_range = matrix, levels
    for plane in frame.planes:
        noise = rng.uniform(0, 255, (plane.height, plane.line_size)).astype(np.float32)
        smooth = (cv2.GaussianBlur(noise, (0, 0), 1.2) - 127.5) * 4 + 127.5
        samples = np.frombuffer(memoryview(plane), np.uint8)
        samples[:] = np.clip(smooth, 0, 255).astype(np.uint8).ravel()
    return frame


def converted_whole(frame: VideoFrame, orientation: Orientation) -> np.ndarray:
    size = {"width": frame.width, "height": frame.height}
    return orientation.apply(frame.to_ndarray(format="bgr24", **size, threads=1))


def some_areas(shape: tuple[int, ...], count: int = 12) -> Iterator[tuple[slice, slice]]:
    """Rectangles at even and odd places, and some that touch the border."""
    rng = np.random.default_rng(1)
    height, width = shape[:2]
    for number in range(count):
        y0, x0 = (int(rng.integers(0, side - 140)) for side in (height, width))
        y1, x1 = (start + int(rng.integers(17, 140)) for start in (y0, x0))
        if number % 4 == 1:
            x0, x1 = 0, x1 - x0
            y0, y1 = height - (y1 - y0), height
        elif number % 4 == 2:
            x0, x1 = width - (x1 - x0), width
            y0, y1 = 0, y1 - y0
        yield slice(y0, y1), slice(x0, x1)


@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("levels", [LIMITED, FULL])
@pytest.mark.parametrize("form", FORMATS)
def test_a_part_has_the_pixels_of_the_whole(form: str, levels: int, matrix: int) -> None:
    for size in (SIZE, (733, 480), (738, 478)):
        frame = noisy_frame(form, size=size, matrix=matrix, levels=levels)
        assert has_parts(frame)
        whole = converted_whole(frame, Orientation())
        for area in some_areas(whole.shape):
            picture = PlanePicture(frame, Orientation(), threading.RLock())
            part = picture[area]
            assert picture._image is None, "the whole was converted for a part"
            assert part.shape == whole[area].shape
            assert np.abs(part.astype(int) - whole[area]).max() <= 1


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("form", ["yuv420p", "yuv444p"])
def test_turned_and_mirrored_pictures(form: str, degrees: int, mirrored: bool) -> None:
    frame = noisy_frame(form)
    orientation = Orientation(degrees, mirrored=mirrored)
    whole = converted_whole(frame, orientation)
    picture = PlanePicture(frame, orientation, threading.RLock())
    assert picture.shape == whole.shape
    for area in some_areas(whole.shape):
        picture = PlanePicture(frame, orientation, threading.RLock())
        assert np.abs(picture[area].astype(int) - whole[area]).max() <= 1
    np.testing.assert_array_equal(picture.image, whole)


@pytest.mark.parametrize("orientation", [Orientation(), Orientation(90, mirrored=True)])
@pytest.mark.parametrize("levels", [LIMITED, FULL])
@pytest.mark.parametrize("form", FORMATS)
def test_the_small_copy_is_that_of_the_converted_picture(
    form: str, levels: int, orientation: Orientation
) -> None:
    image = np.asarray(cv2.resize(portrait(), SIZE), np.uint8)
    frame = VideoFrame.from_ndarray(image, format="bgr24").reformat(
        format=form, dst_colorspace=BT709, dst_color_range=levels
    )
    picture = PlanePicture(frame, orientation, threading.RLock())
    size = (96, 126) if orientation.is_turned else (126, 96)
    wanted = resized(converted_whole(frame, orientation), size)
    apart = np.abs(picture.shrunk(size).astype(int) - wanted)
    assert apart.mean() < 2.0
    assert np.quantile(apart, 0.99) <= 4


def test_many_parts_become_the_whole() -> None:
    frame = noisy_frame("yuv420p")
    whole = converted_whole(frame, Orientation())
    picture = PlanePicture(frame, Orientation(), threading.RLock())
    for area in some_areas(whole.shape, count=60):
        assert np.abs(picture[area].astype(int) - whole[area]).max() <= 1
    assert picture._image is not None
    assert not picture._parts


def test_a_square_beside_a_known_one_is_not_converted_again() -> None:
    picture = PlanePicture(noisy_frame("yuv420p"), Orientation(), threading.RLock())
    assert picture[100:300, 200:400].shape == (200, 200, 3)
    assert picture[104:306, 195:398].shape == (202, 203, 3)
    assert len(picture._parts) == 1


def test_the_small_copy_is_the_same_whatever_else_was_converted() -> None:
    frame = noisy_frame("yuv420p")
    fresh = PlanePicture(frame, Orientation(), threading.RLock()).shrunk((192, 125))
    used = PlanePicture(frame, Orientation(), threading.RLock())
    assert used.image.shape == (480, 736, 3)
    np.testing.assert_array_equal(used.shrunk((192, 125)), fresh)


@pytest.mark.parametrize(
    ("form", "size", "matrix"),
    [
        ("yuv420p", (320, 240), BT709),  # its parts cost what the whole does
        ("yuv420p", (736, 481), BT709),  # FFmpeg interpolates colours across odd numbers of rows
        ("yuv420p10le", SIZE, BT709),
        ("rgb24", SIZE, 0),
        ("yuv420p", SIZE, 3),  # a matrix that does not exist
    ],
)
def test_others_are_converted_whole(form: str, size: tuple[int, int], matrix: int) -> None:
    assert not has_parts(noisy_frame(form, size=size, matrix=matrix))


def encoded(path: Path, *options: str, size: tuple[int, int] = (960, 720)) -> Path:
    """A clip of one face, encoded again by ffmpeg with these options."""
    source = write_clip(path.with_stem("source"), face_frames(12, size=size))
    run_ffmpeg("-i", source, *options, path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        ("-x264-params", "chromaloc=1:colormatrix=bt709"),  # centre
        ("-x264-params", "chromaloc=2:colormatrix=smpte170m"),  # top left
        ("-x264-params", "colormatrix=bt2020nc:transfer=bt709:colorprim=bt709"),
        ("-pix_fmt", "yuvj420p", "-color_range", "pc"),
        ("-pix_fmt", "yuv422p"),
        ("-pix_fmt", "yuv444p"),
        ("-c:v", "mpeg2video", "-q:v", "2"),
        ("-c:v", "mjpeg", "-q:v", "2"),
        ("-vf", "tinterlace=interleave_top", "-flags", "+ilme+ildct", "-x264-params", "tff=1"),
    ],
)
def test_decoded_frames(options: tuple[str, ...], tmp_path: Path) -> None:
    """Colours, siting and fields as a file states them hold for its parts too."""
    path = encoded(tmp_path / "clip.mkv", *options)
    with VideoFile(path) as video:
        frames = list(video.frames(AllFrames()))
    assert frames
    for frame in frames[:: max(1, len(frames) // 3)]:
        assert isinstance(frame.pixels, Picture), frame.pixels.dtype
        parts = [frame.pixels[area] for area in some_areas(frame.pixels.shape, count=4)]
        wholes = [frame.image[area] for area in some_areas(frame.pixels.shape, count=4)]
        for part, whole in zip(parts, wholes, strict=True):
            assert np.abs(part.astype(int) - whole).max() <= 1


def test_ten_bits_come_as_they_did(tmp_path: Path) -> None:
    path = encoded(tmp_path / "clip.mkv", "-pix_fmt", "yuv420p10le")
    with VideoFile(path) as video:
        (frame, *_) = video.frames(AllFrames())
    assert not isinstance(frame.pixels, Picture)
    assert frame.image.shape == (720, 960, 3)


def test_a_turned_film(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", face_frames(3, size=(960, 720)), rotation=90)
    with VideoFile(path) as video:
        (frame, *_) = video.frames(AllFrames())
        assert (video.width, video.height) == (720, 960)
    assert isinstance(frame.pixels, Picture)
    assert frame.pixels.shape == (960, 720, 3)
    part = frame.pixels[300:401, 101:320]
    np.testing.assert_array_equal(part, frame.image[300:401, 101:320])


def test_several_threads_look_at_one_picture() -> None:
    """Display, detection and the next burst use one frame; PyAV alters what it states meanwhile."""
    frame = noisy_frame("yuv420p")
    orientation = Orientation()
    whole = converted_whole(frame, orientation)

    class Context:
        name = "h264"

    converter = Converter(Context(), 1.0)  # type: ignore[arg-type]
    luma = converter.luma(frame)
    faults: list[str] = []

    def look(number: int) -> None:
        for _ in range(8):
            picture = converter.convert(frame)
            area = slice(11 * number, 11 * number + 90), slice(31 * number, 31 * number + 77)
            if number == 0 and not np.array_equal(converter.luma(frame), luma):
                faults.append("luma")
            if np.abs(picture[area].astype(int) - whole[area]).max() > 1:
                faults.append("part")
            if number % 2 and not np.array_equal(picture.image, whole):
                faults.append("whole")

    threads = [threading.Thread(target=look, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert (frame.colorspace, frame.color_range) == (BT709, LIMITED)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The shipped bundle."""
    return Detector.load()


@pytest.fixture(scope="module")
def wide_clip(clips: Path) -> Path:
    """A second of a face that takes a small part of a large picture."""
    picture = portrait()
    frames = []
    for number in range(25):
        large = np.full((720, 1280, 3), 90, np.uint8)
        x = 300 + 2 * number
        large[150 : 150 + 512, x : x + 512] = picture
        frames.append(large)
    return write_clip(clips / "wide.mp4", frames)


def test_judging_converts_no_whole_picture(
    wide_clip: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = detector.analyze(wide_clip)
    monkeypatch.setattr(PlanePicture, "image", property(lambda _: pytest.fail("converted")))
    verdict = detector.analyze(wide_clip)
    assert verdict.frames == known.frames > 3
    assert verdict.p_fake == known.p_fake is not None


def test_a_display_does_not_change_the_scores(wide_clip: Path, detector: Detector) -> None:
    shown: list[Frame] = []
    alone = detector.analyze(wide_clip)
    seen = detector.analyze(wide_clip, on_image=lambda frame, _: shown.append(frame))
    assert {frame.image.shape for frame in shown} == {(720, 1280, 3)}
    assert seen.logit == pytest.approx(alone.logit, abs=1e-4)  # steps go one by one


def test_faces_are_found_where_they_are_in_the_whole(wide_clip: Path) -> None:
    finder = FaceDetector()
    with VideoFile(wide_clip) as video:
        for frame in video.frames(Sampler(5.0)):
            assert isinstance(frame.pixels, Picture)
            (found,) = finder.detect(frame.pixels)
            (wanted,) = finder.detect(frame.image)
            assert np.abs(found.box - wanted.box).max() < 0.05 * wanted.size
            assert found.score == pytest.approx(wanted.score, abs=0.05)
