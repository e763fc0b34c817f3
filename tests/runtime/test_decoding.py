"""Odd videos, made by a real ffmpeg: their times, sizes, fields and bit depths."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, run_ffmpeg, write_clip

from dfd_edge import Detector, Label
from dfd_edge.cli.command import command
from dfd_edge.errors import SourceError
from dfd_edge.sources import VideoFile
from dfd_edge.sources.decoding import DecodedSource
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.timing import Timeline

RATE = 25
LAVFI = ["-f", "lavfi", "-i"]
#: Bars that move: woven fields tear their edges into combs.
MOVING = (
    "color=gray:size=320x240:rate=50:duration=2,"
    "drawgrid=width=40:height=400:thickness=10:color=white,scroll=horizontal=0.02"
)


class All:
    """Wants every frame."""

    def is_due(self, time_s):
        return True


def read(path, sampler=None):
    with VideoFile(path) as video:
        frames = list(video.frames(sampler or All()))
    return video, frames


def times_of(frames):
    return [frame.time_s for frame in frames]


def combing(image):
    """How much neighbouring lines differ more than lines two apart: high where fields are woven."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    one = np.abs(gray[1:-1] - gray[2:]).mean()
    two = np.abs(gray[:-2] - gray[2:]).mean()
    return one / max(two, 1e-6)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds, each fifth frame a key frame."""
    path = tmp_path_factory.mktemp("times") / "clip.mkv"
    return write_clip(path, face_frames(50), options={"g": "5", "bf": "0", "crf": "2"})


class TestTimes:
    def joined(self, clip, path, *parts):
        """MPEG-TS of parts of the clip: each its first frame, its end, and the second it claims."""
        data = b""
        for first, end, at_s in parts:
            options = ["-ss", str(first / RATE), "-i", clip, "-frames:v", str(end - first)]
            options += ["-c", "copy", "-output_ts_offset", str(at_s), "-muxdelay", "0"]
            data += run_ffmpeg(*options, "-f", "mpegts", "-")
        path.write_bytes(data)
        return read(path)

    def test_a_clock_that_jumps_back(self, clip, tmp_path):
        """As a camera whose clock is set while it records."""
        _, frames = self.joined(clip, tmp_path / "back.ts", (0, 25, 20.0), (25, 50, 1.0))
        assert times_of(frames) == pytest.approx([n / RATE for n in range(50)], abs=0.02)

    def test_a_few_times_far_ahead(self, clip, tmp_path):
        parts = (0, 20, 0.0), (20, 25, 5000.0), (25, 50, 1.0)
        video, frames = self.joined(clip, tmp_path / "ahead.ts", *parts)
        assert times_of(frames) == pytest.approx([n / RATE for n in range(50)], abs=0.02)
        assert video.end_s == pytest.approx(2.0, abs=0.05)

    def test_times_that_creep(self, clip, tmp_path):
        """ffmpeg itself mends a clock that jumps back so: each time one tick after the last."""
        path = tmp_path / "creep.ts"
        shift = "if(lt(N,25),PTS+20/TB,PTS)"
        run_ffmpeg("-i", clip, "-c", "copy", "-bsf:v", f"setts=pts='{shift}':dts='{shift}'", path)
        _, frames = read(path)
        assert times_of(frames) == pytest.approx([n / RATE for n in range(50)], abs=0.02)

    def test_times_that_stand_still(self, clip, tmp_path):
        path = tmp_path / "still.nut"
        run_ffmpeg("-i", clip, "-c", "copy", "-bsf:v", "setts=pts='floor(N/5)*5*TB':dts=N", path)
        _, frames = read(path)
        assert len(frames) == 50
        assert (np.diff(times_of(frames)) > 0).all()

    def test_a_true_pause_stays(self, clip, tmp_path):
        """Nothing is known against it: the file says that it is so long."""
        path = tmp_path / "pause.mkv"
        shift = "if(lt(N,25),PTS,PTS+8000)"
        run_ffmpeg("-i", clip, "-c", "copy", "-bsf:v", f"setts=pts='{shift}':dts='{shift}'", path)
        _, frames = read(path)
        assert frames[25].time_s == pytest.approx(9.0, abs=0.05)

    def test_no_times_at_all(self, clip, tmp_path):
        path = tmp_path / "bare.h264"
        run_ffmpeg("-i", clip, "-c", "copy", path)
        _, frames = read(path)
        assert times_of(frames) == pytest.approx([n / RATE for n in range(50)], abs=0.01)

    @pytest.mark.parametrize(
        ("steps", "wanted"),
        [
            ([(0.0, 0.0), (0.1, 0.1), (900.0, 0.2), (900.1, 0.3)], [0.0, 0.1, 0.2, 0.3]),
            ([(0.0, 0.0), (9.0, 9.1), (9.1, 9.2)], [0.0, 9.0, 9.1]),
            ([(9.0, 0.0), (0.0, 6.0), (0.1, 6.1)], [0.0, 6.0, 6.1]),
            ([(9.0, 0.0), (9.1, 6.0), (0.1, 6.0), (0.2, 6.1)], [0.0, 0.1, 6.0, 6.1]),
            ([(None, 3.0), (None, 3.3), (None, 3.3), (None, 3.5)], [0.0, 0.3, 0.301, 0.5]),
        ],
    )
    def test_live_times_do_not_run_away_from_this_machine(self, steps, wanted):
        """An RTSP camera that learns the time of day steps ahead by years."""
        timeline = Timeline(frame_rate=10.0)
        placed = [timeline.place(pts_s, arrived_s) for pts_s, arrived_s in steps]
        assert placed == pytest.approx(wanted)

    @pytest.mark.parametrize(
        ("rate", "suffix"), [(1000, ".mp4"), (10_000, ".mp4"), (4000, ".mkv"), (4000, ".ts")]
    )
    def test_very_high_frame_rates(self, clip, tmp_path, rate, suffix):
        """As of a high-speed camera; Matroska counts in milliseconds."""
        path = tmp_path / f"fast{suffix}"
        run_ffmpeg("-r", rate, "-i", clip, "-c:v", "libx264", "-bf", "0", path)
        video, frames = read(path)
        assert len(frames) == 50
        assert frames[-1].time_s == pytest.approx(49 / rate, abs=0.002)
        assert video.end_s == pytest.approx(50 / rate, abs=0.005)
        assert (np.diff(times_of(frames)) > 0).all()
        assert video.complete, video.reason

    def test_a_time_that_no_clock_shows(self, clip, tmp_path):
        """Ticks of 64 bits; the files after it are judged."""
        path = tmp_path / "ages.nut"
        shift = "if(gte(N,25),PTS+(1/TB)*1e13,PTS)"
        run_ffmpeg("-i", clip, "-c", "copy", "-bsf:v", f"setts=pts='{shift}':dts='{shift}'", path)
        _, frames = read(path)
        assert times_of(frames) == pytest.approx([n / RATE for n in range(50)], abs=0.02)

    @pytest.mark.parametrize("ahead_s", [4.6e18, 1e12, 1e9, -4.6e18])
    def test_steps_that_no_recording_makes(self, ahead_s):
        timeline = Timeline(frame_rate=10.0, start_s=0.0)
        placed = [timeline.place(pts_s) for pts_s in (0.0, ahead_s, ahead_s + 0.1, 0.3)]
        assert placed == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=0.01)


def damaged(clip, path, *, share, size=60):
    """The clip with bytes that were overwritten at a share of its length."""
    data = bytearray(clip.read_bytes())
    start = int(len(data) * share)
    data[start : start + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
    return path


class TestDamage:
    @pytest.fixture
    def long_groups(self, tmp_path):
        """Three seconds, each 25th frame a key frame."""
        return write_clip(tmp_path / "whole.mkv", face_frames(75), options={"g": "25", "bf": "0"})

    def test_it_is_told_and_lasts_until_the_next_key_frame(self, long_groups, tmp_path):
        video, frames = read(damaged(long_groups, tmp_path / "damaged.mkv", share=0.5))
        assert not video.complete
        assert "damaged frame" in video.reason
        left_out = sorted(set(range(75)) - {frame.index for frame in frames})
        assert 2 <= len(left_out) < 25
        assert left_out == list(range(left_out[0], 50)), "up to the next key frame"

    def test_another_frame_stands_in_for_one_that_was_due(self, long_groups, tmp_path):
        path = damaged(long_groups, tmp_path / "damaged.mkv", share=0.5)
        _, frames = read(path, Sampler(5.0))
        _, whole = read(long_groups, Sampler(5.0))
        times = times_of(frames)
        assert len(times) < len(whole)
        assert 2.0 in times
        for frame in frames:
            assert not np.ptp(frame.image - whole[times_of(whole).index(frame.time_s)].image)

    def test_packets_that_were_lost_on_their_way(self, long_groups, tmp_path):
        """FFmpeg's decoder does not notice; the container does."""
        whole = tmp_path / "whole.ts"
        run_ffmpeg("-i", long_groups, "-c", "copy", whole)
        data = whole.read_bytes()
        middle = len(data) // 188 // 2 * 188
        path = tmp_path / "lost.ts"
        path.write_bytes(data[:middle] + data[middle + 5 * 188 :])
        video, frames = read(path)
        assert not video.complete
        assert "damaged frame" in video.reason
        assert 50 <= len(frames) < 75

    def test_an_mpeg_2_recording(self, clip, tmp_path):
        whole = tmp_path / "whole.mpg"
        run_ffmpeg("-i", clip, "-c:v", "mpeg2video", "-q:v", "2", "-g", "12", whole)
        video, frames = read(damaged(whole, tmp_path / "damaged.mpg", share=0.4, size=3000))
        assert not video.complete
        assert "damaged" in video.reason or "decoded" in video.reason
        assert 20 < len(frames) < 50

    def test_where_all_is_damaged_nothing_is_said_of_faces(self, tiny_bundle, tmp_path):
        clip = write_clip(tmp_path / "whole.mkv", face_frames(40), options={"g": "250"})
        path = damaged(clip, tmp_path / "damaged.mkv", share=0.1, size=60)
        verdict = Detector.load(tiny_bundle).analyze(path)
        assert verdict.frames == 0
        assert verdict.label is Label.UNSURE
        assert not verdict.complete
        assert "damaged frames left out" in verdict.reason
        arguments = ["--model", str(tiny_bundle), "--save-video", str(tmp_path / "out.mp4")]
        done = CliRunner().invoke(command, [*arguments, str(path)])
        assert "\nUNSURE" in f"\n{done.output}"
        assert "out.mp4: not written" in done.output


class TestSizes:
    @pytest.mark.parametrize("suffix", [".ts", ".h264"])
    def test_the_size_changes_in_mid_stream(self, tmp_path, suffix):
        small = write_clip(tmp_path / f"small{suffix}", face_frames(25, size=(320, 240)))
        large = write_clip(tmp_path / f"large{suffix}", face_frames(25, size=(480, 360)))
        path = tmp_path / f"joined{suffix}"
        path.write_bytes(small.read_bytes() + large.read_bytes())
        video, frames = read(path)
        assert [frame.image.shape for frame in frames] == [(240, 320, 3)] * 25 + [
            (360, 480, 3)
        ] * 25
        assert video.complete, video.reason
        wanted = face_frames(25, size=(480, 360))[20]
        assert np.abs(frames[45].image.astype(int) - wanted).mean() < 6
        assert (np.diff(times_of(frames)) > 0).all()

    def test_a_size_that_changes_to_too_small_a_one(self, tmp_path):
        """It is left out and told; what fits is judged."""
        first = write_clip(tmp_path / "first.h264", face_frames(10))
        tiny = write_clip(tmp_path / "tiny.h264", face_frames(10, size=(12, 12)))
        path = tmp_path / "joined.h264"
        path.write_bytes(first.read_bytes() + tiny.read_bytes())
        video, frames = read(path)
        assert {frame.image.shape for frame in frames} == {(240, 320, 3)}
        assert "too small, 12x12" in video.reason

    @pytest.mark.parametrize(
        ("degrees", "shape", "bright"),
        [(90, (320, 240), (1, 0)), (270, (320, 240), (0, 1)), (180, (240, 320), (1, 1))],
    )
    def test_a_rotation_that_ffmpeg_wrote(self, tmp_path, degrees, shape, bright):
        image = np.full((240, 320, 3), 40, np.uint8)
        image[:120, :160] = 230
        flat = write_clip(tmp_path / "flat.mp4", [image] * 5)
        path = tmp_path / "turned.mp4"
        run_ffmpeg("-display_rotation", str(degrees), "-i", flat, "-c", "copy", path)
        _, frames = read(path)
        assert frames[0].image.shape[:2] == shape
        halves = [
            [half.mean() for half in np.array_split(rows, 2, axis=1)]
            for rows in np.array_split(frames[0].image, 2, axis=0)
        ]
        assert np.unravel_index(np.argmax(halves), (2, 2)) == bright


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fields")


@pytest.fixture(scope="module", params=["tff", "bff"])
def interlaced(request, folder):
    path = folder / f"{request.param}.ts"
    fields = "interleave_top" if request.param == "tff" else "interleave_bottom"
    run_ffmpeg(
        *[*LAVFI, MOVING, "-vf", f"tinterlace={fields}", "-c:v", "libx264"],
        *["-flags", "+ildct+ilme", "-x264-params", f"{request.param}=1", path],
    )
    return path


class TestFields:
    def woven(self, path):
        """The same frames without any filter."""
        data = run_ffmpeg("-i", path, "-pix_fmt", "bgr24", "-f", "rawvideo", "-")
        return np.frombuffer(data, np.uint8).reshape(-1, 240, 320, 3)

    def test_fields_are_not_woven(self, interlaced):
        video, frames = read(interlaced)
        woven = self.woven(interlaced)
        assert len(frames) == len(woven) == 50
        assert video.complete, video.reason
        assert times_of(frames) == pytest.approx([n / RATE for n in range(50)], abs=0.02)
        before = np.mean([combing(image) for image in woven[5:45]])
        after = np.mean([combing(frame.image) for frame in frames[5:45]])
        assert before > 10.0, "the clip shows what is to be mended"
        assert after < 1.0

    def test_what_is_not_flagged_is_left_alone(self, folder):
        path = folder / "progressive.ts"
        run_ffmpeg(*LAVFI, MOVING, "-r", "25", "-c:v", "libx264", path)
        _, frames = read(path)
        for frame, image in zip(frames, self.woven(path), strict=True):
            assert np.abs(frame.image.astype(int) - image).mean() < 2.0

    def test_interlaced_then_not(self, interlaced, folder):
        """A size that changes with the scan: what the filter holds back still comes."""
        path = folder / "mixed.ts"
        plain = folder / "plain.ts"
        run_ffmpeg(*LAVFI, "testsrc2=size=480x360:rate=25:duration=1", "-c:v", "libx264", plain)
        path.write_bytes(interlaced.read_bytes() + plain.read_bytes())
        video, frames = read(path)
        assert [frame.image.shape for frame in frames] == [(240, 320, 3)] * 50 + [
            (360, 480, 3)
        ] * 25
        assert (np.diff(times_of(frames)) > 0).all()
        assert video.complete, video.reason


@pytest.mark.parametrize(
    ("codec", "pixels", "name"),
    [
        ("libx265", "yuv420p10le", "ten.mp4"),
        ("libx264", "yuv422p10le", "ten.mkv"),
        ("libvpx-vp9", "yuv420p10le", "ten.webm"),
        ("prores_ks", "yuv422p10le", "ten.mov"),
        ("libx265", "yuv420p12le", "twelve.mp4"),
        ("libx264", "yuvj420p", "full.mp4"),
        ("libx264", "gray", "gray.mp4"),
    ],
)
def test_pixels_of_other_depths(tmp_path, codec, pixels, name):
    wanted = face_frames(5)
    plain = write_clip(tmp_path / "plain.mp4", wanted, options={"crf": "5"})
    path = tmp_path / name
    run_ffmpeg("-i", plain, "-c:v", codec, "-pix_fmt", pixels, path)
    video, frames = read(path)
    assert len(frames) == 5
    assert video.complete, video.reason
    image = wanted[3]
    if pixels == "gray":
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert frames[3].image.dtype == np.uint8
    assert np.abs(frames[3].image.astype(int) - image).mean() < 8


def test_frames_that_are_not_due_are_not_converted(face_clip, monkeypatch):
    converted = []
    convert = DecodedSource._convert

    def counted(self, decoded, *, first):
        converted.append(decoded.pts)
        return convert(self, decoded, first=first)

    monkeypatch.setattr(DecodedSource, "_convert", counted)
    _, frames = read(face_clip, Sampler(5.0))
    assert len(frames) == len(converted) == 15


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_colours_that_cannot_be_converted_are_refused_by_name(tmp_path, matrix):
    whole = write_clip(tmp_path / "whole.mp4", face_frames(10))
    odd = tmp_path / "odd.mp4"
    tag = f"h264_metadata=matrix_coefficients={matrix}"
    run_ffmpeg("-i", whole, "-c", "copy", "-bsf:v", tag, odd)
    try:
        assert len(read(odd)[1]) == 10  # an FFmpeg that knows them
    except SourceError as error:
        assert "odd.mp4: its colours cannot be converted (" in str(error)
