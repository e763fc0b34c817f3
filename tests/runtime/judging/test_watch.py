"""Live sources, driven by a device that does what it is told."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import pytest
from clip_maker import face_frames

from dfd_edge import Detector, EventKind, SourceError
from dfd_edge.judging.watch import Watch
from dfd_edge.sources import Frame
from dfd_edge.sources.live import LiveReader, Policy

RATE = 25


class Device:
    """A camera in real time: shows pictures at 25 frames a second, then is lost."""

    finite = False
    reason = None

    def __init__(self, pictures, *, rate=RATE):
        self.pictures = pictures
        self.rate = rate
        self.closed = threading.Event()

    def frames(self, sampler, *, every=False, bursts=False):
        start_s = time.monotonic()
        for index, picture in enumerate(self.pictures):
            time_s = index / self.rate
            if self.closed.wait(max(0.0, start_s + time_s - time.monotonic())):
                return
            due = sampler.is_due(time_s)
            if due or every:
                yield Frame(picture, time_s, index, due)
        raise SourceError("device", "gives no more frames")

    def close(self):
        self.closed.set()


class Stalled:
    """A device that hangs in its read."""

    finite = False
    reason = None

    def __init__(self):
        self.released = threading.Event()

    def frames(self, sampler, *, every=False, bursts=False):
        self.released.wait(20)
        yield from ()

    def close(self):
        self.released.set()


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


def endless():
    return itertools.cycle(face_frames(75))


def reader_threads():
    return [thread for thread in threading.enumerate() if "dfd-edge reader" in thread.name]


def watch_device(detector, connect, **options):
    return Watch(detector.stream("device"), lambda stop: connect(), **options)


def test_results_come_while_the_device_runs(detector):
    with watch_device(detector, lambda: Device(endless()), duration_s=2.0) as watch:
        results = list(watch)
    assert 1 <= len(results) <= 11
    assert all(result.staleness_ms >= 0 for result in results)
    steps_s = [b.time_s - a.time_s for a, b in itertools.pairwise(results)]
    assert all(step_s >= 0.1 for step_s in steps_s)
    assert watch.verdict().frames == len(results)
    assert watch.verdict().realtime_factor is None


def test_close_returns_at_once_with_the_verdict_so_far(detector):
    watch = watch_device(detector, lambda: Device(endless()))
    next(watch)
    start_s = time.monotonic()
    watch.close()
    verdict = watch.verdict()
    assert time.monotonic() - start_s < 1.0, "as a rule it takes a few milliseconds"
    assert verdict.frames == 1
    with pytest.raises(StopIteration):
        next(watch)


def test_close_does_not_wait_for_a_stalled_device(detector):
    device = Stalled()
    watch = watch_device(detector, lambda: device)
    threading.Timer(0.2, watch.close).start()
    start_s = time.monotonic()
    assert list(watch) == []
    assert time.monotonic() - start_s < 2.0
    device.close()


def test_a_source_that_hangs_or_is_slow_holds_up_no_other(detector):
    hanging = watch_device(detector, Stalled)
    slow = watch_device(detector, lambda: Device(endless(), rate=0.5))
    ends = threading.Event()

    def follow(watch):
        for _ in watch:
            if ends.is_set():
                return

    others = [threading.Thread(target=follow, args=(watch,)) for watch in (hanging, slow)]
    for thread in others:
        thread.start()
    with watch_device(detector, lambda: Device(endless())) as watch:
        arrived = [(result.time_s, time.monotonic()) for result in itertools.islice(watch, 10)]
    ends.set()
    hanging.close()
    slow.close()
    for thread in others:
        thread.join(2)
        assert not thread.is_alive()
    # Due five times a second; the slow one would stretch the ten steps to 18 seconds.
    assert arrived[-1][0] - arrived[0][0] < 10.0
    assert arrived[-1][1] - arrived[0][1] < 10.0


def test_no_thread_stays_behind(detector):
    before = set(reader_threads())
    with watch_device(detector, lambda: Device(endless())) as watch:
        next(watch)
        assert set(reader_threads()) - before
    deadline_s = time.monotonic() + 10.0
    while set(reader_threads()) - before and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not set(reader_threads()) - before


def test_a_lost_device_is_opened_again_and_the_gap_is_told(detector):
    devices = iter([Device(face_frames(20)), None, Device(endless())])
    events = []

    def connect():
        device = next(devices)
        if device is None:
            raise SourceError("device", "not back yet")
        return device

    with watch_device(detector, connect, on_event=events.append, duration_s=8.0) as watch:
        results = list(watch)
    kinds = [event.kind for event in events]
    assert kinds[:2] == [EventKind.GAP, EventKind.RECONNECT]
    assert "gives no more frames" in events[0].detail
    assert watch.gaps == 1
    times_s = [result.time_s for result in results]
    assert times_s == sorted(times_s)
    assert max(b - a for a, b in itertools.pairwise(times_s)) > 0.8, "no frame was made up"
    verdict = watch.verdict()
    assert not verdict.complete
    assert "lost 1 time" in verdict.reason


def gives_up(detector, reconnect_s, *, plain_end=False):
    """What a watch does whose device comes for under a second and never again."""
    devices = iter([Device(face_frames(20))])
    if plain_end:
        devices = iter([Ending(face_frames(20))])
    tries_s = []

    def connect():
        tries_s.append(time.monotonic())
        device = next(devices, None)
        if device is None:
            raise SourceError("device", "not back yet")
        return device

    events = []
    watch = watch_device(
        detector, connect, policy=Policy.EVERY, on_event=events.append, reconnect_s=reconnect_s
    )
    error, start_s = None, time.monotonic()
    try:
        for _ in watch:
            pass
    except SourceError as caught:
        error = str(caught)
    return watch, error, [event.kind for event in events], tries_s, time.monotonic() - start_s


class Ending(Device):
    """Says good-bye instead of breaking off."""

    def frames(self, sampler, *, every=False, bursts=False):
        with contextlib.suppress(SourceError):
            yield from super().frames(sampler, every=every, bursts=bursts)


def test_a_lost_device_is_given_up_after_so_long(detector):
    watch, error, kinds, tries_s, took_s = gives_up(detector, 1.5)
    assert error == "device: gives no more frames; not back within 1.5 s"
    assert kinds == [EventKind.GAP]
    assert len(tries_s) >= 3, "the last one at the limit"
    assert took_s > 1.5
    assert watch.verdict().frames == 4
    assert not watch.verdict().complete


def test_a_lost_device_is_not_opened_again_where_nobody_wants_it(detector):
    watch, error, kinds, tries_s, _ = gives_up(detector, 0.0)
    assert error == "device: gives no more frames"
    assert kinds == []
    assert len(tries_s) == 1
    assert not watch.verdict().complete


def test_a_stream_that_ends_is_no_fault_where_it_is_not_to_be_opened_again(detector):
    watch, error, kinds, tries_s, _ = gives_up(detector, 0.0, plain_end=True)
    assert (error, kinds, len(tries_s)) == (None, [], 1)
    assert watch.verdict().frames == 4
    assert watch.verdict().complete


def test_a_pause_is_a_gap_though_the_connection_holds(detector):
    class Pausing(Device):
        def frames(self, sampler, *, every=False, bursts=False):
            for index in (*range(10), *range(100, 110)):
                due = sampler.is_due(index / RATE)
                if due or every:
                    yield Frame(self.pictures[0], index / RATE, index, due)
            self.closed.wait(20)

    device = Pausing(face_frames(1))
    events = []
    with watch_device(
        detector, lambda: device, on_event=events.append, policy=Policy.EVERY
    ) as watch:
        results = [next(watch) for _ in range(4)]
    device.close()
    assert [event.kind for event in events] == [EventKind.GAP, EventKind.RECONNECT]
    assert events[0].detail == "nothing came for 3.6 s"
    assert [result.time_s for result in results] == pytest.approx([0.0, 0.2, 4.0, 4.2], abs=0.05)
    assert watch.gaps == 1


def test_what_is_opened_while_the_watch_is_closed_is_let_go(detector):
    asked, answer = threading.Event(), threading.Event()
    late = Device(endless())
    devices = iter([Device([]), late])

    def connect():
        device = next(devices)
        if device is late:
            asked.set()
            answer.wait(20)
        return device

    events = []
    watch = watch_device(detector, connect, on_event=events.append)
    assert asked.wait(20)
    watch.close()
    answer.set()
    assert late.closed.wait(20)
    assert [event.kind for event in events] == [EventKind.GAP]


def test_a_recording_that_breaks_is_not_started_again(detector):
    class Recording(Device):
        finite = True

    recordings = iter([Recording(face_frames(10))])
    with watch_device(detector, lambda: next(recordings)) as watch:
        with pytest.raises(SourceError, match="no more frames"):
            list(watch)
        verdict = watch.verdict()
    assert verdict.frames == 2
    assert not verdict.complete
    assert "no more frames" in verdict.reason


def test_a_device_that_cannot_be_opened_is_told_at_once(detector):
    def connect():
        raise SourceError("device", "no such camera")

    with pytest.raises(SourceError, match="no such camera"):
        watch_device(detector, connect)


def test_a_closed_reader_does_not_wait_for_the_next_due_frame(detector):
    stream = detector.stream("device", rate_hz=0.01)
    with Watch(stream, lambda stop: Device(endless(), rate=50)) as watch:
        next(watch)
    # The next due frame is 100 s away; readers of other tests live for up to 10 s.
    until_s = time.monotonic() + 30.0
    while reader_threads():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def read(policy, *, pause_s, count=50):
    """What a slow taker gets of a device that shows `count` pictures."""
    reader = LiveReader(
        lambda stop: Device(face_frames(1) * count, rate=200),
        name="device",
        is_due=lambda time_s: True,
        on_event=lambda *event: None,
        policy=policy,
    )
    reader.start()
    taken = []
    while reader.gaps == 0 or not taken:
        captured = reader.take(0.05)
        if captured is not None:
            taken.append(captured.frame.index)
            time.sleep(pause_s)
        elif reader.gaps:
            break
    while (captured := reader.take(0.05)) is not None:
        taken.append(captured.frame.index)
    reader.close()
    return taken, reader.dropped


def test_latest_keeps_only_the_newest_and_counts_the_rest():
    taken, dropped = read(Policy.LATEST, pause_s=0.05)
    assert len(taken) < 30
    assert taken == sorted(taken)
    assert taken[-1] == 49
    assert len(taken) + dropped == 50


def test_every_loses_nothing():
    taken, dropped = read(Policy.EVERY, pause_s=0.002)
    assert taken == list(range(50))
    assert dropped == 0


def test_stale_frames_are_dropped_and_counted(detector):
    with watch_device(
        detector, lambda: Device(endless()), max_staleness_ms=1e-6, duration_s=0.7
    ) as watch:
        assert list(watch) == []
        assert watch.dropped >= 1


def test_every_picture_is_shown(detector):
    shown = []
    with watch_device(
        detector,
        lambda: Device(endless()),
        duration_s=1.0,
        policy=Policy.EVERY,
        on_image=lambda frame, result: shown.append((frame.index, result)),
    ) as watch:
        results = list(watch)
    assert [index for index, _ in shown] == list(range(25))
    assert [result for _, result in shown][:6] == [results[0]] * 5 + [results[1]]


def test_only_judged_pictures_are_shown_where_asked(detector):
    shown = []
    with watch_device(
        detector,
        lambda: Device(endless()),
        duration_s=1.0,
        policy=Policy.EVERY,
        on_image=lambda frame, _: shown.append(frame.index),
        every_image=False,
    ) as watch:
        assert len(list(watch)) == 5
    assert shown == [0, 5, 10, 15, 20]


def test_no_camera_says_which_were_found(detector):
    with pytest.raises(SourceError, match=r"camera 97: no such camera; (no camera was )?found"):
        detector.watch(97)
