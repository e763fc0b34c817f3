"""Files that the tests sign, in the outputs of the programs: command, archive and service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from signing import action, sign

import dfd_edge

SCHEMA = jsonschema.Draft202012Validator(dfd_edge.records_schema())


@pytest.fixture(scope="module")
def files(tmp_path_factory, root, face_clip, plain_clip):
    """A folder with a clip that says that AI generated it, a tampered copy, and a plain clip."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "own.pem").write_bytes(root.pem)
    signed = folder / "a_signed.mp4"
    signer = root.issue("Example AI")
    sign(face_clip, signed, signer, actions=[action("created", "trainedAlgorithmicMedia")])
    data = bytearray(signed.read_bytes())
    data[data.rindex(b"mdat") + 2000] ^= 1
    (folder / "b_tampered.mp4").write_bytes(data)
    (folder / "c_plain.mp4").write_bytes(plain_clip.read_bytes())
    return folder


def program(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OUTCOMES = {
    "a_signed.mp4": "signed_ai",
    "b_tampered.mp4": "signed_broken",
    "c_plain.mp4": "nothing",
}


def test_the_command_reads_them_in_a_folder_by_a_trust_list_of_ones_own(files):
    options = ("--json", "--provenance", "--trust-list", files / "own.pem", "--duration", "1")
    output = program(files, *options)
    rows = [json.loads(line) for line in output.splitlines()]
    for row in rows:
        SCHEMA.validate(row)
    verdicts = {Path(r["source"]).name: r for r in rows if r["record"] == "verdict"}
    assert {n: r["provenance"]["outcome"] for n, r in verdicts.items()} == OUTCOMES
    signature = verdicts["a_signed.mp4"]["provenance"]["manifest"]["signature"]
    assert signature["signer"] == "Example AI"
    assert signature["trusted"]
    assert signature["trust_list"].startswith("own.pem of ")


def test_an_archive_keeps_them_as_a_column(files, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `archive` is not installed")
    pytest.importorskip("fsspec", reason="the extra `archive` is not installed")
    options = ("--provenance", "--trust-list", files / "own.pem", "--jobs", "1", "--duration", "1")
    program("archive", files, "--out", tmp_path / "out", *options)
    (part,) = (tmp_path / "out" / "clips").glob("*.parquet")
    rows = parquet.read_table(part).to_pylist()
    found = {Path(row["source"]).name: row["provenance"] for row in rows}
    assert {name: provenance["outcome"] for name, provenance in found.items()} == OUTCOMES
    signed = found["a_signed.mp4"]
    assert (signed["signer"], signed["trusted"]) == ("Example AI", True)
    assert signed["source_types"] == ["trainedAlgorithmicMedia"]


def test_the_service_keeps_them_also_of_what_it_cannot_judge(files, tmp_path, media, root):
    serving = pytest.importorskip("serving", reason="the extra `serve` is not installed").serving
    truncated = tmp_path / "truncated.mp4"
    sign(media("mp4"), truncated, root.issue("Example AI"))
    data = truncated.read_bytes()
    truncated.write_bytes(data[: data.rindex(b"mdat") + 20])
    settings = {"provenance": True, "trust_list": files / "own.pem"}
    with serving(tmp_path / "data", **settings) as served, served.client() as client:
        done = {}
        for path in (files / "a_signed.mp4", truncated):
            answer = client.post(
                "/v1/judgements",
                files={"file": (path.name, path.read_bytes())},
                headers={"Prefer": "wait=60"},
            )
            done[path.name] = answer.json()
    judged, failed = done["a_signed.mp4"], done["truncated.mp4"]
    assert judged["state"] == "done", judged["error"]
    SCHEMA.validate(judged["verdict"])
    assert judged["provenance"] == judged["verdict"]["provenance"]
    assert judged["provenance"]["outcome"] == "signed_ai"
    assert judged["provenance"]["manifest"]["signature"]["trusted"]
    assert failed["state"] == "failed"
    assert failed["provenance"]["outcome"] in ("signed_broken", "error")
