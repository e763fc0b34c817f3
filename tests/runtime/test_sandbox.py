"""A child process decodes what nobody vouches for: its limits, its death, and the same verdicts."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import cv2
import pytest
from clip_maker import face_frames, portrait, write_clip
from PIL import Image

from dfd_edge import Detector, EventKind, SourceError, UsageError
from dfd_edge.sandbox import process as sandbox_process
from dfd_edge.sandbox import source as sandbox_source
from dfd_edge.sources import SourceOptions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps all the limits")

SANDBOXED = SourceOptions(sandbox=True)
NARROW = SourceOptions(sandbox=True, sandbox_memory_mb=256)
SOON_S = 5.0


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("sandbox") / "clip.mp4", face_frames(75))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """So long that a child is still at work when its first frames were judged."""
    return write_clip(tmp_path_factory.mktemp("sandbox") / "long.mp4", face_frames(350))


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A picture of a few kilobytes that takes 192 MB, and so does its decoder."""
    path = tmp_path_factory.mktemp("sandbox") / "huge.png"
    Image.new("RGB", (8000, 8000)).save(path)
    return path


def children(pid: int | None = None) -> set[int]:
    """Processes that a process has started, this one by default, and that are still there."""
    tasks = Path(f"/proc/{pid or os.getpid()}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def wait_until_gone(pids: set[int]) -> None:
    until_s = time.monotonic() + SOON_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until_s, f"{pids} are still there"
        time.sleep(0.02)


# The same verdicts


@pytest.mark.parametrize("every_image", [False, True])
@pytest.mark.parametrize(("size", "rotation"), [((320, 240), None), ((960, 720), 90)])
def test_a_sandbox_changes_nothing_of_a_film_s_results(
    detector, tmp_path, every_image, size, rotation
):
    """Small pictures come converted, large ones as planes."""
    clip = write_clip(tmp_path / "clip.mp4", face_frames(75, size=size), rotation=rotation)

    def judged(options):
        frames, images = [], []
        verdict = detector.analyze(
            clip,
            options=options,
            on_frame=frames.append,
            on_image=lambda frame, _: images.append((frame.time_s, frame.image.tobytes())),
            every_image=every_image,
        )
        scores = [
            (frame.time_s, [(p.track, p.box, p.p_frame, p.p_step, p.p_fake) for p in frame.people])
            for frame in frames
        ]
        return scores, images, dataclasses.replace(verdict, realtime_factor=None)

    assert judged(SANDBOXED) == judged(SourceOptions(sandbox=False))


def test_a_sandbox_changes_nothing_of_a_still_s_verdict(detector, tmp_path):
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), portrait())
    verdict = detector.analyze(path, options=SANDBOXED)
    assert verdict.people
    assert verdict == detector.analyze(path)


def test_a_cut_film_is_incomplete_for_the_same_reason(detector, clip, tmp_path):
    path = write_clip(tmp_path / "cut.mkv", face_frames(75))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    inside, outside = (detector.analyze(path, options=o) for o in (SANDBOXED, None))
    assert not inside.complete
    assert (inside.p_fake, inside.reason) == (outside.p_fake, outside.reason)


def test_errors_of_a_source_are_those_without_a_sandbox(detector, tmp_path):
    path = tmp_path / "noise.mp4"
    path.write_bytes(os.urandom(5000))
    messages = []
    for options in (SANDBOXED, None):
        with pytest.raises(SourceError) as caught:
            detector.analyze(path, options=options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_fault_in_the_child_names_the_source(detector, clip, tmp_path, monkeypatch):
    """The fault is that of a library of another version, in the child only."""
    fails = "def fails(*args, **kwargs): raise TypeError('no such argument')"
    (tmp_path / "sitecustomize.py").write_text(f"import av\n{fails}\nav.open = fails\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SourceError) as caught:
        detector.analyze(clip, options=SANDBOXED)
    assert str(caught.value).startswith(f"{clip}: decoding failed in its sandbox (TypeError): ")
    assert "--no-sandbox" in str(caught.value)


# Limits


def confined(code: str, *arguments: str) -> str:
    """The output of code in a process that is confined as a decoding one."""
    program = f"""
        import os, socket, sys
        from dfd_edge.sandbox import confining
        confining.leave_network()
        confining.limit(256)
        confining.read_only(sys.argv[1:])
        try:
            {code}
        except Exception as error:
            print(type(error).__name__)
        else:
            print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or f"died of {-done.returncode}"


def test_a_sandbox_reads_its_source_and_no_other_file(tmp_path):
    own, other = tmp_path / "own.mp4", tmp_path / "other.txt"
    for path in (own, other):
        path.write_text("text")
    assert confined("open(sys.argv[1]).read()", str(own)) == "done"
    if confined(f"open({str(other)!r}).read()", str(own)) == "done":
        pytest.skip("this system has no Landlock")
    assert confined(f"open({str(other)!r}).read()", str(own)) == "PermissionError"
    assert confined(f"os.listdir({str(tmp_path)!r})", str(own)) == "PermissionError"
    assert confined(f"os.remove({str(own)!r})", str(own)) == "PermissionError"


def test_a_sandbox_writes_nothing(tmp_path):
    path = tmp_path / "written"
    assert confined(f"open({str(path)!r}, 'w').write('text')") in (
        "PermissionError",
        f"died of {signal.SIGXFSZ}",
        "OSError",
    )
    assert not path.exists() or not path.stat().st_size


def test_a_sandbox_has_bounded_memory():
    assert confined("bytearray(512 << 20)") == "MemoryError"
    assert confined("bytearray(64 << 20)") == "done"


def test_a_sandbox_of_a_file_has_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if confined("assert len(socket.if_nameindex()) == 1") != "done":
            pytest.skip("this system gives no process a network of its own")
        assert confined(f"socket.create_connection(('127.0.0.1', {port}), 2)") == "OSError"


def test_too_much_memory_is_an_error_that_says_so(detector, huge, clip):
    with pytest.raises(SourceError, match=r"huge\.png: decoding takes more than the 256 MB"):
        detector.analyze(huge, options=NARROW)
    assert sandbox_source.sandboxed_still(_item(huge)).shape == (8000, 8000, 3)
    assert detector.analyze(clip, options=NARROW).complete


def test_the_run_goes_on_after_a_limit_was_hit(tiny_bundle, huge, clip):
    flags = ["--json", "--sandbox", "--sandbox-memory", "256", "--model", str(tiny_bundle)]
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *flags, str(huge), str(clip)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert "--sandbox-memory" in done.stdout + done.stderr
    assert [r["source"] for r in records if r["record"] == "verdict"] == [str(clip)]


@pytest.mark.parametrize("memory_mb", [0, 255])
def test_less_memory_than_the_libraries_take_is_refused(memory_mb):
    with pytest.raises(UsageError, match="give a whole number from 256"):
        SourceOptions(sandbox_memory_mb=memory_mb)


# Death


@pytest.mark.parametrize(
    ("sign", "message"),
    [
        (signal.SIGKILL, r"long\.mp4: the sandbox that decoded it was killed \(SIGKILL\)"),
        (signal.SIGSEGV, r"long\.mp4: decoding crashed in its sandbox \(SIGSEGV\)"),
        (signal.SIGSTOP, r"long\.mp4: decoding got nowhere for 1 s"),
    ],
)
def test_a_sandbox_that_dies_or_hangs_is_an_error(
    detector, clip, long_clip, monkeypatch, sign, message
):
    before = children()

    def strike(_):
        monkeypatch.setattr(sandbox_source, "STALL_S", 1.0)
        for child in children() - before:
            with contextlib.suppress(ProcessLookupError):  # struck already, as its last frames came
                os.kill(child, sign)

    with pytest.raises(SourceError, match=message):
        detector.analyze(long_clip, options=SANDBOXED, on_frame=strike)
    monkeypatch.undo()
    assert children() == before
    assert detector.analyze(clip, options=SANDBOXED).complete


def _said(message: dict[str, object], picture_bytes: int) -> bytes:
    text = json.dumps(message).encode()
    return struct.pack(">IQ", len(text), picture_bytes) + text


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 64,
        b"\0\0\0\2" + b"\0" * 8 + b"[]",
        b"\0\0\0\x0e" + b"\0" * 7 + b'\x03{"shape":[9,9]}',
        b'\0\0\0\x15\0\0\0\0\0\0\0\0{"times_s": [1e99999]}',
        _said({"planes": ["yuv420p", 64, 64, 1, 1, 0, False]}, 6143),
        _said({"planes": ["bgr24", 64, 64, 1, 1, 0, False]}, 12288),
        _said({"planes": ["yuv420p", 1 << 40, 64, 1, 1, 0, False]}, 3 << 45),
        _said({"planes": ["yuv420p", 64, 64, 3, 1, 0, False]}, 6144),
        _said({"planes": ["yuv420p", 64, 64, 1, 1, 45, False]}, 6144),
        _said({"planes": ["yuv420p", 64, 64]}, 6144),
        b'\0\0\0\x1b\0\0\0\0\0\0\0\0{"changed":{"end_s":"soon"}}',
    ],
)
def test_a_sandbox_that_was_taken_over_is_an_error(detector, clip, monkeypatch, said):
    program = f"import os, sys; os.write(int(sys.argv[1]), {said!r}); sys.stdin.read()"
    popen = subprocess.Popen

    def start(command, given, environment, *, takes_input):
        return popen([sys.executable, "-c", program, str(given[1])], pass_fds=given)

    monkeypatch.setattr(sandbox_process, "_start", start)
    with pytest.raises(SourceError, match=r"clip\.mp4: the sandbox sent no sense"):
        detector.analyze(clip, options=SANDBOXED)


def test_a_sandbox_ends_with_its_parent(clip):
    program = f"""
        import os, time
        from dfd_edge.sandbox.source import SandboxedSource
        from dfd_edge.sources import SourceItem
        source = SandboxedSource(SourceItem.of({str(clip)!r}), live=False)
        print("open", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"open\n"
        started = children(parent.pid)
        assert started
        parent.kill()
    wait_until_gone(started)


@pytest.mark.slow
def test_nothing_is_left_behind(detector, clip, huge):
    def held():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), children()  # noqa: PTH208

    def judged():
        assert detector.analyze(clip, options=SANDBOXED, duration_s=0.5).frames

    def refused():
        with pytest.raises(SourceError):
            detector.analyze(huge, options=NARROW)

    def forgotten():
        sandbox_source.SandboxedSource(_item(clip), live=False)

    ways = (judged, refused, forgotten)
    for way in ways:
        way()
    before = held()
    for number in range(20):
        ways[number % 3]()
    assert held() == before


def test_a_film_can_be_stopped(detector, clip):
    stop, before = threading.Event(), children()
    verdict = detector.analyze(clip, options=SANDBOXED, stop=stop, on_frame=lambda _: stop.set())
    assert verdict.reason == "stopped before its end"
    wait_until_gone(children() - before)


# Programs


def test_a_program_needs_no_guard_for_its_main_module(tiny_bundle, clip, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from dfd_edge import Detector\n"
        "from dfd_edge.sources import SourceOptions\n"
        f"detector = Detector.load({str(tiny_bundle)!r})\n"
        f"verdict = detector.analyze({str(clip)!r}, options=SourceOptions(sandbox=True))\n"
        "print(verdict.frames)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "15\n", done.stderr


def test_modules_of_the_working_folder_are_not_run(clip, tmp_path, monkeypatch):
    (tmp_path / "cv2.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    with sandbox_source.SandboxedSource(_item(clip), live=False) as opened:
        assert opened.width == 320


def test_secrets_of_the_environment_stay_with_the_parent(clip, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "secret")
    before = children()
    with sandbox_source.SandboxedSource(_item(clip), live=False):
        (child,) = children() - before
        assert b"secret" not in Path(f"/proc/{child}/environ").read_bytes()


def test_a_frozen_program_has_none_and_says_so(detector, clip, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(UsageError, match="frozen program"):
        detector.analyze(clip, options=SANDBOXED)
    with pytest.raises(SourceError, match="cannot be opened"):  # in this process
        detector.watch("http://127.0.0.1:9/live")


def test_standard_input_is_decoded_in_a_sandbox(tiny_bundle, tmp_path):
    path = write_clip(tmp_path / "clip.mkv", face_frames(30))
    command = [
        sys.executable,
        "-m",
        "dfd_edge.cli.command",
        "--model",
        str(tiny_bundle),
        "--sandbox",
        "-",
    ]
    done = subprocess.run(
        command, input=path.read_bytes(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"standard input" in done.stdout


# Live


@pytest.fixture
def sender(tmp_path):
    """The address of a server that sends a film again and again to whoever asks."""
    frames = face_frames(50)
    options = {"g": "5", "tune": "zerolatency", "preset": "ultrafast"}
    data = write_clip(tmp_path / "live.ts", frames, options=options).read_bytes()
    listening = socket.create_server(("127.0.0.1", 0))

    def send(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # whoever asked is gone
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
            for start in range(0, len(data), 4096):
                connection.sendall(data[start : start + 4096])
                time.sleep(2.0 * 4096 / len(data))
            time.sleep(SOON_S)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=send, args=[connection], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/live.ts"
    listening.close()


def test_an_address_is_decoded_in_a_sandbox_and_again_after_it_died(detector, sender):
    events, before = [], children()
    with detector.watch(sender, on_event=events.append) as watch:
        next(watch)
        first = children() - before
        assert len(first) == 1
        os.kill(*first, signal.SIGSEGV)
        while not events or events[-1].kind is not EventKind.RECONNECT:
            next(watch)
        assert children() - before
        closing_s = time.monotonic()
    assert time.monotonic() - closing_s < 0.2
    assert "crashed" in events[0].detail
    wait_until_gone(children() - before)


def test_an_address_is_decoded_in_this_process_where_that_is_wished(detector, sender):
    before = children()
    with detector.watch(sender, options=SourceOptions(sandbox=False)) as watch:
        next(watch)
        assert children() == before


def _item(path):
    from dfd_edge.sources import SourceItem

    return SourceItem.of(path)


@pytest.mark.parametrize("opened", [False, True])
def test_data_in_memory_is_decoded_in_a_sandbox(detector, clip, opened):
    source = clip.open("rb") if opened else clip.read_bytes()
    verdict = detector.analyze(source, options=SANDBOXED)
    assert verdict.p_fake == detector.analyze(clip).p_fake


@pytest.mark.slow
def test_an_animation_is_decoded_in_a_sandbox(detector, tmp_path):
    frames = [Image.fromarray(frame[:, :, ::-1]) for frame in face_frames(10)]
    for name in ("animated.webp", "animated.png", "animated.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=200)
        inside, outside = (
            detector.analyze(tmp_path / name, options=options) for options in (SANDBOXED, None)
        )
        assert dataclasses.replace(inside, realtime_factor=outside.realtime_factor) == outside
