"""`dfd-edge` as people and programs call it: a process, its output and its exit code."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import pytest
from clip_maker import face_frames, portrait, run_ffmpeg, write_clip, write_sound

from dfd_edge.bundle import Bundle
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler

COMMAND = [sys.executable, "-m", "dfd_edge"]


@pytest.fixture
def dfd(tiny_bundle):
    """Runs `dfd-edge --model <test bundle> ...`; gives the finished process."""

    def run(*arguments, **options):
        return subprocess.run(
            [*COMMAND, "--model", str(tiny_bundle), *map(str, arguments)],
            capture_output=True,
            text=options.pop("text", True),
            timeout=120,
            check=False,
            **options,
        )

    return run


def records(done):
    """The JSON Lines of standard output, strictly parsed."""

    def refuse(constant):
        raise ValueError(constant)

    return [json.loads(line, parse_constant=refuse) for line in done.stdout.splitlines()]


def of_kind(rows, kind):
    return [row for row in rows if row["record"] == kind]


class TestHumanLines:
    def test_one_line_a_source(self, dfd, face_clip, plain_clip):
        done = dfd(face_clip, plain_clip)
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert str(face_clip) in first
        assert "P(fake) 0." in first
        assert "coverage 100%" in first
        assert "x real time" in first
        assert second.startswith("NO_FACE")
        assert "P(fake)    -" in second
        assert done.stderr == ""

    def test_a_folder_with_pictures_and_clips(self, dfd, face_clip, tmp_path):
        shutil.copy(face_clip, tmp_path / "b.mp4")
        cv2.imwrite(str(tmp_path / "a.png"), portrait())
        (tmp_path / "readme.txt").write_text("no media")
        done = dfd(tmp_path)
        assert done.returncode == 0
        assert [line.split()[1] for line in done.stdout.splitlines()] == [
            str(tmp_path / "a.png"),
            str(tmp_path / "b.mp4"),
        ]


class TestJson:
    def test_run_frames_and_verdict(self, dfd, face_clip, tiny_bundle):
        done = dfd("--json", face_clip)
        assert done.returncode == 0, done.stderr
        rows = records(done)
        run, verdict = rows[0], rows[-1]
        assert run["record"] == "run"
        assert run["bundle"]["name"] == Bundle.load(tiny_bundle).manifest.name
        assert len(run["bundle"]["hash"]) == 12
        assert run["provider"]["actual"] == "cpu"
        assert run["rate_hz"] == 5.0
        assert {"dfd-edge", "onnxruntime", "av", "opencv"} <= set(run["versions"])
        frames = of_kind(rows, "frame")
        assert len(frames) == 15
        for frame in frames:
            assert set(frame) == {"record", "source", "time_s", "staleness_ms", "people"}
            (person,) = frame["people"]
            assert {"track", "box", "p_frame", "p_step", "p_fake", "judged"} <= set(person)
            assert all(0 <= person[key] <= 1 for key in ("p_frame", "p_step", "p_fake"))
        assert verdict["record"] == "verdict"
        assert verdict["frames"] == 15
        assert verdict["coverage"] == 1.0
        assert verdict["complete"] is True
        assert verdict["provider"] == "cpu"
        assert verdict["realtime_factor"] > 0
        assert verdict["people"][0]["track"] == 1

    def test_nothing_else_goes_to_standard_output(self, dfd, face_clip, tmp_path):
        done = dfd("--json", "-v", face_clip, tmp_path / "gone.mp4")
        rows = records(done)
        (event,) = of_kind(rows, "event")
        assert event["kind"] == "error"
        assert event["source"] == str(tmp_path / "gone.mp4")
        assert len(of_kind(rows, "verdict")) == 1


class TestBadInput:
    def test_each_gets_one_line_and_the_others_are_done(self, dfd, face_clip, tmp_path):
        empty = tmp_path / "empty.mp4"
        empty.touch()
        text = tmp_path / "text.mp4"
        text.write_text("no video\n" * 50)
        sound = write_sound(tmp_path / "sound.m4a")
        playlist = tmp_path / "playlist.mp4"
        playlist.write_text("#EXTM3U\n/etc/passwd\n")
        cut = tmp_path / "cut.jpg"
        cut.write_bytes(cv2.imencode(".jpg", portrait())[1].tobytes()[:2000])
        bad = [tmp_path / "gone.mp4", empty, text, sound, playlist, cut]
        done = dfd(*bad, face_clip)
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 1
        lines = done.stderr.splitlines()
        assert len(lines) == len(bad)
        for path in bad:
            assert sum(str(path) in line for line in lines) == 1
        assert "Traceback" not in done.stderr

    def test_a_truncated_clip_is_judged_and_says_so(self, dfd, face_clip, tmp_path):
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(face_clip.read_bytes()[: face_clip.stat().st_size * 2 // 3])
        done = dfd("--json", cut)
        verdict = records(done)[-1]
        assert done.returncode == 0
        assert verdict["complete"] is False
        assert "cut off" in verdict["reason"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "nothing to judge"),
            (["--fail-on", "forged", "clip.mp4"], "'forged' is no label"),
            (["--rate", "0", "clip.mp4"], "--rate"),
            (["--provider", "tpu", "clip.mp4"], "--provider"),
            (["--no-such-option"], "--no-such-option"),
        ],
    )
    def test_usage(self, dfd, arguments, said):
        done = dfd(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    def test_webcam_with_a_file_says_what_was_probably_meant(self, dfd, face_clip):
        done = dfd("--webcam", face_clip)
        assert done.returncode == 2
        assert f"dfd-edge {face_clip}" in done.stderr

    def test_a_camera_that_is_not_there(self, dfd):
        done = dfd("--webcam", "97")
        assert done.returncode == 1
        assert "camera 97: no such camera" in done.stderr
        assert "found" in done.stderr

    def test_credentials_are_never_shown(self, dfd):
        done = dfd("--json", "-v", "http://user:secret@127.0.0.1:9/live")
        assert done.returncode == 1
        assert "127.0.0.1:9/live" in done.stderr
        assert "secret" not in done.stdout + done.stderr

    def test_a_bundle_that_is_not_there(self, face_clip, tmp_path):
        done = subprocess.run(
            [*COMMAND, "--model", str(tmp_path), str(face_clip)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5
        assert str(tmp_path) in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_a_named_provider_never_falls_back(self, dfd, face_clip):
        """No wheel has Core ML and DirectML both: one of the two cannot run anywhere."""
        other = "directml" if sys.platform == "darwin" else "coreml"
        done = dfd("--provider", other, face_clip)
        assert done.returncode == 4
        assert done.stdout == ""
        assert other in done.stderr


class TestFailOn:
    def test_a_match_gives_three(self, dfd, plain_clip):
        assert dfd("--fail-on", "no_face", plain_clip).returncode == 3
        assert dfd("--fail-on", "fake,no_face", plain_clip).returncode == 3

    def test_no_match_gives_zero(self, dfd, plain_clip):
        assert dfd("--fail-on", "fake", plain_clip).returncode == 0

    def test_a_match_comes_before_a_failed_source(self, dfd, plain_clip, tmp_path):
        assert dfd("--fail-on", "no_face", plain_clip, tmp_path / "gone.mp4").returncode == 3


class TestOutputs:
    def test_csv(self, dfd, face_clip, tmp_path):
        path = tmp_path / "out.csv"
        assert dfd("--csv", path, face_clip).returncode == 0
        rows = list(csv.DictReader(path.open()))
        assert len(rows) == 15
        assert {row["source"] for row in rows} == {str(face_clip)}

    def test_annotated_video(self, dfd, face_clip, tmp_path):
        path = tmp_path / "out.mp4"
        done = dfd("--save-video", path, face_clip)
        assert done.returncode == 0, done.stderr
        with VideoFile(path) as video:
            frames = list(video.frames(Sampler(1000.0)))
        assert len(frames) == 75
        assert frames[0].image.shape == (240, 320, 3)
        assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]

    def test_after_a_failed_source_nothing_half_written_stays(self, dfd, tmp_path):
        bad = tmp_path / "bad.mp4"
        bad.write_text("no video\n" * 50)
        assert dfd("--save-video", tmp_path / "out.mp4", bad).returncode == 1
        assert [p.name for p in tmp_path.iterdir()] == ["bad.mp4"]

    @pytest.mark.parametrize("source", [["--webcam", "97"], ["bad.mp4"]])
    def test_a_failed_source_leaves_the_file_of_before_alone(self, dfd, tmp_path, source):
        (tmp_path / "bad.mp4").write_text("no video\n" * 50)
        path = tmp_path / "out.mp4"
        path.write_text("before")
        assert dfd("--save-video", path, *source, cwd=tmp_path).returncode == 1
        assert path.read_text() == "before"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mp4", "out.mp4"]

    @pytest.mark.parametrize("source", [["--webcam", "97"], ["bad.mp4"]])
    def test_an_unknown_suffix_is_a_matter_of_usage(self, dfd, tmp_path, source):
        (tmp_path / "bad.mp4").write_text("no video\n" * 50)
        done = dfd("--save-video", tmp_path / "out.txt", *source, cwd=tmp_path)
        assert done.returncode == 2
        assert "annotated video is written as .mp4" in done.stderr
        assert [p.name for p in tmp_path.iterdir()] == ["bad.mp4"]

    def test_annotated_video_takes_one_source(self, dfd, face_clip, plain_clip, tmp_path):
        done = dfd("--save-video", tmp_path / "out.mp4", face_clip, plain_clip)
        assert done.returncode == 2
        assert "one source" in done.stderr

    @pytest.mark.parametrize("option", ["--csv", "--save-video"])
    def test_a_folder_that_is_not_there(self, dfd, face_clip, tmp_path, option):
        done = dfd(option, tmp_path / "gone" / "out.mp4", face_clip)
        assert done.returncode == 2
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr


class TestOptions:
    def test_rate_and_duration(self, dfd, face_clip):
        rows = records(dfd("--json", "--rate", 10, "--duration", 1, face_clip))
        assert rows[0]["rate_hz"] == 10.0
        assert [f["time_s"] for f in of_kind(rows, "frame")] == pytest.approx(
            [n / 10 for n in range(10)], abs=0.05
        )
        assert rows[-1]["complete"] is False

    def test_threads_change_no_score(self, dfd, face_clip):
        one, two = (
            records(dfd("--json", "--threads", threads, face_clip))[-1] for threads in (1, 2)
        )
        assert one["p_fake"] == pytest.approx(two["p_fake"], abs=1e-5)

    def test_standard_input(self, dfd, tmp_path):
        clip = write_clip(tmp_path / "clip.ts", face_frames(50))
        done = dfd("-", text=False, input=clip.read_bytes())
        assert done.returncode == 0, done.stderr
        assert b"standard input" in done.stdout

    def test_standard_input_that_is_empty(self, dfd):
        done = dfd("-", text=False, input=b"")
        assert done.returncode == 1
        assert done.stderr == b"dfd-edge: error: standard input: it is empty\n"

    def test_a_rate_that_is_no_number(self, dfd, face_clip):
        done = dfd("--rate", "fast", face_clip)
        assert done.returncode == 2
        assert "'fast' is not a number." in done.stderr

    def test_standard_input_from_a_file_with_its_index_at_the_end(self, dfd, face_clip, tmp_path):
        path = tmp_path / "late.mp4"
        run_ffmpeg("-i", face_clip, "-c", "copy", path)
        data = path.read_bytes()
        assert data.index(b"mdat") < data.index(b"moov")
        with path.open("rb") as file:
            done = dfd("--json", "-", stdin=file)
        assert done.returncode == 0, done.stderr
        assert records(done)[-1]["frames"] == 15
        done = dfd("-", text=False, input=data)
        assert done.returncode == 1
        assert b"give the file itself, or pipe Matroska" in done.stderr

    def test_standard_input_from_a_place_within_a_file(self, dfd, face_clip, tmp_path):
        path = tmp_path / "packed.bin"
        path.write_bytes(b"head of another program\n" + face_clip.read_bytes())
        with path.open("rb") as file:
            os.lseek(file.fileno(), 24, os.SEEK_SET)
            done = dfd("--json", "-", stdin=file)
        assert done.returncode == 0, done.stderr
        assert records(done)[-1]["frames"] == 15

    def test_version(self):
        done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("dfd-edge 0.")


class TestInterrupt:
    @pytest.mark.parametrize(
        "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
    )
    def test_the_verdict_so_far_comes_within_a_moment(self, tiny_bundle, tmp_path, number):
        """`--rate 25` makes a long job of a clip; it is stopped after its first frames."""
        clip = write_clip(tmp_path / "long.mp4", face_frames(1500))
        process = subprocess.Popen(
            [*COMMAND, "--model", str(tiny_bundle), "--json", "--rate", "25", str(clip)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = []
        while not lines or '"frame"' not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        asked_s = time.monotonic()
        process.send_signal(number)
        while '"verdict"' not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        waited_s = time.monotonic() - asked_s
        assert process.wait(timeout=20) == 0
        verdict = json.loads(lines[-1])
        assert verdict["complete"] is False
        assert 0 < verdict["frames"] < 1500
        assert waited_s < 5.0, "as a rule it takes a tenth of a second"
        process.stdout.close()
        process.stderr.close()


@pytest.mark.data
@pytest.mark.slow
def test_every_development_clip_gets_a_verdict(tiny_bundle, development_data):
    folder = development_data / "clips"
    expected = sum(1 for path in folder.rglob("*") if path.is_file())
    done = subprocess.run(
        [*COMMAND, "--model", str(tiny_bundle), "--json", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdicts = of_kind(records(done), "verdict")
    assert len({verdict["source"] for verdict in verdicts}) == expected
