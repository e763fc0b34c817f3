"""Decoding on a device: choice, refusals and reports, and frames that come back from it.

No device is needed. Frames that the CPU decodes are laid out as a device's are, and count as lying
in its memory until they are downloaded. This never ran on a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from clip_maker import face_frames, run_ffmpeg, write_clip

from dfd_edge import Detector, Event, ProviderError, SourceError, UsageError
from dfd_edge.sources import SourceItem, SourceOptions
from dfd_edge.sources import decoder as decoder_module
from dfd_edge.sources import decoding as decoding_module
from dfd_edge.sources.conversion import Converter
from dfd_edge.sources.decoder import (
    ON_CPU,
    DecoderReport,
    Fault,
    choose_decoder,
    downloaded,
    open_on,
)
from dfd_edge.sources.frames import AllFrames, Frame, Sampler
from dfd_edge.sources.opening import open_file, open_live
from dfd_edge.sources.video import VideoFile

ON_DEVICE = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
needs_no_device = pytest.mark.skipif(
    decoder_module._device_fault(0) is None, reason="an NVIDIA device decodes here"
)

needs_pyav_18 = pytest.mark.skipif(
    int(av.__version__.partition(".")[0]) < 18, reason="PyAV 17 decodes on no device here"
)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose device cannot decode."""
    fault = Fault("the device is on fire", "put it out")
    monkeypatch.setattr(decoder_module, "_device_fault", lambda device: fault)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Lets `on_device` stand in for a device; the times of the frames that were downloaded."""
    times: list[float] = []

    def download(frame: VideoFrame) -> VideoFrame:
        times.append(float(frame.time))
        return downloaded(frame)

    monkeypatch.setattr(
        decoding_module, "is_on_device", lambda frame: frame.format.name in ON_DEVICE.values()
    )
    monkeypatch.setattr(decoding_module, "downloaded", download)
    return times


def on_device(path: Path) -> VideoFile:
    """A film whose decoded frames come as from a device."""
    video = VideoFile(path)
    video.decoder, video._has_device = DecoderReport("cuda", "cuda"), True
    decode = video._decode

    def decoded() -> Iterator[VideoFrame]:
        for frame in decode():
            yield frame.reformat(format=ON_DEVICE[frame.format.name], threads=1)

    video._decode = decoded  # type: ignore[method-assign]
    return video


def device_frame(form: str, size: tuple[int, int]) -> tuple[VideoFrame, VideoFrame]:
    """A frame of noise as a CPU's decoder lays it out, and as a device does."""
    rng = np.random.default_rng(0)
    frame = VideoFrame(*size, form)
    for plane in frame.planes:
        samples = np.frombuffer(memoryview(plane), np.uint8 if form == "yuv420p" else np.uint16)
        samples[:] = rng.integers(0, 256 if form == "yuv420p" else 1024, samples.shape)
    frame.colorspace, frame.color_range, frame.pts = 1, 1, 7
    return frame, frame.reformat(format=ON_DEVICE[form], threads=1)


def test_the_cpu_decodes_unless_asked_otherwise(broken: None) -> None:
    report = choose_decoder("cpu", 3)
    assert report
    assert str(report) == "cpu"
    assert SourceOptions().decoder == "cpu"


def test_auto_falls_back_and_says_why(broken: None) -> None:
    report = choose_decoder("auto")
    assert not report
    assert (report.requested, report.actual) == ("auto", "cpu")
    assert str(report) == "cpu: the device is on fire"


def test_a_named_decoder_never_falls_back(broken: None) -> None:
    with pytest.raises(ProviderError, match="on fire: put it out, or leave --decoder cuda out"):
        choose_decoder("cuda")


def test_a_device_that_runs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_device_fault", lambda device: None)
    report = choose_decoder("auto", 1)
    assert report
    assert str(report) == "cuda 1"


@needs_no_device
def test_a_missing_driver_is_named() -> None:
    fault = decoder_module._device_fault(0)
    assert fault is not None
    assert "driver" in fault.cause or "PyAV" in fault.cause or "device 0" in fault.cause


def test_pyav_17_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "version_of", lambda name: "17.1.0")
    fault = decoder_module._device_fault.__wrapped__(0)
    assert fault == (
        "PyAV 17.1.0 loses the colours of the frames that it downloads",
        "run `pip install 'av>=18'`",
    )


def test_a_fault_of_the_device_is_told_from_one_of_the_file(
    monkeypatch: pytest.MonkeyPatch, face_clip: Path, tmp_path: Path
) -> None:
    """The device works at first and fails as the film is opened."""
    device = DecoderReport("auto", "cuda")
    named = DecoderReport("cuda", "cuda")
    monkeypatch.setattr(decoder_module, "_hwaccel", lambda number: "device")

    def opened(hwaccel: object) -> object:
        if hwaccel is not None:
            raise av.error.ExternalError(5, "the device is full")
        return av.open(face_clip)

    monkeypatch.setattr(decoder_module, "_creation_fault", lambda number: Fault("it is full"))
    container, report = open_on(device, opened)  # type: ignore[arg-type]
    container.close()
    assert str(report) == "cpu: it is full"
    with pytest.raises(ProviderError, match="it is full"):
        open_on(named, opened)  # type: ignore[arg-type]
    monkeypatch.setattr(decoder_module, "_creation_fault", lambda number: None)
    with pytest.raises(av.error.ExternalError, match="the device is full"):
        open_on(named, opened)  # type: ignore[arg-type]


def without_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a device be chosen, on which PyAV then decodes nothing."""
    monkeypatch.setattr(decoder_module, "_device_fault", lambda device: None)
    monkeypatch.setattr(decoder_module, "_hwaccel", lambda device: None)


def test_a_codec_that_the_device_does_not_decode(
    monkeypatch: pytest.MonkeyPatch, face_clip: Path
) -> None:
    without_device(monkeypatch)
    with VideoFile(face_clip, decoder=choose_decoder("auto")) as video:
        assert str(video.decoder) == "cpu: the device does not decode h264"
        assert video.notes == ("decoded on the CPU: the device does not decode h264",)
        assert len(list(video.frames(Sampler(5.0)))) == 15
    with pytest.raises(ProviderError, match="does not decode h264"):
        VideoFile(face_clip, decoder=choose_decoder("cuda"))


def test_a_film_that_the_device_leaves_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, face_clip: Path
) -> None:
    """The codec is one of the device's, and the first frame comes from the CPU all the same."""
    monkeypatch.setattr(decoding_module, "is_on_device", lambda frame: False)
    for requested in ("auto", "cuda"):
        with VideoFile(face_clip) as video:
            video.decoder, video._has_device = DecoderReport(requested, "cuda"), True
            if requested == "cuda":
                with pytest.raises(ProviderError, match="this kind of h264: leave --decoder"):
                    list(video.frames(AllFrames()))
            else:
                assert len(list(video.frames(AllFrames()))) == 75
                assert str(video.decoder) == "cpu: the device does not decode this kind of h264"
                assert len(video.notes) == 1


@needs_pyav_18
@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(1280, 720), (642, 482), (1922, 1082)])
def test_a_downloaded_frame_has_the_samples_of_the_cpu(form: str, size: tuple[int, int]) -> None:
    frame, stored = device_frame(form, size)
    back = downloaded(stored)
    assert back.format.name == form
    assert (back.pts, back.colorspace, back.color_range) == (7, 1, 1)
    np.testing.assert_array_equal(back.to_ndarray(), frame.to_ndarray())


@needs_pyav_18
@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
def test_crops_of_a_downloaded_frame_are_those_of_the_cpu(form: str) -> None:
    frame, stored = device_frame(form, (1280, 720))
    context = av.CodecContext.create("h264", "r")
    area = slice(103, 421), slice(250, 613)
    ours, theirs = (
        Frame(Converter(context, 1.0).convert(one), 0.0, 0).pixels[area]
        for one in (downloaded(stored), frame)
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@needs_pyav_18
def test_a_film_from_a_device_has_the_frames_of_the_cpu(
    fetched: list[float], tmp_path: Path
) -> None:
    """Frames, their bursts and their times; turned, and with frames that refer to others."""
    plain = write_clip(tmp_path / "plain.mp4", face_frames(75, size=(736, 480)))
    path = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", path)
    with VideoFile(path) as video, on_device(path) as other:
        expected = list(video.frames(Sampler(5.0), bursts=True))
        found = list(other.frames(Sampler(5.0), bursts=True))
        assert (other.complete, other.end_s) == (video.complete, video.end_s)
    assert [frame.time_s for frame in found] == [frame.time_s for frame in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.image.shape == (736, 480, 3)
        np.testing.assert_array_equal(ours.image, theirs.image)
        assert (ours.burst is None) == (theirs.burst is None)
        if ours.burst is not None and theirs.burst is not None:
            np.testing.assert_array_equal(ours.burst.planes, theirs.burst.planes)


@needs_pyav_18
def test_only_the_frames_that_are_needed_are_downloaded(
    fetched: list[float], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "film.mp4", face_frames(100))
    with on_device(path) as video:
        due = [frame.time_s for frame in video.frames(Sampler(2.5))]
    assert {round(time_s, 3) for time_s in due} <= {round(time_s, 3) for time_s in fetched}
    # The last few are decoded in any case, and so is the first.
    assert len(fetched) <= len(due) + 10
    every = len(fetched)
    with on_device(path) as video:
        list(video.frames(Sampler(2.5), bursts=True))
    assert every < len(fetched) - every <= 3 * len(due) + 10


@needs_pyav_18
def test_interlaced_frames_are_downloaded_for_the_filter(
    fetched: list[float], tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "plain.mp4", face_frames(30))
    path = tmp_path / "interlaced.mp4"
    flags = ("-flags", "+ildct+ilme", "-x264opts", "tff=1", "-pix_fmt", "yuv420p")
    run_ffmpeg("-i", source, "-vf", "setfield=tff", "-c:v", "libx264", *flags, path)
    with VideoFile(path) as video, on_device(path) as other:
        expected = [frame.image for frame in video.frames(Sampler(5.0))]
        found = [frame.image for frame in other.frames(Sampler(5.0))]
    assert len(fetched) == 30
    np.testing.assert_array_equal(found, expected)


@needs_pyav_18
def test_a_device_that_fails_ends_the_film_with_one_line(
    monkeypatch: pytest.MonkeyPatch, fetched: list[float], face_clip: Path
) -> None:
    def fail(frame: VideoFrame) -> VideoFrame:
        raise av.error.ExternalError(5, "unknown error occurred")

    monkeypatch.setattr(decoding_module, "downloaded", fail)
    with (
        on_device(face_clip) as video,
        pytest.raises(SourceError, match=r"device 0 failed while it .*; use --decoder cpu"),
    ):
        list(video.frames(Sampler(5.0)))


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="decoder"):
        SourceOptions(decoder="nvdec")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="decoder_device"):
        SourceOptions(decoder_device=-1)
    with pytest.raises(UsageError, match="a sandbox opens no device"):
        SourceOptions(decoder="cuda", sandbox=True)


def test_an_address_needs_no_sandbox_for_a_device() -> None:
    item = SourceItem.of("udp://127.0.0.1:9")
    with pytest.raises(UsageError, match="give --no-sandbox too"):
        open_live(with_options(item, decoder="cuda"), threads=1)


def with_options(item: SourceItem, **values: object) -> SourceItem:
    options = SourceOptions(**values)  # type: ignore[arg-type]
    return SourceItem(item.kind, item.location, item.name, options)


def test_analyze_notes_the_fall_back(broken: None, face_clip: Path) -> None:
    events: list[Event] = []
    detector = Detector.load()
    options = SourceOptions(decoder="auto")
    verdict = detector.analyze(face_clip, options=options, on_event=events.append)
    assert verdict.frames == 15
    assert [event.detail for event in events] == ["decoded on the CPU: the device is on fire"]
    with pytest.raises(ProviderError, match="on fire"):
        detector.analyze(face_clip, options=SourceOptions(decoder="cuda"))


@needs_no_device
def test_the_command_ends_with_4_where_the_device_does_not_decode(face_clip: Path) -> None:
    done = run_command(face_clip, "--decoder", "cuda")
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("dfd-edge: error: decoder cuda cannot run: ")


def test_the_command_refuses_a_decoder_for_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "face.png"
    VideoFrame.from_ndarray(face_frames(1)[0], format="bgr24").save(str(picture))
    done = run_command(picture, "--decoder", "auto")
    assert done.returncode == 2
    assert "--decoder auto is for video files and addresses" in done.stderr


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
        timeout=60,
    )


def test_a_file_is_opened_for_the_decoder_of_its_options(
    monkeypatch: pytest.MonkeyPatch, face_clip: Path
) -> None:
    without_device(monkeypatch)
    item = with_options(SourceItem.of(face_clip), decoder="auto", decoder_device=2)
    with open_file(item, threading.Event(), threads=1) as video:
        assert video.decoder.device == 2
        assert video.decoder.requested == "auto"
    with open_file(SourceItem.of(face_clip), threading.Event(), threads=1) as video:
        assert video.decoder == ON_CPU
