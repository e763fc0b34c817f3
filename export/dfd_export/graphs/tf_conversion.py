"""TensorFlow functions to ONNX through tf2onnx, or a refusal that names the layer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import defs, numpy_helper

from dfd_edge.errors import UsageError
from dfd_export.graphs.onnx_model import OPSET

_LOOPS = {"If", "Loop", "Scan"}


def convert_function(
    function: Callable[..., Any],
    signature: list[Any],
    *,
    name: str,
    loops: bool = True,
) -> onnx.ModelProto:
    """Traces a function and converts it.

    Args:
        function: Takes a TensorFlow tensor for each entry of `signature`.
        signature: `tf.TensorSpec` of each argument; their names become the inputs'.
        name: The model's, for messages.
        loops: Whether the graph may loop and branch.

    Raises:
        UsageError: The function uses an operation that ONNX does not have, or it loops
            and may not.
    """
    import tensorflow as tf  # noqa: PLC0415 - slow, and only this function needs it
    import tf2onnx  # noqa: PLC0415

    traced = tf.function(function, input_signature=signature, autograph=False)
    with _one_flat_graph(), _quiet():
        concrete = traced.get_concrete_function()
        model: onnx.ModelProto
        model, _ = tf2onnx.convert.from_function(
            traced,
            input_signature=signature,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    _put_in_constants(model.graph, concrete.graph.captures)
    nodes = model.graph.node
    _refuse(name, "ONNX has no counterpart of", [n for n in nodes if not _known(n)])
    if not loops:
        _refuse(name, "a bundle's graphs have no", [n for n in nodes if n.op_type in _LOOPS])
    return model


def _put_in_constants(graph: onnx.GraphProto, captures: list[tuple[Any, Any]]) -> None:
    """Gives the constants of a traced function, which tf2onnx makes inputs, their values.

    Layers keep some numbers as tensors rather than as variables, as `Normalization` does its mean.

    Args:
        graph: Changed in place.
        captures: Each tensor from outside the function, with its place inside.
    """
    values = {inside.name: outside for outside, inside in captures}
    inputs = list(graph.input)
    del graph.input[:]
    for given in inputs:
        if given.name in values:
            array = np.asarray(values[given.name].numpy())
            graph.initializer.append(numpy_helper.from_array(array, given.name))
        else:
            graph.input.append(given)


def _known(node: onnx.NodeProto) -> bool:
    return bool(defs.has(node.op_type, node.domain))


def _refuse(model: str, reason: str, nodes: list[onnx.NodeProto]) -> None:
    if nodes:
        listed = ", ".join(f"{node.name} ({node.op_type})" for node in nodes[:3])
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        raise UsageError(
            f"model {model}: {reason} {listed}{more}: build these layers from other operations, "
            "and fit the model again"
        )


@contextlib.contextmanager
def _one_flat_graph() -> Iterator[None]:
    """Traces functions in functions into the graph around them.

    Keras compiles grouped convolutions as functions of their own, which stay calls in the graph.
    """
    import tensorflow as tf  # noqa: PLC0415

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences tf2onnx, which logs as errors what the caller raises."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _erfc(graph: Any, node: Any, name: str, args: Any) -> None:  # noqa: ANN401
    """erfc(x) = 1 - erf(x): what Keras makes of exact GELU, and tf2onnx does not know."""
    output, source = node.output[0], node.input[0]
    shapes, dtypes = [graph.get_shape(output)], [graph.get_dtype(output)]
    graph.remove_node(name)
    erf = graph.make_node("Erf", [source], shapes=shapes, dtypes=dtypes)
    one = graph.make_const(f"{name}/one", np.array(1, np.float32))
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=shapes, dtypes=dtypes
    )
