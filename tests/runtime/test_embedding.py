"""The programs on `docs/embedding.md` run as they stand there."""

from __future__ import annotations

import dataclasses
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import cv2
import pytest

from dfd_edge.detector import Detector
from dfd_edge.judging.results import FrameResult

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"
SAMPLES = PAGE.parents[1] / "samples"


def code(heading: str) -> str:
    """The program below a heading of the page."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None, f"{PAGE} has no program under {heading!r}"
    return block[1]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(SAMPLES / "swapped_astronaut.mp4", tmp_path / "clip.mp4")
    return tmp_path


def run(program: str, place: Path) -> list[str]:
    (place / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_every_program_of_the_page_is_run_here():
    headings = re.findall(
        r"\n## (.*?)\n(?:(?!\n## ).)*?```python", PAGE.read_text("utf-8"), re.DOTALL
    )
    tested = set(re.findall(r'code\("(.*?)"\)', Path(__file__).read_text("utf-8")))
    assert set(headings) == tested


def test_uploads_and_pixels(place: Path):
    with av.open(str(place / "clip.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="bgr24")
    cv2.imwrite(str(place / "photo.jpg"), frame)
    lines = run(code("Uploads, pixels"), place)
    scores = {float(score) for line in lines for score in line.split()}
    assert len(lines) == 3
    assert len(scores) == 1


def test_a_file(place: Path):
    first, *people = run(code("A file"), place)
    assert first.startswith("fake 0.9")
    assert people[0].startswith("1 fake [(0.0,")


def test_own_frames(place: Path):
    *steps, last = run(code("Your own frames"), place)
    assert last == "fake"
    assert len(steps) == 20  # four seconds at 5 Hz
    assert steps[-1].startswith("3.80 s  fake  0.9")


def test_changes(place: Path):
    lines = run(code("When the verdict changes"), place)
    assert lines[-1] == "in the end fake"
    assert any(line.endswith("now fake") for line in lines[:-1])
    assert len(lines) <= 4


def test_two_streams(place: Path):
    left, right = run(code("Two streams in threads"), place)
    assert left.split()[1:] == right.split()[1:]
    assert left.split()[1] == "fake"


def test_tasks(place: Path):
    verdicts, *results = run(code("asyncio"), place)
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
    good, bad = run(code("An upload in Flask") + client, place)
    assert good == "200 fake None"
    assert bad.startswith("422 None the upload: ")


def test_frames_from_pyav_score_as_the_file_does(place: Path):
    (line,) = run(code("Frames from PyAV"), place)
    verdict = Detector.load().analyze(place / "clip.mp4")
    assert line == f"{verdict.label} {verdict.p_fake:.3f} {verdict.frames}"


def test_results_survive_pickling(place: Path):
    frames: list[FrameResult] = []
    verdict = Detector.load().analyze(place / "clip.mp4", on_frame=frames.append)
    again = pickle.loads(pickle.dumps(verdict))
    assert again == verdict
    assert dataclasses.asdict(again) == dataclasses.asdict(verdict)
    assert pickle.loads(pickle.dumps(frames[0])).to_record() == frames[0].to_record()


def test_a_detector_says_that_it_cannot_be_pickled():
    with pytest.raises(TypeError, match=r"cannot be pickled: load one in each process"):
        pickle.dumps(Detector.load())
