"""Files that are judged at once: their results come in the order of the files."""

from __future__ import annotations

import threading
import time

import pytest

from dfd_edge import Detector
from dfd_edge.cli import together
from dfd_edge.cli.run import Run, RunRequest
from dfd_edge.cli.together import judge_together
from dfd_edge.errors import OutputError
from dfd_edge.judging.results import Event, EventKind
from dfd_edge.sinks.console import Printer
from dfd_edge.sinks.sink import Sink
from dfd_edge.sources import SourceItem, SourceKind, expand

LONG_S = 10.0


def items(count):
    return [SourceItem(SourceKind.VIDEO, f"{n}.mp4", f"{n}.mp4") for n in range(count)]


def note(name, text):
    return Event(name, 0.0, EventKind.NOTE, text)


class Recorder(Sink):
    """Keeps what it receives, and how far files are."""

    def __init__(self):
        self.calls = []
        self.done_s = []
        self.threads = 0
        self._lock = threading.Lock()

    def event(self, event):
        assert self._lock.acquire(blocking=False), "two threads at once"
        self.calls.append((event.source, event.detail))
        self._lock.release()

    def progress(self, done_s, whole_s):
        self.done_s.append(done_s)


def test_results_come_in_the_order_of_the_files_whatever_ends_first():
    recorder = Recorder()
    second_ended = threading.Event()

    def judge(item, sink):
        if item.name == "0.mp4":
            sink.event(note(item.name, "begun"))
            assert second_ended.wait(LONG_S)
        sink.event(note(item.name, "ended"))
        if item.name == "1.mp4":
            sink.progress(1.0, 2.0)  # not its turn: dropped
            second_ended.set()

    left = judge_together(items(5), judge, recorder, jobs=2, stop=threading.Event())
    assert left == 0
    assert recorder.calls == [
        ("0.mp4", "begun"),
        *((f"{number}.mp4", "ended") for number in range(5)),
    ]
    assert recorder.done_s == []


def test_a_file_waits_once_many_of_its_results_do(monkeypatch):
    monkeypatch.setattr(together, "MAX_WAITING", 10)
    recorder = Recorder()
    sent = []
    release = threading.Event()

    def judge(item, sink):
        if item.name == "0.mp4":
            assert release.wait(LONG_S)
            return
        for number in range(30):
            sink.event(note(item.name, str(number)))
            sent.append(number)

    work = threading.Thread(
        target=judge_together,
        args=(items(2), judge, recorder),
        kwargs={"jobs": 2, "stop": threading.Event()},
    )
    work.start()
    until_s = time.monotonic() + LONG_S
    while len(sent) < 10 and time.monotonic() < until_s:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(sent) == 10
    assert not recorder.calls
    release.set()
    work.join(LONG_S)
    assert [detail for _, detail in recorder.calls] == [str(number) for number in range(30)]


def test_files_far_behind_the_one_whose_turn_it_is_are_not_begun():
    begun = []
    release = threading.Event()

    def judge(item, sink):
        begun.append(item.name)
        if item.name == "0.mp4":
            assert release.wait(LONG_S)

    work = threading.Thread(
        target=judge_together,
        args=(items(20), judge, Recorder()),
        kwargs={"jobs": 2, "stop": threading.Event()},
    )
    work.start()
    time.sleep(0.3)
    assert len(begun) <= 3
    release.set()
    work.join(LONG_S)
    assert len(begun) == 20


def test_a_stop_leaves_the_others_out_and_keeps_the_order():
    recorder, stop = Recorder(), threading.Event()

    def judge(item, sink):
        if item.name == "1.mp4":
            stop.set()
        stop.wait(LONG_S)
        sink.event(note(item.name, "stopped"))

    left = judge_together(items(9), judge, recorder, jobs=2, stop=stop)
    assert left == 7
    assert recorder.calls == [("0.mp4", "stopped"), ("1.mp4", "stopped")]


def test_output_that_cannot_be_written_ends_all():
    class Full(Sink):
        def event(self, event):
            raise OutputError("standard output cannot be written (No space left on device)")

    stop = threading.Event()

    def judge(item, sink):
        sink.event(note(item.name, "done"))
        stop.wait(LONG_S)

    with pytest.raises(OutputError, match="No space"):
        judge_together(items(9), judge, Full(), jobs=2, stop=stop)
    assert stop.is_set()


def test_a_run_at_once_gives_what_a_run_one_by_one_gives(
    tiny_bundle, face_clip, plain_clip, tmp_path
):
    detector = Detector.load(tiny_bundle)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all, but not empty")
    again = tmp_path / "again.mp4"
    again.write_bytes(face_clip.read_bytes())
    found, errors = expand([str(p) for p in (face_clip, broken, plain_clip, again)])
    assert not errors

    class Everything(Sink):
        def __init__(self):
            self.records = []

        def frame(self, result):
            self.records.append(result.to_record())

        def event(self, event):
            self.records.append(event.to_record())

        def verdict(self, verdict):
            record = verdict.to_record()
            del record["realtime_factor"]
            self.records.append(record)

    def judged(jobs):
        sink = Everything()
        run = Run(detector, RunRequest(jobs=jobs), sink, Printer())
        run.files(found)
        assert run.failures == 1
        assert len(run.verdicts) == 3
        return sink.records

    alone, together_ = judged(1), judged(3)
    assert [record["source"] for record in alone] == [record["source"] for record in together_]
    assert alone == together_
