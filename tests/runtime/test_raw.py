"""Raw frames on standard input, and the options that say how sources are opened."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, run_ffmpeg

from dfd_edge.cli.command import command
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources import CameraOptions, RawFormat, SourceOptions
from dfd_edge.sources.camera import Camera
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.options import RAW_PIXELS
from dfd_edge.sources.video import RawVideo


class All:
    """Wants every frame."""

    def is_due(self, time_s):
        return True


class Dribble(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def read(self, size=-1, /):
        return super().read(min(size, 7001))


def as_raw(clip, pixels):
    """The clip as ffmpeg writes it."""
    return run_ffmpeg("-i", clip, "-pix_fmt", pixels, "-f", "rawvideo", "-")


class TestRawFrames:
    @pytest.mark.parametrize("pixels", RAW_PIXELS)
    def test_each_format_of_a_real_ffmpeg(self, face_clip, pixels):
        video = RawVideo(
            Dribble(as_raw(face_clip, pixels)), RawFormat.parse(f"320x240:{pixels}@25")
        )
        frames = list(video.frames(All()))
        assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(75)])
        assert video.complete
        assert video.end_s == pytest.approx(3.0)
        wanted = face_frames(41)[40]
        if pixels == "gray":
            wanted = cv2.cvtColor(cv2.cvtColor(wanted, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        image = frames[40].image
        assert image.shape == (240, 320, 3)
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - wanted).mean() < 6

    def test_only_due_frames_are_handed_out(self, face_clip):
        video = RawVideo(io.BytesIO(as_raw(face_clip, "nv12")), RawFormat.parse("320x240:nv12@25"))
        indexes = [frame.index for frame in video.frames(Sampler(5.0))]
        assert indexes == list(range(0, 75, 5))

    def test_a_last_frame_that_is_cut_off_is_told(self):
        data = b"".join(image.tobytes() for image in face_frames(3))[:-1000]
        video = RawVideo(io.BytesIO(data), RawFormat.parse("320x240:bgr24@30"))
        assert len(list(video.frames(All()))) == 2
        assert not video.complete
        assert "229400 of 230400 bytes" in video.reason

    @pytest.mark.parametrize(("data", "cause"), [(b"", "no frame came"), (b"x" * 99, "99 of")])
    def test_not_one_whole_frame(self, data, cause):
        video = RawVideo(io.BytesIO(data), RawFormat.parse("320x240:gray@30"))
        with pytest.raises(SourceError, match=cause):
            list(video.frames(All()))

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ("1280x720", "give WIDTHxHEIGHT:PIXELS@FPS"),
            ("1280x720:bgr24", "give WIDTHxHEIGHT:PIXELS@FPS"),
            ("1280x720@30:bgr24", "give WIDTHxHEIGHT:PIXELS@FPS"),
            ("-1x720:bgr24@30", "give WIDTHxHEIGHT:PIXELS@FPS"),
            ("1280x720:bgr32@30", "known are bgr24, rgb24, gray, yuv420p, nv12"),
            ("1280x720:bgr24@0", "frames per second"),
            ("1280x720:bgr24@99999", "frames per second"),
            ("9x9:bgr24@30", "too small, 9x9"),
            ("99999x99999:gray@30", "too large"),
            ("321x240:yuv420p@30", "even sides, not 321x240"),
        ],
    )
    def test_a_bad_format(self, text, cause):
        with pytest.raises(UsageError, match=cause):
            RawFormat.parse(text)


def dfd(*arguments, data=None):
    return subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        input=data,
        capture_output=True,
        timeout=120,
        check=False,
    )


class TestCommandLine:
    def test_raw_frames_on_standard_input(self, tiny_bundle, face_clip):
        data = as_raw(face_clip, "rgb24")[:-5]
        spec = "320x240:rgb24@25"
        done = dfd("--model", str(tiny_bundle), "--json", "-", "--raw", spec, data=data)
        assert done.returncode == 0, done.stderr
        verdict = json.loads(done.stdout.splitlines()[-1])
        assert verdict["frames"] == 15
        assert verdict["people"]
        assert verdict["complete"] is False
        assert "cut off" in verdict["reason"]

    @pytest.mark.parametrize(
        ("arguments", "cause"),
        [
            (["-", "--raw", "big"], "give WIDTHxHEIGHT:PIXELS@FPS"),
            (["clip.mp4", "--raw", "320x240:bgr24@25"], "frames on standard input"),
            (["-", "--camera-size", "320x240"], "give --webcam"),
            (["--webcam", "--camera-size", "320"], "such as 1280x720"),
            (["--webcam", "--camera-format", "H.264"], "four letters"),
            (["--webcam", "--camera-fps", "-1"], "above 0"),
            (["rtsp://127.0.0.1:9/x", "--rtsp-transport", "http"], "'tcp', 'udp'"),
            (["rtsp://127.0.0.1:9/x", "--reconnect", "-1"], "--reconnect"),
            (["rtsp://127.0.0.1:9/x", "--reconnect", "nan"], "reconnect nan"),
        ],
    )
    def test_bad_options(self, face_clip, arguments, cause):
        arguments = [str(face_clip) if word == "clip.mp4" else word for word in arguments]
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 2
        assert cause in done.output


class Capture:
    """Takes the place of a camera's driver: gives the nearest of the modes that it has."""

    def __init__(self, device):
        self.asked = []
        self.values = {}

    def isOpened(self):
        return True

    def set(self, key, value):
        self.asked.append((key, value))
        self.values[key] = min(value, 640) if key == cv2.CAP_PROP_FRAME_WIDTH else value
        if key == cv2.CAP_PROP_FRAME_HEIGHT:
            self.values[key] = min(value, 480)
        return True

    def get(self, key):
        return float(self.values.get(key, 0.0))

    def release(self):
        pass


class TestCameras:
    @pytest.fixture
    def camera(self, monkeypatch):
        monkeypatch.setattr("dfd_edge.sources.camera.list_cameras", lambda: ["/dev/video0"])
        monkeypatch.setattr(cv2, "VideoCapture", Capture)
        return lambda **options: Camera(0, CameraOptions(**options))

    def test_it_is_asked_in_the_order_that_drivers_need(self, camera):
        opened = camera(width=640, height=480, fps=30.0, pixel_format="MJPG")
        asked = [pair for pair in opened._capture.asked if pair[0] != cv2.CAP_PROP_BUFFERSIZE]
        assert asked == [
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
            (cv2.CAP_PROP_FRAME_WIDTH, 640),
            (cv2.CAP_PROP_FRAME_HEIGHT, 480),
            (cv2.CAP_PROP_FPS, 30.0),
        ]

    def test_what_it_gives_instead_is_told(self, camera, caplog):
        with caplog.at_level(logging.WARNING):
            camera(width=1280, height=720, fps=30.0)
        assert [record.message for record in caplog.records] == [
            "camera 0: asked for 1280x720, gives 640x480"
        ]

    def test_nothing_is_asked_by_default(self, camera):
        assert [key for key, _ in camera()._capture.asked] == [cv2.CAP_PROP_BUFFERSIZE]


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: CameraOptions(width=640), "both sides"),
        (lambda: CameraOptions(width=4, height=4), "too small, 4x4"),
        (lambda: CameraOptions(fps=0.0), "above 0"),
        (lambda: SourceOptions(rtsp_transport="sctp"), "known are tcp, udp"),
        (lambda: SourceOptions(reconnect_s=-1.0), "reconnect -1.0: give a number from 0"),
    ],
)
def test_options_check_themselves(make, cause):
    with pytest.raises(UsageError, match=cause):
        make()
