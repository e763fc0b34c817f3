"""A scan names the seconds of a short passage that looks fake, and reads little else."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, write_clip

from dfd_edge import Detector, Label, UsageError
from dfd_edge.cli.command import command
from dfd_edge.judging.decision import Decision
from dfd_edge.judging.scanning import judge_passages
from dfd_edge.sources import SourceOptions
from small_bundle import DECISION

RATE_HZ = 5.0
REAL, UNSURE, FAKE = -3.0, 0.0, 3.0
#: Logits of the small bundle's decision: thresholds 0.4 and 0.6, slope 1.5, intercept 0.2.
DECIDES = Decision(DECISION)


def steps(*runs):
    """Steps at 5 Hz: (seconds, logit) after (seconds, logit)."""
    logits = [logit for seconds, logit in runs for _ in range(round(seconds * RATE_HZ))]
    return [(number / RATE_HZ, logit) for number, logit in enumerate(logits)]


@pytest.mark.parametrize(
    ("seconds", "found"), [(0.4, False), (1.0, True), (2.0, True), (5.0, True), (10.0, True)]
)
def test_a_passage_is_found_by_itself(seconds, found):
    result = judge_passages(steps((6.0, REAL), (seconds, FAKE), (6.0, REAL)), DECIDES, RATE_HZ)
    assert (result is not None) is found
    if result is not None:
        logit, (interval,) = result
        assert 1.0 / (1.0 + math.exp(-logit)) > DECIDES.fake_threshold
        assert (interval.start_s, interval.end_s) == pytest.approx((6.0, 6.0 + seconds))


def test_what_is_real_or_broken_up_is_not_called_fake():
    assert judge_passages(steps((20.0, REAL)), DECIDES, RATE_HZ) is None
    assert judge_passages([], DECIDES, RATE_HZ) is None
    apart = [(number * 1.0, FAKE) for number in range(4)]
    assert judge_passages(apart, DECIDES, RATE_HZ) is None


class Staged(Detector):
    """Its model calls a stretch of a film fake, whatever it sees."""

    fake_s = (31.0, 35.0)

    def _open_stream(self, source, finder, **options):
        stream = super()._open_stream(source, finder, **options)
        score, fake_s = stream.score, self.fake_s

        def staged(observations):
            return [with_logits(result, fake_s) for result in score(observations)]

        stream.score = staged
        return stream


def with_logits(result, fake_s):
    """A result whose people look fake in these seconds, and real in all others."""
    logit = FAKE if fake_s[0] <= result.time_s < fake_s[1] else REAL
    people = tuple(
        dataclasses.replace(person, step_logit=logit if person.judged else None)
        for person in result.people
    )
    return dataclasses.replace(result, people=people)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A minute of one face."""
    path = tmp_path_factory.mktemp("scan") / "film.mp4"
    options = {"g": "50", "preset": "ultrafast"}
    return write_clip(path, face_frames(15 * 60), rate=15, options=options)


@pytest.fixture(scope="module")
def detector(signals_bundle):
    return Staged.load(signals_bundle)


@pytest.mark.parametrize("sandbox", [False, True])
def test_the_verdict_names_the_passage(detector, film, sandbox):
    times_s, done_s = [], []
    verdict = detector.analyze(
        film,
        scan=True,
        on_frame=lambda result: times_s.append(result.time_s),
        on_progress=lambda done, whole: done_s.append(done / whole),
        options=SourceOptions(sandbox=sandbox),
    )
    assert verdict.label is Label.FAKE
    first, passage = verdict.people
    assert passage.label is Label.FAKE
    assert (first.track, passage.track) == (1, 2)
    (interval,) = passage.intervals
    # What lies beyond the last doubtful moment is not looked at.
    assert interval.start_s == pytest.approx(31.0, abs=0.5)
    assert 33.0 <= interval.end_s <= 35.2
    assert not verdict.complete
    asked = "only 30 moments of 60.0 s were asked for; "
    close = re.fullmatch(asked + r"([0-9.]+) s of it were looked at closely", verdict.reason)
    assert close is not None
    assert 3.0 < float(close.group(1)) <= 8.0
    assert verdict.frames == len(times_s) <= 30 + 10 * RATE_HZ
    assert done_s == sorted(done_s)
    assert done_s[-1] > 0.7


def test_nothing_doubtful_is_not_looked_at_again(detector, film, monkeypatch):
    monkeypatch.setattr(Staged, "fake_s", (0.0, 0.0))
    verdict = detector.analyze(film, scan=True)
    assert len(verdict.people) == 1
    assert verdict.frames == 30
    assert verdict.reason.endswith("nothing in it was looked at closely")


def test_stopped_in_its_second_look(detector, film):
    stop, seen = threading.Event(), []

    def on_frame(result):
        seen.append(result)
        if len(seen) == 35:
            stop.set()

    verdict = detector.analyze(film, scan=True, stop=stop, on_frame=on_frame)
    assert verdict.reason == "stopped before its end"
    assert not verdict.complete


def test_what_does_not_go_with_it_is_refused(detector, film):
    with pytest.raises(UsageError, match="leave the number out"):
        detector.analyze(film, scan=True, max_frames=8)
    with pytest.raises(UsageError, match="reads a film twice"):
        detector.analyze("-", scan=True)


def test_an_image_is_judged_as_ever(detector):
    picture = np.zeros((64, 64, 3), np.uint8)
    verdict = detector.analyze(picture, scan=True)
    assert dataclasses.replace(verdict) == detector.analyze(picture)


def test_the_command(signals_bundle, film):
    run = CliRunner().invoke(
        command, ["--model", str(signals_bundle), "--json", "--scan", str(film)]
    )
    assert run.exit_code == 0, run.output
    first, *_, last = [json.loads(line) for line in run.stdout.splitlines()]
    assert first["scan"] is True
    assert first["max_frames"] is None
    assert last["record"] == "verdict"
    assert last["complete"] is False
    for arguments, cause in (
        (["--frames", "8", str(film)], "--scan chooses its frames itself"),
        (["-"], "reads a film twice"),
    ):
        refused = CliRunner().invoke(
            command, ["--model", str(signals_bundle), "--scan", *arguments]
        )
        assert refused.exit_code == 2
        assert cause in refused.output
