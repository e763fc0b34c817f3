"""The window, on a virtual screen where the machine has one."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

xvfb = shutil.which("xvfb-run")


@pytest.mark.skipif(xvfb is None, reason="xvfb-run is not installed")
def test_a_clip_in_a_window(tiny_bundle, plain_clip):
    arguments = ["--model", str(tiny_bundle), "--window", str(plain_clip)]
    done = subprocess.run(
        [xvfb, "-a", sys.executable, "-m", "dfd_edge.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "NO_FACE" in done.stdout


def test_a_window_without_a_display_is_refused(tiny_bundle, plain_clip, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    arguments = ["--model", str(tiny_bundle), "--window", str(plain_clip)]
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "--save-video" in done.stderr
