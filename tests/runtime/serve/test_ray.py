"""The service on a local Ray cluster: a replica that is killed loses no judgement."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from clip_maker import face_frames, write_clip

from dfd_edge import Detector
from serving import Program

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc"),
]

CLIPS = 8
WAIT_S = 240.0


@pytest.fixture
def mark(monkeypatch) -> str:
    """An environment variable by which the processes of this test's cluster are known."""
    value = f"DFD_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*value.split("="))
    return value


def processes(mark: str, name: str = "") -> list[int]:
    """Processes of this test's cluster, the oldest first; `name` is how their command begins."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if mark.encode() in (folder / "environ").read_bytes() and command.startswith(name):
                found.append(int(folder.name))
        except OSError:  # it has ended, or is another user's
            continue
    return sorted(found)


def test_a_replica_that_is_killed_under_load_loses_no_judgement(tmp_path, tiny_bundle, mark):
    clips = [
        write_clip(tmp_path / f"{n}.mp4", face_frames(50 + 5 * n, mirrored=n % 2 == 1))
        for n in range(CLIPS)
    ]
    options = ("--ray", "--jobs", "2", "--model", str(tiny_bundle), "--provider", "cpu")
    program = Program(tmp_path / "data", *options)
    try:
        with program.client() as client:
            sent = {}
            for clip in clips:
                answer = client.post(f"/v1/judgements?name={clip.name}", content=clip.read_bytes())
                sent[clip.name] = answer.json()["links"]["self"]
            killed, until_s = 0, time.monotonic() + WAIT_S
            while True:
                found = {name: client.get(address).json() for name, address in sent.items()}
                states = [judgement["state"] for judgement in found.values()]
                done = states.count("done")
                if not killed and done >= 1 and "running" in states:
                    (killed, *_) = processes(mark, "ray::ServeReplica")
                    os.kill(killed, signal.SIGKILL)
                if all(state not in ("queued", "running") for state in states):
                    break
                assert time.monotonic() < until_s, states
                time.sleep(0.1)
        assert killed, "all were done before one could be killed"
        assert states == ["done"] * CLIPS, [judgement["error"] for judgement in found.values()]
        assert killed not in processes(mark)
        detector = Detector.load(tiny_bundle, provider="cpu")
        for clip in clips:
            assert found[clip.name]["verdict"]["p_fake"] == pytest.approx(
                detector.analyze(clip).p_fake, abs=1e-6
            )
        assert program.end(signal.SIGINT) == 0, program.errors
    finally:
        program.kill()
        until_s = time.monotonic() + 30.0
        while (left := processes(mark)) and time.monotonic() < until_s:
            time.sleep(0.2)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left, "Ctrl-C ends the cluster too"
