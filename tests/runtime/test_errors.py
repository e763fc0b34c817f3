"""What an error says in parts: which source, why, and what to do; the same across a sandbox."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from clip_maker import write_sound

import dfd_edge
from dfd_edge import (
    CameraError,
    Detector,
    DfdError,
    NotMediaError,
    SourceError,
    SourceFaultError,
    SourceNotFoundError,
    UnreachableError,
    UnsupportedError,
    UsageError,
)
from dfd_edge.errors import is_out_of_memory, source_error
from dfd_edge.sources import SourceOptions, expand


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


def failing(detector, source, **options):
    with pytest.raises(SourceError) as caught:
        detector.analyze(source, **options)
    return caught.value


def test_a_source_is_reported_under_its_whole_name(tiny_bundle, face_clip, tmp_path):
    missing = str(tmp_path / "cam: two" / "missing.mp4")
    for sources in ([missing], [missing, str(face_clip)]):
        command = [
            sys.executable,
            "-m",
            "dfd_edge.cli.command",
            "--model",
            str(tiny_bundle),
            "--json",
        ]
        done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["source"] for row in rows if row.get("kind") == "error"] == [missing]
        assert f"dfd-edge: error: {missing}: no such file or folder\n" in done.stderr


def test_the_text_is_source_cause_and_mend():
    assert str(SourceError("a.mp4", "cut off")) == "a.mp4: cut off"
    error = NotMediaError("a: b.mp4", "cut off; here", "record it again")
    assert str(error) == "a: b.mp4: cut off; here; record it again"
    assert (error.source, error.cause, error.mend) == (
        "a: b.mp4",
        "cut off; here",
        "record it again",
    )
    assert str(UsageError("give a number")) == "give a number"
    assert str(UsageError("it is closed", source="a.mp4")) == "a.mp4: it is closed"


@pytest.mark.parametrize(
    "error", [UnreachableError("a: b", "lost", "wait"), UsageError("is closed", source="a: b")]
)
def test_errors_keep_their_parts_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.source) == (str(error), "a: b")


def test_all_are_one_tree_and_public():
    kinds = [kind for kind in vars(dfd_edge.errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, SourceError):
            assert getattr(dfd_edge, kind.__name__) is kind
            assert issubclass(kind, DfdError)


@pytest.mark.parametrize("sandbox", [False, True])
def test_embedders_tell_the_kinds_apart(detector, tmp_path, sandbox):
    if sandbox and sys.platform != "linux":
        pytest.skip("Linux keeps all the limits")
    options = SourceOptions(sandbox=sandbox)
    text = tmp_path / "text: a.mp4"
    text.write_text("no film at all " * 10)
    error = failing(detector, text, options=options)
    assert isinstance(error, NotMediaError)
    assert error.source == str(text)
    assert error.cause.startswith("not a video (")
    sound = write_sound(tmp_path / "sound.mp4")
    error = failing(detector, sound, options=options)
    assert (type(error), error.cause) == (NotMediaError, "sound only, no video in it")


def test_a_sandbox_hands_on_what_mends_an_error(detector, face_clip):
    sides = {}
    for sandbox in (False, True):
        options = SourceOptions(sandbox=sandbox, max_pixels=256)
        error = failing(detector, face_clip, options=options)
        assert isinstance(error, UnsupportedError)
        sides[sandbox] = (error.source, error.cause, error.mend)
    assert sides[False] == sides[True]
    assert sides[True][2] == "--max-pixels raises that"


def test_missing_sources_cameras_and_addresses(detector, tmp_path):
    missing = str(tmp_path / "missing.mp4")
    assert isinstance(failing(detector, missing), SourceNotFoundError)
    _, (error,) = expand([str(tmp_path / "*.mp4")])
    assert isinstance(error, SourceNotFoundError)
    with pytest.raises(CameraError) as caught:
        detector.watch(4242)
    assert caught.value.source == "camera 4242"
    with pytest.raises(UnreachableError) as lost:
        detector.watch("http://user:secret@127.0.0.1:9/clip: a.mp4")
    assert lost.value.source == "http://127.0.0.1:9/clip: a.mp4"
    assert isinstance(failing(detector, 0), UnsupportedError)


def test_a_name_that_none_can_have_is_reported_as_such():
    _, (error,) = expand(["clip\0.mp4"])
    assert str(error) == "source 'clip\\x00.mp4': a zero byte stands in its name"
    assert error.cause == "a zero byte stands in its name"


def test_what_breaks_a_source_keeps_its_name_once():
    named = UsageError("the stream is closed", source="a.mp4")
    assert source_error("a.mp4", named) is named
    unnamed = source_error("a.mp4", UsageError("a.mp4 is no rate"))
    assert str(unnamed) == "a.mp4: a.mp4 is no rate"
    fault = source_error("a.mp4", KeyError("box"))
    assert isinstance(fault, SourceFaultError)
    assert str(fault).endswith(
        "(KeyError: 'box'): run again with -v for the traceback, and report it"
    )


def test_too_little_memory_is_known_behind_an_error_that_hides_it():
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise NotMediaError("a.mp4", "cannot be read") from None
    except NotMediaError as error:
        assert is_out_of_memory(error)
    assert not is_out_of_memory(NotMediaError("Insufficient memory.mp4", "cannot be read"))
