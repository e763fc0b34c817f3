"""Each rewrite of a graph makes it leaner and changes no number."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from onnx import TensorProto

from dfd_export.graphs.graph_passes import PASSES, Pass, simplify
from dfd_export.graphs.onnx_model import BrokenGraph, finish
from dfd_export.graphs.passes.affine import fold_affine
from dfd_export.graphs.passes.fusions import fold_pads, fuse_hard_swish
from dfd_export.graphs.passes.layout import (
    drop_reshapes,
    fix_reshapes,
    lift_transposes,
)
from small_graphs import (
    BN,
    LAST,
    MAP,
    PADDED,
    POOL,
    ROWS,
    TO_NCHW,
    Node,
    graph_of,
    rewritten,
)

Case = tuple[Pass, list[Any], list[Node], list[str]]

FIRES: dict[str, Case] = {
    "batch norm after a convolution": (
        fold_affine,
        MAP,
        [("Conv", "x w", "a"), ("Mul", "a scale", "b"), ("Add", "b offset", "y")],
        ["Conv"],
    ),
    "batch norm after a convolution with a bias, operands the other way round": (
        fold_affine,
        MAP,
        [("Conv", "x w bias", "a"), ("Mul", "scale a", "b"), ("Add", "offset b", "y")],
        ["Conv"],
    ),
    "offset, then factor": (
        fold_affine,
        MAP,
        [("Conv", "x w", "a"), ("Sub", "a offset", "b"), ("Div", "b scale", "y")],
        ["Conv"],
    ),
    "a batch norm that is one node": (
        fold_affine,
        MAP,
        [("Conv", "x w bias", "a"), ("BatchNormalization", f"a {BN}", "y")],
        ["Conv"],
    ),
    "batch norm before a convolution that does not pad": (
        fold_affine,
        MAP,
        [
            ("Relu", "x", "r"),
            ("Mul", "r scale2", "b"),
            ("Add", "b offset2", "c"),
            ("Conv", "c w", "y"),
        ],
        ["Relu", "Conv"],
    ),
    "batch norm between activation and depthwise convolution": (
        fold_affine,
        MAP,
        [
            ("Conv", "x w", "a"),
            ("Relu", "a", "r"),
            ("BatchNormalization", f"r {BN}", "c"),
            ("Conv", "c depthwise bias", "y", {"group": 3}),
        ],
        ["Conv", "Relu", "Conv"],
    ),
    "batch norm before a convolution that pads: its factor only": (
        fold_affine,
        MAP,
        [
            ("Relu", "x", "r"),
            ("Mul", "r scale2", "b"),
            ("Add", "b offset2", "c"),
            ("Conv", "c w", "y", PADDED),
        ],
        ["Relu", "Add", "Conv"],
    ),
    "a factor before a convolution that pads": (
        fold_affine,
        MAP,
        [("Relu", "x", "r"), ("Mul", "r scale2", "b"), ("Conv", "b w", "y", PADDED)],
        ["Relu", "Conv"],
    ),
    "batch norm before two convolutions": (
        fold_affine,
        MAP,
        [
            ("Relu", "x", "r"),
            ("Mul", "r scale2", "b"),
            ("Add", "b offset2", "c"),
            ("Conv", "c w", "d"),
            ("Conv", "c w bias", "e"),
            ("Add", "d e", "y"),
        ],
        ["Relu", "Conv", "Conv", "Add"],
    ),
    "batch norm before an activation: one node": (
        fold_affine,
        MAP,
        [("Mul", "x scale2", "b"), ("Add", "b offset2", "c"), ("Relu", "c", "y")],
        ["BatchNormalization", "Relu"],
    ),
    "several factors: one": (
        fold_affine,
        MAP,
        [("Mul", "x scale2", "b"), ("Mul", "b half", "c"), ("Relu", "c", "y")],
        ["Mul", "Relu"],
    ),
    "a factor of one": (
        fold_affine,
        MAP,
        [("Relu", "x", "r"), ("Mul", "r one", "y")],
        ["Relu"],
    ),
    "a dense layer and its bias": (
        fold_affine,
        ROWS,
        [("MatMul", "x rows", "a"), ("Add", "a columns", "y")],
        ["Gemm"],
    ),
    "batch norm after a dense layer": (
        fold_affine,
        ROWS,
        [("Gemm", "x rows columns", "a"), ("Mul", "a columns", "b"), ("Add", "b half", "y")],
        ["Gemm"],
    ),
    "two convolutions that share a kernel, one of them with a factor after it": (
        fold_affine,
        MAP,
        [
            ("Conv", "x w", "a"),
            ("Mul", "a scale", "b"),
            ("Conv", "x w", "c"),
            ("Sub", "b c", "y"),
        ],
        ["Conv", "Conv", "Sub"],
    ),
    "convolution, clip, factor": (
        fold_affine,
        MAP,
        [("Conv", "x w bias", "a"), ("Clip", "a zero six", "b"), ("Mul", "b sixth", "y")],
        ["Conv", "Clip"],
    ),
    "padding before a convolution": (
        fold_pads,
        MAP,
        [("Pad", "x border", "a"), ("Conv", "a w", "y", {"pads": [0, 1, 0, 1]})],
        ["Conv"],
    ),
    "padding before a maximum of what is not negative": (
        fold_pads,
        MAP,
        [("Relu", "x", "r"), ("Pad", "r border", "a"), ("MaxPool", "a", "y", POOL)],
        ["Relu", "MaxPool"],
    ),
    "padding before a mean": (
        fold_pads,
        MAP,
        [("Pad", "x border zero", "a"), ("AveragePool", "a", "y", POOL)],
        ["AveragePool"],
    ),
    "hard swish": (
        fuse_hard_swish,
        MAP,
        [
            ("Add", "x three", "a"),
            ("Clip", "a zero six", "b"),
            ("Mul", "b sixth", "c"),
            ("Mul", "x c", "y"),
        ],
        ["HardSwish"],
    ),
    "hard swish, multiplied first": (
        fuse_hard_swish,
        MAP,
        [
            ("Add", "three x", "a"),
            ("Clip", "a zero six", "b"),
            ("Mul", "b x", "c"),
            ("Div", "c six", "y"),
        ],
        ["HardSwish"],
    ),
    "a reshape that does nothing": (
        drop_reshapes,
        MAP,
        [("Relu", "x", "r"), ("Reshape", "r same", "y")],
        ["Relu"],
    ),
    "a map flattened and put back": (
        drop_reshapes,
        MAP,
        [("Relu", "x", "r"), ("Reshape", "r flat", "a"), ("Reshape", "a same", "y")],
        ["Relu"],
    ),
    "a shape calculated from the batch": (
        fix_reshapes,
        MAP,
        [
            ("Shape", "x", "s"),
            ("Cast", "s", "i", {"to": TensorProto.INT64}),
            ("Slice", "i first second first", "n"),
            ("Concat", "n fifty", "t", {"axis": 0}),
            ("Reshape", "x t", "y"),
        ],
        ["Reshape"],
    ),
    "scaling before a transpose": (
        lift_transposes,
        LAST,
        [
            ("Mul", "x last", "a"),
            ("Sub", "three a", "b"),
            ("Transpose", "b", "c", TO_NCHW),
            ("Relu", "c", "y"),
        ],
        ["Transpose", "Mul", "Sub", "Relu"],
    ),
}


@pytest.mark.parametrize("case", FIRES.values(), ids=FIRES)
def test_a_rewrite_changes_nodes_but_no_numbers(case: Case):
    rewrite, shape, nodes, left = case
    assert rewritten(rewrite, nodes, shape) == left


def test_every_rewrite_has_a_case():
    assert {case[0] for case in FIRES.values()} == set(PASSES)


def leave_out(graph: ir.Graph) -> bool:
    """Takes out a node whose result is still needed."""
    found = [node for node in graph if node.op_type == "Relu"]
    graph.remove(found)
    return bool(found)


def go_in_a_circle(graph: ir.Graph) -> bool:
    relu = next(node for node in graph if node.op_type == "Relu")
    relu.replace_input_with(0, graph.outputs[0])
    return True


@pytest.mark.parametrize(
    ("rewrite", "problem"),
    [
        (leave_out, "nothing makes r"),
        (go_in_a_circle, "some nodes wait for their own results"),
    ],
)
def test_a_rewrite_that_breaks_a_graph_is_named(rewrite: Pass, problem: str):
    model = graph_of([("Relu", "x", "r"), ("Conv", "r w", "a"), ("Mul", "a scale", "y")], MAP)
    message = (
        rf"^the rewrite {rewrite.__name__} left a graph that cannot run \({problem}\); nothing"
    )
    with pytest.raises(BrokenGraph, match=message):
        simplify(model, (drop_reshapes, rewrite))


def test_a_graph_that_was_broken_before_is_said_to_be():
    model = graph_of([("Relu", "x", "r"), ("Conv", "r w", "y")], MAP)
    del model.graph.initializer[:]
    with pytest.raises(BrokenGraph, match=r"^the conversion to ONNX left .*nothing makes w"):
        simplify(model)


def test_a_graph_that_is_no_onnx_gives_one_line():
    model = graph_of([("Relu", "x", "y")], MAP)
    model.graph.node[0].op_type = "Reluctant"
    with pytest.raises(BrokenGraph, match=r"^the frame graph is not valid ONNX ") as caught:
        finish(model, {}, {}, name="frame", metadata={})
    assert "\n" not in str(caught.value)


def test_what_no_output_needs_goes():
    model = graph_of([("Conv", "x w", "a"), ("Relu", "a", "z"), ("Relu", "a", "y")], MAP)
    simplify(model)
    assert [node.output[0] for node in model.graph.node] == ["a", "y"]


def test_a_result_keeps_its_name_when_its_node_goes():
    model = graph_of([("Relu", "x", "r"), ("Conv", "r w", "a"), ("Mul", "a scale", "y")], MAP)
    simplify(model)
    assert [(node.op_type, list(node.output)) for node in model.graph.node] == [
        ("Relu", ["r"]),
        ("Conv", ["y"]),
    ]


def test_a_node_between_input_and_output_stays():
    model = graph_of([("Mul", "x one", "y")], MAP)
    simplify(model)
    assert [node.op_type for node in model.graph.node] == ["Mul"]
