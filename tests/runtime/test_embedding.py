"""What `docs/embedding.md` says of sharing and pickling."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from dfd_edge.detector import Detector
from dfd_edge.judging.results import FrameResult


def test_results_survive_pickling(face_clip: Path):
    frames: list[FrameResult] = []
    verdict = Detector.load().analyze(face_clip, on_frame=frames.append)
    again = pickle.loads(pickle.dumps(verdict))
    assert again == verdict
    assert dataclasses.asdict(again) == dataclasses.asdict(verdict)
    assert pickle.loads(pickle.dumps(frames[0])).to_record() == frames[0].to_record()


def test_a_detector_says_that_it_cannot_be_pickled():
    with pytest.raises(TypeError, match=r"cannot be pickled: load one in each process"):
        pickle.dumps(Detector.load())
