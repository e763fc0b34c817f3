"""Addresses: passwords never show, however an address is misspelt."""

from __future__ import annotations

import subprocess
import sys
import traceback

import pytest

from dfd_edge import Detector
from dfd_edge.errors import SourceError
from dfd_edge.sources import expand
from dfd_edge.sources.address import redact
from dfd_edge.sources.network import NetworkStream

MISSPELT = [
    "http:/user:secret@host/live",
    "http:user:secret@host",
    "rtsp//user:secret@host",
    "rtsp:://user:secret@host",
    "rtsp:\\\\user:secret@host",
    "user:secret@host/live",
    "//user:secret@host/live",
    " rtsp://user:secret@host/live",
    "\nrtsp://user:secret@host/live",
    "user:secret@host/*.mp4",
    "http:/host/live?token=secret",
]
ODD = [
    "http:///user:secret@127.0.0.1:9/live",
    "http://user:sec/ret@127.0.0.1:9/secret@127.0.0.1:9",
    "http://user:secret@",
    "http://user:se?cret#secret@127.0.0.1:9/live",
    "http://[user:secret@127.0.0.1:9",
    "http://user:secret@127.0.0.1:port/",
    "rtsp://user:secret@127.0.0.1:9/live?password=secret#secret",
    "tcp://user:secret@127.0.0.1",
    "gopher://user:secret@127.0.0.1",
]


@pytest.mark.parametrize("text", MISSPELT)
def test_a_misspelt_address_is_refused_without_its_password(text):
    items, errors = expand([text])
    assert items == []
    assert len(errors) == 1
    assert "write SCHEME://HOST/PATH" in str(errors[0])
    assert "secret" not in "".join(traceback.format_exception(errors[0]))


@pytest.mark.parametrize("text", ODD)
def test_an_odd_address_fails_without_its_password(text, capfd):
    """Neither in the message nor in the errors behind it, which a log may hold."""
    with pytest.raises(SourceError) as caught:
        NetworkStream(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown.replace(text, "")  # this test's own source line
    assert "ret@" not in str(caught.value)
    out, err = capfd.readouterr()
    assert "secret" not in out + err


@pytest.mark.parametrize("text", [*MISSPELT, *ODD])
def test_what_is_shown_of_it(text):
    assert "secret" not in redact(text)


@pytest.mark.parametrize(
    "text",
    ["clip@home.mp4", "10:30.mp4", "C:/clips/me@home.mp4", "a:b/clip.mp4", "/x/a:b@c.mp4"],
)
def test_files_with_odd_names_stay_files(text):
    _, errors = expand([text])
    assert "no such file" in str(errors[0])
    assert text in str(errors[0])


def test_a_file_that_looks_like_an_address_is_read(tmp_path, monkeypatch, face_clip):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me:you@home.mp4").write_bytes(face_clip.read_bytes())
    items, errors = expand(["me:you@home.mp4"])
    assert errors == []
    assert items[0].name == "me:you@home.mp4"


@pytest.mark.parametrize("arguments", [["http:/me:secret@host"], ["--webcam", "rtsp:/me:secret@h"]])
def test_the_command_line_shows_no_password(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert "address" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_a_stream_that_is_lost_shows_no_password(tiny_bundle):
    with pytest.raises(SourceError) as caught:
        Detector.load(tiny_bundle).watch("rtsp://me:secret@127.0.0.1:9/live")
    chain = caught.value
    while chain is not None:
        assert "secret" not in str(chain)
        chain = chain.__cause__
