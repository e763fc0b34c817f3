"""Hostile files end the process that decodes them, or get a clear error: the service goes on."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from clip_maker import face_frames, write_clip
from PIL import Image

from serving import Served, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps all the limits")

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))
from media_seeds import make_seeds  # noqa: E402
from mutations import mutate  # noqa: E402

WAIT_S = 60.0
DAMAGED = 16
#: Too little for the picture `huge`, and enough for the films.
MEMORY_MB = 256
SCRIPT = b"<!DOCTYPE html><script>alert(document.domain)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><circle r="9"/></svg>'


@pytest.fixture(scope="module")
def service(tmp_path_factory, tiny_bundle):
    data = tmp_path_factory.mktemp("hostile")
    limits = {"max_duration_s": 20.0, "memory_mb": MEMORY_MB, "keep_days": 1.0}
    with serving(data, model=tiny_bundle, provider="cpu", **limits) as served:
        yield served


@pytest.fixture(scope="module")
def client(service):
    with service.client() as client:
        yield client


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", face_frames(25)).read_bytes()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> bytes:
    """A film that is judged for a while."""
    return write_clip(tmp_path_factory.mktemp("clips") / "b.mp4", face_frames(450)).read_bytes()


def judged(client: httpx.Client, data: bytes, name: str = "clip.mp4") -> dict:
    """Submits a file and returns its judgement once it has ended."""
    answer = client.post("/v1/judgements", params={"name": name, "again": "true"}, content=data)
    assert answer.status_code in (200, 202), answer.text
    address = answer.json()["links"]["self"]
    until_s = time.monotonic() + WAIT_S
    while True:
        found = client.get(address).json()
        if found["state"] not in ("queued", "running"):
            return found
        assert time.monotonic() < until_s, found
        time.sleep(0.05)


def failure(judgement: dict) -> str:
    """The cause of a judgement that failed, as one line for people."""
    assert judgement["state"] == "failed", judgement["verdict"]
    detail = judgement["error"]["detail"]
    assert len(detail.splitlines()) == 1
    assert "Traceback" not in detail
    return f"{judgement['error']['type'].removeprefix('/problems/')}: {detail}"


def worker_of(service: Served) -> int:
    pid = service.service.queue._workers[0].pid
    assert pid is not None
    return pid


def children(pid: int) -> set[int]:
    """Processes that a process has started and that are still there."""
    with contextlib.suppress(FileNotFoundError):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return {int(child) for task in tasks for child in task.read_text().split()}
    return set()


def decoder_of(pid: int) -> int:
    """The process that decodes for a process that judges, once there is one."""
    until_s = time.monotonic() + WAIT_S
    while not (found := children(pid)):
        assert time.monotonic() < until_s
        time.sleep(0.005)
    return min(found)


def test_damaged_files_end_in_a_verdict_or_a_clear_error(service, client, tmp_path, clip):
    seeds = [path.read_bytes() for path in make_seeds(tmp_path / "seeds")]
    random_ = random.Random(21)
    pid, outcomes = worker_of(service), []
    for number in range(DAMAGED):
        data = mutate(seeds[number * 7 % len(seeds)], random_.choice(seeds), random_)
        if not data:
            continue
        judgement = judged(client, data, f"damaged {number}.mp4")
        outcomes.append(judgement["state"])
        if judgement["state"] != "done":
            failure(judgement)
    assert set(outcomes) == {"done", "failed"}, "both happen, or the damage is of no use"
    assert worker_of(service) == pid, "the process that judges outlived them all"
    assert judged(client, clip)["state"] == "done"


def test_a_file_that_takes_too_much_memory_is_an_error(client, tmp_path, clip):
    huge = tmp_path / "huge.png"
    Image.new("RGB", (8000, 8000)).save(huge)
    assert f"more than the {MEMORY_MB} MB" in failure(judged(client, huge.read_bytes(), "huge.png"))
    assert judged(client, clip)["state"] == "done"


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGSEGV, "decoding crashed in its sandbox (SIGSEGV)"),
        (signal.SIGKILL, "was killed (SIGKILL)"),
    ],
)
def test_a_decoder_that_dies_is_an_error_of_its_file_alone(
    service, client, long_clip, clip, number, cause
):
    pid = worker_of(service)
    answer = client.post("/v1/judgements", params={"again": "true"}, content=long_clip)
    os.kill(decoder_of(pid), number)
    address = answer.json()["links"]["self"]
    until_s = time.monotonic() + WAIT_S
    while (found := client.get(address).json())["state"] in ("queued", "running"):
        assert time.monotonic() < until_s
    assert cause in failure(found)
    assert worker_of(service) == pid
    assert judged(client, clip)["state"] == "done"


def test_a_process_that_judges_and_dies_is_started_again(service, client, long_clip):
    pid = worker_of(service)
    answer = client.post("/v1/judgements", params={"again": "true"}, content=long_clip)
    decoder = decoder_of(pid)
    os.kill(pid, signal.SIGSEGV)
    address = answer.json()["links"]["self"]
    until_s = time.monotonic() + WAIT_S
    while (found := client.get(address).json())["state"] in ("queued", "running"):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert found["state"] == "done", "it was judged again"
    assert worker_of(service) != pid
    assert not Path(f"/proc/{decoder}").exists(), "the decoder ended with its parent"


def test_a_film_that_is_too_long_is_refused(client, tmp_path):
    film = write_clip(tmp_path / "long.mp4", face_frames(60), rate=2)
    cause = failure(judged(client, film.read_bytes(), "long.mp4"))
    assert cause.startswith("too-long: long.mp4: 30 s long, and at most 20 s are judged")


def test_what_is_no_media_is_stored_and_never_shown(client):
    for name, data in (("page.mp4", SCRIPT), ("drawing.svg", SVG), ("page.html", SCRIPT)):
        judgement = judged(client, data, name)
        assert failure(judgement).startswith("not-judged: ")
        media = client.get(judgement["links"]["media"])
        assert media.content == data
        assert media.headers["content-type"] == "application/octet-stream"
        assert media.headers["content-disposition"].startswith("attachment")
        assert media.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in media.headers["content-security-policy"]


def test_a_name_with_a_script_is_text_wherever_it_is_shown(client, clip):
    name = '<img src=x onerror=alert(1)>".mp4'
    judgement = judged(client, clip, name)
    assert "<img src=x" not in client.get(judgement["links"]["report"]).text
    assert "<img src=x" not in client.get(f"/judgements/{judgement['id']}").text
    # The browser's own headers hold no part of it that ends them.
    assert "\n" not in client.get(judgement["links"]["media"]).headers["content-disposition"]


@pytest.mark.parametrize("kind", ["hls", "concat", "sdp"])
def test_a_playlist_reaches_no_other_file_or_host(client, kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        texts = {
            "hls": f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXTINF:1,\n/etc/passwd\n",
            "concat": f"ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
            "sdp": f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        }
        failure(judged(client, texts[kind].encode(), "list.mp4"))
        with pytest.raises(TimeoutError):
            listener.accept()


def test_originals_lie_under_random_names_for_this_user_alone(service, client, clip):
    judged(client, clip, "../../escape.mp4")
    media = service.service.settings.media
    assert not [path.name for path in media.iterdir() if "escape" in path.name]
    assert all(len(path.name) == 32 for path in media.iterdir())
    assert media.parent.stat().st_mode & 0o077 == 0


def test_the_processes_have_limits(service, client):
    pid = worker_of(service)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    soft, _ = resource.prlimit(pid, resource.RLIMIT_DATA)
    assert MEMORY_MB << 20 < soft < 8 << 30
    # Where the machine's memory runs out, these go before the service does.
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"DFD_TOKEN" not in environment


def test_faces_beyond_all_measure_end_a_judgement(tmp_path, clip, monkeypatch):
    from dfd_edge.serve.judging import child

    monkeypatch.setattr(child, "_MAX_ROWS", 3)
    sent: list[dict] = []

    class Frames:
        people = ()

        def to_record(self):
            return {}

    outbox = object.__new__(child.Outbox)
    outbox._name, outbox._send, outbox._rows, outbox._maps = "a.mp4", sent.append, 0, 0
    for _ in range(3):
        outbox.frame(Frames())
    with pytest.raises(child.TooManyRowsError, match="more than 3 faces"):
        outbox.frame(Frames())
    assert len(sent) == 3
