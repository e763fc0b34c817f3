"""The signals head: its arithmetic, its graph, and a bundle of it."""

from __future__ import annotations

import copy
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import numpy_helper

from dfd_benchmarks.peers.engines import load_openvino
from dfd_edge.bundle import Bundle, sequence_contract
from dfd_edge.bundle.graph_size import check_size
from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_edge.inference.session import Session
from dfd_export.bundles.bundle_writer import write_bundle
from dfd_export.bundles.probe import check_probe
from dfd_export.gate.cases import compare_sequence
from dfd_export.gate.parity import open_graph
from dfd_export.graphs.frame_graph import export_frame_graph
from dfd_export.graphs.sequence_graph import (
    describe_sequence_model,
    export_loop_graph,
    export_sequence_graph,
)
from dfd_export.graphs.sequence_layers.conversion import UnsupportedLayer
from dfd_export.graphs.single_step import attach_single_step_logit, single_step_model
from dfd_training.evaluation.graph_cost import measure
from dfd_training.models import (
    build_sequence_model,
    load_sequence_model,
    save_model,
    takes_signals,
    with_crop_scale,
)
from dfd_training.models.sequence import RunningMean, SignalProbes
from sequence_models import WIDTH, chain_model, features_of, frame_spec, operators, randomise
from tiny_bundle import make_crops, make_info, make_models

SIGNALS, PROBES = len(NAMES), 5
HUGE = np.float32(1e6)


def signals_model(width: int = WIDTH, seed: int = 0) -> keras.Model:
    model = randomise(
        build_sequence_model(feature_width=width, head="signals", probes=PROBES), seed
    )
    scale = model.get_layer("probes").scale
    scale.assign(np.abs(scale.numpy()) + 0.3)
    return model


MODEL = signals_model()
SPEC = describe_sequence_model(MODEL, rate_hz=5.0, max_gap_s=1.0)
GRAPH = export_sequence_graph(MODEL, frame_spec(), SPEC, metadata={})
SESSION = open_graph(GRAPH, "sequence", *sequence_contract(frame_spec(), SPEC))


def inputs_of(batch: int, steps: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "features": features_of(batch, steps, seed=seed),
        "signals": rng.normal(0, 2, (batch, steps, SIGNALS)).astype(np.float32),
        "measured": (rng.random((batch, steps)) < 0.6).astype(np.float32),
    }


def run(inputs, lengths, state=None) -> list[np.ndarray]:
    batch = len(inputs["features"])
    state = np.zeros((batch, SPEC.state_width), np.float32) if state is None else state
    fed = {**inputs, "lengths": np.asarray(lengths, np.int32), "state": state}
    return SESSION.run(["fake_logit", "next_state"], fed)


def keras_logits(inputs, lengths) -> np.ndarray:
    steps = inputs["features"].shape[1]
    mask = np.arange(steps) < np.asarray(lengths)[:, None]
    return np.asarray(MODEL({**inputs, "mask": mask}, training=False))


def logits_by_hand(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The definition, one clip and one step at a time."""
    value = {v.path: np.asarray(v, np.float64) for v in MODEL.weights}
    rows = []
    for features, signals, measured in zip(*inputs.values(), strict=True):
        numerator, denominator, logits = np.zeros(1 + PROBES), 0.0, []
        for step in range(len(features)):
            picture = features[step] @ value["logit/kernel"] + value["logit/bias"]
            z = (signals[step] - value["probes/mean"]) / value["probes/scale"]
            scores = np.clip(z, -4, 4) @ value["probes/kernel"] + value["probes/bias"]
            scores = scores if measured[step] else value["probes/absent"]
            numerator = 0.8 * numerator + np.concatenate([picture, scores])
            denominator = 0.8 * denominator + 1
            mean = numerator / denominator
            vote = 2 * np.log(np.exp(mean[1:] / 2).mean())
            logits.append(mean[0] + value["vote/weight"][0] * vote)
        rows.append(logits)
    return np.array(rows)


def test_keras_and_graph_compute_the_definition():
    inputs, lengths = inputs_of(3, 30), [30, 30, 30]
    wanted = logits_by_hand(inputs)
    assert np.ptp(wanted) > 0.5
    np.testing.assert_allclose(keras_logits(inputs, lengths), wanted, atol=2e-5)
    np.testing.assert_allclose(run(inputs, lengths)[0], wanted, atol=2e-5)


def test_padding_counts_for_nothing():
    inputs, lengths = inputs_of(4, 20), np.array([20, 1, 13, 7])
    real = np.arange(20) < lengths[:, None]
    wanted = keras_logits(inputs, lengths)
    padded = {
        name: np.where(real if name == "measured" else real[..., None], array, HUGE)
        for name, array in inputs.items()
    }
    logits, states = run(padded, lengths)
    np.testing.assert_allclose(logits[real], wanted[real], atol=2e-5)
    for row, length in enumerate(lengths):
        alone = {name: array[row : row + 1, :length] for name, array in inputs.items()}
        np.testing.assert_allclose(states[row], run(alone, [length])[1][0], atol=2e-5)


@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 6], [11, 1]])
def test_any_cut_of_streams_into_calls_gives_the_same(pieces: list[int]):
    inputs = inputs_of(3, 12)
    whole, end = run(inputs, [12] * 3)
    parts, state, start = [], None, 0
    for count in pieces:
        piece = {name: array[:, start : start + count] for name, array in inputs.items()}
        logits, state = run(piece, [count] * 3, state)
        parts.append(logits)
        start += count
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=2e-5)
    np.testing.assert_allclose(state, end, atol=2e-5)


def test_signals_of_a_step_that_was_not_measured_do_not_matter():
    inputs = inputs_of(2, 9)
    others = {
        **inputs,
        "signals": np.where(inputs["measured"][..., None] > 0, inputs["signals"], 9),
    }
    others["signals"] = others["signals"].astype(np.float32)
    np.testing.assert_array_equal(run(inputs, [9, 9])[0], run(others, [9, 9])[0])
    none = {**inputs, "measured": np.zeros((2, 9), np.float32)}
    assert np.abs(run(inputs, [9, 9])[0] - run(none, [9, 9])[0]).max() > 0.1


def test_the_state_of_a_day_is_no_larger_than_that_of_a_minute():
    inputs, state = inputs_of(1, 300), None
    for _ in range(30):
        logits, state = run(inputs, [300], state)
    assert state[0, -1] == pytest.approx(5.0, abs=1e-5), "1 + 0.8 + 0.64 ..."
    np.testing.assert_allclose(logits[0, 100:], keras_logits(inputs, [300])[0, 100:], atol=2e-5)


def test_the_graph_is_native_operators_whose_cost_is_known():
    onnx.checker.check_model(GRAPH, full_check=True)
    assert not {"Loop", "If", "Scan"}.intersection(operators(GRAPH))
    assert len(operators(GRAPH)) <= 46
    shapes = {"features": (8, 2, WIDTH), "signals": (8, 2, SIGNALS), "measured": (8, 2)}
    state = (8, SPEC.state_width)
    assert check_size(GRAPH.SerializeToString(), {**shapes, "lengths": (8,), "state": state})


def test_openvino_says_the_same_after_every_step(tmp_path: Path):
    try:
        core = load_openvino().Core()
    except ImportError:
        pytest.skip("OpenVINO is not installed")
    onnx.save(GRAPH, tmp_path / "sequence.onnx")
    compiled = core.compile_model(
        core.read_model(tmp_path / "sequence.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    inputs, lengths = inputs_of(3, 7), np.full(3, 7, np.int32)
    found = compiled({**inputs, "lengths": lengths, "state": np.zeros((3, SPEC.state_width), "f4")})
    logits, state = run(inputs, lengths)
    np.testing.assert_allclose(found["fake_logit"], logits, atol=1e-4)
    np.testing.assert_allclose(found["next_state"], state, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 10])
def test_its_products_are_counted(steps: int):
    cost, width = measure(GRAPH, {"time": steps}), SPEC.state_width
    assert cost.unknown == ()
    linear = WIDTH + SIGNALS * PROBES + (width - 1) * width
    assert cost.macs == steps * (linear + steps * width), "each sum is over all steps of a call"


@pytest.mark.parametrize(
    "name",
    ["probes_absent", "probes_mean", "probes_scores_kernel", "mean_2_decay", "vote_vote_scale"],
)
def test_the_gate_stops_a_graph_with_a_wrong_number(name: str):
    graph = copy.deepcopy(GRAPH)
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), name))
    pool = features_of(1, 30)[0]
    sides = sequence_contract(frame_spec(), SPEC)

    def passed(model: onnx.ModelProto) -> bool:
        session = open_graph(model, "sequence", *sides)
        rng = np.random.default_rng(0)
        found = compare_sequence(MODEL, session, pool, batches=[1, 3], times=[1, 7], rng=rng)
        return all(comparison.passed for comparison in found)

    assert passed(GRAPH)
    assert not passed(graph)


def test_tf2onnx_s_own_graph_says_the_same():
    data = export_loop_graph(MODEL).SerializeToString()
    session = open_session(data, Provider.CPU, threads=1, name="loop.onnx")
    inputs, lengths = inputs_of(3, 21), np.array([21, 1, 12])
    real = np.arange(21) < lengths[:, None]
    converted = session.run(["fake_logit"], {**inputs, "mask": real})[0]
    np.testing.assert_allclose(run(inputs, lengths)[0][real], converted[real], atol=2e-5)


def test_the_model_survives_being_saved(tmp_path: Path):
    save_model(with_crop_scale(MODEL, 1.5), tmp_path / "model.keras")
    loaded = load_sequence_model(tmp_path / "model.keras")
    inputs = inputs_of(2, 6)
    mask = np.arange(6) < np.array([[6], [4]])
    np.testing.assert_array_equal(loaded({**inputs, "mask": mask}), keras_logits(inputs, [6, 4]))
    assert takes_signals(loaded)
    assert loaded.get_layer("probes").version == SIGNALS_VERSION
    assert loaded.get_layer("mean").decay == 0.8
    assert not takes_signals(build_sequence_model(feature_width=WIDTH, head="mean"))


def test_models_of_other_signals_are_not_exported():
    inputs = MODEL.input
    other = keras.models.clone_model(MODEL)
    other.get_layer("probes").version = SIGNALS_VERSION + 1
    with pytest.raises(UsageError, match=r"33 signals of version 2, but .* 33 of version 1"):
        describe_sequence_model(other, rate_hz=5.0, max_gap_s=1.0)
    narrow = build_sequence_model(feature_width=WIDTH, head="signals", signal_width=4)
    with pytest.raises(UsageError, match="fitted on 4 signals"):
        describe_sequence_model(narrow, rate_hz=5.0, max_gap_s=1.0)
    picture = layers.Dense(1)(inputs["features"])
    x = SignalProbes(2)(picture, inputs["signals"] * 2.0, inputs["measured"])
    x = RunningMean(0.8)(x[..., :1], mask=inputs["mask"])
    foreign = keras.Model(inputs, keras.ops.squeeze(x, axis=-1))
    with pytest.raises(UnsupportedLayer):
        describe_sequence_model(foreign, rate_hz=5.0, max_gap_s=1.0)


def test_a_decayed_mean_in_a_chain_of_other_layers_gives_what_keras_gives():
    model = chain_model(layers.Dense(3, activation="tanh"), RunningMean(0.5), layers.Dense(1))
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    assert spec.state_width == 4
    graph = export_sequence_graph(model, frame_spec(), spec, metadata={})
    session = open_graph(graph, "sequence", *sequence_contract(frame_spec(), spec))
    features = features_of(2, 8)
    fed = {
        "features": features,
        "lengths": np.full(2, 8, np.int32),
        "state": np.zeros((2, 4), np.float32),
    }
    wanted = model({"features": features, "mask": np.ones((2, 8), bool)})
    np.testing.assert_allclose(session.run(["fake_logit"], fed)[0], wanted, atol=2e-5)


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_a_decay_that_is_none_is_refused(decay: float):
    with pytest.raises(UsageError, match="above 0, at most 1"):
        RunningMean(decay)


@pytest.mark.usefixtures("quick_gate")
def test_a_bundle_of_it_runs_with_signals_and_without(tmp_path: Path):
    frame, _ = make_models(64, backbone="custom_cnn")
    model = signals_model(int(frame.output["features"].shape[-1]), seed=4)
    out = tmp_path / "bundle"
    report = write_bundle(frame, model, out=out, info=make_info(), crops=make_crops(4, 64))
    assert {c.graph for c in report.comparisons} == {"frame", "sequence"}
    session = Session.open(Bundle.load(out), provider="cpu")
    manifest = session.bundle.manifest
    assert (manifest.schema_version, manifest.sequence.signals.width) == (3, SIGNALS)
    assert check_probe(session).difference < 1e-4
    assert "version 3" in (out / "CARD.md").read_text()
    inputs = inputs_of(2, 5)
    inputs["features"] = session.run_frame(make_crops(10, 64)).features.reshape(2, 5, -1)
    lengths, state = np.full(2, 5, np.int32), session.initial_state(2)
    found = session.run_sequence(lengths=lengths, state=state, **inputs).fake_logit
    mask = np.ones((2, 5), bool)
    np.testing.assert_allclose(found, model({**inputs, "mask": mask}), atol=1e-4)
    none = {**inputs, "measured": np.zeros((2, 5), np.float32), "mask": mask}
    without = session.run_sequence(inputs["features"], lengths, state).fake_logit
    np.testing.assert_allclose(without, model(none), atol=1e-4)


def test_a_single_step_has_no_signals():
    frame, _ = make_models(64, backbone="custom_cnn")
    features = keras.Model(frame.inputs, {"features": frame.output["features"]}, name="extractor")
    model = signals_model(int(features.output["features"].shape[-1]))
    whole = single_step_model(features, model)
    spec = frame_spec(int(features.output["features"].shape[-1]))
    sequence = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    step = export_sequence_graph(model, spec, sequence, metadata={})
    alone = export_frame_graph(whole, spec, metadata={}, outputs=("features",))
    graph = attach_single_step_logit(alone, step)
    onnx.checker.check_model(graph, full_check=True)
    crops = make_crops(3, 64)
    found = onnxruntime.InferenceSession(graph.SerializeToString()).run(
        ["fake_logit"], {"image": crops}
    )[0]
    wanted = np.asarray(whole(crops.astype(np.float32))["fake_logit"])
    assert np.ptp(wanted) > 1e-4
    np.testing.assert_allclose(found, wanted, atol=2e-5)
