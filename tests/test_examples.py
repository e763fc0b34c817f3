"""The programs in `examples/` run and print what they promise, and the documentation shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import av
import cv2
import pytest

from dfd_edge.detector import Detector

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
CLIP = ROOT / "samples" / "swapped_astronaut.mp4"
#: The clip scores 0.83 in int8 and in fp32.
SWAP_P_FAKE = 0.8
#: Run by `tests/export/test_interop.py`, which holds their scores against the runtime's.
GRAPHS = {"graphs/crops.py", "graphs/judge.py", "graphs/judge.mjs"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with a clip in it."""
    shutil.copy(CLIP, tmp_path / "clip.mp4")
    return tmp_path


def run(name: str, place: Path, *arguments: str, after: str = "") -> list[str]:
    """Lines that an example prints; `after` is appended to its text."""
    program = (EXAMPLES / name).read_text("utf-8") + after
    (place / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, "program.py", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run_listed_and_shown_in_the_documentation():
    files = {
        path.relative_to(EXAMPLES).as_posix()
        for path in EXAMPLES.rglob("*")
        if path.suffix in (".py", ".mjs")
    }
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text("utf-8"))) - {"program.py"}
    assert tested | GRAPHS == files
    listed = set(re.findall(r"\]\(([\w/]+\.m?[jp][sy]?)\)", (EXAMPLES / "README.md").read_text()))
    assert listed == files
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert set(re.findall(r'--8<-- "examples/(.*?)"', pages)) == files


def test_a_file(place: Path):
    first, *people = run("judge_file.py", place, "clip.mp4")
    label, p_fake, coverage = first.split()
    assert (label, coverage) == ("fake", "1.0")
    assert SWAP_P_FAKE < float(p_fake) < 1
    assert people[0].startswith("1 fake [(0.0,")


def test_bytes_and_pixels_score_alike(place: Path):
    with av.open(str(place / "clip.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="bgr24")
    cv2.imwrite(str(place / "photo.jpg"), frame)
    lines = run("judge_bytes.py", place, "photo.jpg")
    scores = {float(score) for line in lines for score in line.split()}
    assert len(lines) == 3
    assert len(scores) == 1


def test_own_frames(place: Path):
    *steps, last = run("push_frames.py", place, "clip.mp4")
    assert last == "fake"
    assert len(steps) == 20  # four seconds at 5 Hz
    time_s, _, label, p_fake = steps[-1].split()
    assert (time_s, label) == ("3.80", "fake")
    assert SWAP_P_FAKE < float(p_fake) < 1


def test_changes(place: Path):
    lines = run("label_changes.py", place, "clip.mp4")
    assert lines[-1] == "final verdict: fake"
    assert any(line.endswith("now fake") for line in lines[:-1])
    assert len(lines) <= 4


def test_two_streams(place: Path):
    left, right = run("two_streams.py", place, "clip.mp4", "clip.mp4")
    assert left.split()[1:] == right.split()[1:]
    assert left.split()[1] == "fake"


def test_tasks(place: Path):
    verdicts, *results = run("asyncio_tasks.py", place, "clip.mp4")
    assert verdicts == "['fake', 'fake']"
    assert len(results) == 20


def test_an_upload(place: Path):
    pytest.importorskip("flask", reason="Flask is not installed")
    client = textwrap.dedent("""
        client = app.test_client()
        for name in ("clip.mp4", "program.py"):
            with open(name, "rb") as clip:
                answer = client.post("/judge", data={"clip": (clip, "../../evil.mp4")})
            print(answer.status_code, answer.json.get("label"), answer.json.get("error"))
    """)
    good, bad = run("flask_upload.py", place, after=client)
    assert good == "200 fake None"
    assert bad.startswith("422 None the upload: ")


def test_a_client_of_the_service(place: Path):
    serving = pytest.importorskip("serving", reason="the extra `serve` is not installed")
    (place / "notes.mp4").write_text("not a film")
    with serving.serving(place / "data") as served:
        (done,) = run("service_client.py", place, served.address, "clip.mp4")
        (failed,) = run("service_client.py", place, served.address, "notes.mp4")
    assert done.startswith("done {'record': 'verdict', 'source': 'clip.mp4', 'label': 'fake'")
    assert failed.startswith("failed {'type': '/problems/not-judged'")


def test_frames_from_pyav_score_as_the_file_does(place: Path):
    (line,) = run("pyav_frames.py", place, "clip.mp4")
    verdict = Detector.load().analyze(place / "clip.mp4")
    label, p_fake, frames = line.split()
    assert (label, frames) == (verdict.label, str(verdict.frames))
    # A file's luma is measured as it is coded, that of pushed frames through BGR and back.
    assert float(p_fake) == pytest.approx(verdict.p_fake, abs=0.01)


def test_a_watched_source(place: Path):
    *steps, last = run("watch_camera.py", place, "clip.mp4")
    assert len(steps) == 20
    time_s, label, p_fake, _ = steps[-1].split()
    assert (time_s, label) == ("3.8", "fake")
    assert SWAP_P_FAKE < float(p_fake) < 1
    assert "label=<Label.FAKE: 'fake'>" in last


def test_a_notification_is_printed(place: Path):
    body = {"sequence": 1, "source": "cam", "previous_label": "unsure", "label": "fake"}
    serve_one = textwrap.dedent("""
        server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
        Receiver.log_message = lambda *arguments: None
        open("port", "w").write(str(server.server_port))
        server.handle_request()
    """)
    # Only the last lines differ: a free port, and one request in place of all.
    program = (EXAMPLES / "webhook_receiver.py").read_text("utf-8").partition("\nif __name__")[0]
    (place / "program.py").write_text(program + serve_one, "utf-8")
    receiver = subprocess.Popen(
        [sys.executable, "program.py"], cwd=place, stdout=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 30
        while not ((place / "port").is_file() and (place / "port").read_text()):
            assert time.monotonic() < until
            time.sleep(0.05)
        request = urllib.request.Request(
            f"http://127.0.0.1:{(place / 'port').read_text()}/", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 204
        shown = receiver.communicate(timeout=30)[0].splitlines()
    finally:
        receiver.kill()
    assert shown == ["1 cam unsure -> fake"]
