"""`--provenance` on the command line: what it adds, and what it leaves as it is."""

from __future__ import annotations

import csv
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import jsonschema
import pytest
from click.testing import CliRunner
from clip_maker import portrait

import dfd_edge
from dfd_edge.cli.command import command
from dfd_edge.cli.judge import judge
from dfd_edge.cli.run import RunRequest
from dfd_edge.detector import Detector
from dfd_edge.errors import UsageError
from dfd_edge.provenance.record import Outcome, Provenance
from dfd_edge.sinks.csv_file import COLUMNS, PROVENANCE_COLUMNS
from stated_origins import (
    COMPOSITE,
    EDITED,
    GENERATED,
    GENERATOR_MARK,
    MAKER_MARK,
    STATED,
    TRUST_LIST,
)

pytest.importorskip("c2pa", reason="c2pa is not installed, the extra `provenance`")

from dfd_edge.provenance import beside

SCHEMA = dfd_edge.records_schema()
SIGNED = replace(
    STATED[Outcome.AI],
    manifest=replace(
        EDITED,
        signature=replace(EDITED.signature, signer='=cmd("x")'),
        ingredients=(replace(EDITED.ingredients[0], title="a part\x1b[2J"), EDITED.ingredients[1]),
    ),
    marks=(GENERATOR_MARK, MAKER_MARK),
)
NOTHING = STATED[Outcome.NOTHING]


@pytest.fixture
def stated(monkeypatch):
    """What files say of their origin, by the stem of their name; the others say nothing."""
    by_stem: dict[str, Provenance | Exception] = {"face": SIGNED, "broken": SIGNED}

    def read(path, *, trust_list):
        found = by_stem.get(path.stem, NOTHING)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(beside, "read_provenance", read)
    return by_stem


@pytest.fixture
def run(tiny_bundle, capsys):
    """Runs `dfd-edge` in this process; gives the exit code, the output and what is printed."""

    def call(*sources, **options):
        request = RunRequest(sources=tuple(map(str, sources)), model=tiny_bundle, **options)
        code = judge(request)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def broken(tmp_path):
    """A file that says that it is a film, and is none."""
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(500))
    return path


def records(output):
    """The JSON Lines of an output, each checked by the schema."""
    rows = [json.loads(line) for line in output.splitlines()]
    for row in rows:
        kind = {"$ref": f"#/$defs/{row['record']}", "$defs": SCHEMA["$defs"]}
        jsonschema.Draft202012Validator(kind).validate(row)
    return rows


def of_kind(rows, kind):
    return {Path(row["source"]).name: row for row in rows if row["record"] == kind}


@pytest.mark.parametrize("options", [{}, {"max_frames": 4}, {"scan": True}], ids=str)
def test_the_record_stands_beside_a_verdict_that_stays_as_it_is(run, stated, face_clip, options):
    code, without, _ = run(face_clip, as_json=True, **options)
    same_code, given, errors = run(face_clip, as_json=True, provenance=True, **options)
    assert (code, same_code, errors) == (0, 0, "")
    (wanted,), (verdict,) = (of_kind(records(o), "verdict").values() for o in (without, given))
    assert wanted["provenance"] is None
    assert verdict["provenance"] == json.loads(json.dumps(SIGNED.to_record()))
    assert verdict["provenance"]["manifest"]["ingredients"][1]["ingredients"][0]["title"] is None
    for row in (wanted, verdict):
        del row["provenance"], row["realtime_factor"]
    assert verdict == wanted


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_file_has_its_own_also_where_several_are_judged_at_once(
    run, stated, face_clip, plain_clip, broken, tmp_path, jobs
):
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), portrait())
    files = (plain_clip, broken, picture, face_clip)
    code, output, _ = run(*files, as_json=True, provenance=True, jobs=jobs)
    assert code == 1, "a file that cannot be judged"
    rows = records(output)
    verdicts = of_kind(rows, "verdict")
    outcomes = {name: row["provenance"]["outcome"] for name, row in verdicts.items()}
    assert outcomes == {"plain.mp4": "nothing", "picture.png": "nothing", "face.mp4": "signed_ai"}
    (error,) = of_kind(rows, "event").values()
    assert error["kind"] == "error"
    assert error["provenance"]["outcome"] == "signed_ai", "a file that cannot be judged has one too"


def test_a_line_for_people_names_signer_and_trust(run, stated, face_clip, broken):
    code, output, errors = run(face_clip, broken, provenance=True)
    assert code == 1
    line, provenance = output.splitlines()
    assert "P(fake)" in line
    said = f"provenance: {SIGNED.summary}"
    assert provenance.strip() == f"{said}  signer not trusted: {TRUST_LIST}"
    assert f"{broken}: {said}" in errors
    stated["face"] = replace(SIGNED, outcome=Outcome.BROKEN, summary="It is broken.")
    _, output, _ = run(face_clip, provenance=True)
    assert output.endswith("provenance: It is broken.\n"), "and no signer of it is called trusted"


def test_a_table_has_columns_and_each_file_a_row(
    run, stated, face_clip, plain_clip, broken, tmp_path
):
    table = tmp_path / "out.csv"
    run(face_clip, plain_clip, broken, csv_path=table, provenance=True)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*COLUMNS, *PROVENANCE_COLUMNS]
    of_face = [row for row in rows if row["source"] == str(face_clip)]
    assert len(of_face) > 1
    assert all(row["track"] and row["p_fake"] for row in of_face)
    cells = {tuple(row[name] for name in PROVENANCE_COLUMNS) for row in of_face}
    wanted = (
        "signed_ai",
        '\'=cmd("x")',
        "0",
        "2026-10-02T08:15:30Z",
        "Example Editor 9.0",
        f"{COMPOSITE.code}; {GENERATED.code}",
        "Stable Diffusion web UI",
    )
    assert cells == {(*wanted, "")}, "and nothing that a spreadsheet takes for a formula"
    (plain,), (none,) = ([r for r in rows if r["source"] == str(p)] for p in (plain_clip, broken))
    assert (plain["provenance"], plain["track"], plain["provenance_trusted"]) == ("nothing", "", "")
    assert none["provenance"] == "signed_ai"


def test_a_table_without_provenance_has_no_such_column(run, face_clip, tmp_path):
    table = tmp_path / "out.csv"
    run(face_clip, csv_path=table)
    assert table.read_text("utf-8").splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), UsageError("a refusal")])
def test_whatever_is_raised_while_it_is_read_leaves_the_verdict(run, stated, face_clip, error):
    stated["face"] = error
    code, output, _ = run(face_clip, as_json=True, provenance=True)
    assert code == 0
    (verdict,) = of_kind(records(output), "verdict").values()
    assert verdict["label"] in {"real", "fake", "unsure"}
    assert verdict["provenance"]["outcome"] == "error"
    assert verdict["provenance"]["error"] == str(error)


def test_a_list_that_is_gone_after_the_start_changes_nothing(
    run, stated, face_clip, tmp_path, monkeypatch
):
    own = tmp_path / "own.pem"
    own.write_text(beside.open_trust_list(None).signers)
    load = Detector.load

    def load_later(*arguments, **options):
        own.unlink()
        return load(*arguments, **options)

    monkeypatch.setattr(Detector, "load", load_later)
    code, output, _ = run(face_clip, as_json=True, provenance=True, trust_list=own)
    assert code == 0
    (verdict,) = of_kind(records(output), "verdict").values()
    assert verdict["provenance"]["outcome"] == "signed_ai"


def test_a_thread_that_cannot_start_is_an_error_of_that_file(
    run, stated, face_clip, plain_clip, monkeypatch
):
    class Refused(beside.Reading):
        def __init__(self, path, name, trust_list):
            if name == str(face_clip):
                raise RuntimeError("can't start new thread")
            super().__init__(path, name, trust_list)

    monkeypatch.setattr(beside, "Reading", Refused)
    code, output, _ = run(face_clip, plain_clip, as_json=True, provenance=True, jobs=1)
    assert code == 1
    rows = records(output)
    (error,) = of_kind(rows, "event").values()
    assert (error["source"], error["kind"]) == (str(face_clip), "error")
    assert list(of_kind(rows, "verdict")) == ["plain.mp4"], "the next file is judged"


def test_an_output_never_replaces_the_list(run, face_clip, tmp_path):
    own = tmp_path / "own.pem"
    own.write_text(beside.open_trust_list(None).signers)
    content = own.read_bytes()
    with pytest.raises(UsageError, match="is a file that is read"):
        run(face_clip, provenance=True, trust_list=own, csv_path=own)
    assert own.read_bytes() == content


def test_a_wait_for_it_ends_with_the_run(monkeypatch, face_clip):
    begun, release = threading.Event(), threading.Event()

    def read(path, *, trust_list):
        begun.set()
        release.wait(30)
        return NOTHING

    monkeypatch.setattr(beside, "read_provenance", read)
    try:
        reading = beside.Reading(face_clip, "a", beside.open_trust_list(None))
        assert begun.wait(30), "it is read in a thread of its own"
        stop = threading.Event()
        stop.set()
        assert reading.result(stop) is None
    finally:
        release.set()
    assert reading.result() is NOTHING


def test_what_is_no_file_is_noted_and_a_camera_is_known_to_be_none(face_clip):
    from dfd_edge.cli.judge import _unread
    from dfd_edge.sources import SourceItem

    sources = (str(face_clip), "http://user:secret@camera.example/live", "-", 0)
    notes = _unread([SourceItem.of(source) for source in sources])
    assert [note.source for note in notes] == ["http://camera.example/live", "standard input"]
    assert {note.kind.value for note in notes} == {"note"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trust-list", "own.pem", "FILE"], "--trust-list own.pem is for --provenance"),
        (["--provenance", "--trust-list", "gone.pem", "FILE"], "gone.pem"),
        (["--provenance", "--trust-list", "FILE", "FILE"], "PEM"),
        (["--provenance", "--webcam"], "--provenance is for files on this machine"),
        (["--provenance", "http://127.0.0.1:9/live"], "--provenance is for files on this machine"),
    ],
)
def test_wrong_options_are_refused_in_a_line(face_clip, arguments, message):
    words = [str(face_clip) if word == "FILE" else word for word in arguments]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == UsageError.exit_code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert message in line


def test_the_service_refuses_the_same_before_it_starts(tmp_path):
    pytest.importorskip("fastapi", reason="fastapi is not installed, the extra `serve`")
    from dfd_edge.serve.command import command as serve

    for options, message in (
        (["--trust-list", "own.pem"], "--trust-list own.pem is for --provenance"),
        (["--provenance", "--trust-list", "gone.pem"], "gone.pem"),
    ):
        done = CliRunner().invoke(serve, ["--data", str(tmp_path / "data"), *options])
        assert done.exit_code == UsageError.exit_code
        assert message in done.stderr
    assert not (tmp_path / "data").exists()


def test_without_the_extra_a_line_names_it_before_anything_is_judged(monkeypatch, face_clip):
    monkeypatch.setitem(sys.modules, "c2pa", None)  # as if it were not installed
    done = CliRunner().invoke(command, ["--provenance", str(face_clip)])
    assert done.exit_code == UsageError.exit_code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "c2pa" in line
    assert "pip install 'dfd-edge[provenance]'" in line


def test_pillow_is_not_needed(monkeypatch, run, stated, plain_clip):
    monkeypatch.setitem(sys.modules, "PIL", None)
    code, output, _ = run(plain_clip, as_json=True, provenance=True)
    assert code == 0
    (verdict,) = of_kind(records(output), "verdict").values()
    assert verdict["provenance"]["outcome"] == "nothing"
