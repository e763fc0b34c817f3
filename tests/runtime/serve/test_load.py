"""Many clients at once and a `kill -9` in the middle: no clip is lost, and the order is kept."""

from __future__ import annotations

import sys

import pytest
from clip_maker import face_frames, write_clip

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
load = pytest.importorskip("dfd_benchmarks.service.load", reason="benchmarks are not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

CLIPS, CLIENTS = 12, 4


def test_no_clip_is_lost_and_the_order_is_kept(tmp_path, tiny_bundle):
    clip = write_clip(tmp_path / "a.mp4", face_frames(25)).read_bytes()
    options = ("--model", str(tiny_bundle))
    report = load.load_service(
        tmp_path / "data", clip, clips=CLIPS, clients=CLIENTS, options=options
    )
    assert (report.clips, report.done, report.lost) == (CLIPS, CLIPS, 0)
    assert report.resumed >= 1, "it was killed while some waited"
    assert report.in_order
    # Uploads go to the disk as they come; nothing is kept for each.
    assert max(report.memory_mb) < 300
