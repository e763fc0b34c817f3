"""Bursts: the last consecutive frames as luma, the same however a source is read."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction

import av
import cv2
import numpy as np
import PIL.Image
import pytest
from clip_maker import face_frames, run_ffmpeg, write_clip

from dfd_edge import Detector
from dfd_edge.errors import CameraError
from dfd_edge.judging.people import Observer
from dfd_edge.sandbox.process import unavailable as sandbox_unavailable
from dfd_edge.sandbox.source import SandboxedSource
from dfd_edge.sources import RawFormat, SourceItem, SourceOptions, camera
from dfd_edge.sources.bursts import luma_of_image, shrunk_luma
from dfd_edge.sources.frames import AllFrames, Sampler
from dfd_edge.sources.image import AnimatedWebP
from dfd_edge.sources.live import LiveReader
from dfd_edge.sources.options import RAW_PIXELS
from dfd_edge.sources.video import RawVideo, VideoFile


class Told:
    """A sampler that tells nothing of frames to come: all are decoded."""

    def __init__(self, sampler):
        self.sampler = sampler

    def is_due(self, time_s):
        return self.sampler.is_due(time_s)


def noise_planes(count, size=(160, 128), *, seed=0):
    """Luma of frames, each with noise and a brightness of its own, full range."""
    random = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(40.0, 200.0, width)[None].repeat(height, axis=0)
    return [
        np.clip(ramp + 3.0 * (number % 7) + random.normal(0.0, 8.0, ramp.shape), 0, 255)
        for number in range(count)
    ]


def write(
    path, planes, *, rate=30, pixels="yuv420p", codec="ffv1", times_s=None, options=None, **marks
):
    """Writes luma planes (full range) without loss; in limited range but where `marks` say so."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = planes[0].shape
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 9000)
        for name, value in marks.items():
            setattr(stream.codec_context, name, value)
        for number, plane in enumerate(planes):
            frame = luma_frame(plane, pixels, full=marks.get("color_range") == 2)
            for name, value in marks.items():
                if hasattr(frame, name):
                    setattr(frame, name, value)
            frame.pts = round(9000 * (number / rate if times_s is None else times_s[number]))
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def luma_frame(plane, pixels, *, full=False):
    """A frame of grey with this luma."""
    frame = av.VideoFrame(plane.shape[1], plane.shape[0], pixels)
    deep = frame.format.components[0].bits > 8
    scale = 4 if deep else 1
    black, span = (0, 255.75 if deep else 255) if full else (16, 219)
    for number, stored in enumerate(frame.planes):
        samples = np.frombuffer(stored, np.uint16 if deep else np.uint8)
        samples = samples.reshape(stored.height, -1)
        if number == 0:
            samples[:, : plane.shape[1]] = np.round((plane / 255.0 * span + black) * scale)
        else:
            samples[:] = 128 * scale
    return frame


def read(path, sampler=None, **options):
    with VideoFile(path) as video:
        return list(video.frames(sampler or Sampler(5.0), bursts=True, **options))


def error(plane, wanted):
    assert plane.dtype == np.uint8
    assert plane.shape == wanted.shape
    return np.abs(plane.astype(float) - wanted).max()


def assert_same(bursts, others):
    assert len(bursts) == len(others)
    for burst, other in zip(bursts, others, strict=True):
        assert (burst is None) == (other is None)
        if burst is not None:
            np.testing.assert_array_equal(burst.planes, other.planes)


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_the_three_frames_up_to_each_due_one(tmp_path, rate):
    planes = noise_planes(rate * 2)
    frames = read(write(tmp_path / "clip.mkv", planes, rate=rate))
    assert len(frames) >= 10
    assert frames[0].burst is None, "nothing comes before it"
    for frame in frames[1:]:
        for back, plane in zip((2, 1, 0), frame.burst.planes, strict=True):
            assert error(plane, planes[frame.index - back]) < 1.5
            assert error(plane, planes[frame.index - back - 1]) > 20


def test_none_where_none_was_asked_for(tmp_path):
    path = write(tmp_path / "clip.mkv", noise_planes(30))
    with VideoFile(path) as video:
        assert all(frame.burst is None for frame in video.frames(Sampler(5.0)))


def test_frames_for_display_have_none(tmp_path):
    path = write(tmp_path / "clip.mkv", noise_planes(30))
    for frame in read(path, every=True):
        assert (frame.burst is not None) == (frame.due and frame.index > 0)


@pytest.mark.parametrize(("rate", "given"), [(10, False), (12, False), (15, True)])
def test_slow_clips_have_none(tmp_path, rate, given):
    path = write(tmp_path / "clip.mkv", noise_planes(2 * rate), rate=rate)
    assert [frame.burst is not None for frame in read(path)][1:] == [given] * 9


@pytest.mark.parametrize(
    ("pixels", "full"),
    [
        *((pixels, False) for pixels in ("yuv420p", "yuv444p", "yuv420p10le", "yuv422p10le")),
        *((pixels, True) for pixels in ("yuv420p", "yuv420p10le")),
        ("nv12", False),
        ("gray", True),  # as in the image: grey is taken for full
    ],
)
@pytest.mark.parametrize("matrix", [1, 5])  # BT.709, BT.601
def test_luma_is_that_of_the_file_in_full_range(tmp_path, pixels, matrix, full):
    planes = noise_planes(8)
    planes[5][:8, :8], planes[5][:8, 8:16] = 0.0, 255.0
    name, codec = ("clip.avi", "rawvideo") if pixels in ("nv12", "gray") else ("clip.mkv", "ffv1")
    path = tmp_path / name
    write(path, planes, pixels=pixels, codec=codec, colorspace=matrix, color_range=1 + full)
    frame = read(path, AllFrames())[5]
    # One rounding of the file's, one of the burst's.
    most = 0.66 if "10" in pixels else 1.1
    for back, plane in zip((2, 1, 0), frame.burst.planes, strict=True):
        assert error(plane, planes[5 - back]) <= most
    assert (frame.burst.planes[2][:8, :8] == 0).all()
    assert (frame.burst.planes[2][:8, 8:16] == 255).all()


@pytest.mark.parametrize("pixels", ["bgr0", "pal8"])
def test_pictures_without_luma_are_turned_grey(tmp_path, pixels):
    path = write(tmp_path / "clip.mkv", noise_planes(8))
    other = tmp_path / "other.avi"
    run_ffmpeg("-i", path, "-c:v", "rawvideo", "-pix_fmt", pixels, other)
    frames = read(other, AllFrames())
    for back, plane in zip((2, 1, 0), frames[5].burst.planes, strict=True):
        grey = cv2.cvtColor(frames[5 - back].image, cv2.COLOR_BGR2GRAY)
        assert error(plane, grey.astype(float)) <= 1.0


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_large_frames_are_shrunk_to_the_mean_of_what_each_pixel_covers(tmp_path, pixels):
    planes = noise_planes(3, (1280, 1024))
    path = write(tmp_path / "clip.mkv", planes, pixels=pixels)
    burst = read(path, AllFrames())[2].burst
    for plane, whole in zip(burst.planes, planes, strict=True):
        wanted = cv2.resize(whole.astype(np.float32), (720, 576), interpolation=cv2.INTER_AREA)
        assert error(plane, wanted) < 1.3
        assert np.abs(plane - wanted).std() < 0.35, "it was rounded once"


def test_frames_of_several_kinds_take_turns():
    """A thread's scaler keeps nothing of the frame before that the next one could show."""
    kinds = [("yuv420p", False, 960), ("yuv420p", True, 960), ("yuv420p10le", False, 960)]
    kinds += [("yuv444p", True, 1280), ("yuv420p", False, 1440)]
    frames = []
    for number, (pixels, full, width) in enumerate(kinds):
        plane = np.random.default_rng(number).integers(0, 256, (width // 2, width), np.uint8)
        frame = luma_frame(plane, pixels, full=full)
        frame.color_range = 2 if full else 1
        wanted = cv2.resize(plane, (720, 360), interpolation=cv2.INTER_AREA)
        frames.append((frame, width, wanted))
    for frame, width, wanted in frames * 2 + frames[::-1]:
        assert error(shrunk_luma(frame, width, width // 2), wanted) <= 2.0


def test_a_repeated_frame_is_the_same_to_its_last_bit(tmp_path):
    planes = noise_planes(12)
    planes[5] = planes[4]
    burst = read(write(tmp_path / "clip.mkv", planes))[1].burst
    first, second, due = burst.planes
    np.testing.assert_array_equal(first, second)
    assert (due != second).mean() > 0.8


def test_turned_pictures_and_wide_pixels_come_as_the_image_has_them(tmp_path):
    planes = noise_planes(12, (960, 320))
    for plane in planes:
        plane[:80, :120] = 240.0
        plane[-80:, -120:] = 10.0
    path = write(tmp_path / "flat.mp4", planes, codec="libx264", options={"qp": "0"})
    wide = tmp_path / "wide.mp4"
    run_ffmpeg("-i", path, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=3/2", wide)
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", wide, "-c", "copy", turned)
    for clip, size in ((path, (320, 960)), (wide, (320, 1440)), (turned, (1440, 320))):
        frame = read(clip, AllFrames())[5]
        assert frame.image.shape[:2] == size
        grey = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
        height, width = frame.burst.planes[2].shape
        assert max(height, width) == 720
        assert width / height == pytest.approx(size[1] / size[0], rel=0.005)
        wanted = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(float)
        assert np.abs(frame.burst.planes[2] - wanted).mean() < 3.0


class TestWhereThereIsNone:
    def test_interlaced_footage(self, tmp_path):
        path = write(tmp_path / "clip.mkv", noise_planes(40))
        fields = tmp_path / "fields.mkv"
        encoding = ["-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1"]
        run_ffmpeg("-i", path, *encoding, fields)
        frames = read(fields)
        assert len(frames) > 5
        assert all(frame.burst is None for frame in frames)

    @pytest.mark.parametrize("curve", ["smpte2084", "arib-std-b67"])
    def test_hdr(self, tmp_path, curve):
        path = write(tmp_path / "clip.mkv", noise_planes(20), pixels="yuv420p10le")
        bright = tmp_path / "bright.mkv"
        marks = ["-color_trc", curve, "-color_primaries", "bt2020", "-colorspace", "bt2020nc"]
        params = f"transfer={curve}:colorprim=bt2020:colormatrix=bt2020nc"
        run_ffmpeg("-i", path, "-c:v", "libx264", *marks, "-x264-params", params, bright)
        frames = read(bright)
        assert len(frames) == 4
        assert all(frame.burst is None for frame in frames)

    def test_a_gap_in_the_times(self, tmp_path):
        times_s = [n / 30 + (0.2 if n >= 29 else 0.0) for n in range(60)]
        path = write(tmp_path / "clip.mkv", noise_planes(60), times_s=times_s)
        frames = read(path, AllFrames())
        assert [f.index for f in frames if f.burst is None] == [0, 1, 29, 30]

    def test_another_size(self, tmp_path):
        parts = []
        for number, size in enumerate(("320x240", "640x480")):
            parts.append(tmp_path / f"{number}.ts")
            clip = write(tmp_path / "clip.mkv", noise_planes(10))
            run_ffmpeg("-i", clip, "-s", size, "-c:v", "mpeg2video", parts[-1])
        whole = tmp_path / "whole.ts"
        whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        frames = read(whole, AllFrames())
        shapes = [frame.image.shape[:2] for frame in frames]
        assert set(shapes) == {(240, 320), (480, 640)}
        for number, frame in enumerate(frames):
            alike = number >= 2 and len(set(shapes[number - 2 : number + 1])) == 1
            assert (frame.burst is not None) == alike
            if alike:
                assert {plane.shape for plane in frame.burst.planes} == {shapes[number]}

    @pytest.mark.parametrize(
        ("rate", "options"),
        [
            (30, {"bf": "2", "g": "20", "preset": "fast"}),
            (60, {"bf": "0", "g": "3", "preset": "fast"}),  # a few frames, less than a slow step
        ],
    )
    @pytest.mark.parametrize("left", ["some of a packet", "nothing of a packet"])
    def test_damaged_and_missing_frames(self, tmp_path, rate, options, left):
        clip = write_clip(tmp_path / "clip.mp4", face_frames(90), rate=rate, options=options)
        with av.open(str(clip)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            hit = [packet for packet in packets[30:60] if not packet.is_keyframe][::7]
            places = [(packet.pos, packet.size) for packet in hit]
        data = bytearray(clip.read_bytes())
        for position, size in places:
            kept = size // 4 if left == "some of a packet" else 5
            for place in range(position + kept, position + size, 7 if kept > 5 else 1):
                data[place] ^= 0xFF
        clip.write_bytes(data)
        frames = read(clip, AllFrames())
        numbers = {round(rate * frame.time_s) for frame in frames}
        assert 30 < len(numbers) < 90, "some are damaged"
        for frame in frames:
            number = round(rate * frame.time_s)
            assert (frame.burst is not None) == ({number - 1, number - 2} <= numbers)

    def test_a_frame_that_was_left_out_since_another_was_foreseen(self, tmp_path):
        class Wrong(Sampler):
            def foresee(self):
                return Sampler(3.0)

        options = {"bf": "3", "g": "60", "preset": "fast"}
        clip = write_clip(tmp_path / "clip.mp4", face_frames(150), rate=60, options=options)
        whole = {frame.index: frame.burst for frame in read(clip, Told(AllFrames()))}
        frames = read(clip, Wrong(5.0))
        assert any(frame.burst is None for frame in frames[1:])
        for frame in frames:
            if frame.burst is not None:
                assert_same([frame.burst], [whole[frame.index]])


CODED = [
    ("pyramid.mp4", ["-c:v", "libx264", "-bf", "3"]),
    ("deep.ts", ["-c:v", "libx264", "-bf", "16", "-b_strategy", "0", "-refs", "1"]),
    ("open.mkv", ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=30"]),
    ("ten_bits.mkv", ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
    ("hevc.mp4", ["-c:v", "libx265", "-x265-params", "log-level=none"]),
    ("sixty.mkv", ["-r", "60", "-c:v", "libx264"]),
    ("uneven.mp4", ["-vf", "select='gt(random(0),0.3)'", "-fps_mode", "vfr", "-c:v", "libx264"]),
]


@pytest.mark.parametrize(("name", "encoding"), CODED)
def test_skimming_gives_the_same_bursts_as_decoding_everything(tmp_path, name, encoding):
    path = tmp_path / name
    options = {"bf": "3", "g": "60", "preset": "fast"}
    clip = write_clip(tmp_path / "clip.mp4", face_frames(150), rate=30, options=options)
    run_ffmpeg("-i", clip, *encoding, path)
    left_out = 0
    with VideoFile(path) as video:
        in_order = video._in_order

        def counted():
            nonlocal left_out
            for pts_s, decoded in in_order():
                left_out += decoded is None
                yield pts_s, decoded

        video._in_order = counted
        frames = list(video.frames(Sampler(5.0), bursts=True))
    whole = read(path, Told(Sampler(5.0)))
    assert left_out > 5, "else nothing is shown here"
    assert [frame.index for frame in frames] == [frame.index for frame in whole]
    assert sum(frame.burst is not None for frame in whole) >= 0.5 * len(whole)
    assert_same([frame.burst for frame in frames], [frame.burst for frame in whole])
    for frame, other in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(frame.image, other.image)


@pytest.mark.parametrize("pixels", RAW_PIXELS)
def test_raw_frames(tmp_path, pixels):
    planes = noise_planes(20)
    clip = write(tmp_path / "clip.mkv", planes, pixels="yuv444p")
    data = run_ffmpeg("-i", clip, "-pix_fmt", pixels, "-f", "rawvideo", "-")
    raw = RawVideo(io.BytesIO(data), RawFormat.parse(f"160x128:{pixels}@30"))
    frames = list(raw.frames(Sampler(5.0), bursts=True))
    assert [frame.index for frame in frames if frame.burst is not None] == [6, 12, 18]
    for back, plane in zip((2, 1, 0), frames[1].burst.planes, strict=True):
        assert error(plane, planes[6 - back]) <= 2.0
    slow = RawVideo(io.BytesIO(data), RawFormat.parse(f"160x128:{pixels}@10"))
    assert all(frame.burst is None for frame in slow.frames(Sampler(5.0), bursts=True))


def test_animations(tmp_path):
    images = [cv2.merge([plane.astype(np.uint8)] * 3) for plane in noise_planes(20)]
    pictures = [PIL.Image.fromarray(image) for image in images]
    path = tmp_path / "animation.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, lossless=True)
    with AnimatedWebP(path, name="animation") as animation:
        frames = list(animation.frames(Sampler(5.0), bursts=True))
    assert [frame.index for frame in frames if frame.burst is not None] == [5, 10, 15]
    for back, plane in zip((2, 1, 0), frames[1].burst.planes, strict=True):
        assert error(plane, images[5 - back][:, :, 0].astype(float)) <= 1.0


@pytest.mark.skipif(sandbox_unavailable() is not None, reason="there is no sandbox here")
def test_a_sandbox_gives_the_same(tmp_path):
    planes = noise_planes(40, (1280, 1024))
    path = write(tmp_path / "clip.mkv", planes, codec="libx264", options={"preset": "ultrafast"})
    item = SourceItem.made_of(path, SourceOptions(sandbox=True))
    with SandboxedSource(item, live=False) as source:
        frames = list(source.frames(Sampler(5.0), bursts=True))
    own = read(path)
    assert sum(frame.burst is not None for frame in own) == len(own) - 1 > 4
    assert_same([frame.burst for frame in frames], [frame.burst for frame in own])
    for frame, other in zip(frames, own, strict=True):
        np.testing.assert_array_equal(frame.image, other.image)


def test_a_live_reader_passes_them_on(tmp_path):
    path = write(tmp_path / "clip.mkv", noise_planes(40))
    for bursts in (False, True):
        reader = LiveReader(
            lambda _: VideoFile(path),
            name="clip",
            is_due=(sampler := Sampler(5.0)).is_due,
            foresee=sampler.foresee,
            on_event=lambda *_: None,
            bursts=bursts,
        )
        reader.start()
        given = []
        with contextlib.suppress(EOFError):
            while True:
                if (captured := reader.take(5.0)) is not None:
                    given.append(captured.frame.burst)
        assert len(given) > 5
        assert [burst is not None for burst in given] == [False] + [bursts] * (len(given) - 1)


class Camera30:
    """Stands in for a camera's driver, in a clock of its own."""

    def __init__(self, images, times_s):
        self.images, self.times_s = images, times_s
        self.number, self.retrieved = -1, []

    def grab(self):
        self.number += 1
        return self.number < len(self.images)

    def retrieve(self):
        self.retrieved.append(self.number)
        return True, self.images[self.number]

    def monotonic(self):
        return self.times_s[min(max(self.number, 0), len(self.times_s) - 1)]


def camera_frames(monkeypatch, driver, **options):
    monkeypatch.setattr(camera, "time", driver)
    opened = object.__new__(camera.Camera)
    opened.name, opened._capture = "camera 0", driver
    frames = []
    with contextlib.suppress(CameraError):
        for frame in opened.frames(Sampler(5.0), bursts=True, **options):
            frames.append(frame)
    return frames


class TestCameras:
    @pytest.fixture(scope="class")
    def images(self):
        return [cv2.merge([plane.astype(np.uint8)] * 3) for plane in noise_planes(60)]

    def test_only_what_a_burst_needs_is_converted(self, monkeypatch, images):
        random = np.random.default_rng(1)
        times_s = [7.0 + n / 30 + random.uniform(0.0, 0.004) for n in range(60)]
        driver = Camera30(images, times_s)
        frames = camera_frames(monkeypatch, driver)
        assert len(frames) == 10
        assert all(frame.burst is not None for frame in frames[1:])
        for frame in frames[1:]:
            for back, plane in zip((2, 1, 0), frame.burst.planes, strict=True):
                np.testing.assert_array_equal(plane, images[frame.index - back][:, :, 0])
        assert len(driver.retrieved) < 45, "not all 60"

    def test_frames_for_display_have_none(self, monkeypatch, images):
        driver = Camera30(images, [7.0 + n / 30 for n in range(60)])
        frames = camera_frames(monkeypatch, driver, every=True)
        assert len(frames) == 60
        assert {f.index for f in frames if f.burst is not None} == set(range(6, 60, 6))

    def test_a_slow_one_has_none_at_no_cost(self, monkeypatch, images):
        driver = Camera30(images, [7.0 + n / 10 for n in range(60)])
        frames = camera_frames(monkeypatch, driver)
        assert all(frame.burst is None for frame in frames)
        assert len(driver.retrieved) == len(frames) == 30

    def test_a_pause_before_the_due_frame(self, monkeypatch, images):
        times_s = [7.0 + n / 30 + 0.1 * (n >= 29) for n in range(60)]
        frames = camera_frames(monkeypatch, Camera30(images, times_s))
        near = [frame for frame in frames if 29 <= frame.index <= 30]
        assert near
        assert all(frame.burst is None for frame in near)


class TestPushedFrames:
    @pytest.fixture
    def stream(self, signals_bundle):
        """A stream of a model that measures bursts; those that were observed are in `bursts`."""
        stream = Detector.load(signals_bundle).stream()
        stream.bursts = []
        observe = stream.observe

        def noted(frame, time_s, *, burst=None, **options):
            stream.bursts.append(burst)
            return observe(frame, time_s, **options)

        stream.observe = noted
        return stream

    @pytest.fixture
    def kept(self, monkeypatch):
        """Numbers of the images whose luma was taken."""
        numbers = []
        monkeypatch.setattr(
            "dfd_edge.sources.bursts.luma_of_image",
            lambda image: numbers.append(int(image[0, 0, 0])) or luma_of_image(image),
        )
        return numbers

    @staticmethod
    def images(count):
        images = [cv2.merge([plane.astype(np.uint8)] * 3) for plane in noise_planes(count)]
        for number, image in enumerate(images):
            image[0, 0] = number
        return images

    def test_two_before_each_due_one_are_kept(self, stream, kept):
        images = self.images(31)
        for number, image in enumerate(images):
            buffer = image.copy()
            stream.push(buffer, 5.0 + number / 30)
            buffer[:] = 0  # an application that uses its memory again
        assert stream.bursts[0] is None
        assert len(stream.bursts) == 6
        for number, burst in enumerate(stream.bursts[1:], start=1):
            for back, plane in zip((2, 1, 0), burst.planes, strict=True):
                np.testing.assert_array_equal(plane, images[6 * number - back][:, :, 0])
        assert kept == [n for n in range(1, 31) if n % 6 in (4, 5, 0)]

    @pytest.mark.parametrize("rate", [5, 10, 12])
    def test_slow_pushes_cost_nothing(self, stream, kept, rate):
        for number, image in enumerate(self.images(20)):
            stream.push(image, number / rate)
        assert len(stream.bursts) >= 8
        assert stream.bursts == [None] * len(stream.bursts)
        assert kept == []

    def test_a_missing_push(self, stream):
        for number, image in enumerate(self.images(31)):
            if number != 17:
                stream.push(image, number / 30 + 0.05 * (number > 17))
        assert [burst is not None for burst in stream.bursts] == [False, True, True, False, *[
            True] * (len(stream.bursts) - 4)]  # fmt: skip

    def test_models_that_measure_none(self, tiny_bundle, kept):
        with Detector.load(tiny_bundle).stream() as stream:
            assert not stream.takes_bursts
            for number, image in enumerate(self.images(13)):
                stream.push(image, number / 30)
        assert kept == []


@pytest.mark.parametrize("way", ["analyze", "watch"])
def test_files_hand_their_bursts_to_the_stream(
    tmp_path, tiny_bundle, signals_bundle, monkeypatch, way
):
    path = write_clip(tmp_path / "clip.mp4", face_frames(60), rate=30)
    wanted = [frame.burst for frame in read(path)]
    for bundle, takes in ((tiny_bundle, False), (signals_bundle, True)):
        observed = []
        observe = Observer.observe
        monkeypatch.setattr(
            Observer,
            "observe",
            lambda self, *arguments, burst=None, **options: (
                observed.append(burst) or observe(self, *arguments, **options)  # noqa: B023
            ),
        )
        detector = Detector.load(bundle)
        if way == "analyze":
            detector.analyze(path)
        else:
            list(detector.watch(path))
        monkeypatch.undo()
        if takes:
            assert_same(observed, wanted)
        else:
            assert observed == [None] * len(wanted)
