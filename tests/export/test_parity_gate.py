"""The gate lets a right graph through, and stops a wrong one with what differs and where."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfd_export import parity
from dfd_export.parity import (
    ContractMismatch,
    ParityError,
    ShapeMismatch,
    ValueMismatch,
    check_parity,
)


def check(exported, *, frame_graph=None, sequence_graph=None):
    return check_parity(
        exported.frame_model,
        exported.sequence_model,
        frame_graph or exported.frame_graph,
        sequence_graph or exported.sequence_graph,
        frame=exported.frame,
        sequence=exported.sequence,
        crops=exported.crops,
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
    scale = next(n for n in graph.graph.node if n.op_type == "Mul").input[1]
    with pytest.raises(ValueMismatch, match=r"frame, .* crops, batch 1: features \[1, 1280\]"):
        check(exported, frame_graph=changed(graph, scale, lambda w: w * 1.01))


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
        parity._compare("frame", "a case", "fake_logit", np.zeros((2, 3)), np.zeros(3))


def test_a_difference_says_how_much_and_where():
    found = np.zeros((2, 3))
    found[1, 2] = 0.5
    comparison = parity._compare("frame", "a case", "fake_logit", found, np.zeros((2, 3)))
    assert not comparison.passed
    text = "frame, a case: fake_logit [2, 3] differs by 0.5 at [1, 2] (allowed: 0.0001)"
    assert str(comparison) == text


def test_every_error_of_the_gate_is_one_of_the_program_s_own():
    for kind in (ContractMismatch, ShapeMismatch, ValueMismatch):
        assert issubclass(kind, ParityError)
        assert kind.exit_code == 1
