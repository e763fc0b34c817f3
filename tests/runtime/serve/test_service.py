"""The service as people run it: its own process, real models, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

import dfd_edge
from serving import Program, serving

ROOT = Path(__file__).resolve().parents[3]
SWAPPED = ROOT / "samples" / "swapped_astronaut.mp4"
REAL = ROOT / "samples" / "real_hopper.mp4"
WAIT = {"Prefer": "wait=60"}
#: Times and rates of a run, which differ from one to the next.
MEASURED = ("first_verdict_s", "realtime_factor")


def send(client, path, **options):
    """Submits a file and returns the judgement."""
    with path.open("rb") as file:
        answer = client.post("/v1/judgements", files={"file": (path.name, file)}, **options)
    answer.raise_for_status()
    return answer.json()


def without_times(record):
    """A record without what differs between runs."""
    return {key: value for key, value in record.items() if key not in MEASURED}


def is_same(given, wanted):
    """Whether records are the same, to one in the last printed digit of a probability.

    How many faces are judged in a call depends on what else is to be done with their frames.
    """
    if isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(is_same(given[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(is_same, given, wanted))
    if isinstance(wanted, float):
        return given == pytest.approx(wanted, abs=1.5e-6)
    return given == wanted


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A photograph: a frame of a clip."""
    import cv2

    path = tmp_path_factory.mktemp("still") / "photo.png"
    video = cv2.VideoCapture(str(SWAPPED))
    cv2.imwrite(str(path), video.read()[1])
    return path


@pytest.mark.parametrize("name", ["swapped", "still"])
def test_the_service_says_what_the_command_says(client, still, name):
    path = {"swapped": SWAPPED, "still": still}[name]
    done = send(client, path, headers=WAIT)
    assert done["state"] == "done", done["error"]
    printed = subprocess.run(
        [sys.executable, "-m", "dfd_edge", path.name, "--json"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = [without_times(json.loads(line)) for line in printed.splitlines()]
    given = client.get(done["links"]["records"]).text.splitlines()
    assert is_same([without_times(json.loads(line)) for line in given], wanted)
    assert without_times(done["verdict"]) == wanted[-1]


def test_records_keep_the_published_schema(client):
    done = send(client, SWAPPED, headers=WAIT)
    lines = client.get(done["links"]["records"]).text.splitlines()
    validator = jsonschema.Draft202012Validator(dfd_edge.records_schema())
    for line in lines:
        validator.validate(json.loads(line))
    assert len(lines) == 22
    validator.validate(done["verdict"])


def test_evidence_lies_over_the_crops(client):
    done = send(client, SWAPPED, headers=WAIT)
    maps = [json.loads(line) for line in client.get(done["links"]["evidence"]).text.splitlines()]
    assert len(maps) == 20
    assert {len(row) for map_ in maps for row in map_["values"]} == {5}
    assert maps[0]["track"] == 1
    assert len(maps[0]["crop"]) == 3


def test_the_report_is_that_of_the_command(client, still, tmp_path):
    for path in (SWAPPED, still):
        done = send(client, path, headers=WAIT)
        answer = client.get(done["links"]["report"])
        assert f"filename*=UTF-8''{path.stem}.html" in answer.headers["content-disposition"]
        out = tmp_path / "report.html"
        subprocess.run(
            [sys.executable, "-m", "dfd_edge", path.name, "--report", str(out)],
            cwd=path.parent,
            capture_output=True,
            check=True,
        )

        def comparable(page):
            """A page but for the times of the run and of its writing."""
            varying = (*MEASURED, "Written</dt>", "Written by", "Speed</dt>")
            return [line for line in page.splitlines() if not any(name in line for name in varying)]

        given, wanted = comparable(answer.text), comparable(out.read_text("utf-8"))
        differing = [pair for pair in zip(given, wanted, strict=True) if pair[0] != pair[1]]
        assert not differing
        assert len(wanted) > 100
        assert answer.text.count("data:image/jpeg") == out.read_text("utf-8").count(
            "data:image/jpeg"
        )


def test_what_is_no_film_fails_in_one_line(client, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_bytes(b"not a film at all")
    failed = send(client, path, headers=WAIT)
    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "/problems/not-judged"
    assert failed["error"]["detail"].startswith("notes.mp4: ")
    assert "\n" not in failed["error"]["detail"]


def test_a_process_that_is_killed_is_replaced_and_its_file_judged(served, client):
    (worker,) = served.service.queue._workers
    first = worker.pid
    running = send(client, REAL, params={"again": "true"})
    until = time.monotonic() + 30.0
    while client.get(running["links"]["self"]).json()["state"] != "running":
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    while (done := client.get(running["links"]["self"]).json())["state"] != "done":
        assert time.monotonic() < until, done
        time.sleep(0.05)
    assert done["verdict"]["complete"]
    assert worker.pid != first
    records = client.get(done["links"]["records"]).text.splitlines()
    assert sum('"run"' in line for line in records) == 1


def test_films_that_are_too_long_are_refused(tmp_path):
    with serving(tmp_path, max_duration_s=2.0) as served, served.client() as client:
        failed = send(client, SWAPPED, headers=WAIT)
    assert failed["error"]["type"] == "/problems/too-long"
    assert "4 s long, and at most 2 s are judged" in failed["error"]["detail"]


def test_a_killed_service_goes_on_where_it_was(tmp_path, clips):
    program = Program(tmp_path / "data")
    try:
        with program.client() as client:
            sent = [send(client, clip) for clip in clips]
            until = time.monotonic() + 30.0
            while client.get(sent[0]["links"]["self"]).json()["state"] == "queued":
                assert time.monotonic() < until
                time.sleep(0.01)
    finally:
        program.kill()
    stray = tmp_path / "data" / "media" / "cut-off"
    stray.write_bytes(b"an upload that was cut off")
    program = Program(tmp_path / "data")
    try:
        with program.client() as client:
            until = time.monotonic() + 60.0
            for judgement in sent:
                path = judgement["links"]["self"]
                while (found := client.get(path).json())["state"] != "done":
                    assert time.monotonic() < until, found
                    time.sleep(0.05)
            done = [client.get(judgement["links"]["self"]).json() for judgement in sent]
        begun = [judgement["started_at"] for judgement in done]
        assert begun == sorted(begun)
        assert not stray.exists()
    finally:
        program.kill()


@pytest.fixture
def clips(tmp_path):
    """The same clip under different digests."""
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.mp4"
        shutil.copy(REAL, path)
        with path.open("ab") as file:
            # An empty box, which players pass over.
            file.write((8 + number).to_bytes(4, "big") + b"free" + b"\0" * number)
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_waits_for_what_runs(tmp_path, clips, number):
    program = Program(tmp_path / "data")
    try:
        with program.client() as client:
            first, second, _ = (send(client, clip) for clip in clips)
            until = time.monotonic() + 30.0
            while client.get(first["links"]["self"]).json()["state"] == "queued":
                assert time.monotonic() < until
                time.sleep(0.01)
        assert program.end(number) == 0
    finally:
        program.kill()
    assert "waiting for what runs" in program.errors
    assert "Traceback" not in program.errors
    with serving(tmp_path / "data") as served, served.client() as client:
        assert client.get(first["links"]["self"]).json()["state"] == "done"
        # Files that were not begun wait for the next start.
        until = time.monotonic() + 60.0
        while client.get(second["links"]["self"]).json()["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.05)


def test_the_log_is_json_where_no_terminal_reads_it(tmp_path):
    program = Program(tmp_path / "data", "--verbose")
    try:
        with program.client() as client:
            judgement = send(client, SWAPPED, headers=WAIT)
        program.end(signal.SIGTERM)
    finally:
        program.kill()
    entries = [json.loads(line) for line in program.errors.splitlines()]
    about = [entry for entry in entries if entry.get("judgement") == judgement["id"]]
    assert [entry["message"].partition(": ")[2] for entry in about] == [
        f"queued {SWAPPED.name}",
        "done",
    ]
    assert about[-1]["label"] == "fake"
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "/nowhere"], 5, "/nowhere"),
        (["--provider", "tensorrt"], 4, "tensorrt"),
        (["--port", "1", "--host", "192.0.2.1"], 2, "cannot listen there"),
        (["--data", "/proc/here"], 2, "--data /proc/here: cannot be created"),
        (["--camera", "door"], 2, "give NAME=SOURCE"),
        (["--precision", "fp8"], 2, "fp8"),
    ],
)
def test_what_cannot_start_says_why(tmp_path, options, code, message):
    command = [sys.executable, "-m", "dfd_edge", "serve", "--port", "0"]
    data = [] if "--data" in options else ["--data", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, *data, *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_called_serve_is_still_judged(tmp_path):
    shutil.copy(SWAPPED, tmp_path / "serve")
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", "./serve", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1])["label"] == "fake"
