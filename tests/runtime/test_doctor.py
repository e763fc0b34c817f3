"""`dfd-edge --doctor` names what works, what does not, and what to do about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom dfd_edge.cli import main\nmain()", *arguments],
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
    assert "tiny" in done.stdout
    assert "Ready" in done.stdout
    assert "cameras" in done.stdout or "camera" in done.stdout
    assert "display" in done.stdout


def test_without_onnxruntime_it_says_what_to_install(tiny_bundle):
    done = run(WITHOUT_ONNXRUNTIME, "--doctor", "--model", str(tiny_bundle))
    assert done.returncode == 4
    assert "pip install 'dfd-edge[cpu]'" in done.stdout
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
