"""Streams that share the frame model get the answers that they would get alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.detector import Detector
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.inference.batcher import Batcher
from dfd_edge.inference.session import MAX_BATCH, FrameOutputs, Session
from small_bundle import SIZE, build_small_bundle


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("bundle") / "small"
    build_small_bundle(folder)
    return Session.open(Bundle.load(folder), provider="cpu")


class Recorded:
    """A session that notes how many crops each call had; the first call waits for `gate`."""

    def __init__(self, session: Session) -> None:
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.faults: list[BaseException] = []
        self._session = session

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run_frame(self, crops: np.ndarray) -> FrameOutputs:
        self.calls.append(len(crops))
        self.entered.set()
        assert self.gate.wait(10)
        if self.faults:
            raise self.faults.pop()
        return self._session.run_frame(crops)


def crops_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def wait_until_queued(batcher: Batcher, count: int) -> None:
    for _ in range(1000):
        with batcher._changed:
            if len(batcher._waiting) == count:
                return
        threading.Event().wait(0.005)
    raise AssertionError("the requests never came")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("budget_s", [0.0, 0.01])
def test_many_threads_get_what_they_would_get_alone(
    session: Session, workers: int, budget_s: float
):
    batcher = Batcher(session, workers=workers, budget_s=budget_s)
    asked = [crops_of(1 + number % 5, number) for number in range(60)]
    for _ in range(6):
        batcher.join()
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(batcher.run_frame, asked))
    for crops, answer in zip(asked, answers, strict=True):
        alone = session.run_frame(crops)
        np.testing.assert_allclose(answer.fake_logit, alone.fake_logit, atol=1e-5)
        np.testing.assert_allclose(answer.features, alone.features, atol=1e-5)
        np.testing.assert_allclose(answer.evidence, alone.evidence, atol=1e-5)
    assert batcher.crops == sum(len(crops) for crops in asked)
    assert batcher.batches <= len(asked)


def test_what_comes_while_the_model_runs_goes_together(session: Session):
    recorded = Recorded(session)
    batcher = Batcher(recorded, workers=1, budget_s=0.0)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batcher.run_frame, crops_of(1, 0))
        assert recorded.entered.wait(10)
        later = [threads.submit(batcher.run_frame, crops_of(3, n)) for n in (1, 2, 3)]
        wait_until_queued(batcher, 3)
        recorded.gate.set()
        assert len(first.result(10).fake_logit) == 1
        assert [len(answer.result(10).fake_logit) for answer in later] == [3, 3, 3]
    assert recorded.calls == [1, 6, 3]  # a batch holds 8 at most
    assert max(recorded.calls) <= MAX_BATCH


def test_a_lone_stream_never_waits_for_others(session: Session):
    batcher = Batcher(session, workers=1, budget_s=30.0)
    batcher.join()
    batcher.run_frame(crops_of(1, 0))
    batcher.join()
    batcher.leave()
    batcher.run_frame(crops_of(1, 1))  # would take 30 s


def test_a_batch_waits_for_other_streams_within_its_budget(session: Session):
    recorded = Recorded(session)
    recorded.gate.set()
    batcher = Batcher(recorded, workers=1, budget_s=10.0)
    batcher.join()
    batcher.join()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(batcher.run_frame, [crops_of(2, 0), crops_of(1, 1)]))
    assert recorded.calls == [3]


def test_one_stream_s_bad_crops_are_its_own_error(session: Session):
    recorded = Recorded(session)
    batcher = Batcher(recorded, workers=1, budget_s=0.0)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(batcher.run_frame, crops_of(1, 0))
        assert recorded.entered.wait(10)
        good = threads.submit(batcher.run_frame, crops_of(2, 1))
        wait_until_queued(batcher, 1)
        bad = threads.submit(batcher.run_frame, crops_of(2, 2)[:, :-1])
        wait_until_queued(batcher, 2)
        recorded.gate.set()
        assert len(first.result(10).fake_logit) == 1
        assert len(good.result(10).fake_logit) == 2
        with pytest.raises(UsageError, match="crops are"):
            bad.result(10)


def test_a_fault_of_the_model_reaches_every_stream_and_the_next_call_works(session: Session):
    recorded = Recorded(session)
    recorded.gate.set()
    recorded.faults = [DfdError("broken")] * 20
    batcher = Batcher(recorded, workers=1, budget_s=0.0)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(batcher.run_frame, crops_of(1, n)) for n in range(4)]
        for answer in answers:
            with pytest.raises(DfdError, match="broken"):
                answer.result(10)
    recorded.faults = []
    assert len(batcher.run_frame(crops_of(1, 9)).fake_logit) == 1


def test_an_interrupt_in_one_thread_leaves_the_others_crops_to_be_run(session: Session):
    recorded = Recorded(session)
    batcher = Batcher(recorded, workers=1, budget_s=2.0)
    batcher.join()
    batcher.join()
    caught: list[BaseException] = []

    def interrupted() -> None:
        try:
            batcher.run_frame(crops_of(1, 0))
        except KeyboardInterrupt as error:
            caught.append(error)

    recorded.faults = [KeyboardInterrupt()]
    leader = threading.Thread(target=interrupted)
    leader.start()
    wait_until_queued(batcher, 1)
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(batcher.run_frame, crops_of(2, 1))
        assert recorded.entered.wait(10)
        recorded.gate.set()
        leader.join(10)
        assert len(other.result(10).fake_logit) == 2
    assert len(caught) == 1
    assert recorded.calls == [3, 2]


def test_streams_in_parallel_score_as_one_after_the_other(tiny_bundle: Path, face_clip: Path):
    detector = Detector.load(tiny_bundle, provider="cpu")

    def scores(_: int) -> list[tuple[float, float | None, float | None]]:
        found = []
        detector.analyze(
            face_clip,
            on_frame=lambda result: found.extend(
                (result.time_s, person.p_frame, person.p_step) for person in result.people
            ),
        )
        return found

    alone = scores(0)
    assert len({p_frame for _, p_frame, _ in alone}) > 3
    with ThreadPoolExecutor(4) as threads:
        for together in threads.map(scores, range(8)):
            np.testing.assert_allclose(np.array(together), np.array(alone), atol=1e-5)
    with detector.watch(face_clip) as watch:
        next(watch)
        assert detector._batcher._streams == 1
    with detector._batcher._changed:
        assert detector._batcher._streams == 0  # each left when its file ended
