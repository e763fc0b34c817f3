"""No rewrite of a graph fires where it would change a number, or where it would not help."""

from __future__ import annotations

from typing import Any

import pytest

from dfd_export.graphs.graph_passes import Pass
from dfd_export.graphs.passes.affine import fold_affine
from dfd_export.graphs.passes.fusions import fold_pads, fuse_hard_swish
from dfd_export.graphs.passes.layout import (
    drop_reshapes,
    lift_transposes,
)
from small_graphs import LAST, MAP, PADDED, POOL, TO_NCHW, Node, rewritten

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
