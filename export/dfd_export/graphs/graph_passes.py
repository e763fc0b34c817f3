"""Rewrites of ONNX graphs that change no result beyond rounding: fewer nodes, the same numbers.

`benchmarks/graph_rewrites.py` measures what each gains.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir
from onnx import shape_inference
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dfd_export.graphs.onnx_model import BrokenGraph
from dfd_export.graphs.passes.affine import fold_affine
from dfd_export.graphs.passes.fusions import fold_pads, fuse_hard_swish
from dfd_export.graphs.passes.layout import drop_reshapes, fix_reshapes, lift_transposes

Pass = Callable[[ir.Graph], bool]
"""Rewrites what it can, and returns whether it did."""

PASSES: tuple[Pass, ...] = (
    fix_reshapes,
    drop_reshapes,
    lift_transposes,
    fold_pads,
    fuse_hard_swish,
    fold_affine,
)
"""Each makes networks of the registry load or run faster; docs/export.md has the figures."""


def simplify(model: onnx.ModelProto, passes: tuple[Pass, ...] = PASSES) -> None:
    """Applies rewrites in place until none applies, then drops what no output needs.

    Args:
        model: A graph without subgraphs, its inputs and outputs declared.
        passes: The rewrites.

    Raises:
        BrokenGraph: The graph is not whole, or a rewrite left it so.
    """
    rewritten = ir.from_proto(shape_inference.infer_shapes(model, data_prop=True))
    changed = True
    _check(rewritten.graph, "the conversion to ONNX")
    while changed:
        changed = False
        for rewrite in passes:
            if rewrite(rewritten.graph):
                changed = True
                _check(rewritten.graph, f"the rewrite {rewrite.__name__}")
    RemoveUnusedNodesPass()(rewritten)
    model.CopyFrom(ir.to_proto(rewritten))
    del model.graph.value_info[:]


def _check(graph: ir.Graph, blamed: str) -> None:
    """Sorts the nodes so that each comes after what it takes.

    Raises:
        BrokenGraph: They cannot be sorted, or nothing makes a value that one of them takes.
    """
    values = [value for node in graph for value in node.inputs if value is not None]
    for value in (*values, *graph.outputs):
        node = value.producer()
        given = value.is_initializer() or value.is_graph_input()
        if not given and (node is None or node.graph is not graph):
            problem = f"nothing makes {value.name}"
            raise BrokenGraph(f"{blamed} left a graph that cannot run ({problem})")
    try:
        graph.sort()
    except ValueError as error:
        problem = "some nodes wait for their own results"
        raise BrokenGraph(f"{blamed} left a graph that cannot run ({problem})") from error
