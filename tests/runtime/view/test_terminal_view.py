"""Live sources in a terminal: what it shows, and that nothing else is disturbed by it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

import pytest
from clip_maker import face_frames, write_clip
from real_sender import Sender, free_port
from small_terminal import Terminal

from dfd_edge.judging.results import Event, EventKind, FrameResult, Label, PersonResult, Verdict
from dfd_edge.sinks.console import Console, Printer
from dfd_edge.sinks.sink import Sinks, SourceState
from dfd_edge.view.terminal import (
    ASCII_LEVELS,
    LiveTerminal,
    TerminalView,
    sparkline,
    terminal_for_views,
)


def person(track=1, label=Label.FAKE, p_fake=0.93, reason=None):
    box = (0.0, 0.0, 9.0, 9.0)
    judged = reason is None
    return PersonResult(track, box, (0, 0, 9), judged, reason, p_fake, p_fake, p_fake, label)


def result(source, *people, time_s=0.0, staleness_ms=80.0):
    label = Label.NO_FACE
    for label in (Label.FAKE, Label.UNSURE, Label.REAL):
        if any(each.label is label for each in people):
            break
    return FrameResult(source, time_s, people, label, staleness_ms)


class Shown:
    """A view on a small terminal, with a clock of its own."""

    def __init__(self, columns=80, rows=24, encoding="utf-8"):
        self.terminal = Terminal(columns, rows)
        self.now_s = 1000.0
        self.file = File(self.terminal, encoding)
        self.view = TerminalView(
            self.file, size=lambda: (columns, rows), now=lambda: self.now_s, colour=False
        )

    def watch(self, *steps, seconds=20.0):
        """Five times a second: results of all sources at once."""
        for step in range(round(seconds * 5)):
            self.now_s += 0.2
            for source, people in steps:
                self.view.add(result(source, *people, time_s=step / 5))

    def draw(self, *states):
        self.now_s += 0.3
        self.view.draw(list(states))
        return self.terminal.shown


class File(io.TextIOBase):
    """Writes to a terminal what its encoding can carry."""

    def __init__(self, terminal, encoding):
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self):
        return self._encoding

    def write(self, text):
        text.encode(self._encoding)
        return self._terminal.write(text)


class TestLines:
    def test_all_of_a_source(self):
        shown = Shown()
        shown.watch(("camera 0", (person(), person(2, Label.REAL, 0.05))))
        lines = shown.draw(SourceState("camera 0", dropped=3, gaps=1))
        assert lines[0].startswith("FAKE    0.93  camera 0 ")
        for part in ("5.0/s", "80 ms old", "3 dropped", "1 gap", "19.8 s"):
            assert part in lines[0]
        assert lines[1] == "  #1 fake        0.93 " + "\u2588" * 40
        assert lines[2] == "  #2 real        0.05 " + "\u2581" * 40

    def test_several_sources(self):
        shown = Shown()
        shown.watch(("camera 0", (person(),)), ("camera 1", (person(1, Label.REAL, 0.1),)))
        lines = shown.draw(
            SourceState("camera 0"), SourceState("camera 1"), SourceState("rtsp://x", opened=False)
        )
        heads = [line.split()[0] for line in lines if line and not line.startswith(" ")]
        assert heads == ["FAKE", "REAL", "OPENING"]

    def test_before_the_first_result_and_after_the_end(self):
        shown = Shown()
        assert shown.draw(SourceState("camera 0"))[0].split() == ["WAITING", "-", "camera", "0"]
        shown.watch(("camera 0", (person(),)))
        ended = shown.draw(SourceState("camera 0", ended=True))
        assert ended[0].startswith("ENDED   0.93")
        assert ended[1:] == [""]

    def test_silence_shows(self):
        shown = Shown()
        shown.watch(("camera 0", (person(),)))
        shown.now_s += 7.0
        (line, *_) = shown.draw(SourceState("camera 0"))
        assert "silent 7 s" in line
        assert "0.0/s" in line
        assert "old" not in line

    def test_a_face_that_is_not_judged_and_one_that_left(self):
        shown = Shown()
        shown.watch(("camera 0", (person(), person(2))), seconds=5)
        shown.watch(("camera 0", (person(2, reason="turned away"),)), seconds=2)
        lines = shown.draw(SourceState("camera 0"))
        assert lines[1].startswith("  #2 turned away 0.93")
        assert lines[2].startswith("  #1 not in view 0.93")
        assert lines[2].endswith("\u2588")
        assert len(lines[2]) < len(lines[1]), "nothing is drawn for the time without"

    @pytest.mark.parametrize("columns", [30, 40, 60, 79])
    def test_a_narrow_terminal_shows_as_much_on_more_lines(self, columns):
        shown = Shown(columns=columns)
        name = "rtsp://camera.example.org:8554/a/long/path/to/stream1"
        shown.watch((name, (person(),)))
        lines = shown.draw(SourceState(name, dropped=3, gaps=12))
        text = " ".join(lines)
        for part in ("FAKE", "0.93", "stream1", "5.0/s", "80 ms", "3 dropped", "12 gaps", "19.8 s"):
            assert part in text
        assert all(len(line) < columns for line in lines)
        assert len(lines) <= 6

    def test_wide_characters_count_twice(self):
        shown = Shown(columns=40)
        name = "\u6444\u50cf\u5934" * 9
        shown.watch((name, (person(),)))
        lines = shown.draw(SourceState(name))
        assert all(len(line) < 40 for line in lines)
        assert "\u5934" in lines[0]

    def test_a_terminal_that_knows_ascii_only(self):
        shown = Shown(encoding="ascii", columns=50)
        name = "camera \u00fcber alles in this wide and beautiful world"
        shown.watch((name, (person(),)))
        lines = shown.draw(SourceState(name))
        assert lines[1].endswith("#" * 10)
        assert ".." in lines[0]

    def test_a_name_cannot_steer_the_terminal(self):
        shown = Shown()
        shown.watch(("\x1b[2J", ()))
        assert "\\x1b[2J" in shown.draw(SourceState("\x1b[2J"))[0]

    def test_colours(self):
        file = io.StringIO()
        view = TerminalView(file, size=lambda: (80, 24), colour=True)
        view.add(result("camera 0", person()))
        view.draw([SourceState("camera 0")])
        assert "\x1b[31mFAKE" in file.getvalue()


class TestScreen:
    def test_history_stays_and_the_view_stands_still(self):
        shown = Shown(rows=8)
        history = [f"line {number}" for number in range(30)]
        shown.terminal.write("".join(f"{line}\n" for line in history))
        for _ in range(50):
            shown.watch(("camera 0", (person(), person(2))), seconds=0.4)
            lines = shown.draw(SourceState("camera 0"))
        assert lines[:30] == history
        assert len(lines) == 34

    @pytest.mark.parametrize("rows", [2, 3, 5, 9])
    def test_it_never_takes_more_lines_than_there_are(self, rows):
        shown = Shown(rows=rows, columns=60)
        shown.terminal.write("history\n" * 20)
        names = [f"camera {number}" for number in range(4)]
        everybody = tuple(person(track) for track in range(1, 6))
        for _ in range(5):
            shown.watch(*((name, everybody) for name in names), seconds=1.0)
            lines = shown.draw(*(SourceState(name) for name in names))
        assert lines[:20] == ["history"] * 20
        assert len(lines) - 21 <= rows - 1
        text = " ".join(lines)
        assert ("more" in text) == (rows != 5), "five lines are just enough for the sources"
        assert all(name in text for name in names) == (rows >= 5)

    def test_it_is_taken_away(self):
        shown = Shown()
        shown.terminal.write("before\n")
        shown.watch(("camera 0", (person(),)))
        shown.draw(SourceState("camera 0"))
        shown.view.wipe()
        assert shown.terminal.shown == ["before", ""]

    def test_it_is_drawn_five_times_a_second_at_most(self):
        shown = Shown()
        shown.draw(SourceState("camera 0"))
        before = shown.terminal.shown
        shown.view.add(result("camera 0", person()))
        shown.now_s += 0.1
        shown.view.draw([SourceState("camera 0")])
        assert shown.terminal.shown == before


class TestSparkline:
    @pytest.mark.parametrize(
        ("points", "drawn"),
        [
            ([], "    "),
            ([(0.5, 0.0), (2.5, 0.6), (3.5, 1.0)], "_ =#"),
            ([(3.1, 0.2), (3.9, 0.9)], "   #"),
            ([(-5.0, 1.0), (9.0, 1.0)], "    "),
        ],
    )
    def test_levels(self, points, drawn):
        assert sparkline(points, 3.9, cells=4, span_s=4.0, levels=ASCII_LEVELS) == drawn

    def test_it_moves_without_changing(self):
        points = [(step / 5, (step % 7) / 7) for step in range(100)]
        one = sparkline(points, 19.99, cells=20, span_s=20.0)
        later = sparkline(points, 20.99, cells=20, span_s=20.0)
        assert later == one[1:] + " "


class Tty(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize(
    ("out", "err", "as_json", "term", "chosen"),
    [
        (True, True, False, "xterm", "stderr"),
        (False, True, False, "xterm", "stderr"),
        (True, False, False, "xterm", "stdout"),
        (False, False, False, "xterm", None),
        (False, True, True, "xterm", "stderr"),
        (True, True, True, "xterm", None),
        (True, False, True, "xterm", None),
        (True, True, False, "dumb", None),
    ],
)
def test_which_terminal_it_is(monkeypatch, out, err, as_json, term, chosen):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", Tty(out))
    monkeypatch.setattr(sys, "stderr", Tty(err))
    expected = None if chosen is None else getattr(sys, chosen)
    assert terminal_for_views(as_json=as_json) is expected


class TestLiveTerminal:
    def terminal(self, monkeypatch):
        """Puts a terminal where both outputs go."""
        terminal = Terminal(columns=120)
        for name in ("stdout", "stderr"):
            file = File(terminal, "utf-8")
            monkeypatch.setattr(file, "isatty", lambda: True, raising=False)
            monkeypatch.setattr(sys, name, file)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        return terminal

    def test_verdicts_and_notes_are_lines_of_their_own(self, monkeypatch):
        terminal = self.terminal(monkeypatch)
        printer = Printer()
        with LiveTerminal(printer, sys.stderr) as live:
            sinks = Sinks(live, Console(printer))
            sinks.begin("camera 0", live=True)
            for _ in range(3):
                sinks.frame(result("camera 0", person()))
                sinks.refresh([SourceState("camera 0")])
                printer.note("a note")
            sinks.event(Event("camera 0", 1.0, EventKind.GAP, "nothing came for 3 s"))
            sinks.event(Event("camera 0", 1.0, EventKind.DROP, "7 due frames dropped so far"))
            sinks.refresh([SourceState("camera 0", dropped=7)])
            assert terminal.shown[-3].startswith("FAKE    0.93  camera 0")
            assert "7 dropped" in terminal.shown[-3]
            sinks.verdict(Verdict("camera 0", Label.FAKE, 0.9, 1.0, 5, 1.0, (), "cpu"))
        assert terminal.shown[:4] == [
            *["dfd-edge: a note"] * 3,
            "dfd-edge: camera 0: gap: nothing came for 3 s",
        ]
        assert terminal.shown[4].startswith("FAKE     camera 0  P(fake) 0.90")
        assert terminal.shown[5:] == [""]

    def test_what_is_logged_is_a_line_of_its_own(self, monkeypatch):
        import logging

        terminal = self.terminal(monkeypatch)
        handler = logging.StreamHandler(sys.stderr)
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        with LiveTerminal(Printer(), sys.stderr) as live:
            live.frame(result("camera 0", person()))
            live.refresh([SourceState("camera 0")])
            logging.getLogger("other").warning("from elsewhere")
            live.refresh([SourceState("camera 0")])
        assert terminal.shown == ["from elsewhere", ""]
        assert not handler.filters


class Command:
    """The command in a terminal, its standard output too unless that goes to a file."""

    def __init__(self, *arguments, columns=80, rows=24, stdout=None):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        hidden = ("DISPLAY", "WAYLAND_DISPLAY", "NO_COLOR")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dfd_edge", *map(str, arguments)],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env={**environment, "TERM": "xterm", "PYTHONUTF8": "1"},
        )
        os.close(slave)
        self.terminal = Terminal(columns, rows)
        self._decoded = b""

    def read_until(self, condition, patience_s=240.0):
        """Reads what it writes until a condition on the lines holds; None waits for its end."""
        until_s = time.monotonic() + patience_s
        while condition is None or not condition(self.terminal.shown):
            assert time.monotonic() < until_s, "\n".join(self.terminal.shown)
            if not select.select([self.master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the other end was closed
                data = b""
            if not data:
                assert condition is None, "\n".join(self.terminal.shown)
                break
            whole = self._decoded + data
            end = max(whole.rfind(b"\n"), whole.rfind(b"\x1b")) if data else 0
            text, self._decoded = (whole[:end], whole[end:]) if end > 0 else (b"", whole)
            self.terminal.write(text.decode())
        if condition is None:
            self.terminal.write(self._decoded.decode())
        return self.terminal.shown

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def sent(tmp_path):
    """Addresses at which two senders send a clip in real time."""
    clip = write_clip(tmp_path / "clip.ts", face_frames(75), options={"g": "5"})
    ports = [free_port(socket.SOCK_DGRAM) for _ in range(2)]
    senders = [Sender(clip, f"udp://127.0.0.1:{port}?pkt_size=1316") for port in ports]
    yield [f"udp://127.0.0.1:{port}" for port in ports]
    for sender in senders:
        sender.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_two_streams_in_a_terminal(tiny_bundle, sent):
    command = Command("--model", tiny_bundle, *sent, columns=60)
    try:
        lines = command.read_until(
            lambda lines: (
                all(
                    any(port in line and "/s" in line for line in lines)
                    for port in (address[-5:] for address in sent)
                )
                and sum("#1" in line for line in lines) >= 2
            )
        )
        assert any("no window: no display" in line for line in lines)
        command.process.send_signal(signal.SIGINT)
        lines = command.read_until(None)
        assert command.process.wait(10) == 0
    finally:
        command.close()
    rest = [line for line in lines if line and not line.startswith("dfd-edge:")]
    for address in sent:
        assert sum(address in line for line in rest) == 1, "the verdict alone stays"
    assert not any("#1" in line or "OPENING" in line for line in rest)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_json_lines_stay_clean_beside_the_view(tiny_bundle, sent, tmp_path):
    import json

    with (tmp_path / "out.jsonl").open("wb") as out:
        command = Command("--json", "--no-window", "--model", tiny_bundle, sent[0], stdout=out)
    try:
        command.read_until(
            lambda lines: (
                any("#1" in line for line in lines) and any("/s" in line for line in lines)
            )
        )
        command.process.send_signal(signal.SIGINT)
        command.read_until(None)
        assert command.process.wait(10) == 0
    finally:
        command.close()
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {"run", "frame", "verdict"} <= {record["record"] for record in records}
    assert records[-1]["record"] == "verdict"
