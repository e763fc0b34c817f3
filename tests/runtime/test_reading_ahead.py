"""The first frames of a film, decoded while the models are loaded, and what a run makes of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, write_clip

from dfd_edge.cli import judge as judge_module
from dfd_edge.cli.command import command
from dfd_edge.errors import SourceError
from dfd_edge.sources import SourceItem
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.opening import ReadAhead
from dfd_edge.sources.video import _MOST_AHEAD, VideoFile


def begun(path: Path, *, rate_hz: float = 5.0) -> ReadAhead:
    return ReadAhead(SourceItem.of(path), Sampler(rate_hz), bursts=True, threads=1)


def judged(*arguments: str | Path) -> tuple[int, list[dict[str, object]], str]:
    """Exit code, records and notes of a run."""
    done = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def without_speed(records: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in record.items() if k != "realtime_factor"} for record in records]


def test_the_frames_are_those_of_a_file_that_is_opened_later(face_clip: Path) -> None:
    with VideoFile(face_clip) as video:
        expected = list(video.frames(Sampler(5.0), bursts=True))
        length_s = video.end_s
    with begun(face_clip) as ahead:
        video = ahead.take()
        assert isinstance(video, VideoFile)
        found = list(video.frames(Sampler(5.0), bursts=True))
        assert video.end_s == length_s
        assert video.ahead_s > 0.0
    assert [frame.time_s for frame in found] == [frame.time_s for frame in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)


def test_few_frames_are_held(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "film.mp4", face_frames(60, size=(64, 48)))
    video = VideoFile(path)
    with video:
        video.read_ahead(Sampler(25.0), bursts=False, enough=threading.Event())
        assert len(video._ahead) == _MOST_AHEAD
        assert len(list(video.frames(Sampler(25.0)))) == 60


def test_reading_ahead_ends_when_the_models_are_loaded(face_clip: Path) -> None:
    enough = threading.Event()
    enough.set()
    with VideoFile(face_clip) as video:
        video.read_ahead(Sampler(25.0), bursts=False, enough=enough)
        assert len(video._ahead) == 1


def test_an_error_is_raised_where_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no film at all, only words" * 9)
    with begun(path) as ahead, pytest.raises(SourceError, match="not a video"):
        ahead.take()


def test_a_file_that_is_never_taken_is_closed(face_clip: Path) -> None:
    ahead = begun(face_clip)
    ahead.close()
    ahead.close()
    assert not ahead._thread.is_alive()


def test_verdicts_are_the_same_as_without(
    face_clip: Path, plain_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    take = ReadAhead.take
    monkeypatch.setattr(ReadAhead, "take", lambda self: taken.append(self) or take(self))
    code, records, _ = judged(face_clip, plain_clip, "--jobs", "2")
    assert code == 0
    assert len(taken) == 1, "the first file was not begun"
    monkeypatch.setattr(judge_module, "ReadAhead", None)
    monkeypatch.setattr(judge_module, "_is_begun", lambda request, files: False)
    _, expected, _ = judged(face_clip, plain_clip, "--jobs", "2")
    assert without_speed(records) == without_speed(expected)


def test_a_damaged_first_file_is_reported_and_the_second_judged(
    face_clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no film at all, only words" * 9)
    code, records, _ = judged(path, face_clip)
    assert code == 1
    kinds = [(r["record"], r.get("kind")) for r in records if r["record"] in {"event", "verdict"}]
    assert kinds == [("event", "error"), ("verdict", None)]


def test_a_missing_bundle_ends_the_run_and_the_reading(face_clip: Path, tmp_path: Path) -> None:
    code, records, errors = judged(face_clip, "--model", tmp_path / "none")
    assert (code, records) == (5, [])
    assert "no such folder" in errors
    assert not [t for t in threading.enumerate() if t.name == "dfd-edge reading ahead"]


@pytest.mark.parametrize("wanted", [("--frames", "8"), ("--scan",)])
def test_frames_that_are_sought_are_not_read_ahead(
    wanted: tuple[str, ...], face_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "ReadAhead", None)
    code, records, _ = judged(face_clip, *wanted)
    assert code == 0
    assert records[-1]["record"] == "verdict"
