"""The graphs give every crop and track the same answer, whoever shares the call with it."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dfd_edge.bundle import Bundle
from dfd_edge.errors import BundleError, DfdError, UsageError
from dfd_edge.inference.session import MAX_BATCH, Session
from small_bundle import FEATURES, build_small_bundle, edit_graph
from small_bundle import SIZE as SMALL

SIZE, WIDTH = 64, 1280


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.open(Bundle.load(tiny_bundle), provider="cpu")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def crops_of(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def features_of(rng: np.random.Generator, batch: int, steps: int) -> np.ndarray:
    return rng.uniform(0, 3, (batch, steps, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("count", [1, MAX_BATCH, 2 * MAX_BATCH + 3])
def test_a_crop_s_answer_does_not_depend_on_its_batch(session: Session, rng, count: int):
    crops = crops_of(rng, count)
    together = session.run_frame(crops)
    assert together.features.shape == (count, WIDTH)
    assert together.fake_logit.shape == (count,)
    assert together.evidence.shape == (count, 2, 2)
    for index in range(0, count, 5):
        alone = session.run_frame(crops[index : index + 1])
        np.testing.assert_allclose(together.fake_logit[index], alone.fake_logit[0], atol=1e-5)
        np.testing.assert_allclose(together.features[index], alone.features[0], atol=1e-5)


def test_crops_give_different_answers(session: Session, rng):
    assert np.ptp(session.run_frame(crops_of(rng, 4)).fake_logit) > 1e-3


def test_the_evidence_s_mean_is_the_logit(session: Session, rng):
    outputs = session.run_frame(crops_of(rng, 3))
    np.testing.assert_allclose(outputs.evidence.mean((1, 2)), outputs.fake_logit, atol=1e-4)


def test_crops_that_do_not_lie_in_one_piece_are_taken(session: Session, rng):
    bgr = crops_of(rng, 2)
    view = bgr[:, :, :, ::-1]
    np.testing.assert_array_equal(
        session.run_frame(view).fake_logit, session.run_frame(view.copy()).fake_logit
    )


def test_a_padded_track_gives_what_it_gives_alone(session: Session, rng):
    lengths = np.array([7, 1, 4], np.int32)
    features = features_of(rng, 3, 7)
    padded = features.copy()
    for index, length in enumerate(lengths):
        padded[index, length:] = 1e6
    together = session.run_sequence(padded, lengths, session.initial_state(3))
    for index, length in enumerate(lengths):
        alone = session.run_sequence(
            features[index : index + 1, :length],
            lengths[index : index + 1],
            session.initial_state(1),
        )
        np.testing.assert_allclose(
            together.fake_logit[index, :length], alone.fake_logit[0], atol=1e-6
        )
        np.testing.assert_allclose(together.next_state[index], alone.next_state[0], atol=1e-6)


@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 6], [11, 1]])
def test_a_track_in_pieces_gives_what_it_gives_whole(session: Session, rng, pieces: list[int]):
    features = features_of(rng, 2, 12)
    whole = session.run_sequence(features, np.full(2, 12, np.int32), session.initial_state(2))
    state, parts, start = session.initial_state(2), [], 0
    for count in pieces:
        piece = session.run_sequence(
            features[:, start : start + count], np.full(2, count, np.int32), state
        )
        state, start = piece.next_state, start + count
        parts.append(piece.fake_logit)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole.fake_logit, atol=1e-6)
    np.testing.assert_allclose(state, whole.next_state, atol=1e-6)


def test_the_state_matters(session: Session, rng):
    features = features_of(rng, 1, 5)
    first = session.run_sequence(features, np.array([5], np.int32), session.initial_state(1))
    again = session.run_sequence(features, np.array([5], np.int32), first.next_state)
    assert np.abs(first.fake_logit - again.fake_logit).max() > 1e-4


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), "there are no crops"),
        (np.zeros((1, SIZE, SIZE, 3), np.float32), "crops are float32"),
        (np.zeros((1, 32, 32, 3), np.uint8), r"takes uint8 \[n, 64, 64, 3\]"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), r"crops are uint8 \[64, 64, 3\]"),
    ],
)
def test_crops_that_do_not_fit_are_refused(session: Session, crops: np.ndarray, message: str):
    with pytest.raises(UsageError, match=message):
        session.run_frame(crops)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": np.zeros((0, 3, WIDTH), np.float32)}, UsageError, r"lengths are int32 \[2\]"),
        ({"features": np.zeros((2, 0, WIDTH), np.float32)}, UsageError, "1 step or more"),
        (
            {"features": np.zeros((2, 3, 7), np.float32)},
            UsageError,
            r"takes float32 \[2, 3, 1280\]",
        ),
        ({"features": np.zeros((2, 3, WIDTH))}, UsageError, "features are float64"),
        ({"features": np.full((2, 3, WIDTH), np.nan, np.float32)}, DfdError, "not finite"),
        ({"features": np.full((2, 3, WIDTH), np.inf, np.float32)}, DfdError, "not finite"),
        ({"lengths": np.array([3, 0], np.int32)}, UsageError, "lengths are 0 to 3; each is 1 to 3"),
        ({"lengths": np.array([3, 4], np.int32)}, UsageError, "lengths are 3 to 4"),
        ({"lengths": np.array([3, 3], np.int64)}, UsageError, "lengths are int64"),
        ({"state": np.zeros((2, 5), np.float32)}, UsageError, r"state are float32 \[2, 5\]"),
        ({"state": np.full((2, 112), np.nan, np.float32)}, DfdError, "not finite"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(session: Session, change, error, message: str):
    inputs = {
        "features": np.zeros((2, 3, WIDTH), np.float32),
        "lengths": np.full(2, 3, np.int32),
        "state": np.zeros((2, 112), np.float32),
    }
    with pytest.raises(error, match=message):
        session.run_sequence(**(inputs | change))


def test_no_tracks_at_all_are_refused(session: Session):
    with pytest.raises(UsageError, match="1 track and 1 step or more"):
        session.run_sequence(
            np.zeros((0, 1, WIDTH), np.float32), np.zeros(0, np.int32), session.initial_state(0)
        )


def test_threads_may_share_a_session(session: Session, rng):
    batches = [crops_of(rng, 3) for _ in range(8)]
    wanted = [session.run_frame(batch).fake_logit for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: session.run_frame(batch).fake_logit, batches))
    np.testing.assert_array_equal(np.stack(found), np.stack(wanted))


def test_a_session_cannot_be_changed(session: Session):
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.bundle = None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision 'int8' is not in the bundle; it has fp32"),
        ({"threads": 0}, "threads 0: give a whole number from 1 to 1024"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny_bundle: Path, options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        Session.open(Bundle.load(tiny_bundle), **options)


def test_a_file_changed_after_the_check_is_noticed(tiny_bundle: Path, tmp_path: Path):
    bundle = Bundle.load(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    data = bytearray((bundle.path / "frame.onnx").read_bytes())
    data[-1] ^= 1
    (bundle.path / "frame.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        Session.open(bundle)


Reshaping = tuple[list[int], list[int], list[int]]
"""Which lengths of an output's shape to take, times what, plus what: its new shape."""


def reshaped(folder: Path, file: str, output: str, reshaping: Reshaping) -> Session:
    """The small bundle, an output of it in a shape that only the run brings to light."""
    build_small_bundle(folder)

    def edit(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if output in node.output)
        node.output[list(node.output).index(output)] = "inner"
        for name, value in zip(("places", "factors", "terms"), reshaping, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        for operator, inputs, result in (
            ("Shape", ["inner"], "shape"),
            ("Gather", ["shape", "places"], "lengths_taken"),
            ("Mul", ["lengths_taken", "factors"], "product"),
            ("Add", ["product", "terms"], "new_shape"),
            ("Reshape", ["inner", "new_shape"], output),
        ):
            model.graph.node.append(helper.make_node(operator, inputs, [result]))

    edit_graph(folder, file, edit)
    return Session.open(Bundle.load(folder), provider="cpu")


def judge(session: Session, crops: int = 3, steps: int = 2) -> None:
    session.run_frame(np.zeros((crops, SMALL, SMALL, 3), np.uint8))
    session.run_sequence(
        np.zeros((crops, steps, FEATURES), np.float32),
        np.full(crops, steps, np.int32),
        session.initial_state(crops),
    )


@pytest.mark.parametrize(
    ("file", "output"), [("frame.onnx", "fake_logit"), ("sequence.onnx", "next_state")]
)
def test_a_graph_that_fails_while_it_runs_is_a_fault_of_its_file(
    tmp_path: Path, file: str, output: str
):
    seven = ([0], [0], [7])
    session = reshaped(tmp_path / "bundle", file, output, seven)
    with pytest.raises(BundleError, match=rf"{file}: onnxruntime .* cannot run the graph") as error:
        judge(session)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "output", "reshaping", "message"),
    [
        ("frame.onnx", "fake_logit", ([0, 0], [1, 0], [0, 1]), r"\[3, 1\], .* makes it \[3\]"),
        ("frame.onnx", "features", ([1, 0], [1, 1], [0, 0]), r"\[4, 3\], .* it \[3, 4\]"),
        ("sequence.onnx", "fake_logit", ([1, 0], [1, 1], [0, 0]), r"\[2, 3\], .* it \[3, 2\]"),
        ("sequence.onnx", "next_state", ([0, 1], [0, 3], [1, 0]), r"\[1, 9\], .* it \[3, 3\]"),
    ],
)
def test_an_output_of_another_shape_than_declared_is_a_fault_of_its_file(
    tmp_path: Path, file: str, output: str, reshaping: Reshaping, message: str
):
    session = reshaped(tmp_path / "bundle", file, output, reshaping)
    with pytest.raises(BundleError, match=rf"{file}: gave {output} {message}"):
        judge(session)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_an_interruption_is_no_fault_of_the_bundle(tmp_path: Path, kind: type[BaseException]):
    session = Session.open(Bundle.load(build_small_bundle(tmp_path / "bundle")), provider="cpu")

    class Interrupted:
        def run(self, *_: object) -> None:
            raise kind

    frame = dataclasses.replace(session._frame, opened=Interrupted())
    with pytest.raises(kind):
        judge(dataclasses.replace(session, _frame=frame))


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_extreme_features_are_taken_however_numpy_treats_overflow(session: Session, value: float):
    features = np.full((1, 1, WIDTH), value, np.float32)
    call = features, np.ones(1, np.int32), session.initial_state(1)
    with np.errstate(all="raise"):
        session.run_sequence(*call)
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        session.run_sequence(*call)
