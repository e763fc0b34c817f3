"""Video files: what they say, what is wrong with them, and what is made of it."""

from __future__ import annotations

import io
import os
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from clip_maker import face_frames, plain_frames, write_clip, write_sound

from dfd_edge.errors import SourceError
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.timing import Timeline


class All:
    """Wants every frame."""

    def is_due(self, time_s):
        return True


def read(path, sampler=None):
    with VideoFile(path) as video:
        frames = list(video.frames(sampler or All()))
    return video, frames


def trimmed(folder, suffix):
    """The last 2.8 of 6 s, cut out between two key frames."""
    whole = write_clip(folder / "long.mp4", face_frames(150), options={"g": "100"})
    path = folder / f"trimmed{suffix}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-ss", "3.2", "-i", str(whole)]
    command += ["-c", "copy", "-movflags", "faststart", str(path)]
    subprocess.run(command, check=True)
    return path


def upright(corner):
    """A picture whose upper left quarter is white, turned or not."""
    image = np.full((240, 320, 3), 40, np.uint8)
    image[:120, :160] = 230
    return image


class TestWholeFiles:
    def test_every_frame_comes_with_its_time(self, face_clip):
        video, frames = read(face_clip)
        assert len(frames) == 75
        assert [frame.index for frame in frames] == list(range(75))
        assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(75)])
        assert (video.width, video.height) == (320, 240)
        assert video.duration_s == pytest.approx(3.0, abs=0.05)
        assert video.end_s == pytest.approx(3.0, abs=0.01)
        assert video.complete
        assert video.reason is None

    def test_pictures_are_what_was_encoded(self, face_clip):
        _, frames = read(face_clip)
        difference = np.abs(frames[10].image.astype(int) - face_frames(11)[10])
        assert difference.mean() < 6
        assert frames[10].image.dtype == np.uint8

    def test_only_due_frames_are_handed_out(self, face_clip):
        _, frames = read(face_clip, Sampler(5.0))
        assert [frame.index for frame in frames] == list(range(0, 75, 5))

    @pytest.mark.parametrize("suffix", [".mp4", ".mov"])
    def test_a_trimmed_file_is_whole(self, tmp_path, suffix):
        """A trim without re-encoding keeps the frames from the last key frame on, unseen."""
        path = trimmed(tmp_path, suffix)
        video, frames = read(path)
        assert len(frames) == 70
        assert video.end_s == pytest.approx(2.8, abs=0.01)
        assert video.complete, video.reason

    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads_change_nothing(self, face_clip, threads):
        with VideoFile(face_clip, threads=threads) as video:
            frames = list(video.frames(Sampler(5.0)))
        _, single = read(face_clip, Sampler(5.0))
        for frame, other in zip(frames, single, strict=True):
            assert frame.time_s == other.time_s
            assert np.array_equal(frame.image, other.image)

    @pytest.mark.parametrize(
        ("name", "codec"),
        [
            ("clip.mkv", "libx264"),
            ("clip.mov", "libx264"),
            ("clip.mpg", "mpeg2video"),
            ("clip.avi", "mpeg4"),
            ("clip.ts", "libx264"),
            ("clip.webm", "libvpx"),
            ("odd name %d [1].mp4", "libx264"),
        ],
    )
    def test_containers(self, tmp_path, name, codec):
        path = write_clip(tmp_path / name, face_frames(30), codec=codec)
        video, frames = read(path)
        assert len(frames) == 30
        assert frames[-1].time_s == pytest.approx(29 / 25, abs=0.05)
        assert video.complete, video.reason

    def test_portrait(self, tmp_path):
        path = write_clip(tmp_path / "tall.mp4", face_frames(5, size=(240, 426)))
        _, frames = read(path)
        assert frames[0].image.shape == (426, 240, 3)

    def test_a_stream_without_a_name(self, face_clip):
        with VideoFile(io.BytesIO(face_clip.read_bytes())) as video:
            assert len(list(video.frames(All()))) == 75

    def test_a_second_pass_is_refused(self, face_clip):
        with VideoFile(face_clip) as video:
            list(video.frames(Sampler(5.0)))
            with pytest.raises(SourceError, match="open it again"):
                list(video.frames(Sampler(5.0)))


class TestRotation:
    @pytest.mark.parametrize(
        ("degrees", "size", "bright"),
        [
            (0, (240, 320), (0, 0)),
            (90, (320, 240), (1, 0)),
            (180, (240, 320), (1, 1)),
            (-90, (320, 240), (0, 1)),
        ],
    )
    def test_the_display_matrix_is_applied(self, tmp_path, degrees, size, bright):
        """`degrees` turn the picture counterclockwise: its bright corner moves accordingly."""
        path = write_clip(tmp_path / "turned.mp4", [upright(0)] * 5, rotation=degrees)
        video, frames = read(path)
        image = frames[0].image
        assert image.shape[:2] == size
        assert (video.height, video.width) == size
        halves = [
            [half.mean() for half in np.array_split(rows, 2, axis=1)]
            for rows in np.array_split(image, 2, axis=0)
        ]
        assert np.unravel_index(np.argmax(halves), (2, 2)) == bright


class TestTimestamps:
    def test_variable_frame_rate(self, tmp_path):
        times_s = [0.0, 0.04, 0.5, 0.54, 2.0, 2.5]
        path = write_clip(tmp_path / "vfr.mp4", face_frames(6), times_s=times_s)
        _, frames = read(path)
        assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=1e-3)

    def test_a_file_that_starts_late_starts_at_zero(self, tmp_path):
        times_s = [100.0 + n / 25 for n in range(10)]
        path = write_clip(tmp_path / "late.mkv", face_frames(10), times_s=times_s)
        _, frames = read(path)
        assert frames[0].time_s == pytest.approx(0.0, abs=1e-3)
        assert frames[-1].time_s == pytest.approx(9 / 25, abs=1e-2)

    def test_a_bare_stream_without_timestamps(self, tmp_path):
        path = write_clip(tmp_path / "bare.h264", face_frames(30))
        _, frames = read(path)
        steps = np.diff([frame.time_s for frame in frames])
        assert len(frames) == 30
        assert (steps > 0).all()

    def test_joined_recordings_go_on(self, tmp_path):
        part = write_clip(tmp_path / "part.ts", face_frames(25)).read_bytes()
        path = tmp_path / "joined.ts"
        path.write_bytes(part + part)
        video, frames = read(path)
        steps = np.diff([frame.time_s for frame in frames])
        assert (steps > 0).all()
        assert steps.max() < 0.5
        assert video.end_s == pytest.approx(2.0, abs=0.3)

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ([0.0, 0.1, 0.2], [0.0, 0.1, 0.2]),
            ([None, None, None], [0.0, 0.1, 0.2]),
            ([5.0, None, 5.2], [0.0, 0.1, 0.2]),
            ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2]),
            ([9.0, 9.1, 1.0, 1.1], [0.0, 0.1, 0.2, 0.3]),
            ([0.0, 7.0], [0.0, 7.0]),
        ],
    )
    def test_times_never_run_backwards(self, given, wanted):
        timeline = Timeline(frame_rate=10.0)
        assert [timeline.place(time_s) for time_s in given] == pytest.approx(wanted)


class TestBadFiles:
    def refused(self, path):
        with pytest.raises(SourceError) as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        return message

    def test_missing(self, tmp_path):
        assert "no such file" in self.refused(tmp_path / "gone.mp4")

    def test_folder(self, tmp_path):
        assert "folder" in self.refused(tmp_path)

    def test_zero_length(self, tmp_path):
        path = tmp_path / "empty.mp4"
        path.touch()
        assert "empty" in self.refused(path)

    def test_text(self, tmp_path):
        path = tmp_path / "notes.mp4"
        path.write_text("these are not pictures\n" * 100)
        assert "not a video" in self.refused(path)

    def test_sound_only(self, tmp_path):
        assert "sound only" in self.refused(write_sound(tmp_path / "tone.m4a"))

    def test_too_small(self, tmp_path):
        path = write_clip(tmp_path / "dot.mp4", plain_frames(3, size=(8, 8)))
        assert "too small, 8x8" in self.refused(path)

    def test_too_large(self, tmp_path):
        """A header may state any size: it is refused before memory is spent on it."""
        path = tmp_path / "huge.y4m"
        path.write_bytes(b"YUV4MPEG2 W12000 H12000 F25:1 C420\nFRAME\n" + bytes(1000))
        assert "too large, 12000x12000" in self.refused(path)

    def test_index_cut_off(self, face_clip, tmp_path):
        path = tmp_path / "cut.mp4"
        data = face_clip.read_bytes()
        at = data.index(b"moov")
        path.write_bytes(data[: at + 40])
        assert "cut off" in self.refused(path)

    @pytest.mark.parametrize(
        "text",
        [
            "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
            "ffconcat version 1.0\nfile /etc/passwd\n",
            "\ufeff#EXTM3U\n",
        ],
    )
    def test_playlists_under_another_name(self, tmp_path, text):
        path = tmp_path / "clip.mp4"
        path.write_text(text)
        assert "playlist" in self.refused(path)

    def test_playlist_that_does_not_look_like_one(self, tmp_path, face_clip):
        """FFmpeg takes a concat script after comments; the whitelist refuses it all the same."""
        path = tmp_path / "clip.mp4"
        path.write_text(f"\n\nffconcat version 1.0\nfile '{face_clip}'\n")
        self.refused(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_no_permission(self, face_clip, tmp_path):
        path = tmp_path / "locked.mp4"
        path.write_bytes(face_clip.read_bytes())
        path.chmod(0)
        assert "permission" in self.refused(path)

    def test_a_device_is_no_video(self):
        assert "neither a file" in str(self.refused("/dev/null"))


class TestDamagedFiles:
    """What decodes is handed out, and the file says that it is not complete."""

    @pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
    def test_cut_off(self, tmp_path, name):
        whole = write_clip(tmp_path / f"whole_{name}", face_frames(75))
        data = whole.read_bytes()
        path = tmp_path / name
        path.write_bytes(data[: len(data) // 2])
        video, frames = read(path)
        assert 5 < len(frames) < 70
        assert not video.complete
        assert "cut off" in video.reason

    def test_a_trimmed_file_that_is_cut_off(self, tmp_path):
        path = trimmed(tmp_path, ".mp4")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
        video, _ = read(path)
        assert not video.complete
        assert "of 2.8 s could be decoded" in video.reason

    def test_noise_in_the_middle(self, tmp_path, capfd):
        path = write_clip(tmp_path / "noise.mp4", face_frames(75))
        data = bytearray(path.read_bytes())
        middle = data.index(b"mdat") + len(data) // 3
        data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
        path.write_bytes(data)
        video, frames = read(path)
        assert 10 < len(frames) < 75
        assert not video.complete
        assert "could not be decoded" in video.reason
        assert capfd.readouterr().err == ""

    def test_a_frame_is_never_made_up(self, tmp_path):
        """After the damage there are fewer frames than before, and none is black."""
        whole = write_clip(tmp_path / "whole.mp4", face_frames(75))
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
        _, frames = read(path)
        assert all(cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY).std() > 20 for frame in frames)


@pytest.mark.data
@pytest.mark.slow
def test_every_development_clip_is_read(development_data):
    paths = sorted(path for path in (development_data / "clips").rglob("*") if path.is_file())
    assert paths
    for path in paths:
        video, frames = read(path, Sampler(5.0))
        assert video.complete, f"{path}: {video.reason}"
        assert len(frames) == pytest.approx(video.end_s * 5.0, abs=1.5), path
