"""What the exported graphs consist of."""

from __future__ import annotations

from collections import Counter

import keras
import onnx
import pytest
from keras import layers

from dfd_edge.errors import UsageError
from dfd_export.graphs.frame_graph import describe_frame_model


def operators(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def test_the_frame_graph_is_convolutions_and_little_else(exported):
    found = operators(exported.frame_graph)
    # 1 stem, 16 depthwise, 15 expanding, 16 projecting, 1 last, 1 evidence
    assert found["Conv"] == 50
    assert found["BatchNormalization"] == 0
    assert (found["Mul"], found["Transpose"]) == (0, 1)  # the one change of layout
    assert found["Add"] == 1 + 9  # the scaling's offset, and the residual connections
    assert found["Identity"] == found["Shape"] == found["Reshape"] == 0
    convs = [node for node in exported.frame_graph.graph.node if node.op_type == "Conv"]
    assert all(len(node.input) == 3 for node in convs)


def test_both_graphs_state_opset_and_what_they_are(exported):
    for graph, role in ((exported.frame_graph, "frame"), (exported.sequence_graph, "sequence")):
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
        assert graph.ir_version == 8
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
        assert metadata["dfd_edge.graph"] == role
        assert metadata["dfd_edge.bundle"] == "tiny"
        onnx.checker.check_model(graph, full_check=True)


def test_a_model_that_is_no_frame_model_is_refused():
    image = keras.Input((8, 8, 3))
    plain = keras.Model(image, layers.Flatten()(image))
    with pytest.raises(UsageError, match="no outputs features and fake_logit"):
        describe_frame_model(plain, crop_scale=1.5)
    text = keras.Input((8,))
    with pytest.raises(UsageError, match=r"not \[B, S, S, 3\]"):
        describe_frame_model(keras.Model(text, layers.Dense(1)(text)), crop_scale=1.5)
