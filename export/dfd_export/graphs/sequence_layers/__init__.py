"""Keras layers of sequence models as ONNX nodes: a module for each kind, a function for each layer.

A layer becomes exportable by one function: it takes the graph so far, the layer and the steps
that it reads, and returns the steps that it gives; `@converts` puts it into the registry.
"""

from dfd_export.graphs.sequence_layers import activations, attention, pointwise, pooling, recurrent
from dfd_export.graphs.sequence_layers.chain import UnsupportedLayer
from dfd_export.graphs.sequence_layers.conversion import convert_model
from dfd_export.graphs.sequence_layers.graph import SequenceGraph

__all__ = [
    "SequenceGraph",
    "UnsupportedLayer",
    "activations",
    "attention",
    "convert_model",
    "pointwise",
    "pooling",
    "recurrent",
]
