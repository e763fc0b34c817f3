"""Keras layers of sequence models as ONNX nodes.

A layer becomes exportable by one function: it takes the graph so far, the layer and the steps
that it reads, and returns the steps that it gives. `@converts` registers it.
"""

# Importing them registers their layers.
from dfd_export.graphs.sequence_layers import pointwise as pointwise
from dfd_export.graphs.sequence_layers import stateful as stateful
