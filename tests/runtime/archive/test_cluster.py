"""The driver of a Ray cluster, without Ray: claims that are lost, and the memory of the actors."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

import pyarrow as pa

from dfd_edge.archive import cluster
from dfd_edge.archive.cluster import ClusterSettings, RayEngine
from dfd_edge.archive.rows import Clip, ClipRow, Judgement
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings


class RayError(Exception):
    """Ray's error of a call that failed or got no answer in time."""


class FakeRay:
    """The part of Ray that the driver uses: a pipeline judges its blocks here and now."""

    def __init__(self, lost: int = 0) -> None:
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.data = self
        self.lost = lost  # pipelines that still fail
        self.pipelines = 0
        self.begun: list[object] = []
        self.killed: list[object] = []
        self.DataContext = SimpleNamespace(get_current=SimpleNamespace)
        self.ActorPoolStrategy = SimpleNamespace

    def is_initialized(self):
        return True

    def remote(self, **options):
        return lambda kind: SimpleNamespace(remote=self._begin)

    def _begin(self, keys):
        self.begun.append(SimpleNamespace(claim=SimpleNamespace(remote=lambda clips: None)))
        return self.begun[-1]

    def get(self, asked, timeout):
        raise RayError("no answer in time")

    def kill(self, actor):
        self.killed.append(actor)

    def from_arrow(self, tables):
        self.tables = tables
        return self

    def map_batches(self, kind, **options):
        return self

    def iter_batches(self, **options):
        if self.lost:
            self.lost -= 1
            raise RayError("the claims are out of reach")
        self.pipelines += 1
        for table in self.tables:
            rows = [pickle.dumps(judged(pickle.loads(clip))) for clip in table["clip"].to_pylist()]
            of_actor = {"actor": [f"actor {self.pipelines}"], "resident_mb": [100.0]}
            columns = {name: value * len(rows) for name, value in of_actor.items()}
            yield pa.RecordBatch.from_pydict({"row": rows, **columns})


def judged(clip: Clip) -> ClipRow:
    return ClipRow(clip=clip, sha256="ab" * 32, judgement=Judgement(), judged_s=time.time())


def engine_on(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray)
    return RayEngine(JudgeSettings(), WorkerSettings(), ClusterSettings(address="local", actors=1))


def test_claims_that_do_not_answer_are_ended_before_others_take_their_place(
    monkeypatch: pytest.MonkeyPatch,
):
    ray = FakeRay(lost=2)
    engine = engine_on(ray, monkeypatch)
    clips = [Clip(f"{number}.mp4") for number in range(3)]
    rows = list(engine.rows(iter(clips), (), threading.Event()))
    assert [row.clip for row in rows] == clips
    assert len(ray.begun) == 3
    assert ray.killed == ray.begun, "none lives on, with all its keys"


def test_memory_counts_the_actors_of_one_pipeline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "_PIPELINE_CLIPS", 2)
    ray = FakeRay()
    engine = engine_on(ray, monkeypatch)
    clips = (Clip(f"{number}.mp4") for number in range(6))
    counted = [engine.workers_mb() for _ in engine.rows(clips, (), threading.Event())]
    assert ray.pipelines == 3
    assert counted == [100.0] * 6
