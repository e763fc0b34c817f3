"""An argument of the wrong kind is a `UsageError` that says what is taken."""

from __future__ import annotations

import math
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from dfd_edge import Detector, ProviderOptions, UsageError
from dfd_edge.sources import CameraOptions, RawFormat, SourceOptions, expand

CLIP = Path(__file__).parents[2] / "samples" / "no_face.mp4"
NO_NUMBERS = ["5", "", b"5", [5], {}, True, 0, -1, math.nan, math.inf, 10**400, Decimal(5), ()]


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


def refused(call, *said):
    with pytest.raises(UsageError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    for words in said:
        assert words in text


@pytest.mark.parametrize("way", ["analyze", "watch"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\0b.mp4", "a zero byte stands in its name"),
        ("rtsp://host/\0", "a zero byte"),
        ("a\ud800b.mp4", "half a character"),
        ("x" * 5000, "a name of 5000 bytes; it has at most 4096"),
        (None, "give a path"),
        (True, "give a path"),
        (1.5, "give a path"),
        ([1], "give a path"),
        (object(), "give a path"),
    ],
)
def test_sources(detector, way, source, said):
    refused(lambda: getattr(detector, way)(source), "source", said)


def test_one_impossible_name_on_the_command_line_ends_no_run():
    items, errors = expand(["x" * 5000, CLIP])
    assert [item.location for item in items] == [str(CLIP)]
    assert "5000 bytes" in str(errors[0])


def test_a_name_that_is_not_utf8_is_one():
    _, errors = expand(["clip\udcff.mp4"])
    assert "no such file" in str(errors[0])


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_numbers(detector, value):
    refused(lambda: detector.analyze(CLIP, rate_hz=value), "sampling rate", "0.001 to 1000")
    refused(lambda: detector.stream(rate_hz=value), "sampling rate")
    refused(lambda: detector.analyze(CLIP, duration_s=value), "duration_s", "give a number above 0")
    refused(lambda: detector.watch(CLIP, duration_s=value), "duration_s")
    refused(lambda: detector.watch(CLIP, max_staleness_ms=value), "max_staleness_ms")
    refused(lambda: detector.analyze(CLIP, faces=value), "faces", "all, largest, or the least size")
    if value != 0:
        refused(lambda: SourceOptions(reconnect_s=value), "reconnect")
    refused(lambda: CameraOptions(fps=value), "camera fps")
    refused(lambda: RawFormat(64, 64, "bgr24", value), "raw frames per second")


def test_numbers_of_numpy_are_taken(detector):
    verdict = detector.analyze(
        CLIP, rate_hz=np.float32(5), duration_s=np.int64(1), faces=np.float64(30)
    )
    assert verdict.duration_s == 1.0


@pytest.mark.parametrize("name", ["on_frame", "on_image", "on_progress", "stop", "options"])
def test_other_kinds(detector, name):
    refused(lambda: detector.analyze(CLIP, **{name: 5}), name)


@pytest.mark.parametrize("value", ["newest", 5, [], b"latest"])
def test_policies(detector, value):
    refused(lambda: detector.watch(CLIP, policy=value), "known are every, latest")


@pytest.mark.parametrize("value", ["tpu", None, 5, ["cpu"], b"cpu", np.array(["cpu", "x"])])
def test_what_a_detector_runs_on(tiny_bundle, value):
    refused(lambda: Detector.load(tiny_bundle, provider=value), "provider", "known are auto, cpu")
    refused(lambda: Detector.load(tiny_bundle, precision=value), "precision", "auto, fp32, fp16")
    refused(lambda: Detector.load(tiny_bundle, options=[value]), "give ProviderOptions")


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.5, None, 10**9, math.nan, [1]])
def test_threads(tiny_bundle, value):
    refused(lambda: Detector.load(tiny_bundle, threads=value), "threads", "a whole number from 1")


@pytest.mark.parametrize("path", [5, b"x", ["x"], "a\0b", "x" * 5000, "a\ud800"])
def test_bundles(path):
    refused(lambda: Detector.load(path), "path")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ProviderOptions(device=[1]), "device"),
        (lambda: ProviderOptions(gpu_memory_limit_mb="8"), "GPU memory limit"),
        (lambda: ProviderOptions(gpu_memory_limit_mb=True), "GPU memory limit"),
        (lambda: ProviderOptions(cuda_graphs="no"), "cuda_graphs"),
        (lambda: ProviderOptions(engine_cache=5), "engine_cache"),
        (lambda: SourceOptions(camera=5), "camera"),
        (lambda: SourceOptions(raw="64x64:bgr24@30"), "raw"),
        (lambda: SourceOptions(sandbox="no"), "sandbox"),
        (lambda: SourceOptions(sandbox=np.arange(2)), "sandbox"),
        (lambda: SourceOptions(rtsp_transport=["tcp"]), "known are tcp, udp"),
        (lambda: CameraOptions(width="640", height=480), "camera size"),
        (lambda: CameraOptions(width=True, height=True), "camera size"),
        (lambda: CameraOptions(pixel_format=5), "camera format"),
        (lambda: RawFormat("64", 64, "bgr24", 30), "raw frames"),
        (lambda: RawFormat(64, 64, ["bgr24"], 30), "known are bgr24"),
    ],
)
def test_options_check_themselves(make, said):
    refused(make, said)


def test_a_stream_s_name_is_a_text(detector):
    refused(lambda: detector.stream(5), "source is a int")
    with detector.stream("camera at the door") as stream:
        assert stream.source == "camera at the door"


def test_a_stop_that_is_set_ends_the_work(detector):
    stop = threading.Event()
    stop.set()
    assert not detector.analyze(CLIP, stop=stop).complete
