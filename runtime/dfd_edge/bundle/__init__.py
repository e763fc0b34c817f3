"""Model bundles: a folder with a manifest and ONNX graphs, found, checked and read."""

from dfd_edge.bundle.bundle import (
    DEFAULT_BUNDLE,
    METADATA_PREFIX,
    OPTIMISER_OPERATORS,
    Bundle,
    Signatures,
    check_graph,
    frame_contract,
    graph_contract,
    graph_identity,
    sequence_contract,
)

__all__ = [
    "DEFAULT_BUNDLE",
    "METADATA_PREFIX",
    "OPTIMISER_OPERATORS",
    "Bundle",
    "Signatures",
    "check_graph",
    "frame_contract",
    "graph_contract",
    "graph_identity",
    "sequence_contract",
]
