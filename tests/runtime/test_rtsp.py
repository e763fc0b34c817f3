"""RTSP from a real server, GStreamer's, over tcp and over udp."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clip_maker import face_frames, write_clip
from real_sender import free_port

from dfd_edge import Detector, EventKind
from dfd_edge.sources import SourceOptions

SERVER = Path(__file__).with_name("rtsp_server.py")
PYTHONS = [sys.executable, "/usr/bin/python3", shutil.which("python3")]


class Server:
    """The server in a process of its own."""

    def __init__(self, python, port, clip):
        self.command = [python, str(SERVER), str(port), str(clip)]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            return self.process.communicate(timeout=30)[1].strip().splitlines()[-1:]
        return None

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The server and its address."""
    path = tmp_path_factory.mktemp("rtsp") / "clip.mkv"
    write_clip(path, face_frames(250), options={"g": "10", "tune": "zerolatency"})
    port = free_port()
    for python in PYTHONS:
        probe = [python, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
        if python and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("GStreamer's RTSP server is missing: apt install gir1.2-gst-rtsp-server-1.0")
    server = Server(python, port, path)
    fault = server.start()
    if fault is not None:
        pytest.skip(f"GStreamer's RTSP server does not run: {fault}")
    yield server, f"rtsp://user:secret@127.0.0.1:{port}/cam"
    server.kill()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_over_rtsp(tiny_bundle, served, transport):
    _, address = served
    detector = Detector.load(tiny_bundle)
    options = SourceOptions(rtsp_transport=transport)
    with detector.watch(address, options=options, duration_s=3.0) as watch:
        results = list(watch)
    assert len(results) >= 3
    assert watch.gaps == 0
    assert watch.verdict().people
    assert "secret" not in watch.source


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_that_is_switched_off_and_on(tiny_bundle, served, transport):
    server, address = served
    detector = Detector.load(tiny_bundle)
    events = []
    options = SourceOptions(rtsp_transport=transport)
    with detector.watch(address, options=options, on_event=events.append) as watch:
        next(watch)
        server.kill()
        server.start()
        for _ in watch:
            if any(event.kind is EventKind.RECONNECT for event in events):
                break
    kinds = [event.kind for event in events if event.kind is not EventKind.DROP]
    assert kinds == [EventKind.GAP, EventKind.RECONNECT]
    assert not any("secret" in event.detail for event in events)
