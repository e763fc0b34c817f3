"""Provenance is read by a process with limits: whatever happens to it becomes a record."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dfd_edge.provenance import bounded
from dfd_edge.provenance.bounded import read_bounded
from dfd_edge.provenance.record import Outcome, Provenance

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps all the limits")

FUNCTION = "ill_readers:read"
SOON_S = 5.0


@pytest.fixture(autouse=True, scope="module")
def _end_readers():
    yield
    bounded._idle.clear()


@pytest.fixture
def told(tmp_path):
    """Has the reader do something."""

    def ask(what: str, **limits: float) -> Provenance:
        path = tmp_path / "clip.txt"
        path.write_text(what)
        return read_bounded(path, None, function=FUNCTION, **limits)

    return ask


def said(provenance: Provenance) -> str:
    """The answer of a reader that does as it was told."""
    (mark,) = provenance.marks
    assert mark.field == "said"
    return mark.value


def server(told) -> int:
    return int(said(told("count")).split()[0])


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def wait_until_gone(pid: int) -> None:
    """Waits for the death of a process, of which its parent need not know yet."""
    until_s = time.monotonic() + SOON_S
    while (status := Path(f"/proc/{pid}/stat")).exists():
        if status.read_text().rpartition(") ")[2][0] == "Z":
            return
        assert time.monotonic() < until_s, f"{pid} is still there"
        time.sleep(0.02)


def says(pattern: str, text: str | None) -> bool:
    """Whether an error says it, in one line."""
    return text is not None and re.search(pattern, text) is not None and text.isprintable()


# Limits


@pytest.mark.parametrize(
    ("what", "limits", "error"),
    [
        ("hang", {"timeout_s": 0.2}, r"not read within the 0\.2 s that it may take"),
        ("fill", {}, r"takes more than the 256 MB of memory"),
        ("abort", {}, r"crashed \(SIGABRT\): damaged, hostile, or too large for the 256 MB"),
        ("overflow", {}, r"crashed \(SIGSEGV\)"),
        ("raise", {}, r"through a fault of ours \(IndexError\)"),
        ("babble", {}, "sent no sense"),
        ("talk", {"memory_bytes": 1 << 30}, r"failed \(exit 1\)"),
        ("exit 3", {}, r"failed \(exit 3\)"),
        ("exit 0", {}, "sent no sense"),
    ],
)
def test_what_goes_wrong_is_a_record_with_the_marks(told, what, limits, error):
    before = server(told)
    provenance = told(what, **{"memory_bytes": 256 << 20, **limits})
    assert provenance.outcome is Outcome.ERROR
    assert says(error, provenance.error)
    assert provenance.error in provenance.summary
    assert [mark.value for mark in provenance.marks] == [what]
    assert server(told) == before, "the server was started anew"


def test_a_server_that_dies_is_started_anew(told):
    before = server(told)
    provenance = told("kill_the_server")
    assert says(r"died \(SIGKILL\)", provenance.error)
    assert server(told) != before


def test_one_that_died_while_it_waited_costs_no_file(told):
    before = server(told)
    os.kill(before, signal.SIGKILL)
    wait_until_gone(before)
    assert said(told("well")) == "well"


def test_two_that_died_while_they_waited_cost_no_file(told):
    bounded._idle.clear()
    bounded._idle.extend(bounded._Reader(FUNCTION) for _ in range(2))
    waiting = [reader._process.pid for reader in bounded._idle]
    for pid in waiting:
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
    assert said(told("well")) == "well"


def test_a_worker_that_defies_its_clock_is_ended(told, monkeypatch):
    monkeypatch.setattr(bounded, "_GRACE_S", 0.3)
    provenance = told("deaf", timeout_s=0.2)
    assert says("said nothing for", provenance.error)
    monkeypatch.undo()
    assert said(told("well")) == "well"


def test_the_texts_of_a_worker_that_was_taken_over_control_no_terminal(told):
    provenance = told("escape")
    assert said(provenance) == "[31mred"
    assert len(provenance.error) == 4000


def test_the_outcome_follows_from_the_rest(told):
    provenance = told("lie")
    assert provenance.outcome is Outcome.NOTHING
    assert "real" not in provenance.summary


@pytest.mark.parametrize("field", ["outcome", "where", "state", "kind"])
def test_words_outside_the_vocabularies_are_no_sense(told, field):
    assert told("invent nothing").manifest is not None
    assert says("sent no sense", told(f"invent {field}").error)


# Confinement


def test_it_reads_that_file_alone_and_writes_none(told, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("secret")
    if said(told(f"open {other}")) == "read":
        pytest.skip("this system has no Landlock")
    assert said(told(f"open {other}")) == "PermissionError"
    assert said(told(f"write {tmp_path / 'new.txt'}")) == "PermissionError"
    assert said(told(f"open {tmp_path / 'clip.txt'}")) == "read"
    (tmp_path / "clip.c2pa").write_text("sidecar")
    assert said(told(f"open {tmp_path / 'clip.c2pa'}")) == "read"


def test_it_has_no_network(told):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answer = said(told(f"connect {listening.getsockname()[1]}"))
    if answer == "connected":
        pytest.skip("this system gives no process a network of its own")
    assert answer == "no network"


# Its life


def test_threads_read_at_once_and_may_end(told, tmp_path):
    answers = []

    def read(number: int) -> None:
        path = tmp_path / f"{number}.txt"
        for _ in range(5):
            path.write_text(f"text {number}")
            answers.append(
                read_bounded(path, None, function=FUNCTION).marks[0].value == f"text {number}"
            )

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 20


def test_a_server_outlives_the_thread_that_started_it(told):
    bounded._idle.clear()
    servers = []
    thread = threading.Thread(target=lambda: servers.append(server(told)))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert server(told) == servers[0]


PROGRAM = """
    import os, pathlib, signal, sys
    from dfd_edge.provenance.bounded import read_bounded
    # Ignored where the tests themselves run in the background of a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = pathlib.Path(sys.argv[1])
    path.write_text("count")
    server = read_bounded(path, None, function="ill_readers:read").marks[0].value.split()[0]
    print(server, flush=True)
    if sys.argv[2] == "hang":
        path.write_text("hang")
        read_bounded(path, None, function="ill_readers:read")
    if sys.argv[2] == "fork":
        if os.fork() == 0:
            path.write_text("count")
            mine = read_bounded(path, None, function="ill_readers:read").marks[0].value.split()[0]
            print("shared" if mine == server else "own", flush=True)
            sys.exit()
        os.wait()
        found = read_bounded(path, None, function="ill_readers:read")
        print(found.marks[0].value.split()[0] == server)
"""


@pytest.fixture
def program(tmp_path):
    script = tmp_path / "script.py"  # without a guard for its main module
    script.write_text(textwrap.dedent(PROGRAM))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def start(how: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "clip.txt"), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return start


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_program_that_was_ended(program, sign):
    with program("hang") as parent:
        started = int(parent.stdout.readline())
        time.sleep(0.2)
        listed = Path(f"/proc/{started}/task/{started}/children").read_text()
        (worker,) = (int(pid) for pid in listed.split())
        parent.send_signal(sign)
        errors = parent.communicate(timeout=SOON_S)[1]
    assert ("KeyboardInterrupt" in errors) == (sign == signal.SIGINT)
    wait_until_gone(started)
    wait_until_gone(worker)


def test_a_copy_of_a_program_starts_its_own(program):
    with program("fork") as parent:
        out, errors = parent.communicate(timeout=60)
    first, *rest = out.split()
    assert rest == ["own", "True"], errors
    wait_until_gone(int(first))


def test_a_frozen_program_reads_by_itself(told, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    before = children()
    assert said(told("well")) == "well"
    provenance = told("raise")
    assert provenance.outcome is Outcome.ERROR
    assert says("IndexError", provenance.error)
    assert children() == before
