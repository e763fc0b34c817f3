"""The gate lets a right graph through, and stops a wrong one with what differs and where."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfd_edge.bundle import frame_contract
from dfd_edge.bundle.manifest import FrameSpec
from dfd_export.gate import parity
from dfd_export.gate.cases import FrameCases
from dfd_export.gate.comparison import Comparison, Expected, Scale, compare
from dfd_export.gate.crops import random_crops
from dfd_export.gate.oracle import Oracle
from dfd_export.gate.parity import (
    CollapsedModel,
    ContractMismatch,
    ParityError,
    ParityReport,
    ShapeMismatch,
    ValueMismatch,
    check_parity,
    open_graph,
)
from dfd_export.graphs.frame_graph import describe_frame_model, export_frame_graph
from networks import CHAIN_SIZE, chain_model, settle
from tiny_bundle import make_crops


def check(exported, *, frame_graph=None, sequence_graph=None, extra=None):
    return check_parity(
        exported.frame_model,
        exported.sequence_model,
        frame_graph or exported.frame_graph,
        sequence_graph or exported.sequence_graph,
        frame=exported.frame,
        sequence=exported.sequence,
        crops=exported.crops,
        extra=extra,
    )


def changed(graph: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    graph = copy.deepcopy(graph)
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    array = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return graph


def test_the_exported_graphs_pass_in_every_case(exported):
    report = check(exported)
    cases = {c.case for c in report.comparisons}
    for batch in parity.BATCHES:
        assert {f"random crops, batch {batch}", f"real crops, batch {batch}"} <= cases
        for steps in parity.TIMES:
            case = f"batch {batch}, time {steps}"
            assert {case, f"{case}, chunked", f"{case}, padded"} <= cases
    assert {c.case for c in report.comparisons if c.graph == "frame"} >= {
        *("random and real crops, batch 3", "random and real crops, batch 8"),
    }
    assert max(c.max_difference for c in report.comparisons if c.output == "fake_logit") <= 1e-4
    assert len(json.loads(report.to_json())["comparisons"]) == len(report.comparisons)
    assert len(report.table().splitlines()) == 1 + 5


def add_one(array: np.ndarray) -> np.ndarray:
    array.flat[0] += 1
    return array


@pytest.mark.usefixtures("quick_gate")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gru0_recurrent_kernel", np.negative),
        ("gru1_bias", add_one),
        ("gru2_kernel", lambda w: w * 1.001),
        ("dense_bias", add_one),
    ],
)
def test_a_wrong_weight_in_the_sequence_graph_is_stopped(exported, name: str, change):
    graph = changed(exported.sequence_graph, name, change)
    with pytest.raises(
        ValueMismatch, match=r"sequence, batch \d.*: fake_logit \[\d, \d+\] differs"
    ):
        check(exported, sequence_graph=graph)


@pytest.mark.usefixtures("quick_gate")
def test_a_sequence_graph_that_reads_the_padding_is_stopped(exported):
    graph = copy.deepcopy(exported.sequence_graph)
    for node in graph.graph.node:
        if node.op_type == "GRU":
            node.input[4] = ""
    with pytest.raises(ValueMismatch, match=r"padded: next_state"):
        check(exported, sequence_graph=graph)


@pytest.mark.usefixtures("quick_gate")
def test_a_sequence_graph_that_forgets_its_state_is_stopped(exported):
    graph = copy.deepcopy(exported.sequence_graph)
    next(n for n in graph.graph.node if n.op_type == "GRU").input[5] = ""
    with pytest.raises(ValueMismatch, match="chunked"):
        check(exported, sequence_graph=graph)


@pytest.mark.usefixtures("quick_gate")
def test_a_wrong_scaling_in_the_frame_graph_is_stopped(exported):
    graph = copy.deepcopy(exported.frame_graph)
    offset = next(n for n in graph.graph.node if n.op_type == "Add").input[1]
    with pytest.raises(ValueMismatch, match=r"frame, .* crops, batch 1: features \[1, 1280\]"):
        check(exported, frame_graph=changed(graph, offset, lambda w: w * 1.01))


@pytest.mark.usefixtures("quick_gate")
def test_channels_in_the_wrong_order_are_stopped(exported):
    graph = copy.deepcopy(exported.frame_graph)
    first = next(n for n in graph.graph.node if n.op_type == "Conv").input[1]
    with pytest.raises(ValueMismatch):
        check(exported, frame_graph=changed(graph, first, lambda w: w[:, ::-1]))


@pytest.mark.usefixtures("quick_gate")
def test_not_a_number_is_stopped(exported):
    graph = changed(exported.sequence_graph, "dense_bias", lambda w: w * np.nan)
    with pytest.raises(ValueMismatch):
        check(exported, sequence_graph=graph)


def test_a_leaked_input_is_stopped(exported):
    graph = copy.deepcopy(exported.frame_graph)
    graph.graph.input.append(helper.make_tensor_value_info("leaked", TensorProto.FLOAT, [1]))
    with pytest.raises(ContractMismatch, match="its inputs are image, leaked, but the contract"):
        check(exported, frame_graph=graph)


def test_a_renamed_axis_is_stopped(exported):
    graph = copy.deepcopy(exported.frame_graph)
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "unk__630"
    with pytest.raises(ContractMismatch, match="unk__630"):
        check(exported, frame_graph=graph)


def test_an_output_of_another_shape_is_stopped():
    with pytest.raises(ShapeMismatch, match=r"has shape \[2, 3\], but the Keras model gives \[3\]"):
        compare("frame", "a case", "fake_logit", np.zeros((2, 3)), expected(np.zeros(3)))


def test_a_difference_says_how_much_and_where():
    found = np.zeros((2, 3))
    found[1, 2] = 0.5
    comparison = compare("frame", "a case", "fake_logit", found, expected(np.zeros((2, 3))))
    assert not comparison.passed
    assert str(comparison) == (
        "frame, a case: fake_logit [2, 3] differs by 0.5 at [1, 2] (allowed: 0.0001, its spread: 2)"
    )


def expected(values: np.ndarray) -> Expected:
    return Expected(values, Scale(rounding=1e-5, spread=2.0, magnitude=3.0))


def test_what_is_allowed_is_what_rounding_does_to_the_model():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 5)).astype(np.float32)
    scale = Scale.of(values, values + np.float32(1e-4))
    assert scale.tolerance == pytest.approx(1e-3, rel=1e-2)
    assert scale.spread == pytest.approx(1.0, rel=0.3)
    assert Scale.of(values * 1e3, values * 1e3).tolerance < 5e-2  # summed in another order
    assert not Scale.of(values * 0 + 7, values * 0 + 7).is_distinct


@pytest.mark.parametrize(("difference", "passes"), [(5e-39, True), (2e-38, False)])
def test_numbers_that_a_processor_may_take_for_zero_are_no_difference(difference, passes):
    values = np.array([[8e-39], [0.0], [3e-39]], np.float32)
    wanted = Expected(values, Scale.of(values, values))
    found = values + np.float32(difference)
    assert compare("frame", "published model", "probability", found, wanted).passed is passes


@pytest.fixture(scope="module", params=[1e-6, 1.0, 1e5], ids="features times {}".format)
def scaled(request: pytest.FixtureRequest) -> tuple[keras.Model, FrameSpec, onnx.ModelProto]:
    """A network whose features and logits are tiny, usual or huge."""
    keras.utils.set_random_seed(1)
    model = chain_model("tutorial")
    settle(model, make_crops(16, CHAIN_SIZE))
    last = model.get_layer("tutorial").layers[-1]
    for variable in last.weights:
        variable.assign(variable * request.param)
    head = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    head.bias.assign(np.zeros(1))
    spec = describe_frame_model(model, crop_scale=1.5)
    return model, spec, export_frame_graph(model, spec, metadata={})


def frame_report(model: keras.Model, spec: FrameSpec, graph: onnx.ModelProto) -> ParityReport:
    crops = make_crops(8, spec.input_size)
    cases = FrameCases.make(model, spec, crops, (1, 3), np.random.default_rng(0))
    return ParityReport(cases.compare(open_graph(graph, "frame", *frame_contract(spec))))


def test_small_and_large_features_are_judged_alike(scaled):
    model, spec, graph = scaled
    frame_report(model, spec, graph).check()
    kernel = next(n for n in graph.graph.node if n.op_type == "Conv").input[1]
    wrong = changed(graph, kernel, lambda w: w * 1.0003)
    with pytest.raises(ValueMismatch, match=r"features \[1, 12\] differs"):
        frame_report(model, spec, wrong).check()


@pytest.mark.usefixtures("quick_gate")
def test_a_model_that_says_the_same_of_everything_is_refused(exported):
    """No graph of it could be told from a wrong one."""
    frame_model = keras.models.clone_model(exported.frame_model)
    frame_model.set_weights(exported.frame_model.get_weights())
    head = frame_model.get_layer("evidence_head")
    head.kernel.assign(head.kernel * 0)
    with pytest.raises(
        CollapsedModel, match=r"frame_efficientnet_lite0: its logit varies by 0\.0e"
    ):
        check(replace(exported, frame_model=frame_model))
    head.kernel.assign(head.kernel * np.nan)
    with pytest.raises(
        CollapsedModel, match="no finite number for some of 6 random and real crops"
    ):
        check(replace(exported, frame_model=frame_model))


@pytest.mark.usefixtures("quick_gate")
def test_a_sequence_model_that_says_the_same_of_everything_is_refused(exported):
    sequence_model = keras.models.clone_model(exported.sequence_model)
    sequence_model.set_weights(exported.sequence_model.get_weights())
    logit = sequence_model.get_layer("logit")
    logit.kernel.assign(logit.kernel * 0)
    with pytest.raises(CollapsedModel, match=r"sequence_gru: .* over 3 clips of 7 steps"):
        check(replace(exported, sequence_model=sequence_model))


@pytest.mark.usefixtures("quick_gate")
def test_further_comparisons_count_like_the_others(exported):
    wanted = Oracle(exported.frame_model)(exported.crops.astype(np.float32))["fake_logit"]

    def further(error: float):
        def compare_again(frame_session, sequence_session):
            assert sequence_session.get_inputs()[0].name == "features"
            found = frame_session.run(["fake_logit"], {"image": exported.crops})[0]
            return [compare("frame", "once more", "fake_logit", found + error, wanted)]

        return compare_again

    report = check(exported, extra=further(0.0))
    assert report.comparisons[-1].case == "once more"
    with pytest.raises(ValueMismatch, match=r"^1 of .*once more: fake_logit \[4\] differs"):
        check(exported, extra=further(0.01))


def test_random_crops_differ_in_colour_brightness_and_contrast():
    crops = random_crops(np.random.default_rng(0), 8, 32).astype(np.float32)
    assert crops.shape == (8, 32, 32, 3)
    assert np.ptp(crops.mean(axis=(1, 2, 3))) > 40
    assert np.ptp(crops.std(axis=(1, 2, 3))) > 15
    assert np.ptp(crops.mean(axis=(1, 2))[:, 0] - crops.mean(axis=(1, 2))[:, 2]) > 10


def test_asking_a_model_does_not_change_it():
    model = chain_model("tutorial")
    before = [weights.copy() for weights in model.get_weights()]
    crops = make_crops(2, CHAIN_SIZE).astype(np.float32)
    answers = Oracle(model)(crops)
    assert answers["fake_logit"].scale.rounding > 0
    for weights, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, old)
    np.testing.assert_array_equal(model(crops)["features"], answers["features"].values)


def test_every_error_of_the_gate_is_one_of_the_program_s_own():
    for kind in (CollapsedModel, ContractMismatch, ShapeMismatch, ValueMismatch):
        assert issubclass(kind, ParityError)
        assert kind.exit_code == 1


def test_rounding_in_long_sums_is_no_difference():
    # Keras' own mean over such a map was 3.1e-6 off its value in float64, onnxruntime's 7.5e-6.
    scale = Scale(rounding=3e-7, spread=0.086, magnitude=0.97)
    assert 7.5e-6 < scale.tolerance < 1e-3 * scale.spread
    # Where the output hardly varies, no more of its spread is given away.
    assert Scale(rounding=1e-9, spread=1e-4, magnitude=1.0).tolerance < 0.05 * 1e-4


@pytest.mark.parametrize(("spread", "warns"), [(7e-13, True), (0.5, False)])
def test_a_model_that_says_nearly_the_same_of_all_is_warned_of(spread: float, warns: bool):
    found = Comparison("frame", "crops", "fake_logit", [1], 0.0, [0], 1e-6, spread)
    warning = ParityReport([found]).warning()
    assert (warning is not None and "were its weights loaded" in warning) == warns
