"""Each rewrite of a graph changes its nodes and no number, and stays away where it would."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from dfd_export.graph_passes import PASSES, Pass, simplify
from dfd_export.passes.activations import fuse_hard_swish
from dfd_export.passes.affine import fold_affine
from dfd_export.passes.constants import merge_constants
from dfd_export.passes.layout import (
    drop_inverse_transposes,
    drop_reshapes,
    fix_reshapes,
    flatten_without_transpose,
    lift_transposes,
    pool_without_transpose,
)
from dfd_export.passes.padding import fold_pads

RNG = np.random.default_rng(4)

CONSTANTS: dict[str, Any] = {
    "w": RNG.normal(size=(3, 2, 3, 3)),  # kernels
    "v": RNG.normal(size=(4, 3, 2, 2)),
    "depthwise": RNG.normal(size=(3, 1, 2, 2)),
    "bias": RNG.normal(size=3),
    "scale": RNG.uniform(0.5, 2, (1, 3, 1, 1)),  # one number a channel of three
    "offset": RNG.normal(size=(3, 1, 1)),
    "scale2": RNG.uniform(0.5, 2, (1, 2, 1, 1)),  # of two
    "offset2": RNG.normal(size=(1, 2, 1, 1)),
    "with_zero": np.array([0.0, 2.0]).reshape(1, 2, 1, 1),
    "last": np.array([0.5, 1.5]),  # of the last axis
    "place": RNG.normal(size=(1, 1, 3, 3)),
    "rows": RNG.normal(size=(50, 4)),
    "columns": RNG.normal(size=4),
    "mean": RNG.normal(size=3),
    "variance": RNG.uniform(0.5, 2, 3),
    "zero": 0.0,
    "one": 1.0,
    "half": 0.5,
    "three": 3.0,
    "six": 6.0,
    "sixth": 1 / 6,
    "close_to_a_sixth": 0.1667,
    "minus": -1.0,
}
INTEGERS: dict[str, list[int]] = {
    "border": [0, 0, 1, 0, 0, 0, 0, 1],
    "wide": [0, 0, 3, 3, 0, 0, 3, 3],
    "channels": [0, 1, 0, 0, 0, 0, 0, 0],
    "spatial": [2, 3],
    "same": [-1, 2, 5, 5],
    "other": [-1, 5, 2, 5],
    "flat": [-1, 50],
    "fifty": [50],
    "first": [0],
    "second": [1],
}

Node = tuple[Any, ...]
TO_NHWC, TO_NCHW = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
PADDED = {"pads": [1, 1, 1, 1]}
POOL = {"kernel_shape": [2, 2]}
BN = "scale3 offset3 mean variance"


def graph_of(nodes: list[Node], shape: list[Any]) -> onnx.ModelProto:
    """From (operator, inputs, output, attributes); the last node's output is the graph's."""
    constants = {
        **CONSTANTS,
        "scale3": CONSTANTS["scale"].reshape(-1),
        "offset3": CONSTANTS["offset"].reshape(-1),
        "same_bias": CONSTANTS["bias"],
        "with_zero2": CONSTANTS["with_zero"].reshape(-1),
        "last2": CONSTANTS["last"],
    }
    tensors = [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()]
    tensors += [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in INTEGERS.items()]
    made = [
        helper.make_node(op, inputs.split(), [output], **(rest[0] if rest else {}))
        for op, inputs, output, *rest in nodes
    ]
    used = {name for node in made for name in node.input}
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor for tensor in tensors if tensor.name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"x": x})[0]


def rewritten(rewrite: Pass, nodes: list[Node], shape: list[Any]) -> list[str]:
    """The operators that are left; fails if a number changes."""
    model = graph_of(nodes, shape)
    x = RNG.normal(size=[length if isinstance(length, int) else 3 for length in shape])
    x = x.astype(np.float32)
    before = run(model, x)
    simplify(model, (rewrite,))
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, x), before, rtol=1e-5, atol=1e-5)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    return [node.op_type for node in model.graph.node]


MAP = ["batch", 2, 5, 5]
LAST = ["batch", 5, 5, 2]
ROWS = ["batch", 50]

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
    "transposed there and back": (
        drop_inverse_transposes,
        MAP,
        [
            ("Relu", "x", "r"),
            ("Transpose", "r", "a", TO_NHWC),
            ("Transpose", "a", "b", TO_NCHW),
            ("Relu", "b", "y"),
        ],
        ["Relu", "Relu"],
    ),
    "a mean over height and width in the other layout": (
        pool_without_transpose,
        MAP,
        [
            ("Transpose", "x", "a", TO_NHWC),
            ("ReduceMean", "a", "y", {"axes": [1, 2], "keepdims": 0}),
        ],
        ["GlobalAveragePool", "Squeeze"],
    ),
    "a map flattened in the other layout, before a dense layer": (
        flatten_without_transpose,
        MAP,
        [
            ("Transpose", "x", "a", TO_NHWC),
            ("Reshape", "a flat", "b"),
            ("Gemm", "b rows columns", "y"),
        ],
        ["Reshape", "Gemm"],
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
    "constants that are there twice": (
        merge_constants,
        MAP,
        [("Conv", "x w bias", "a"), ("Conv", "x w same_bias", "b"), ("Add", "a b", "y")],
        ["Conv", "Conv", "Add"],
    ),
}


@pytest.mark.parametrize("case", FIRES.values(), ids=FIRES)
def test_a_rewrite_changes_nodes_but_no_numbers(case: Case):
    rewrite, shape, nodes, left = case
    assert rewritten(rewrite, nodes, shape) == left


LEAVES: dict[str, tuple[Pass, list[Any], list[Node]]] = {
    "a convolution whose own result is needed elsewhere": (
        fold_affine,
        MAP,
        [("Conv", "x w", "a"), ("Mul", "a scale", "b"), ("Add", "a b", "y")],
    ),
    "a number a place, not a channel": (
        fold_affine,
        MAP,
        [("Conv", "x w", "a"), ("Mul", "a place", "y")],
    ),
    "one divided by it": (fold_affine, MAP, [("Conv", "x w", "a"), ("Div", "half a", "y")]),
    "two maps that are added": (fold_affine, MAP, [("Relu", "x", "a"), ("Add", "x a", "y")]),
    "an offset before a convolution that pads": (
        fold_affine,
        MAP,
        [("Relu", "x", "r"), ("Add", "r offset2", "b"), ("Conv", "b w", "y", PADDED)],
    ),
    "a channel that is switched off before a convolution that pads": (
        fold_affine,
        MAP,
        [
            ("Relu", "x", "r"),
            ("BatchNormalization", "r with_zero2 last last last2", "b"),
            ("Conv", "b w", "y", PADDED),
        ],
    ),
    "a batch norm whose result is needed elsewhere": (
        fold_affine,
        MAP,
        [
            ("Relu", "x", "r"),
            ("Mul", "r half", "b"),
            ("Conv", "b w", "c", PADDED),
            ("Conv", "c v", "d"),
            ("GlobalAveragePool", "d", "e"),
            ("GlobalAveragePool", "b", "f"),
            ("Concat", "e f", "y", {"axis": 1}),
        ],
    ),
    "a negative factor after a clip": (
        fold_affine,
        MAP,
        [("Conv", "x w bias", "a"), ("Clip", "a zero six", "b"), ("Mul", "b minus", "y")],
    ),
    "zeros before a maximum of what may be negative": (
        fold_pads,
        MAP,
        [("Pad", "x border", "a"), ("MaxPool", "a", "y", POOL)],
    ),
    "padding with ones": (
        fold_pads,
        MAP,
        [("Pad", "x border one", "a"), ("Conv", "a w", "y")],
    ),
    "padding by reflection": (
        fold_pads,
        MAP,
        [("Pad", "x border", "a", {"mode": "reflect"}), ("Conv", "a w", "y")],
    ),
    "padding with channels": (
        fold_pads,
        MAP,
        [("Conv", "x w", "c"), ("Pad", "c channels", "a"), ("Relu", "a", "y")],
    ),
    "padding that a whole window fits into": (
        fold_pads,
        MAP,
        [("Pad", "x wide", "a"), ("AveragePool", "a", "y", POOL)],
    ),
    "padding before a mean that leaves its own padding out": (
        fold_pads,
        MAP,
        [("Pad", "x border", "a"), ("AveragePool", "a", "y", {**POOL, **PADDED})],
    ),
    "padding that something else needs too": (
        fold_pads,
        MAP,
        [
            ("Pad", "x border", "a"),
            ("Conv", "a w", "b"),
            ("GlobalAveragePool", "a", "c"),
            ("GlobalAveragePool", "b", "d"),
            ("Concat", "d c", "y", {"axis": 1}),
        ],
    ),
    "nearly hard swish": (
        fuse_hard_swish,
        MAP,
        [
            ("Add", "x three", "a"),
            ("Clip", "a zero six", "b"),
            ("Mul", "b close_to_a_sixth", "c"),
            ("Mul", "x c", "y"),
        ],
    ),
    "a gate for another value": (
        fuse_hard_swish,
        MAP,
        [
            ("Relu", "x", "r"),
            ("Add", "x three", "a"),
            ("Clip", "a zero six", "b"),
            ("Mul", "b sixth", "c"),
            ("Mul", "r c", "y"),
        ],
    ),
    "a reshape that moves numbers": (drop_reshapes, MAP, [("Reshape", "x other", "y")]),
    "transposed to a third layout": (
        drop_inverse_transposes,
        MAP,
        [("Transpose", "x", "a", TO_NHWC), ("Transpose", "a", "y", TO_NHWC)],
    ),
    "a mean over width and channels": (
        pool_without_transpose,
        MAP,
        [
            ("Transpose", "x", "a", TO_NHWC),
            ("ReduceMean", "a", "y", {"axes": [2, 3], "keepdims": 0}),
        ],
    ),
    "a flattened map that is a result itself": (
        flatten_without_transpose,
        MAP,
        [("Transpose", "x", "a", TO_NHWC), ("Reshape", "a flat", "y")],
    ),
    "a transpose of two maps that are added": (
        lift_transposes,
        LAST,
        [("Relu", "x", "a"), ("Add", "x a", "b"), ("Transpose", "b", "y", TO_NCHW)],
    ),
}


@pytest.mark.parametrize("case", LEAVES.values(), ids=LEAVES)
def test_a_rewrite_stays_away(case: tuple[Pass, list[Any], list[Node]]):
    rewrite, shape, nodes = case
    assert sorted(rewritten(rewrite, nodes, shape)) == sorted(op for op, *_ in nodes)


def test_every_rewrite_has_a_case():
    assert {case[0] for case in FIRES.values()} == set(PASSES)


def test_equal_constants_are_kept_once():
    nodes = FIRES["constants that are there twice"][2]
    model = graph_of(nodes, MAP)
    assert len(model.graph.initializer) == 3
    simplify(model)
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "bias"}


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
