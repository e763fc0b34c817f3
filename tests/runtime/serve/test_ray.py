"""The service on a local Ray cluster: a replica that is killed loses no judgement."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from clip_maker import face_frames, write_clip

from dfd_edge import BundleError, Detector
from dfd_edge.serve.settings import ServiceSettings
from serving import Program

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc"),
]

WAITING = 2
WAIT_S = 240.0
REPLICA = "ray::ServeReplica"


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
    """Clips come until a second replica was added for them, and the first one is killed."""
    clip = write_clip(tmp_path / "clip.mp4", face_frames(150))
    options = ("--ray", "--jobs", "2", "--model", str(tiny_bundle), "--provider", "cpu")
    program = Program(tmp_path / "data", *options)
    try:
        with program.client() as client:

            def listed(state: str | None = None) -> list[dict]:
                params = {"limit": 200} | ({} if state is None else {"state": state})
                return client.get("/v1/judgements", params=params).json()["judgements"]

            sent, killed, until_s = 0, 0, time.monotonic() + WAIT_S
            while not killed or listed("queued") or listed("running"):
                assert time.monotonic() < until_s, (sent, killed, processes(mark, REPLICA))
                running = listed("running")
                replicas = processes(mark, REPLICA)
                if not killed and len(replicas) == len(running) == 2:
                    killed = replicas[0]
                    os.kill(killed, signal.SIGKILL)
                elif not killed and len(listed("queued")) < WAITING:
                    body = clip.read_bytes() + struct.pack(">I4sQ", 16, b"free", sent)
                    client.post("/v1/judgements?name=clip.mp4", content=body).raise_for_status()
                    sent += 1
                else:
                    time.sleep(0.05)
            found = listed()
            deaths = re.search(r"^dfd_worker_deaths_total (\S+)", client.get("/metrics").text, re.M)
        assert len(found) == sent
        assert {judgement["state"] for judgement in found} == {"done"}, found
        assert deaths is not None
        assert float(deaths[1]) >= 1, "it was judging when it was killed"
        p_fake = Detector.load(tiny_bundle, provider="cpu").analyze(clip).p_fake
        judged = [judgement["verdict"]["p_fake"] for judgement in found]
        assert judged == pytest.approx([p_fake] * sent, abs=1e-6)
        assert program.end(signal.SIGINT) == 0, program.errors
    finally:
        program.kill()
        until_s = time.monotonic() + 30.0
        while (left := processes(mark)) and time.monotonic() < until_s:
            time.sleep(0.2)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left, "Ctrl-C ends the cluster too"


@pytest.mark.exhaustive
def test_the_whole_service_is_an_application_of_ray_serve(tmp_path, tiny_bundle, mark):
    """With the queue in one replica and the judging in another, behind Ray's own proxy."""
    import ray
    from ray import serve

    from dfd_edge.serve import ray_app

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clip = write_clip(tmp_path / "clip.mp4", face_frames(50))
    args = ray_app.ClusterSettings(data=tmp_path / "data", model=tiny_bundle, jobs=1)
    ray.init("local", include_dashboard=False, _system_config={"worker_niceness": 0})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(ray_app.build(args), name="whole", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            wait = {"Prefer": "wait=60"}
            answer = client.post("/v1/judgements", content=clip.read_bytes(), headers=wait)
            assert answer.json()["state"] == "done", answer.text
            film = write_clip(tmp_path / "long.mp4", face_frames(1500)).read_bytes()
            address = client.post("/v1/judgements", content=film).json()["links"]["self"]
            until_s = time.monotonic() + WAIT_S
            while (
                not (progress := client.get(address).json()["progress"]) or not progress["done_s"]
            ):
                assert time.monotonic() < until_s
            assert client.post(f"{address}/cancel").json()["state"] == "cancelled"
            again = client.post(
                "/v1/judgements?again=true", content=clip.read_bytes(), headers=wait
            )
            assert again.json()["state"] == "done", "the replica is free again"
            assert client.get("/readyz").json() == {"status": "ready", "workers": 1}
            assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    finally:
        serve.shutdown()
        ray.shutdown()


def test_a_bundle_that_is_refused_starts_no_cluster(tmp_path):
    import ray

    from dfd_edge.serve.ray_app import cluster

    settings = ServiceSettings(data=tmp_path, model=tmp_path / "none")
    with pytest.raises(BundleError), cluster(settings, "local"):
        pass
    assert not ray.is_initialized()
