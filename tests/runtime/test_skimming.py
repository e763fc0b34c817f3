"""Frames that nobody needs are not decoded, and nothing else comes out for it."""

from __future__ import annotations

import itertools
import re
import subprocess
from types import SimpleNamespace

import av
import imageio_ffmpeg
import numpy as np
import pytest
from clip_maker import face_frames, write_clip

from dfd_edge.sources.frames import FirstFrames, Sampler
from dfd_edge.sources.video import VideoFile

RATE_HZ = 5.0
#: Frames of `clip` that may be decoded before one that is shown earlier.
REORDERED = 4


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


def packets_of(path):
    """Position, size and time of each packet of an H.264 MP4, and whether others refer to it."""
    with av.open(str(path)) as container:
        return [
            (packet.pos, packet.size, float(packet.pts * packet.time_base), is_referred(packet))
            for packet in container.demux(video=0)
            if packet.size
        ]


def is_referred(packet):
    """Whether other frames refer to it, by the headers of its slices (types 1 to 5)."""
    data, at, referred = bytes(packet), 0, False
    while at < len(data):
        header = data[at + 4]
        referred |= header & 0x1F in range(1, 6) and header & 0x60 != 0
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return referred


def damage(path, position, size, damaged):
    """Writes a copy of a file in which the last three quarters of one packet are no sense."""
    data = bytearray(path.read_bytes())
    for place in range(position + size // 4, position + size, 7):
        data[place] ^= 0xFF
    damaged.write_bytes(data)
    return damaged


def test_damage_is_told_and_no_time_is_lost(clip, folder):
    """How many frames count as damaged is known to a few: they are counted from the next that the
    decoder gives, and which that is depends on what was left out between.
    """
    referred = [packet for packet in packets_of(clip) if packet[3]]
    position, size, start_s, _ = min(referred, key=lambda packet: abs(packet[2] - 2.5))
    path = damage(clip, position, size, folder / "damaged.mp4")
    whole, said_of_whole, _ = read(path, Told(Sampler(RATE_HZ)))
    frames, said, left_out = read(path, Sampler(RATE_HZ))
    assert left_out
    number = re.compile(r"(\d+)(?= damaged frame)")
    counts = [int(number.search(reason).group()) for _, reason, *_ in (said, said_of_whole)]
    assert min(counts) > 5
    assert abs(counts[0] - counts[1]) <= REORDERED
    parts = [set(number.sub("", reason).split("; ")) for _, reason, *_ in (said, said_of_whole)]
    assert parts[0] == parts[1]
    assert (said[0], *said[2:]) == (said_of_whole[0], *said_of_whole[2:]) == (False, 5.0, 320, 240)
    times_s = [
        [f.time_s for f in read_frames if not start_s - REORDERED / 30 <= f.time_s < start_s]
        for read_frames in (frames, whole)
    ]
    assert times_s[0] == times_s[1]
    assert times_s[0][0] < start_s < times_s[0][-1]


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
