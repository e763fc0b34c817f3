"""`dfd-edge --doctor` names what works, what does not, and what to do about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.version import is_allowed

#: Hides onnxruntime from this process, as in an environment where it was never installed.
WITHOUT_ONNXRUNTIME = """
import importlib.metadata, sys
sys.modules["onnxruntime"] = None
real = importlib.metadata.version
def version(name):
    if name.startswith("onnxruntime"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
"""

#: What is left of OpenCV when one of two of its distributions is removed: a folder without files.
HALF_REMOVED = """
import sys, types
sys.modules["cv2"] = types.ModuleType("cv2")
"""
WITHOUT_OPENCV = """
import importlib.metadata, sys
sys.modules["cv2"] = None
real = importlib.metadata.version
def version(name):
    if name.startswith("opencv"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
"""
WITHOUT_LIBGL = """
import importlib.abc, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file")
sys.meta_path.insert(0, Finder())
"""
HEADLESS = """
import importlib.metadata, os
import cv2.version
cv2.version.headless = True
os.environ["DISPLAY"] = ":97"
real = importlib.metadata.version
def version(name):
    if name == "opencv-python":
        raise importlib.metadata.PackageNotFoundError(name)
    return "4.14.0.94" if name == "opencv-python-headless" else real(name)
importlib.metadata.version = version
"""
BESIDE_HEADLESS = """
import importlib.metadata
real = importlib.metadata.version
def version(name):
    return "4.14.0.94" if name == "opencv-python-headless" else real(name)
importlib.metadata.version = version
"""
#: As a version of PyAV does that knows other arguments.
OPEN_FAILS = """
import av
def fails(*arguments, **named):
    raise TypeError("open() got an unexpected keyword argument")
av.open = fails
"""
#: A version that pip refuses, installed afterwards.
OLD_PYAV = """
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: "16.1.0" if name == "av" else real(name)
importlib.metadata.requires = lambda name: ["av<20,>=17.0.0", "numpy<3,>=1.26.0"]
"""
NO_FRAMES = """
from dfd_edge.sources.video import VideoFile
VideoFile.frames = lambda self, sampler, **options: iter(())
"""
NO_FACES = """
from dfd_edge.faces.detector import FaceDetector
FaceDetector.detect = lambda self, frame: []
"""
SEQUENCE_FAILS = """
from dfd_edge.errors import BundleError
from dfd_edge.inference.session import Session
def fails(self, *arguments, **named):
    raise BundleError("sequence.onnx: the graph fails")
Session.run_sequence = fails
"""
NO_STEPS = """
import dataclasses
from dfd_edge.judging.stream import Stream
real = Stream.score
def score(self, observations):
    for result in real(self, observations):
        people = [dataclasses.replace(person, p_step=float("nan")) for person in result.people]
        yield dataclasses.replace(result, people=tuple(people))
Stream.score = score
"""


def run(code, *arguments):
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nfrom dfd_edge.cli.command import main\nmain()",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_sound_installation(tiny_bundle):
    done = run("", "--doctor", "--model", str(tiny_bundle))
    assert done.returncode == 0, done.stdout + done.stderr
    for subject in ("dfd-edge", "python", "numpy", "opencv-python", "av", "onnxruntime", "cpu"):
        assert subject in done.stdout
    assert Bundle.load(tiny_bundle).manifest.name in done.stdout
    assert "Ready" in done.stdout
    assert "cameras" in done.stdout or "camera" in done.stdout
    assert "display" in done.stdout


def test_the_shipped_bundle_judges_the_clip_that_ships():
    done = run("", "--doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line[6:20].strip(): line[21:] for line in done.stdout.splitlines()}
    assert lines["decoding"] == "8 frames of 352x352"
    assert lines["on cuda"].startswith(("may run", "not here: "))
    assert lines["detection"] == "a face in 8 of 8 frames"
    assert lines["frame graph"] == lines["sequence graph"] == "8 scores"
    assert lines["judging"].startswith("the test clip, a face swap, is fake, P(fake) 0.")
    assert lines["telemetry"] == "off"


@pytest.mark.parametrize(
    ("fault", "code", "subject", "mend"),
    [
        (HALF_REMOVED, 1, "opencv-python", "`pip uninstall -y opencv-python`, then `pip install '"),
        (WITHOUT_OPENCV, 1, "opencv-python", "run `pip install 'opencv-python"),
        (WITHOUT_LIBGL, 1, "opencv-python", "apt install libgl1"),
        (OPEN_FAILS, 1, "decoding", "run `pip install --force-reinstall 'numpy"),
        (OPEN_FAILS + OLD_PYAV, 1, "decoding", "av 16.1.0 is installed; dfd-edge needs av"),
        (NO_FRAMES, 1, "decoding", "0 of 8 frames of a sound clip were decoded: run `pip install"),
        (NO_FACES, 1, "detection", "each frame of the clip shows one face"),
        (SEQUENCE_FAILS, 5, "judging", "sequence.onnx: the graph fails"),
        (NO_STEPS, 4, "sequence graph", "gives no score"),
    ],
)
def test_it_is_never_ready_where_no_video_can_be_judged(fault, code, subject, mend):
    done = run(fault, "--doctor")
    assert done.returncode == code, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith(f"FAULT {subject:14} ")]
    assert mend in lines[at + 1]
    assert "Not ready" in lines[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("fault", [HALF_REMOVED, WITHOUT_OPENCV, WITHOUT_LIBGL])
def test_judging_without_a_whole_opencv_says_what_to_do(fault, plain_clip):
    done = run(fault, str(plain_clip))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "`pip install '" in line


def test_a_version_that_is_not_allowed_is_named_and_judges_as_far_as_it_can(plain_clip):
    done = run(OLD_PYAV, "--doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note  av             16.1.0\n" in done.stdout
    assert "dfd-edge needs av<20,>=17.0.0: run `pip install 'av<20,>=17.0.0'`" in done.stdout
    assert run(OLD_PYAV, str(plain_clip)).stderr == ""
    done = run(OPEN_FAILS + OLD_PYAV, str(plain_clip))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "(TypeError: open() got an unexpected keyword argument): av 16.1.0 is insta" in line
    assert line.endswith("run `pip install 'av<20,>=17.0.0'`")


@pytest.mark.parametrize(
    ("version", "allowed"),
    [
        *(("17.0.0", True), ("17", True), ("19.9.1", True), ("18.0.0rc1", True)),
        *(("16.9.9", False), ("9.0", False), ("20", False), ("20.0.0", False), ("100.1", False)),
    ],
)
def test_versions_are_compared_number_by_number(version, allowed):
    assert is_allowed(version, "av<20,>=17.0.0") is allowed


def test_headless_opencv_is_accepted_where_no_window_is_wanted(plain_clip):
    done = run(HEADLESS, "--doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "      opencv-python-headless 4.14.0.94\n" in done.stdout
    assert "display        the installed OpenCV is headless" in done.stdout
    done = run(HEADLESS, "--window", str(plain_clip))
    assert done.returncode == 2
    assert "--window: the installed OpenCV is headless" in done.stderr


def test_two_distributions_of_opencv_overwrite_each_other():
    done = run(BESIDE_HEADLESS, "--doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "opencv-python and opencv-python-headless overwrite each other: run `pip unin" in (
        done.stdout
    )


def test_an_application_is_told_what_is_broken():
    asked = subprocess.run(
        [sys.executable, "-c", f"{HALF_REMOVED}\nfrom dfd_edge import Detector"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BrokenLibrary: OpenCV is without its files" in asked.stderr.splitlines()[-1]


def test_without_onnxruntime_it_says_what_to_install(tiny_bundle):
    done = run(WITHOUT_ONNXRUNTIME, "--doctor", "--model", str(tiny_bundle))
    assert done.returncode == 4
    assert "pip install 'dfd-edge[cpu]'" in done.stdout
    assert "FAULT judging" in done.stdout
    assert "Not ready" in done.stdout
    assert "Traceback" not in done.stderr


def test_judging_without_onnxruntime_says_what_to_install(tiny_bundle, plain_clip):
    done = run(WITHOUT_ONNXRUNTIME, "--model", str(tiny_bundle), str(plain_clip))
    assert done.returncode == 4
    assert "pip install 'dfd-edge[cpu]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bundle_that_is_refused(tmp_path):
    done = run("", "--doctor", "--model", str(tmp_path))
    assert done.returncode == 5
    assert str(tmp_path) in done.stdout


def test_a_provider_that_cannot_run(tiny_bundle):
    other = "directml" if sys.platform == "darwin" else "coreml"
    done = run("", "--doctor", "--model", str(tiny_bundle), "--provider", other)
    assert done.returncode == 4
    assert "FAULT" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="display variables are those of X and Wayland")
def test_a_machine_without_a_display(tiny_bundle, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = run("", "--doctor", "--model", str(tiny_bundle))
    assert done.returncode == 0
    assert "no display" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="display variables are those of X and Wayland")
def test_a_display_that_does_not_answer_does_not_kill_the_process(tiny_bundle, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = run("", "--doctor", "--model", str(tiny_bundle))
    assert done.returncode == 0, done.stderr
    assert "cannot be opened on :97" in done.stdout
