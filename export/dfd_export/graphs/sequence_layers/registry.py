"""Which function writes which layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfd_export.graphs.sequence_layers.graph import SequenceGraph, Steps

Converter = Callable[[SequenceGraph, Any, Steps], Steps]
"""Writes a layer behind the steps that it reads; returns those that it gives."""

_CONVERTERS: dict[type, Converter] = {}


class Unsupported(Exception):
    """A layer cannot be written. The text goes on after its name: why, and what to do."""


def converts(*kinds: type) -> Callable[[Converter], Converter]:
    """Registers a function for layers of exactly these classes.

    A class that somebody derived from one of them may compute something else: it needs a
    function of its own.
    """

    def register(converter: Converter) -> Converter:
        for kind in kinds:
            _CONVERTERS[kind] = converter
        return converter

    return register


def is_known(kind: type) -> bool:
    """Tells whether there is a function for layers of this class."""
    return kind in _CONVERTERS


def known_kinds() -> list[str]:
    """Names of the classes that can be written."""
    return sorted(kind.__name__ for kind in _CONVERTERS)


def convert(graph: SequenceGraph, layer: Any, steps: Steps) -> Steps:  # noqa: ANN401
    """Writes a layer into the graph.

    Raises:
        Unsupported: It has an option that ONNX or a live stream cannot do.
    """
    return _CONVERTERS[type(layer)](graph, layer, steps)
