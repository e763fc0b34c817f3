"""`--threads` reaches every library, and no further than it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from dfd_edge.cli.command import command
from dfd_edge.detector import Detector
from dfd_edge.inference.threads import set_opencv_threads
from dfd_edge.sinks.video_file import VideoFileWriter
from dfd_edge.sources import decoding

#: Judges a clip with the shipped bundle and saves the annotated video, as the command line does;
#: then prints what each library was given.
JUDGE = """
import json, os, sys
import cv2
from dfd_edge import detector
from dfd_edge.cli.command import command
from dfd_edge.sinks import video_file
from dfd_edge.sources import decoding

found = {}
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
load = detector.Detector.load.__func__
def loaded(cls, *arguments, **options):
    before = tasks()
    made = load(cls, *arguments, **options)
    found["started"] = tasks() - before
    graphs = {
        "frame": made._session._frame.opened,
        "sequence": made._session._sequence.opened,
        "faces": made._faces._session,
    }
    for name, graph in graphs.items():
        found[name] = graph.get_session_options().intra_op_num_threads
    return made
detector.Detector.load = classmethod(loaded)
configure = decoding.DecodedSource._configure
def configured(self, *arguments):
    configure(self, *arguments)
    found["decoder"] = self._stream.codec_context.thread_count
    found["deinterlacer"] = self._deinterlacer._threads
decoding.DecodedSource._configure = configured
add = video_file.VideoFileWriter._add_stream
def added(self, image):
    stream = add(self, image)
    found["encoder"] = stream.codec_context.thread_count
    return stream
video_file.VideoFileWriter._add_stream = added
try:
    command(standalone_mode=False)
except SystemExit as end:
    assert not end.code, end.code
found["opencv"] = cv2.getNumThreads()
print("FOUND", json.dumps(found))
"""


def judged(clip: Path, out: Path, threads: int) -> dict[str, int]:
    """What each library was given by `--threads`."""
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, str(clip), "--threads", str(threads), "--provider", "cpu"]
        + ["--save-video", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


def test_the_number_reaches_every_library(face_clip: Path, tmp_path: Path):
    one = judged(face_clip, tmp_path / "one.mp4", 1)
    three = judged(face_clip, tmp_path / "three.mp4", 3)
    libraries = ["frame", "sequence", "faces", "decoder", "deinterlacer", "encoder", "opencv"]
    assert {name: one[name] for name in libraries} == dict.fromkeys(libraries, 1)
    assert {name: three[name] for name in libraries} == dict.fromkeys(libraries, 3)
    if sys.platform == "linux":
        # Each of the three graphs starts two threads beside the one that calls it.
        assert three["started"] == one["started"] + 6


@pytest.fixture
def opencv_threads():
    """OpenCV's number of threads, as an application has set it; given back afterwards."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield 2
    cv2.setNumThreads(before)


def test_an_application_s_opencv_keeps_its_number(opencv_threads: int, face_clip: Path):
    detector = Detector.load(provider="cpu", threads=1)
    detector.analyze(face_clip, duration_s=0.5)
    with detector.stream() as stream:
        stream.push(np.zeros((64, 64, 3), np.uint8), timestamp=0.0)
    assert cv2.getNumThreads() == opencv_threads


def test_the_command_sets_opencv_s_number(opencv_threads: int):
    set_opencv_threads(1)
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize("threads", ["0", "65", "many"])
def test_a_number_out_of_range_is_refused(threads: str):
    result = CliRunner().invoke(command, ["clip.mp4", "--threads", threads])
    assert result.exit_code == 2
    assert "--threads" in result.output


def test_a_decoder_and_an_encoder_take_one_thread_by_default(tmp_path: Path, face_clip: Path):
    import av

    video = decoding.DecodedSource(av.open(str(face_clip)), "clip", finite=True)
    assert video._stream.codec_context.thread_count == 1
    writer = VideoFileWriter(tmp_path / "out.mp4")
    writer.add(np.zeros((64, 64, 3), np.uint8), 0.0)
    assert writer._stream.codec_context.thread_count == 1
    writer.close()
