"""Parts of a film come out as reading it whole gives them, and the rest is not decoded."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from clip_maker import face_frames, plain_frames, run_ffmpeg, write_clip

from dfd_edge import Detector, EventKind, UsageError
from dfd_edge.sources import SourceOptions
from dfd_edge.sources.frames import AllFrames
from dfd_edge.sources.seeking import (
    SETTLE_S,
    Chosen,
    Part,
    PartSampler,
    Spread,
    moments,
    passages,
)
from dfd_edge.sources.video import VideoFile

RATE_HZ = 5.0
LENGTH_S = 24.0
COMMAND = [sys.executable, "-m", "dfd_edge"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seeking")


@pytest.fixture(scope="module")
def film(folder):
    """24 seconds at 25 frames a second, a key frame every ten seconds, B-frames between."""
    options = {"bf": "3", "g": "250", "preset": "ultrafast", "x264-params": "scenecut=0"}
    frames = plain_frames(round(25 * LENGTH_S), size=(160, 120))
    return write_clip(folder / "film.mp4", frames, options=options)


@pytest.fixture(scope="module")
def face_film(folder):
    """24 seconds of one face."""
    frames = face_frames(round(25 * LENGTH_S))
    return write_clip(folder / "face.mp4", frames, options={"g": "125", "preset": "ultrafast"})


class Counting(VideoFile):
    """A file that counts the frames that are decoded."""

    decoded = 0

    def _whole_pictures(self):
        for picture in super()._whole_pictures():
            self.decoded += 1
            yield picture


def sought(path, plan, *, bursts=True):
    """The frames of some parts, and the file after it was read."""
    with Counting(path) as video:
        sampler = PartSampler(plan, RATE_HZ)
        if video.duration_s is not None:
            sampler.place(video.duration_s)
        return list(video.frames(sampler, bursts=bursts)), video


def expect_same(path, frames):
    """Each frame is the one that reading everything gives at its time, and so is its burst."""
    with VideoFile(path) as video:
        whole = {frame.time_s: frame for frame in video.frames(AllFrames(), bursts=True)}
    for frame in frames:
        other = whole[frame.time_s]
        np.testing.assert_array_equal(frame.image, other.image)
        assert (frame.burst is None) == (other.burst is None)
        if frame.burst is not None:
            for plane, other_plane in zip(frame.burst.planes, other.burst.planes, strict=True):
                np.testing.assert_array_equal(plane, other_plane)


def expect_spread(frames, count, length_s):
    """One frame in each of `count` equal intervals, none far from its middle."""
    interval_s = length_s / count
    assert len(frames) == count
    for number, frame in enumerate(frames):
        middle_s = (number + 0.5) * interval_s
        assert middle_s - 0.26 * interval_s <= frame.time_s <= middle_s + 0.3


X264 = ["-c:v", "libx264", "-preset", "ultrafast"]


@pytest.mark.parametrize(
    ("name", "encoding", "share"),
    [
        ("long_groups.mp4", ["-c", "copy"], 0.9),
        ("short_groups.mkv", [*X264, "-bf", "3", "-g", "50"], 0.3),
        ("open.mkv", ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=50"], 0.3),
        ("stream.ts", [*X264, "-bf", "2", "-g", "50"], 0.3),
        ("program.mpg", ["-c:v", "mpeg2video", "-bf", "2", "-g", "25"], 0.3),
        ("still.avi", ["-c:v", "mjpeg"], 0.2),
        ("old.avi", ["-c:v", "mpeg4", "-bf", "2", "-g", "50"], 0.4),
        ("web.webm", ["-c:v", "libvpx-vp9", "-g", "50", "-deadline", "realtime"], 0.4),
        ("live.webm", ["-c:v", "libvpx", "-g", "50", "-deadline", "realtime", "-live", "1"], 0.4),
        ("fragments.mp4", [*X264, "-g", "50", "-movflags", "frag_keyframe+empty_moov"], 0.3),
        ("fields.mp4", ["-c:v", "libx264", "-flags", "+ilme", "-g", "50"], 0.3),
        (
            "uneven.mp4",
            ["-vf", "select='gt(random(0),0.3)'", "-fps_mode", "vfr", *X264, "-g", "50"],
            0.4,
        ),
        ("later.ts", [*X264, "-g", "50", "-output_ts_offset", "7200"], 0.3),
    ],
)
def test_moments_are_the_frames_that_reading_gives(film, folder, name, encoding, share):
    path = folder / name
    run_ffmpeg("-i", film, *encoding, path)
    frames, video = sought(path, Spread(6))
    expect_same(path, frames)
    expect_spread(frames, 6, LENGTH_S)
    assert video.decoded <= share * 25 * LENGTH_S
    assert video.complete, video.reason
    assert not video.notes
    if "x264" in " ".join(encoding):
        assert all(frame.burst is not None for frame in frames) or name == "uneven.mp4"


def test_a_film_cut_without_encoding_anew(film, folder):
    path = folder / "cut.mp4"
    run_ffmpeg("-ss", "3.3", "-i", film, "-c", "copy", path)
    frames, video = sought(path, Spread(5))
    expect_same(path, frames)
    assert video.duration_s == pytest.approx(LENGTH_S - 3.3, abs=0.1)
    expect_spread(frames, 5, video.duration_s)


def test_passages_are_read_at_the_sampling_rate(film):
    parts = passages([(15.0, 16.0), (4.0, 5.0), (4.5, 6.0)])
    assert parts == (Part(4.0, 6.0), Part(15.0, 16.0))
    frames, video = sought(film, Chosen(parts))
    times_s = [frame.time_s for frame in frames]
    assert times_s == pytest.approx([*np.arange(4.0, 6.0, 0.2), *np.arange(15.0, 16.0, 0.2)])
    expect_same(film, frames)
    assert video.decoded < 0.6 * 25 * LENGTH_S


def test_a_group_that_spans_the_film_is_not_decoded_again_for_each_moment(folder):
    path = folder / "endless.mp4"
    options = {"g": "9999", "preset": "ultrafast", "x264-params": "scenecut=0"}
    write_clip(path, plain_frames(1500, size=(64, 48)), options=options)
    frames, video = sought(path, Spread(8))
    expect_spread(frames, 8, 60.0)
    assert video.decoded <= 1.2 * 1500


def test_a_moment_lies_right_behind_a_key_frame_where_one_is_near():
    (part, *_) = moments(4, 40.0)
    assert part == Part(5.0, 10.0, back_s=2.5, on_s=0.25, single=True)
    assert part.start_behind(4.0) == 4.25
    assert part.start_behind(5.0) == 5.25
    assert part.start_behind(1.0) == 5.0  # too far from the middle
    (part, *_) = moments(10, 2.0)
    assert part.latest_key_s(0.0) + SETTLE_S == pytest.approx(0.15)


class TestWhereItCannotSeek:
    def test_a_pipe_is_read_through(self, film, folder):
        path = folder / "piped.mkv"
        run_ffmpeg("-i", film, "-c", "copy", path)

        class Pipe:
            def __init__(self, data):
                self.read = io.BytesIO(data).read

        frames, video = sought(Pipe(path.read_bytes()), Spread(6))
        expect_same(path, frames)
        expect_spread(frames, 6, LENGTH_S)
        assert video.notes == (
            "it cannot be sought in (it comes through a pipe): all of it was read",
        )

    def test_a_file_that_refuses(self, face_film):
        class Stuck(io.BytesIO):
            stuck = False

            def seek(self, offset, whence=0):
                if self.stuck:
                    raise OSError(29, "Illegal seek")
                return super().seek(offset, whence)

        file = Stuck(face_film.read_bytes())
        with Counting(file, name="film") as video:
            sampler = PartSampler(Spread(4), RATE_HZ)
            sampler.place(video.duration_s)
            file.stuck = True
            frames = list(video.frames(sampler, bursts=True))
        # FFmpeg may be anywhere in the file then: what comes is right, and the rest is missed.
        assert 1 <= len(frames) <= 4
        expect_same(face_film, frames)
        (note,) = video.notes
        assert note.startswith("it cannot be sought in (illegal seek)")
        assert len(frames) == 4 or "of 4 parts lie behind" in video.reason

    def test_raw_h264_has_neither_times_nor_length(self, film, folder, tiny_bundle):
        path = folder / "untimed.h264"
        run_ffmpeg("-i", film, "-c", "copy", "-t", "4", path)
        events = []
        verdict = Detector.load(tiny_bundle).analyze(path, max_frames=8, on_event=events.append)
        assert verdict.frames == pytest.approx(20, abs=2)
        assert verdict.complete
        (note,) = events
        assert note.kind is EventKind.NOTE
        assert "length is not known" in note.detail


def test_a_file_cut_off_says_so(film, folder):
    path = folder / "cut_off.mkv"
    run_ffmpeg("-i", film, "-c", "copy", path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, video = sought(path, Spread(8))
    assert 2 <= len(frames) < 8
    assert not video.complete
    assert "cut off" in video.reason


def test_few_seconds_are_read_whole():
    sampler = PartSampler(Spread(32), RATE_HZ)
    sampler.place(6.0)
    assert sampler.throughout
    assert sum(sampler.is_due(number / 25) for number in range(150)) == 30


@pytest.fixture(scope="module")
def detector(signals_bundle):
    return Detector.load(signals_bundle)


class TestVerdict:
    @pytest.mark.parametrize("sandbox", [False, True])
    def test_says_how_little_was_seen(self, detector, face_film, sandbox):
        if sandbox and sys.platform == "win32":
            pytest.skip("there is no sandbox on Windows")
        times_s, done_s = [], []
        verdict = detector.analyze(
            face_film,
            max_frames=8,
            on_frame=lambda result: times_s.append(result.time_s),
            on_progress=lambda done, whole: done_s.append((done, whole)),
            options=SourceOptions(sandbox=sandbox),
        )
        assert verdict.frames == 8
        assert not verdict.complete
        assert verdict.reason == "only 8 moments of 24.0 s were asked for"
        assert verdict.duration_s == pytest.approx(LENGTH_S)
        assert times_s == sorted(times_s)
        assert times_s[-1] > 20.0
        assert [whole for _, whole in done_s] == [LENGTH_S] * 8
        (person,) = verdict.people
        assert person.judged_steps == 8
        assert person.signals.measured_steps == 8

    def test_within_the_first_seconds(self, detector, face_film):
        times_s = []
        verdict = detector.analyze(
            face_film,
            max_frames=5,
            duration_s=10.0,
            on_frame=lambda result: times_s.append(result.time_s),
        )
        assert len(times_s) == 5
        assert 8.0 < times_s[-1] < 10.0
        assert verdict.duration_s == 10.0

    def test_as_many_as_the_rate_gives_is_all_of_it(self, detector, face_clip):
        whole, asked = detector.analyze(face_clip), detector.analyze(face_clip, max_frames=64)
        assert asked.complete
        assert asked.frames == whole.frames
        assert asked.p_fake == whole.p_fake

    def test_stopped(self, detector, face_film):
        stop = threading.Event()
        verdict = detector.analyze(
            face_film, max_frames=20, stop=stop, on_frame=lambda result: stop.set()
        )
        assert verdict.reason == "stopped before its end"
        assert verdict.frames < 20

    @pytest.mark.parametrize(
        ("options", "cause"),
        [
            ({"max_frames": 3}, "3 frames are too few: model .* decides on 4 judged frames"),
            ({"max_frames": 0}, "max_frames 0: give a whole number from 1"),
            ({"max_frames": 2.5}, "max_frames 2.5: give a whole number"),
            ({"max_frames": 8, "rate_hz": 2.0}, "give the number or the rate"),
        ],
    )
    def test_misuse_is_refused(self, detector, face_clip, options, cause):
        with pytest.raises(UsageError, match=cause):
            detector.analyze(face_clip, **options)


class TestCommandLine:
    @staticmethod
    def run(bundle, *arguments):
        return subprocess.run(
            [*COMMAND, "--model", str(bundle), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def test_records(self, signals_bundle, face_film):
        done = self.run(signals_bundle, "--json", "--frames", 6, face_film)
        assert done.returncode == 0, done.stderr
        run, *frames, verdict = map(json.loads, done.stdout.splitlines())
        assert run["max_frames"] == 6
        assert len(frames) == verdict["frames"] == 6
        assert verdict["complete"] is False

    @pytest.mark.parametrize(
        ("arguments", "cause"),
        [
            (["--frames", "3", "FILM"], "3 frames are too few"),
            (["--frames", "8", "--rate", "2", "FILM"], "give the number or the rate"),
            (["--frames", "8", "--save-video", "out.mp4", "FILM"], "--save-video shows every"),
            (["--frames", "8", "--webcam"], "--frames 8 is for films in files"),
        ],
    )
    def test_misuse_is_one_line(self, signals_bundle, face_film, arguments, cause):
        words = [str(face_film) if word == "FILM" else word for word in arguments]
        done = self.run(signals_bundle, *words)
        assert done.returncode == 2
        assert cause in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
