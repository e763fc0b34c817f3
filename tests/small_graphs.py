"""Small ONNX graphs written down as tuples, for tests of their rewrites."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference

from dfd_export.graphs.graph_passes import Pass, simplify

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
    "reversed": [1, 0],
    "rotated": [2, 0, 1],
    "twice": [0, 0],
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
