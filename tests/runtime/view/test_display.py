"""The window: its keys, its stills, and the real thing on a virtual screen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import x_display
from click.testing import CliRunner
from clip_maker import face_frames, run_ffmpeg, write_clip
from real_sender import Sender, free_port

from dfd_edge import Detector
from dfd_edge.cli.command import command
from dfd_edge.cli.run import Run, RunRequest
from dfd_edge.judging.results import FrameResult, Label, PersonResult
from dfd_edge.sinks.console import Console, Printer
from dfd_edge.sinks.sink import Sink, Sinks
from dfd_edge.sinks.video_file import VideoFileWriter
from dfd_edge.sources import expand
from dfd_edge.view.overlay import Overlay, ViewSettings
from dfd_edge.view.window import (
    KEYS,
    Window,
    Windows,
    poll_key,
    save_still,
    window_size,
)

ROOT = Path(__file__).parents[3]
on_a_screen = pytest.mark.skipif(x_display.missing() is not None, reason=str(x_display.missing()))


class FakeWindow:
    """A window that keeps what it is shown."""

    opened: ClassVar[list[FakeWindow]] = []

    def __init__(self, title, *, place=None):
        self.title, self.place = title, place
        self.pictures = []
        self.closed = False
        self.opened.append(self)

    def show(self, image):
        self.pictures.append(image)

    def is_open(self):
        return not self.closed

    def close(self):
        self.closed = True


@pytest.fixture
def windows(monkeypatch):
    """The windows that are opened, in place of real ones."""
    monkeypatch.setattr(FakeWindow, "opened", [])
    monkeypatch.setattr("dfd_edge.view.window.Window", FakeWindow)
    return FakeWindow.opened


def press_keys(monkeypatch, keys):
    """Lets keys be pressed one poll after the other; then none."""
    waiting = iter(keys)
    monkeypatch.setattr("dfd_edge.view.window.poll_key", lambda wait_ms: next(waiting, ""))


def scene(time_s=1.5, shade=90, source="clips/a clip.mp4"):
    evidence = np.full((5, 5), 6.0, np.float32)
    person = PersonResult(
        1, (60.0, 60.0, 120.0, 120.0), (50, 50, 80), True, None, 0.9, 0.9, 0.9, Label.FAKE, evidence
    )
    result = FrameResult(source, time_s, (person,), Label.FAKE)
    image = np.full((240, 320, 3), shade, np.uint8)
    return Overlay(0.8, 0.3, source=source).scene(image, time_s, result)


def show(screen, frame):
    """Shows a frame while no key is pressed."""
    screen.image(frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfd_edge.view.window.poll_key", lambda wait_ms: "")
        screen.poll()


def test_a_window_that_is_closed_before_its_first_picture_is_no_error(monkeypatch):
    """OpenCV forgets all that belongs to its windows with the last one."""

    def refuse(*_):
        raise cv2.error("NULL guiReceiver (please create a window)")

    for name in ("namedWindow", "imshow"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "resizeWindow", refuse)
    window = Window("clip.mp4")
    monkeypatch.setattr(cv2, "getWindowProperty", refuse)
    window.show(np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    with pytest.raises(cv2.error):
        window.show(np.zeros((8, 8, 3), np.uint8))


class TestKeys:
    @pytest.fixture
    def screen(self, windows, tmp_path):
        notes = []
        screen = Windows(ViewSettings(), stop=threading.Event(), note=notes.append, folder=tmp_path)
        screen.notes = notes
        screen.stop = screen._stop
        show(screen, scene())
        return screen

    @pytest.mark.parametrize("key", ["q", "\x1b"])
    def test_quit(self, screen, key):
        screen.press(key)
        assert screen.stop.is_set()

    @pytest.mark.parametrize("key", [" ", "p"])
    def test_pause_freezes_the_picture_and_goes_on(self, screen, windows, key):
        screen.press(key)
        paused = windows[0].pictures[-1]
        assert (paused != windows[0].pictures[0]).any(), "the header says so"
        later = scene(2.0, shade=30)
        show(screen, later)
        assert windows[0].pictures[-1] is paused
        screen.press(key)
        show(screen, later)
        assert windows[0].pictures[-1][130, 200].tolist() == [30, 30, 30]

    def test_the_evidence_map_goes_and_comes(self, screen, windows):
        inside = (slice(80, 100), slice(80, 100))
        screen.press("e")
        assert (windows[0].pictures[-1][inside] == 90).all()
        screen.press("e")
        assert (windows[0].pictures[-1] == windows[0].pictures[0]).all()

    @pytest.mark.parametrize("key", ["h", "?"])
    def test_the_list_of_keys_comes_and_goes(self, screen, windows, key):
        screen.press(key)
        assert (windows[0].pictures[-1] != windows[0].pictures[0]).any()
        screen.press(key)
        assert (windows[0].pictures[-1] == windows[0].pictures[0]).all()

    def test_other_keys_do_nothing(self, screen, windows):
        for key in "axz1\t":
            screen.press(key)
        assert not screen.stop.is_set()
        assert screen.settings == ViewSettings()
        assert len(windows[0].pictures) == 1

    def test_a_still_is_the_annotated_frame_and_replaces_none(self, screen, windows, tmp_path):
        screen.press("p")
        screen.press("h")
        screen.press("s")
        screen.press("s")
        names = ["a-clip_1.50s-2.png", "a-clip_1.50s.png"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert screen.notes == [f"still saved: {tmp_path / name}" for name in reversed(names)]
        still = cv2.imread(str(tmp_path / names[0]))
        assert (still == windows[0].pictures[0]).all(), "without pause and keys in it"

    def test_a_still_that_cannot_be_saved_is_one_line(self, windows, tmp_path):
        notes = []
        screen = Windows(
            ViewSettings(), stop=threading.Event(), note=notes.append, folder=tmp_path / "gone"
        )
        show(screen, scene())
        screen.press("s")
        (note,) = notes
        assert str(tmp_path / "gone") in note
        assert "No such file" in note

    def test_one_window_a_source_and_keys_for_all(self, screen, windows):
        show(screen, scene(shade=60, source="camera \x1b 1"))
        assert [window.title for window in windows] == ["clips/a clip.mp4", "camera \\x1b 1"]
        assert [window.place for window in windows] == [None, (480, 0)]
        screen.press("e")
        assert all(len(window.pictures) == 2 for window in windows)

    def test_windows_do_not_cover_each_other(self, windows, tmp_path):
        screen = Windows(ViewSettings(), stop=threading.Event(), note=print, folder=tmp_path)
        for number in range(12):
            show(screen, scene(source=f"camera {number}"))
        places = [window.place or (0, 0) for window in windows]
        assert places == [(480 * x, 360 * y) for y in range(3) for x in range(4)]
        show(screen, scene(source="one more"))
        assert windows[-1].place not in places

    def test_a_closed_window_is_told(self, screen, windows, monkeypatch):
        press_keys(monkeypatch, [])
        assert screen.poll()
        windows[0].closed = True
        assert not screen.poll()


@pytest.mark.parametrize(
    ("code", "key"),
    [
        (-1, ""),
        (ord("q"), "q"),
        (ord("Q"), "q"),
        (0x100000 | ord("e"), "e"),  # with num lock held, as some backends say
        (27, "\x1b"),
        (0xFF51, ""),  # the left arrow; its last byte is that of "Q"
        (0xFFE1, ""),  # shift
    ],
)
def test_codes_of_keys(monkeypatch, code, key):
    monkeypatch.setattr("dfd_edge.view.window.cv2.waitKeyEx", lambda wait_ms: code)
    assert poll_key() == key


@pytest.mark.parametrize(
    ("size", "opened"),
    [
        ((1280, 720), (1280, 720)),
        ((3840, 2160), (1600, 900)),
        ((320, 240), (480, 360)),
        ((1080, 1920), (506, 900)),
        ((3000, 30), (1600, 16)),
    ],
)
def test_a_window_opens_readable_and_no_larger_than_a_screen(size, opened):
    assert window_size(np.zeros((size[1], size[0], 3), np.uint8)) == opened


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clips/a.mp4", "a_12.34s.png"),
        ("camera 0", "camera-0_12.34s.png"),
        ("rtsp://camera:554/live/1?token=...", "camera-554-live-1_12.34s.png"),
        ("/dev/video0", "video0_12.34s.png"),
        ("-", "still_12.34s.png"),
        ("a\udcff\x1b[2J.mp4", "a-2J_12.34s.png"),
        ("x" * 300 + ".mp4", "x" * 48 + "_12.34s.png"),
    ],
)
def test_names_of_stills(tmp_path, source, name):
    image = np.zeros((8, 8, 3), np.uint8)
    assert save_still(image, source, 12.34, tmp_path) == tmp_path / name


def test_every_key_is_documented():
    shown = CliRunner().invoke(command, ["--help"]).output
    shown = " ".join(shown.partition("--window / --no-window")[2].split())
    page = (ROOT / "docs" / "live-view.md").read_text(encoding="utf-8")
    for names, _ in KEYS:
        for name in names.split(", "):
            assert f"`{name}`" in page
            assert f" {name} " in shown


class TestFiles:
    """Files in a window that does what it is told."""

    def run(self, detector, path, **options):
        frames = []

        class Counting(Sink):
            def frame(self, result):
                frames.append(result.time_s)

        printer = Printer()
        sinks = Sinks(Counting(), Console(printer))
        run = Run(detector, RunRequest(window=True, **options), sinks, printer)
        run.files(expand([path])[0])
        return run, frames

    @pytest.fixture
    def detector(self, tiny_bundle):
        return Detector.load(tiny_bundle)

    def test_judging_waits_while_paused(self, detector, face_clip, windows, monkeypatch):
        seen = []
        keys = iter(["", "p", *[""] * 20, " "])

        def poll(wait_ms):
            seen.append(len(windows[0].pictures))
            return next(keys, "")

        monkeypatch.setattr("dfd_edge.view.window.poll_key", poll)
        run, frames = self.run(detector, face_clip)
        assert seen[2:22] == [seen[2]] * 20, "nothing new was shown"
        assert len(frames) == 15, "and all of it was judged afterwards"
        assert run.verdicts[0].complete

    def test_pausing_does_not_count_as_time_that_judging_took(
        self, detector, face_clip, windows, monkeypatch
    ):
        clock, away_s = time.perf_counter, [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: clock() + away_s[0])
        keys = iter(["p", "", "p"])

        def poll(wait_ms):
            key = next(keys, None)
            if key == "":
                away_s[0] += 600.0  # the user has gone for coffee
            return key or ""

        monkeypatch.setattr("dfd_edge.view.window.poll_key", poll)
        run, _ = self.run(detector, face_clip)
        assert run.verdicts[0].realtime_factor > 3.0 / 300.0

    def test_quit_while_paused(self, detector, face_clip, windows, monkeypatch):
        press_keys(monkeypatch, ["p", "", "", "q"])
        run, _ = self.run(detector, face_clip)
        assert run.stop.is_set()
        assert not run.verdicts[0].complete

    def test_pause_and_help_stay_out_of_annotated_video(
        self, detector, face_clip, windows, monkeypatch, tmp_path
    ):
        """Pictures are compared before they are encoded: x264 does not repeat itself bit by bit."""
        films = {"shown": ["h", "p", "", "p"], "plain": []}
        pictures = {name: [] for name in films}
        add = VideoFileWriter.add
        for name, keys in films.items():

            def noting(writer, image, time_s, into=pictures[name]):
                into.append(image.copy())
                add(writer, image, time_s)

            monkeypatch.setattr(VideoFileWriter, "add", noting)
            press_keys(monkeypatch, keys)
            self.run(detector, face_clip, save_video=tmp_path / f"{name}.mp4")
        assert len(pictures["shown"]) == len(pictures["plain"]) > 10
        assert np.array_equal(pictures["shown"], pictures["plain"])

    def test_images_are_shown_one_after_the_other(self, detector, windows, monkeypatch, tmp_path):
        for name in ("a.png", "b.png"):
            cv2.imwrite(str(tmp_path / name), face_frames(1)[0])
        polls = []

        def poll(wait_ms):
            polls.append(len(windows))
            if len(polls) in (5, 10):
                windows[-1].closed = True
            return ""

        monkeypatch.setattr("dfd_edge.view.window.poll_key", poll)
        run, _ = self.run(detector, tmp_path)
        assert [window.title[-5:] for window in windows] == ["a.png", "b.png"]
        assert len(run.verdicts) == 2
        assert not run.stop.is_set()


def start(screen, *arguments, folder=None):
    """Starts the real command on a screen."""
    environment = {**os.environ, "DISPLAY": screen.name, "QT_QPA_PLATFORM": "xcb"}
    environment.pop("WAYLAND_DISPLAY", None)
    return subprocess.Popen(
        [sys.executable, "-m", "dfd_edge", *map(str, arguments)],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory, plain_clip):
    """Ten minutes, far more than a test takes."""
    path = tmp_path_factory.mktemp("window") / "long.mp4"
    run_ffmpeg("-stream_loop", "299", "-i", plain_clip, "-c", "copy", path)
    return path


def changed(one, other):
    return (one != other).any(axis=2).mean()


@on_a_screen
def test_a_clip_in_a_real_window(tiny_bundle, long_clip, tmp_path):
    x_display.try_again(lambda folder: use_a_window(tiny_bundle, long_clip, folder), tmp_path)


def use_a_window(bundle, clip, folder):
    with x_display.Screen() as screen:
        process = start(screen, "--model", bundle, "--window", clip, folder=folder)
        try:
            window = screen.wait_for_window("long.mp4")

            def stands_still():
                before = screen.picture()
                time.sleep(1.0)
                return before.any() and not changed(before, screen.picture())

            screen.press_until(window, "p", stands_still, "the picture to stand still")
            paused = screen.picture()
            screen.press(window, "?")
            x_display.wait_for(lambda: changed(screen.picture(), paused) > 0.005, "the keys")
            screen.press(window, "h")
            x_display.wait_for(lambda: not changed(screen.picture(), paused), "them to go")
            screen.press(window, "s")
            still = x_display.wait_for(lambda: list(folder.glob("*.png")), "a still")
            screen.press(window, "Left")
            screen.press(window, " ")
            x_display.wait_for(lambda: changed(screen.picture(), paused) > 0.1, "it to go on")
            screen.press(window, "Escape")
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "stopped before its end" in out
    assert f"still saved: {still[0]}" in err
    assert cv2.imread(str(still[0])).shape == (240, 320, 3)


@on_a_screen
def test_a_window_that_is_closed_ends_the_run(tiny_bundle, long_clip):
    with x_display.Screen() as screen:
        process = start(screen, "--model", tiny_bundle, "--window", long_clip)
        try:
            screen.close_window(screen.wait_for_window("long.mp4"))
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "stopped before its end" in out


@on_a_screen
def test_a_clip_to_its_end_in_a_real_window(tiny_bundle, plain_clip):
    with x_display.Screen() as screen:
        process = start(screen, "--model", tiny_bundle, "--window", plain_clip)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "NO_FACE" in out


@pytest.mark.slow
@on_a_screen
def test_two_live_sources_in_real_windows(tiny_bundle, tmp_path):
    x_display.try_again(lambda folder: use_two_windows(tiny_bundle, folder), tmp_path)


def use_two_windows(bundle, folder):
    clip = write_clip(folder / "clip.ts", face_frames(75), options={"g": "5"})
    ports = [free_port(socket.SOCK_DGRAM) for _ in range(2)]
    senders = [Sender(clip, f"udp://127.0.0.1:{port}?pkt_size=1316") for port in ports]
    addresses = [f"udp://127.0.0.1:{port}" for port in ports]
    with x_display.Screen() as screen, senders[0], senders[1]:
        process = start(screen, "--model", bundle, *addresses, folder=folder)
        try:
            windows = [screen.wait_for_window(address) for address in addresses]

            def stills_of_both():
                return len({path.name.rpartition("_")[0] for path in folder.glob("*.png")}) == 2

            screen.press_until(windows[1], "s", stills_of_both, "both stills")
            screen.press(windows[0], "q")
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert all(address in out for address in addresses)


def test_a_window_without_a_display_is_refused(tiny_bundle, plain_clip, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    arguments = ["--model", str(tiny_bundle), "--window", str(plain_clip)]
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "--save-video" in done.stderr
