"""What a run does with live sources, driven by a device that does what it is told."""

from __future__ import annotations

import threading
import time

import pytest
from clip_maker import face_frames

from dfd_edge import Detector
from dfd_edge.cli.run import Run, RunRequest
from dfd_edge.errors import SourceError
from dfd_edge.judging.stream import Stream
from dfd_edge.sinks.console import Console, Printer
from dfd_edge.sinks.sink import Images, Sink, Sinks
from dfd_edge.sources import Frame, SourceItem, SourceKind, VideoFile, expand
from dfd_edge.sources.frames import Sampler

CAMERA = SourceItem(SourceKind.CAMERA, 0, "device")


class Device:
    """Shows a second of pictures as a recording does, then ends or fails."""

    finite = True
    reason = None

    def __init__(self, error=None):
        self.error = error

    def frames(self, sampler, *, every=False, bursts=False):
        for index, picture in enumerate(face_frames(25)):
            due = sampler.is_due(index / 25)
            if due or every:
                yield Frame(picture, index / 25, index, due)
        if self.error is not None:
            raise self.error

    def close(self):
        pass


class DeviceDetector(Detector):
    """Watches a device in place of a camera."""

    device: Device

    def _connect(self, item, stop):
        return self.device


@pytest.fixture
def detector(tiny_bundle):
    return DeviceDetector.load(tiny_bundle)


def run_of(detector, *sinks, **options):
    """A run that prints as the command line does, with more sinks."""
    printer = Printer()
    return Run(detector, RunRequest(**options), Sinks(*sinks, Console(printer)), printer)


def run_live(detector, *sinks, **options):
    run = run_of(detector, *sinks, **options)
    run.live([CAMERA])
    return run


@pytest.mark.parametrize(
    "error", [RuntimeError("out of film"), SourceError("device", "out of film")]
)
def test_any_error_is_one_of_its_source(detector, tmp_path, capsys, error):
    detector.device = Device(error)
    path = tmp_path / "out.mp4"
    path.write_text("before")
    run = run_live(detector, save_video=path)
    (verdict,) = run.verdicts
    assert run.failures == 1
    assert verdict.frames == 5
    assert not verdict.complete
    assert verdict.reason
    assert "device" in capsys.readouterr().err
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_results_are_handed_on_counts_too(detector, capsys):
    class FullDisk(Sink):
        def frame(self, result):
            raise OSError(28, "No space left on device")

    detector.device = Device()
    run = run_live(detector, FullDisk())
    assert run.failures == 1
    assert not run.verdicts[0].complete
    assert "No space left" in capsys.readouterr().err


def test_annotated_video_of_a_live_source(detector, tmp_path):
    detector.device = Device()
    run = run_live(detector, save_video=tmp_path / "out.mp4")
    assert run.failures == 0
    assert run.verdicts[0].complete
    with VideoFile(tmp_path / "out.mp4") as video:
        assert len(list(video.frames(Sampler(1000.0)))) == 25


def test_a_board_too_slow_to_end_in_time_writes_nothing_after_the_end(
    detector, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("dfd_edge.cli.run._FINISH_VIDEO_S", 0.0)
    detector.device = Device()

    class Slow(Sink):
        def frame(self, result):
            run.stop.set()
            time.sleep(0.3)

    run = run_of(detector, Slow(), save_video=tmp_path / "out.mp4")
    run.live([CAMERA])
    time.sleep(0.5)
    assert run.failures == 0
    assert "Traceback" not in capsys.readouterr().err
    with VideoFile(tmp_path / "out.mp4") as video:
        assert list(video.frames(Sampler(1000.0)))


class TestAnnotatedVideoThatCannotBeWritten:
    """A disk that is full, by a limit on the size of files."""

    @pytest.fixture
    def limit(self):
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        def set_limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

        yield set_limit
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.fixture
    def undrawn(self, monkeypatch):
        """Staleness and rate stay out of the pictures, so that each run's file has one size."""
        monkeypatch.setattr(
            "dfd_edge.view.overlay.Scene.drawn", lambda scene, **_: scene.image.copy()
        )

    def size_of_whole(self, detector, tmp_path):
        path = tmp_path / "whole.mp4"
        detector.device = Device()
        run_live(detector, save_video=path)
        size = path.stat().st_size
        path.unlink()
        return size

    @pytest.mark.usefixtures("undrawn")
    @pytest.mark.parametrize("left_out", [100, 3000])
    def test_of_a_live_source(self, detector, tmp_path, capsys, limit, left_out):
        size = self.size_of_whole(detector, tmp_path)
        path = tmp_path / "out.mp4"
        path.write_text("before")
        capsys.readouterr()
        detector.device = Device()
        limit(size - left_out)
        run = run_live(detector, save_video=path)
        self.check(run, path, capsys.readouterr())
        (verdict,) = run.verdicts
        assert verdict.frames == 5
        assert verdict.complete, "the judging was not disturbed"

    @pytest.mark.usefixtures("undrawn")
    @pytest.mark.parametrize("left_out", [600, 3000])  # x264's size differs by up to 263 bytes
    def test_of_a_file(self, detector, face_clip, tmp_path, capsys, limit, left_out):
        (item,), _ = expand([face_clip])
        path = tmp_path / "out.mp4"
        run_of(detector, save_video=path).files([item])
        size = path.stat().st_size
        path.write_text("before")
        capsys.readouterr()
        limit(size - left_out)
        run = run_of(detector, save_video=path)
        run.files([item])
        self.check(run, path, capsys.readouterr())
        assert [verdict.frames for verdict in run.verdicts] == [15]

    def check(self, run, path, said):
        assert run.failures == 1
        (line,) = [line for line in said.err.splitlines() if "error" in line]
        assert f"{path}: the annotated video cannot be written (File too large)" in line
        assert "Traceback" not in said.err
        assert path.read_text() == "before"
        assert list(path.parent.iterdir()) == [path]


def test_nothing_comes_after_the_verdict(detector, monkeypatch):
    """The source's thread outlives the run, as on a board where a frame takes long."""
    monkeypatch.setattr("dfd_edge.cli.run._JOIN_S", 0.0)
    detector.device = Device()
    told = []
    slow = threading.Event()
    score = Stream.score

    def slow_score(self, observations):
        results = score(self, observations)
        run.stop.set()
        assert slow.wait(30)
        return results

    class Noting(Sink):
        images = Images.EVERY

        def frame(self, result):
            told.append("frame")

        def event(self, event):
            told.append("event")

        def image(self, scene):
            images.append(scene)

        def verdict(self, verdict):
            told.append("verdict")

    images = []
    monkeypatch.setattr(Stream, "score", slow_score)
    run = run_of(detector, Noting())
    run.live([CAMERA])
    assert told[-1] == "verdict"
    count, seen = len(told), len(images)
    (thread,) = [t for t in threading.enumerate() if t.name == "dfd-edge device"]
    slow.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(told) == count
    assert len(images) == seen
    assert run.failures == 0


def test_threads_that_hang_hold_up_the_end_once_and_not_each(detector, monkeypatch):
    monkeypatch.setattr("dfd_edge.cli.run._JOIN_S", 0.3)
    detector.device = Device()
    waiting = threading.Event()
    score = Stream.score

    def hanging(self, observations):
        results = score(self, observations)
        run.stop.set()
        waiting.wait(30)
        return results

    monkeypatch.setattr(Stream, "score", hanging)
    run = run_of(detector)
    cameras = [SourceItem(SourceKind.CAMERA, 0, f"device {number}") for number in range(8)]
    started_s = time.monotonic()
    run.live(cameras)
    took_s = time.monotonic() - started_s
    stopped = [t for t in threading.enumerate() if t.name.startswith("dfd-edge device")]
    waiting.set()
    for thread in stopped:
        thread.join(30)
    assert took_s < 8 * 0.3


def test_a_paused_window_of_a_live_source_stands_still_while_judging_goes_on(detector, monkeypatch):
    shown = []

    class FakeWindow:
        def __init__(self, title, *, place=None):
            pass

        def show(self, image):
            shown.append(image)

        def is_open(self):
            return True

        def close(self):
            pass

    pressed = []

    def poll(wait_ms):
        time.sleep(wait_ms / 1e3)
        if shown and not pressed:
            pressed.append("p")
            return "p"
        return ""

    monkeypatch.setattr("dfd_edge.view.window.Window", FakeWindow)
    monkeypatch.setattr("dfd_edge.view.window.poll_key", poll)
    device = detector.device = Device()
    frames = device.frames

    def held(sampler, *, every, bursts):
        """Waits after the first frame until the window was paused."""
        for frame in frames(sampler, every=every, bursts=bursts):
            yield frame
            until_s = time.monotonic() + 30
            while not pressed and time.monotonic() < until_s:
                time.sleep(0.01)

    monkeypatch.setattr(device, "frames", held)
    run = run_live(detector, window=True)
    assert run.verdicts[0].frames == 5
    assert len(shown) == 2, "the first frame, and again with PAUSED in its header"
    assert (shown[0][60:150] == shown[1][60:150]).all()
    assert (shown[0] != shown[1]).any()
