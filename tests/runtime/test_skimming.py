"""Frames that nobody needs are not decoded, and nothing else comes out for it."""

from __future__ import annotations

import itertools
import subprocess
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
from clip_maker import face_frames, write_clip

from dfd_edge.sources.frames import FirstFrames, Sampler
from dfd_edge.sources.video import VideoFile

RATE_HZ = 5.0


class Told:
    """A sampler that tells nothing of frames to come: all are decoded."""

    def __init__(self, sampler):
        self.sampler = sampler

    def is_due(self, time_s):
        return self.sampler.is_due(time_s)


class Wrong(Sampler):
    """A sampler that foresees other frames than it then asks for."""

    def foresee(self):
        return Sampler(1.0)


def read(path, sampler):
    """The frames, all that is said of the video, and how many frames were left out."""
    left_out = 0
    with VideoFile(path) as video:
        in_order = video._in_order

        def counted():
            nonlocal left_out
            for pts_s, decoded in in_order():
                left_out += decoded is None
                yield pts_s, decoded

        video._in_order = counted
        frames = list(video.frames(sampler))
        said = video.complete, video.reason, video.end_s, video.width, video.height
    return frames, said, left_out


def expect_same(path):
    """Returns how many frames were left out."""
    whole, said_of_whole, none = read(path, Told(Sampler(RATE_HZ)))
    frames, said, left_out = read(path, Sampler(RATE_HZ))
    assert none == 0
    assert len(frames) == len(whole) > 5
    assert [(f.index, f.time_s) for f in frames] == [(f.index, f.time_s) for f in whole]
    for frame, other in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(frame.image, other.image)
    assert said == said_of_whole
    return left_out


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("skimming")


@pytest.fixture(scope="module")
def clip(folder):
    """Five seconds, 30 frames a second, few of them referred to by others."""
    options = {"bf": "3", "g": "60", "preset": "fast"}
    return write_clip(folder / "clip.mp4", face_frames(150), rate=30, options=options)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("pyramid.mp4", ["-c:v", "libx264", "-bf", "3"]),
        ("flat.flv", ["-c:v", "libx264", "-bf", "2", "-x264-params", "b-pyramid=none"]),
        ("deep.ts", ["-c:v", "libx264", "-bf", "16", "-b_strategy", "0", "-refs", "1"]),
        ("open.mkv", ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=30"]),
        ("ten_bits.mkv", ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
        ("fragments.mp4", ["-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov"]),
        ("hevc.mp4", ["-c:v", "libx265", "-x265-params", "log-level=none"]),
        (
            "uneven.mp4",
            ["-vf", "select='gt(random(0),0.3)'", "-fps_mode", "vfr", "-c:v", "libx264"],
        ),
        ("sixty.mkv", ["-r", "60", "-c:v", "libx264"]),
    ],
)
def test_what_is_due_comes_out_bit_by_bit(clip, folder, name, encoding):
    path = folder / name
    ffmpeg("-i", clip, *encoding, path)
    assert expect_same(path) >= 20


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("slow.mp4", ["-r", "5", "-c:v", "libx264"]),  # all are due
        ("interlaced.mp4", ["-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1"]),
        ("other.avi", ["-c:v", "mpeg4", "-bf", "2"]),
        pytest.param("other.webm", ["-c:v", "libvpx"], marks=pytest.mark.slow),
        ("untimed.h264", ["-c:v", "libx264"]),
    ],
)
def test_where_it_cannot_be_told_all_are_decoded(clip, folder, name, encoding):
    path = folder / name
    ffmpeg("-i", clip, *encoding, path)
    assert expect_same(path) == 0


@pytest.mark.parametrize(
    ("span", "suffix", "least"),
    [
        (["-ss", "1.3"], ".mp4", 10),
        (["-ss", "1.3"], ".mkv", 0),  # time stamps are missing at its start
        (["-t", "2.517"], ".mp4", 10),
        (["-t", "2.517"], ".mkv", 10),
        (["-t", "2.517"], ".ts", 10),
    ],
)
def test_cut_without_encoding_anew(clip, folder, span, suffix, least):
    # Open groups of pictures: what follows the cut refers to what was cut off.
    whole = folder / "groups.mkv"
    ffmpeg("-i", clip, "-c:v", "libx264", "-x264-params", "open-gop=1:keyint=15", whole)
    path = folder / f"cut{suffix}"
    ffmpeg(*span, "-i", whole, "-c", "copy", path)
    assert expect_same(path) >= least


def test_interlaced_from_the_middle_on(clip, folder):
    parts = [folder / "whole.ts", folder / "fields.ts"]
    encoding = ["-c:v", "libx264", "-bf", "3"]
    ffmpeg("-i", clip, *encoding, parts[0])
    ffmpeg("-i", clip, *encoding, "-flags", "+ilme+ildct", "-x264-params", "tff=1", parts[1])
    names = folder / "names.txt"
    names.write_text("".join(f"file '{part}'\n" for part in parts))
    path = folder / "both.mkv"
    ffmpeg("-f", "concat", "-safe", "0", "-i", names, "-c", "copy", path)
    whole, said_of_whole, _ = read(path, Told(Sampler(RATE_HZ)))
    frames, said, left_out = read(path, Sampler(RATE_HZ))
    assert 20 < left_out < 150
    assert [(f.index, f.time_s) for f in frames] == [(f.index, f.time_s) for f in whole]
    assert said == said_of_whole


def test_a_clock_that_jumps_back(clip, folder):
    part = folder / "part.ts"
    ffmpeg("-i", clip, "-t", "2", "-c:v", "libx264", part)
    path = folder / "joined.ts"
    path.write_bytes(part.read_bytes() * 3)
    assert expect_same(path) >= 10, "of the first part"


def test_damage_is_told_and_no_time_is_lost(clip, folder):
    data = bytearray(clip.read_bytes())
    for position in range(len(data) // 2, len(data) * 3 // 4, 500):
        data[position] ^= 0xFF
    path = folder / "damaged.mp4"
    path.write_bytes(data)
    whole, said_of_whole, _ = read(path, Told(Sampler(RATE_HZ)))
    frames, said, _ = read(path, Sampler(RATE_HZ))
    assert not said[0]
    assert said == said_of_whole
    assert [frame.time_s for frame in frames] == [frame.time_s for frame in whole]


def test_another_frame_stands_in_for_one_that_was_not_foreseen(clip):
    frames, _, left_out = read(clip, Wrong(RATE_HZ))
    whole, _, _ = read(clip, Told(Sampler(RATE_HZ)))
    assert 0 < left_out < 40, "it stops with the first"
    assert len(frames) in (len(whole), len(whole) - 1)
    assert max(b.time_s - a.time_s for a, b in itertools.pairwise(frames)) < 0.4


def test_all_of_the_first_frames_are_decoded(clip):
    whole, _, _ = read(clip, Told(FirstFrames(20)))
    frames, _, left_out = read(clip, FirstFrames(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert all((a.image == b.image).all() for a, b in zip(frames, whole, strict=True))
    assert left_out > 20, "of those behind them"


def test_a_pipe_is_not_read_ahead(clip, folder):
    path = folder / "piped.ts"
    ffmpeg("-i", clip, "-c:v", "libx264", path)
    with path.open("rb") as file, VideoFile(SimpleNamespace(read=file.read)) as video:
        frames = list(video.frames(Sampler(RATE_HZ)))
        assert video._skimmer is None
    assert len(frames) == 25
