"""A machine that is too slow for a stream: lags are told, and the reader skips to catch up."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from clip_maker import face_frames, write_clip

from dfd_benchmarks.streams.sender import SenderOptions
from dfd_edge import Detector, EventKind
from dfd_edge.sources import SourceOptions
from dfd_edge.sources.decoding import DecodedSource
from dfd_edge.sources.timing import MAX_LAG_S, PATIENCE_S, Backlog

INTERVAL_S = 0.04
FPS = 25


class Decoder:
    """A decoder of a given speed that reads from a queue which fills in real time.

    Packet n is there at `n * INTERVAL_S`; a key frame comes every second.
    """

    def __init__(self, backlog):
        self.backlog = backlog
        self.now_s = 0.0
        self.number = 0
        self.decoded = []
        self.true_lags_s = []
        self.told_lags_s = []

    def run(self, until_s, cost_s, *, paused_s=0.0):
        while self.now_s < until_s:
            time_s = self.number * INTERVAL_S
            asked_s, self.now_s = self.now_s, max(self.now_s, time_s + paused_s) + 1e-4
            wanted = self.backlog.is_wanted(
                time_s,
                key=self.number % FPS == 0,
                waited_s=self.now_s - asked_s,
                arrived_s=self.now_s,
            )
            if wanted:
                self.now_s += cost_s
                self.backlog.place(time_s, self.now_s)
                self.decoded.append(self.number)
                self.true_lags_s.append(self.now_s - time_s - paused_s)
                self.told_lags_s.append(self.backlog.lag_s)
            self.number += 1


@pytest.fixture
def decoder():
    backlog = Backlog(INTERVAL_S)
    backlog.skips = True
    return Decoder(backlog)


def test_a_machine_that_keeps_up_skips_nothing(decoder):
    decoder.run(120.0, 0.7 * INTERVAL_S)
    assert decoder.decoded == list(range(len(decoder.decoded)))
    assert max(decoder.told_lags_s) < 0.01
    assert decoder.backlog.take_skipped_s() == 0.0


def test_a_lag_is_told(decoder):
    decoder.backlog.skips = False
    decoder.run(10.0, 0.01)
    decoder.run(20.0, 1.25 * INTERVAL_S)
    assert decoder.true_lags_s[-1] > 1.5
    assert decoder.told_lags_s[-1] == pytest.approx(decoder.true_lags_s[-1], abs=0.05)


def test_without_leave_nothing_is_skipped(decoder):
    decoder.backlog.skips = False
    decoder.run(60.0, 2.0 * INTERVAL_S)
    assert decoder.decoded == list(range(len(decoder.decoded)))


@pytest.mark.parametrize("speed", [0.3, 0.8, 0.95])
def test_a_machine_that_is_too_slow_stays_near_the_present(decoder, speed):
    decoder.run(2.0, 0.01)
    decoder.run(300.0, INTERVAL_S / speed)
    # What is missing within the patience, and the longest way to a key frame.
    assert max(decoder.true_lags_s) < MAX_LAG_S + PATIENCE_S * (1.0 - speed) + 0.5
    steps = np.diff(decoder.decoded)
    skips = np.flatnonzero(steps > 1)
    assert len(skips)
    assert all(decoder.decoded[place + 1] % FPS == 0 for place in skips), "goes on at a key frame"
    left_out = (steps[skips] - 1).sum() * INTERVAL_S
    assert decoder.backlog.take_skipped_s() == pytest.approx(left_out, abs=0.1)
    assert decoder.backlog.take_skipped_s() == 0.0


def test_a_short_stall_is_caught_up_without_a_skip(decoder):
    decoder.run(10.0, 0.01)
    decoder.now_s += 3.0
    decoder.run(30.0, 0.01)
    assert max(decoder.told_lags_s) == pytest.approx(3.0, abs=0.1)
    assert decoder.decoded == list(range(len(decoder.decoded)))
    assert decoder.told_lags_s[-1] < 0.01


def test_a_sender_that_pauses_is_not_taken_for_a_lag(decoder):
    """Its clock goes on where it stopped: from then on every frame comes late by its own time."""
    decoder.run(10.0, 0.01)
    decoder.run(40.0, 0.01, paused_s=8.0)
    assert decoder.decoded == list(range(len(decoder.decoded)))
    assert decoder.told_lags_s[-1] < 0.01


def test_clocks_that_run_apart_are_no_lag():
    backlog = Backlog(INTERVAL_S)
    for number in range(100_000):
        backlog.place(number * INTERVAL_S, number * INTERVAL_S * 1.0002)
    assert backlog.lag_s < 0.01


@pytest.fixture
def sent(tmp_path):
    """An address at which one process serves 25 frames a second."""
    path = write_clip(
        tmp_path / "sent.ts", face_frames(50), options={"g": str(FPS), "tune": "zerolatency"}
    )
    orders = json.dumps(dataclasses.asdict(SenderOptions(str(path), FPS, "http", 1, [0])))
    process = subprocess.Popen(
        [sys.executable, "-m", "dfd_benchmarks.streams.sender", orders],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield json.loads(process.stdout.readline())["addresses"][0]
    process.communicate("")


@pytest.mark.parametrize(("policy", "skips"), [("latest", True), ("every", False)])
def test_a_stream_that_is_decoded_too_slowly(tiny_bundle, sent, monkeypatch, policy, skips):
    decode = DecodedSource._decode

    def slow(self):
        for frame in decode(self):
            time.sleep(0.0 if quick.is_set() else 0.1)
            yield frame

    quick = threading.Event()
    quick.set()
    monkeypatch.setattr(DecodedSource, "_decode", slow)
    detector = Detector.load(tiny_bundle)
    events, results = [], []
    options = SourceOptions(sandbox=False)  # it is slow in this process
    with detector.watch(
        sent, policy=policy, on_event=events.append, duration_s=14.0, options=options
    ) as watch:
        for result in watch:
            results.append(result)
            if result.time_s > 2.0:
                quick.clear()
            if not skips and len(results) > 60:
                break
    skipped = [event for event in events if "skipped to catch up" in event.detail]
    assert bool(skipped) == skips
    assert watch.gaps == 0, "what was skipped is no gap of the source"
    stalest_ms = max(result.staleness_ms for result in results)
    assert stalest_ms > 500.0, "what waits before the decoder counts"
    if skips:
        assert {event.kind for event in skipped} == {EventKind.DROP}
        assert watch.dropped >= 5
        assert stalest_ms < 6_000.0
