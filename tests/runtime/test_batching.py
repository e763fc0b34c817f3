"""Batches of fixed sizes from bound buffers give every crop the answer that it gets alone."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.errors import ProviderError
from dfd_edge.inference import graph as graph_module
from dfd_edge.inference.batcher import Batcher
from dfd_edge.inference.graph import BucketedGraph, Graph, bucket_of
from dfd_edge.inference.names import Provider
from dfd_edge.inference.provider_options import ProviderOptions
from dfd_edge.inference.session import Session
from small_bundle import FEATURES, SIZE, build_small_bundle

BUCKETS = (1, 2, 4, 8)
OUTPUTS = {"features": (FEATURES,), "fake_logit": (), "evidence": (SIZE // 2, SIZE // 2)}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("bundle") / "small"
    return Session.open(Bundle.load(build_small_bundle(folder)), provider="cpu")


class Watched:
    """An open graph that notes the batch sizes and the threads it is run with."""

    def __init__(self, opened: object, largest: int = 99) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self._opened = opened
        self._largest = largest

    def __getattr__(self, name: str) -> object:
        return getattr(self._opened, name)

    def run_with_iobinding(self, binding: object, options: object) -> None:
        self._note(binding._bound_inputs["image"].shape()[0])
        self._opened.run_with_iobinding(binding, options)

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self._note(len(inputs["image"]))
        return self._opened.run(names, inputs)

    def _note(self, size: int) -> None:
        if size > self._largest:
            raise RuntimeError(f"Failed to allocate memory for {size} crops")
        self.sizes.append(size)
        self.threads.add(threading.get_ident())


def crops_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def bucketed(session: Session, largest: int = 99, **options) -> tuple[BucketedGraph, Watched]:
    watched = Watched(session._frame.opened, largest)
    arguments = {"buckets": BUCKETS, "image": (SIZE, SIZE, 3), "outputs": OUTPUTS, "memory": "cpu"}
    graph = BucketedGraph(watched, **(arguments | options))
    return graph, watched


def expect_same(outputs: list[np.ndarray], session: Session, crops: np.ndarray) -> None:
    wanted = session.run_frame(crops)
    for found, value in zip(
        outputs, (wanted.features, wanted.fake_logit, wanted.evidence), strict=True
    ):
        assert found.shape == value.shape
        np.testing.assert_allclose(found, value, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (7, 8), (8, 8)]
)
def test_a_batch_is_filled_up_to_the_next_size(count: int, bucket: int):
    assert bucket_of(count, BUCKETS) == bucket


@pytest.mark.parametrize("count", [0, 9])
def test_what_no_size_holds_is_refused(count: int):
    with pytest.raises(ValueError, match=f"{count} crops; the buckets hold 1 to 8"):
        bucket_of(count, BUCKETS)


@pytest.mark.parametrize("memory", ["cpu", None], ids=["bound buffers", "onnxruntime's own"])
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["", "in one thread"])
def test_every_crop_gets_the_answer_that_it_gets_alone(session, memory, cuda_graphs):
    graph, watched = bucketed(session, memory=memory, cuda_graphs=cuda_graphs)
    assert watched.sizes == [1, 2, 4, 8]  # each was run once beforehand
    for count in (8, 3, 1, 5, 2, 7):
        crops = crops_of(count, count)
        expect_same(graph.run(crops), session, crops)
    assert watched.sizes[4:] == [8, 4, 1, 8, 2, 8]


def test_what_filled_a_batch_earlier_does_not_matter(session):
    graph, _ = bucketed(session)
    crops = crops_of(3, 1)
    first = graph.run(crops)
    graph.run(np.full((8, SIZE, SIZE, 3), 255, np.uint8))
    for before, after in zip(first, graph.run(crops), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_answer_stays_when_the_buffers_are_used_again(session):
    graph, _ = bucketed(session)
    first = graph.run(crops_of(2, 1))
    kept = [output.copy() for output in first]
    graph.run(crops_of(2, 2))
    for output, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(output, copy)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_threads_do_not_mix_their_crops(session, cuda_graphs: bool):
    graph, watched = bucketed(session, cuda_graphs=cuda_graphs)
    batches = [crops_of(1 + n % 8, n) for n in range(60)]
    with ThreadPoolExecutor(6) as pool:
        for crops, outputs in zip(batches, pool.map(graph.run, batches), strict=True):
            expect_same(outputs, session, crops)
    # onnxruntime keeps what it records for the thread that recorded it.
    assert (len(watched.threads) == 1) == cuda_graphs


def test_sizes_that_do_not_fit_into_the_memory_are_left_out_and_named(session, caplog):
    graph, _ = bucketed(session, largest=4)
    assert graph.buckets == (1, 2, 4)
    assert "batches hold 4 crops at most: 8 do not run (Failed to allocate" in caplog.text
    crops = crops_of(3, 0)
    expect_same(graph.run(crops), session, crops)


def test_a_graph_that_does_not_run_at_all_is_an_error(session):
    with pytest.raises(RuntimeError, match="Failed to allocate"):
        bucketed(session, largest=0)


def test_an_output_of_another_shape_than_declared_is_an_error(session):
    with pytest.raises(Exception, match="invalid dimensions for output: features"):
        bucketed(session, outputs=OUTPUTS | {"features": (FEATURES + 1,)})


def test_its_thread_and_buffers_go_with_it(session):
    graph, _ = bucketed(session, cuda_graphs=True)
    graph.run(crops_of(1, 0))
    before = threading.active_count()
    gone = weakref.ref(graph)
    del graph
    gc.collect()
    assert gone() is None
    for _ in range(200):
        if threading.active_count() < before:
            break
        threading.Event().wait(0.01)
    assert threading.active_count() < before


def with_buckets(session: Session, graph: BucketedGraph, provider: Provider) -> Session:
    """The session as it is opened on an accelerator, but for where it computes."""
    frame = Graph(session._frame.opened, session._frame.file, provider, graph)
    return Session(
        session.bundle,
        session.provider,
        frame,
        session._sequence,
        max_batch=graph.buckets[-1],
        parallel=False,
    )


def test_a_session_splits_what_is_more_than_its_largest_batch(session):
    graph, watched = bucketed(session, buckets=(1, 2, 4, 8, 16))
    bound = with_buckets(session, graph, Provider.CUDA)
    assert bound.max_batch == 16
    crops = crops_of(37, 5)
    outputs = bound.run_frame(crops)
    expect_same([outputs.features, outputs.fake_logit, outputs.evidence], session, crops)
    assert watched.sizes[5:] == [16, 16, 8]  # 37 = 16 + 16 + 5


def test_streams_are_gathered_up_to_the_session_s_own_batch(session):
    graph, watched = bucketed(session, buckets=(1, 2, 4, 8, 16))
    batcher = Batcher(with_buckets(session, graph, Provider.CUDA), budget_s=5.0)
    for _ in range(4):
        batcher.join()
    asked = [crops_of(3, n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for crops, outputs in zip(asked, pool.map(batcher.run_frame, asked), strict=True):
            expect_same([outputs.features, outputs.fake_logit, outputs.evidence], session, crops)
    assert watched.sizes[5:] == [16]  # 12 crops in one batch


def test_a_failure_while_it_runs_is_one_line_of_the_program_s_own(session):
    graph, watched = bucketed(session)
    watched._largest = 0
    with pytest.raises(ProviderError, match=r"frame\.onnx: .* cannot run the graph \(Failed") as it:
        with_buckets(session, graph, Provider.CUDA).run_frame(crops_of(1, 0))
    assert "\n" not in str(it.value)
    # On the processor it is the machine's memory, which is no fault of the bundle's.
    with pytest.raises(MemoryError, match="Failed to allocate memory for 1 crops"):
        with_buckets(session, graph, Provider.CPU).run_frame(crops_of(1, 0))


def test_without_a_driver_memory_is_not_pinned(monkeypatch):
    monkeypatch.setattr(graph_module, "_driver", lambda: None)
    assert not graph_module.pin(np.zeros(8, np.uint8), Watched(None))


def test_a_session_on_the_cpu_has_no_fixed_sizes(session):
    assert session._frame.bucketed is None
    assert session.parallel
    assert session.max_batch == 8


def test_options_that_fit_no_provider_are_refused_by_the_session(tmp_path: Path):
    bundle = Bundle.load(build_small_bundle(tmp_path / "small"))
    # refused for what it is, not for what is installed
    with pytest.raises(ProviderError, match="provider cuda cannot run"):
        Session.open(bundle, provider="cuda", options=ProviderOptions(device=99, cuda_graphs=True))
