"""Rewrites of ONNX graphs that change no result beyond rounding: fewer nodes, the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from dfd_export.graphs.onnx_model import BrokenGraph
from dfd_export.graphs.passes.activations import fuse_hard_swish
from dfd_export.graphs.passes.affine import fold_affine
from dfd_export.graphs.passes.channels import fold_channel_order
from dfd_export.graphs.passes.constants import merge_constants
from dfd_export.graphs.passes.editor import GraphEditor
from dfd_export.graphs.passes.layout import (
    drop_inverse_transposes,
    drop_reshapes,
    fix_reshapes,
    flatten_without_transpose,
    lift_transposes,
    pool_without_transpose,
)
from dfd_export.graphs.passes.padding import fold_pads

Pass = Callable[[GraphEditor], bool]
"""Rewrites what it can, and tells whether it did."""

PASSES: tuple[Pass, ...] = (
    fix_reshapes,
    drop_reshapes,
    pool_without_transpose,
    drop_inverse_transposes,
    flatten_without_transpose,
    lift_transposes,
    fold_pads,
    fold_channel_order,
    fuse_hard_swish,
    fold_affine,
    merge_constants,
)


def simplify(model: onnx.ModelProto, passes: tuple[Pass, ...] = PASSES) -> None:
    """Applies rewrites in place until none applies, then drops what no output needs.

    Args:
        model: A graph without subgraphs, its inputs and outputs declared.
        passes: The rewrites.

    Raises:
        BrokenGraph: The graph is not whole, or a rewrite left it so.
    """
    editor, changed = GraphEditor(model), True
    _check(editor, "the conversion to ONNX")
    while changed:
        changed = False
        for rewrite in passes:
            if rewrite(editor):
                changed = True
                _check(editor, f"the rewrite {rewrite.__name__}")
    editor.commit()


def _check(editor: GraphEditor, blamed: str) -> None:
    if (problem := editor.problem()) is not None:
        raise BrokenGraph(f"{blamed} left a graph that cannot run ({problem})")


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes and initializers that no output depends on, in place."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
