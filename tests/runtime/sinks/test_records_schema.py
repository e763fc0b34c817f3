"""The published schema describes what real runs print, every field of it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from clip_maker import face_frames, portrait, write_clip

import dfd_edge
from dfd_edge.judging.results import Event, EventKind
from dfd_edge.text import json_line, printable, valid_text

COMMAND = [sys.executable, "-m", "dfd_edge"]
SCHEMA = dfd_edge.records_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def validator_of(kind):
    """Validates one kind of record, with a message about the field instead of about `oneOf`."""
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


def checked(output: bytes):
    """The records in bytes of JSON Lines, each valid by the schema."""
    text = output.decode("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        validator_of(row["record"]).validate(row)
        VALIDATOR.validate(row)
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # no lone surrogate in any string
    return rows


def run(*arguments, code=0):
    done = subprocess.run(
        [*COMMAND, "--json", *arguments], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr.decode()
    return checked(done.stdout)


def of_kind(rows, kind):
    return [row for row in rows if row["record"] == kind]


def two_people(count):
    """Two faces side by side."""
    left = face_frames(count)
    right = face_frames(count, mirrored=True)
    return [np.hstack(pair) for pair in zip(left, right, strict=True)]


def test_clips_pictures_and_failed_sources(face_clip, plain_clip, tmp_path):
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), portrait())
    pair = write_clip(tmp_path / "pair.mp4", two_people(40))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(face_clip.read_bytes()[: face_clip.stat().st_size * 2 // 3])
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video\n" * 50)
    gone = tmp_path / "gone.mp4"
    sources = (face_clip, plain_clip, picture, pair, cut, broken, gone)
    rows = run(*map(str, sources), code=1)
    assert [row["record"] for row in rows].count("run") == 1
    assert rows[0]["record"] == "run"
    verdicts = {row["source"]: row for row in of_kind(rows, "verdict")}
    assert set(verdicts) == {str(path) for path in (face_clip, plain_clip, picture, pair, cut)}
    assert verdicts[str(plain_clip)]["label"] == "no_face"
    assert verdicts[str(picture)]["frames"] == 1
    assert len(verdicts[str(pair)]["people"]) == 2
    assert verdicts[str(cut)]["complete"] is False
    assert {row["source"] for row in of_kind(rows, "event")} == {str(broken), str(gone)}
    assert any(len(row["people"]) == 2 for row in of_kind(rows, "frame"))


def test_where_no_source_is_found_there_are_only_errors(tmp_path):
    rows = run(str(tmp_path / "gone.mp4"), str(tmp_path / "*.mkv"), code=1)
    assert [(row["record"], row["kind"]) for row in rows] == [("event", "error")] * 2


class Sender(http.server.BaseHTTPRequestHandler):
    """Sends a clip in real time and breaks off in its middle; from then on, the whole clip."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        self.server.calls += 1
        data = self.server.clip
        end = len(data) if self.server.calls > 1 else len(data) // 2
        step = 188 * max(1, len(data) // 188 // 30)
        for start in range(0, end, step):
            try:
                self.wfile.write(data[start : min(end, start + step)])
                self.wfile.flush()
            except OSError:
                return
            time.sleep(0.1)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def lost_and_found(tmp_path):
    """Address of a live source with a gap."""
    clip = tmp_path / "clip.ts"
    options = {"g": "5", "tune": "zerolatency", "preset": "ultrafast"}
    write_clip(clip, face_frames(75), options=options)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sender)
    server.daemon_threads = True
    server.clip, server.calls = clip.read_bytes(), 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}/live.ts"
    server.shutdown()
    server.server_close()


def test_a_live_source_with_a_gap(lost_and_found):
    rows = run("--duration", "5", "--no-window", lost_and_found)
    kinds = {row["kind"] for row in of_kind(rows, "event")}
    assert {"gap", "reconnect"} <= kinds
    assert all(row["staleness_ms"] is not None for row in of_kind(rows, "frame"))
    (verdict,) = of_kind(rows, "verdict")
    assert verdict["complete"] is False
    assert verdict["realtime_factor"] is None
    assert "secret" not in json.dumps(rows)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
class TestNamesThatAreNoUnicode:
    @pytest.fixture
    def named(self, plain_clip, tmp_path):
        path = os.fsencode(tmp_path) + b"/plain\xff.mp4"
        shutil.copy(plain_clip, path)
        return path

    def test_records_spell_the_bytes(self, named, tmp_path):
        rows = run(named, os.fsencode(tmp_path) + b"/gone\xfe.mp4", code=1)
        (event,) = of_kind(rows, "event")
        assert event["source"] == f"{tmp_path}/gone\\xfe.mp4"
        assert "gone\\xfe.mp4: no such file" in event["detail"]
        (verdict,) = of_kind(rows, "verdict")
        assert verdict["source"] == f"{tmp_path}/plain\\xff.mp4"

    def test_csv_and_lines_for_people_too(self, face_clip, tmp_path):
        named = os.fsencode(tmp_path) + b"/face\xff.mp4"
        shutil.copy(face_clip, named)
        table = tmp_path / "out.csv"
        done = subprocess.run(
            [*COMMAND, "--csv", str(table), named], capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert f"{tmp_path}/face\\xff.mp4" in done.stdout.decode("utf-8")
        assert f"{tmp_path}/face\\xff.mp4," in table.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("clip.mp4", "clip.mp4"),
        ("Übung 例 🙂.mp4", "Übung 例 🙂.mp4"),
        ("a\udcff\udc80.mp4", r"a\xff\x80.mp4"),
        ("a\ud83d.mp4", r"a\ud83d.mp4"),
        ("a\udc7f.mp4", r"a\udc7f.mp4"),
    ],
)
def test_valid_text(text, spelt):
    assert valid_text(text) == spelt
    assert printable(text) == spelt
    line = json_line({"record": "event", "people": [{text: [text, 1.5, None, True]}]})
    assert json.loads(line)["people"] == [{spelt: [spelt, 1.5, None, True]}]


def objects(schema):
    """Every schema of an object with fields, at any depth."""
    if isinstance(schema, dict):
        if "additionalProperties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


class TestTheSchema:
    def test_is_a_schema(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_says_what_every_field_is(self):
        found = list(objects(SCHEMA))
        assert len(found) >= 10, "one for each kind of object"
        for schema in found:
            assert schema["additionalProperties"] is False
            of_errors = {"provenance"} if schema is SCHEMA["$defs"]["event"] else set()
            assert set(schema["required"]) == set(schema["properties"]) - of_errors
            for name, field in schema["properties"].items():
                home = SCHEMA["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
                text = field.get("description") or home.get("description", "")
                assert text.endswith("."), name
                unit = re.search(r"_(s|ms|hz)$", name)
                if unit:
                    word = {"s": "econds", "ms": "illiseconds", "hz": "hertz"}[unit.group(1)]
                    assert word in text, name

    def test_refuses_a_field_that_it_does_not_know(self):
        row = {"record": "event", "source": "a", "time_s": 0.0, "kind": "gap", "detail": ""}
        VALIDATOR.validate(row)
        for change in ({"more": 1}, {"kind": "pause"}, {"time_s": "0"}, {"record": "vent"}):
            assert not VALIDATOR.is_valid({**row, **change})
        assert not VALIDATOR.is_valid({k: v for k, v in row.items() if k != "detail"})

    @pytest.mark.parametrize("kind", EventKind)
    def test_errors_alone_say_what_the_file_says_of_its_origin(self, kind):
        row = Event("a", 0.0, kind, "a line").to_record()
        VALIDATOR.validate(row)
        assert ("provenance" in row) is (kind is EventKind.ERROR)
        other = {**row, "provenance": None}
        if kind is EventKind.ERROR:
            del other["provenance"]
        assert not VALIDATOR.is_valid(other)


def test_the_examples_in_the_documentation_are_records():
    page = (Path(__file__).parents[3] / "docs" / "outputs.md").read_text(encoding="utf-8")
    rows = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)]
    for row in rows:
        validator_of(row["record"]).validate(row)
    assert [row["record"] for row in rows] == ["run", "frame", "event", "verdict", "notification"]
