"""What a run does with live sources, driven by a device that does what it is told."""

from __future__ import annotations

import time

import pytest
from clip_maker import face_frames

from dfd_edge import Detector
from dfd_edge.errors import SourceError
from dfd_edge.outputs.reporter import Reporter
from dfd_edge.running import Run, RunOptions
from dfd_edge.sampling import Sampler
from dfd_edge.sources import Frame, SourceItem, SourceKind, VideoFile

CAMERA = SourceItem(SourceKind.CAMERA, 0, "device")


class Device:
    """Shows a second of pictures as a recording does, then ends or fails."""

    finite = True
    reason = None

    def __init__(self, error=None):
        self.error = error

    def frames(self, sampler):
        for index, picture in enumerate(face_frames(25)):
            if sampler.is_due(index / 25):
                yield Frame(picture, index / 25, index)
        if self.error is not None:
            raise self.error

    def close(self):
        pass


class DeviceDetector(Detector):
    """Watches a device in place of a camera."""

    device: Device

    def _connect(self, item):
        return self.device


@pytest.fixture
def detector(tiny_bundle):
    return DeviceDetector.load(tiny_bundle)


def run_live(detector, reporter, **options):
    run = Run(detector, reporter, RunOptions(**options))
    run.live([CAMERA])
    return reporter.verdicts[0]


@pytest.mark.parametrize("error", [RuntimeError("out of film"), SourceError("device: out of film")])
def test_any_error_is_one_of_its_source(detector, tmp_path, capsys, error):
    detector.device = Device(error)
    path = tmp_path / "out.mp4"
    path.write_text("before")
    reporter = Reporter(as_json=False)
    verdict = run_live(detector, reporter, save_video=path)
    assert reporter.failures == 1
    assert verdict.frames == 5
    assert not verdict.complete
    assert verdict.reason
    assert "device" in capsys.readouterr().err
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_results_are_handed_on_counts_too(detector, capsys):
    class FullDisk(Reporter):
        def frame(self, result):
            raise OSError(28, "No space left on device")

    detector.device = Device()
    reporter = FullDisk(as_json=False)
    verdict = run_live(detector, reporter)
    assert reporter.failures == 1
    assert not verdict.complete
    assert "No space left" in capsys.readouterr().err


def test_annotated_video_of_a_live_source(detector, tmp_path):
    detector.device = Device()
    reporter = Reporter(as_json=False)
    verdict = run_live(detector, reporter, save_video=tmp_path / "out.mp4")
    assert reporter.failures == 0
    assert verdict.complete
    with VideoFile(tmp_path / "out.mp4") as video:
        assert len(list(video.frames(Sampler(1000.0)))) == 25


def test_a_board_too_slow_to_end_in_time_writes_nothing_after_the_end(
    detector, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("dfd_edge.running._FINISH_VIDEO_S", 0.0)
    detector.device = Device()

    class Slow(Reporter):
        def frame(self, result):
            run.stop.set()
            time.sleep(0.3)

    reporter = Slow(as_json=False)
    run = Run(detector, reporter, RunOptions(save_video=tmp_path / "out.mp4"))
    run.live([CAMERA])
    time.sleep(0.5)
    assert reporter.failures == 0
    assert "Traceback" not in capsys.readouterr().err
    with VideoFile(tmp_path / "out.mp4") as video:
        assert list(video.frames(Sampler(1000.0)))
