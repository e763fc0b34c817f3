"""What a careless command line must not destroy, leak or hang on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfd_edge.errors import UsageError
from dfd_edge.judging.results import Label, PersonVerdict, Verdict
from dfd_edge.sinks.console import verdict_line
from dfd_edge.sinks.files import check_outputs, written_whole
from dfd_edge.sources.address import redact
from dfd_edge.text import printable

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "no_face.mp4"


def dfd_edge(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_an_output_never_replaces_its_source(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(SAMPLE.read_bytes())
    link = tmp_path / "link.mp4"
    link.symlink_to(clip)
    for name in ("clip.mp4", "link.mp4", "./clip.mp4"):
        with pytest.raises(UsageError, match="is a file that is read"):
            check_outputs({"--csv": tmp_path / name}, [clip])
    result = dfd_edge("--csv", str(clip), str(clip))
    assert result.returncode == 2
    assert clip.read_bytes() == SAMPLE.read_bytes()


def test_an_output_never_replaces_a_pipe_or_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not an ordinary file"):
        check_outputs({"--csv": pipe}, [])
    with pytest.raises(UsageError, match="not an ordinary file"):
        check_outputs({"--csv": Path("/dev/null")}, [])


def test_two_outputs_need_two_names(tmp_path: Path) -> None:
    same = tmp_path / "out.mp4"
    with pytest.raises(UsageError, match="also given to --csv"):
        check_outputs({"--csv": same, "--save-video": same}, [])
    with pytest.raises(UsageError, match="no file name"):
        check_outputs({"--csv": Path()}, [])


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    with written_whole(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:secret@host/a", "http://host/a"),
        ("http://user:p#ss/w0rd@host:9/a", "http://host:9/a"),
        ("http://user:secret@[::1", "http://[::1"),
        ("rtsp://host/live?token=secret", "rtsp://host/live?..."),
    ],
)
def test_credentials_are_never_shown(address: str, shown: str) -> None:
    assert redact(address) == shown


@pytest.mark.parametrize("arguments", [[""], ["--rate", "nan"], ["--fail-on", ""]])
def test_empty_and_odd_values_are_refused(arguments: list[str]) -> None:
    result = dfd_edge(*arguments, str(SAMPLE))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(tiny_bundle: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "dfd_edge.cli.command",
                "--model",
                str(tiny_bundle),
                str(SAMPLE),
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert "output cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_silent_pipe_can_be_stopped(tiny_bundle: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dfd_edge", "--model", str(tiny_bundle), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) in (0, 1)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_a_name_cannot_steer_the_terminal() -> None:
    assert printable("esc\x1b[31mred\n.mp4") == "esc\\x1b[31mred\\n.mp4"
    assert printable("Grüße 你好 a b.mp4") == "Grüße 你好 a b.mp4"


def test_a_verdict_without_a_score_says_why() -> None:
    person = PersonVerdict(1, Label.UNSURE, 0.4, 1)
    verdict = Verdict(
        source="short.mp4",
        label=Label.UNSURE,
        p_fake=None,
        coverage=1.0,
        frames=1,
        duration_s=0.2,
        people=(person,),
        provider="cpu",
    )
    assert "too little was seen: 1 judged frame" in verdict_line(verdict)
