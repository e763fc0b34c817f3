"""Memory does not grow with the length of a stream; a planted leak shows that it would be seen."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import pytest
from clip_maker import face_frames, write_clip

from dfd_benchmarks.results.machine import resident_mb
from dfd_benchmarks.streams.memory import measure_memory
from dfd_edge import Detector, UsageError
from dfd_edge.sources import conversion
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.video import VideoFile

SIZE = (640, 480)
#: A decoded picture of this size, in megabytes.
PICTURE_MB = SIZE[0] * SIZE[1] * 1.5 / 1e6


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Five seconds of one face."""
    path = tmp_path_factory.mktemp("memory") / "clip.mp4"
    return write_clip(path, face_frames(125, size=SIZE))


@contextlib.contextmanager
def without_collection():
    """Only what nothing refers to is freed, at once: not what refers to itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def frames_alive(clip, *, bursts=False):
    """Decoded frames that are alive after the last one of a clip was converted."""
    before = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    with without_collection(), VideoFile(str(clip)) as video:
        for _ in video.frames(Sampler(5.0), bursts=bursts):
            pass
        after = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    return after - before


def keep_frames_in_cycles(monkeypatch):
    orientation = conversion.orientation_of

    def cyclic(decoded):
        len(decoded.side_data)  # refers to the frame, which refers to it
        return orientation(decoded)

    monkeypatch.setattr(conversion, "orientation_of", cyclic)


@pytest.mark.parametrize(("bursts", "most"), [(False, 3), (True, 10)])
def test_a_frame_is_freed_when_it_was_judged(clip, bursts, most):
    assert frames_alive(clip, bursts=bursts) <= most


def test_frames_that_live_on_would_be_seen(clip, monkeypatch):
    keep_frames_in_cycles(monkeypatch)
    assert frames_alive(clip) >= 20


def own_mb():
    """What this process allocated, in memory or swapped out: not what it maps of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "VmSwap")) * 1024 / 1e6


def growth_mb(bundle, clip, *, leaking=False):
    """Growth of memory from the second turn of a clip to the last, one stream.

    Args:
        bundle: Its detector judges.
        clip: Decoded anew in each turn.
        leaking: A leak, planted: each picture is copied and kept.
    """
    kept = []
    with Detector.load(bundle).stream() as stream, without_collection():
        measured = []
        for turn in range(6):
            with VideoFile(str(clip)) as video:
                for frame in video.frames(Sampler(5.0), bursts=stream.takes_bursts):
                    time_s = 5.0 * turn + frame.time_s
                    assert stream.is_due(time_s)
                    stream.score([stream.observe(frame.pixels, time_s, burst=frame.burst)])
                    if leaking:
                        kept.append(frame.image.copy())
            measured.append(own_mb())
        assert stream.verdict().frames == 6 * 25
    return measured[-1] - measured[1]


@pytest.fixture
def apart():
    """Runs a function in a process of its own, where nothing else allocates and frees."""
    try:
        resident_mb()
    except UsageError as error:
        pytest.skip(str(error))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda *args, **kwargs: pool.submit(*args, **kwargs).result()


@pytest.mark.parametrize("bundle", ["tiny_bundle", "signals_bundle"])
def test_a_stream_takes_no_more_memory_as_it_goes_on(request, apart, bundle, clip):
    # Over a hundred frames after it has settled: one in ten that was kept would be seen.
    assert apart(growth_mb, request.getfixturevalue(bundle), clip) < 10 * PICTURE_MB


def test_a_leak_would_be_seen(apart, tiny_bundle, clip):
    assert apart(growth_mb, tiny_bundle, clip, leaking=True) > 20 * PICTURE_MB


@pytest.mark.slow
def test_memory_over_minutes_of_video(tiny_bundle):
    turns = []
    report = measure_memory(
        None, size=(320, 240), minutes=2, model=tiny_bundle, on_minute=lambda: turns.append(1)
    )
    assert len(report.minutes_mb) == len(turns) == 2
    assert report.judged == pytest.approx(2 * 60 * 5, abs=3)
    assert min(report.minutes_mb) > 20.0
    assert report.growth == report.minutes_mb[1] / report.minutes_mb[0] - 1.0
    with pytest.raises(UsageError, match="minutes is 1"):
        measure_memory(None, minutes=1)
