"""Addresses that do not answer hold nobody: neither `close`, nor Ctrl-C, nor the other sources."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from clip_maker import face_frames, write_clip

from dfd_edge import Detector, SourceError
from dfd_edge.sources import SourceOptions

#: As a rule `close` takes less than a millisecond, and the reader of a sandbox ends 0.1 s later;
#: the timeouts that would end it without being asked are 5 and 10 s.
LEFT_WITHIN_S = 0.2
AT_ONCE_S = 1.0
SOON_S = 4.0
IN_PROCESS = SourceOptions(sandbox=False)
SCHEMES = ["http", "https", "rtsp", "rtmp", "tcp", "udp"]


class Silent:
    """A server that takes connections, sends what it is given, and then says nothing more."""

    def __init__(self, data=b""):
        self.data = data
        self.connections = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.asked = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            if self.data:
                connection.recv(4096)
                connection.sendall(
                    b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + self.data
                )
            self.asked.set()

    def close(self):
        for held in [self.listening, *self.connections]:
            held.close()


@pytest.fixture
def silent():
    server = Silent()
    yield server
    server.close()


@pytest.fixture(scope="module")
def stalling(tmp_path_factory):
    """Sends two seconds of a clip at once, then nothing."""
    path = tmp_path_factory.mktemp("stalled") / "clip.ts"
    write_clip(path, face_frames(50), options={"g": "5", "tune": "zerolatency"})
    server = Silent(path.read_bytes())
    yield server
    server.close()


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


def readers():
    return [thread for thread in threading.enumerate() if "dfd-edge reader" in thread.name]


def gone_after_s():
    start_s = time.monotonic()
    while readers():
        assert time.monotonic() - start_s < 30.0
        time.sleep(0.01)
    return time.monotonic() - start_s


@pytest.mark.parametrize("scheme", SCHEMES)
def test_close_while_an_address_does_not_answer(detector, silent, scheme):
    start_s = time.monotonic()
    watch = detector.watch(f"{scheme}://127.0.0.1:{silent.port}/live", wait=False)
    assert time.monotonic() - start_s < AT_ONCE_S
    if scheme != "udp":
        assert silent.asked.wait(10)
    time.sleep(0.3)
    assert not watch.opened
    start_s = time.monotonic()
    watch.close()
    assert time.monotonic() - start_s < AT_ONCE_S
    assert list(watch) == []
    assert gone_after_s() < SOON_S
    verdict = watch.verdict()
    assert verdict.frames == 0
    assert not verdict.complete
    assert "not opened" in verdict.reason


def test_a_with_block_is_left_while_a_sender_stalls(detector, stalling):
    address = f"http://127.0.0.1:{stalling.port}/live.ts"
    with detector.watch(address) as watch:
        assert next(watch).time_s >= 0.0
        deadline_s = time.monotonic() + 1.0
        while time.monotonic() < deadline_s:
            watch._reader.take(0.1)  # what was sent is used up
        start_s = time.monotonic()
    assert time.monotonic() - start_s < AT_ONCE_S
    assert gone_after_s() < SOON_S
    assert watch.verdict().reason is None, "it was the watch that ended, not the sender"


@pytest.mark.skipif(os.name == "nt", reason="no signal can be sent to oneself")
def test_ctrl_c_while_an_address_does_not_answer(detector, silent):
    # A process that a shell started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    start_s = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            detector.watch(f"rtsp://127.0.0.1:{silent.port}/live")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start_s < 0.5 + SOON_S
    assert gone_after_s() < SOON_S


def test_what_went_wrong_comes_with_the_first_result(detector):
    watch = detector.watch("http://127.0.0.1:9/live", wait=False)
    with pytest.raises(SourceError, match="cannot be opened"):
        next(watch)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_close_without_a_sandbox_does_not_wait_for_the_reader(detector, silent, scheme):
    """The reader waits until FFmpeg gives up, for 10 s; nobody waits for the reader."""
    watch = detector.watch(
        f"{scheme}://127.0.0.1:{silent.port}/live", options=IN_PROCESS, wait=False
    )
    if scheme != "udp":
        assert silent.asked.wait(10)
    time.sleep(0.3)
    start_s = time.monotonic()
    watch.close()
    assert list(watch) == []
    assert time.monotonic() - start_s < LEFT_WITHIN_S
    assert "not opened" in watch.verdict().reason
    silent.close()
    assert gone_after_s() < 20.0


def test_a_with_block_without_a_sandbox_is_left_while_a_sender_stalls(detector, stalling):
    address = f"http://127.0.0.1:{stalling.port}/live.ts"
    events = []
    with detector.watch(address, options=IN_PROCESS, on_event=events.append) as watch:
        assert next(watch).time_s >= 0.0
        deadline_s = time.monotonic() + 1.0
        while time.monotonic() < deadline_s:
            watch._reader.take(0.1)  # what was sent is used up
        start_s = time.monotonic()
    assert time.monotonic() - start_s < LEFT_WITHIN_S
    verdict = watch.verdict()
    assert verdict.reason is None, "it was the watch that ended, not the sender"
    assert gone_after_s() < 20.0
    assert watch.verdict() == verdict, "what the reader met later does not count"
    assert events == []


def test_the_close_of_one_watch_leaves_the_others_waiting(detector, silent):
    address = f"tcp://127.0.0.1:{silent.port}"
    closed, other = (detector.watch(address, options=IN_PROCESS, wait=False) for _ in range(2))
    assert silent.asked.wait(10)
    closed.close()
    with pytest.raises(SourceError, match="cannot be opened"):
        next(other)
    assert gone_after_s() < 20.0


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child")
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_program_ends_though_its_reader_waits_in_ffmpeg(tiny_bundle, silent, scheme):
    code = """
    import sys
    from dfd_edge import Detector
    from dfd_edge.sources import SourceOptions

    detector = Detector.load(sys.argv[1])
    watch = detector.watch(sys.argv[2], options=SourceOptions(sandbox=False), wait=False)
    print("ready", flush=True)
    sys.stdin.readline()
    watch.close()
    """
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tiny_bundle)]
        + [f"{scheme}://127.0.0.1:{silent.port}/live"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "ready\n"
    assert silent.asked.wait(10)
    time.sleep(0.5)
    start_s = time.monotonic()
    out, err = program.communicate("go on\n", timeout=60)
    assert time.monotonic() - start_s < SOON_S
    assert (program.returncode, out, err) == (0, "", "")


def start(tiny_bundle, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "dfd_edge", "--model", str(tiny_bundle), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child")
def test_ctrl_c_ends_the_command_while_an_address_does_not_answer(tiny_bundle, silent):
    program = start(tiny_bundle, f"rtsp://127.0.0.1:{silent.port}/live")
    assert silent.asked.wait(120)
    time.sleep(0.3)
    start_s = time.monotonic()
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert time.monotonic() - start_s < 5.0, "without it takes 10 s and more"
    assert program.returncode == 1
    assert "stopped before it was open" in err
    assert "Traceback" not in out + err


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child")
def test_an_address_that_does_not_answer_does_not_hold_the_others(tiny_bundle, silent, stalling):
    live = f"http://127.0.0.1:{stalling.port}/live.ts"
    program = start(tiny_bundle, "--json", f"rtsp://127.0.0.1:{silent.port}/live", live)
    lines = []
    try:
        while not any('"frame"' in line for line in lines):
            line = program.stdout.readline()
            assert line, program.stderr.read()
            lines.append(line)
        assert not any("error" in line for line in lines)
    finally:
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=60)
