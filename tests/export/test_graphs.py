"""What the exported graphs consist of, and which Keras layers can be exported."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from dfd_edge.errors import UsageError
from dfd_edge.manifest import FrameSpec, VariantSpec
from dfd_export.frame_graph import describe_frame_model
from dfd_export.graph_passes import simplify
from dfd_export.sequence_graph import describe_sequence_model, export_sequence_graph

WIDTH = 6
FRAME = FrameSpec(64, 1.5, WIDTH, None, {"fp32": VariantSpec("frame.onnx")})


def operators(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def test_the_frame_graph_is_convolutions_and_little_else(exported):
    found = operators(exported.frame_graph)
    # 1 stem, 16 depthwise, 15 expanding, 16 projecting, 1 last, 1 evidence
    assert found["Conv"] == 50
    assert found["BatchNormalization"] == 0
    assert (found["Mul"], found["Transpose"]) == (1, 1)  # the scaling; the one change of layout
    assert found["Add"] == 1 + 10  # the scaling, and the residual connections
    assert found["Identity"] == found["Shape"] == found["Reshape"] == 0
    convs = [node for node in exported.frame_graph.graph.node if node.op_type == "Conv"]
    assert all(len(node.input) == 3 for node in convs)


def test_the_sequence_graph_is_native_grus(exported):
    found = operators(exported.sequence_graph)
    assert found["GRU"] == 3
    assert found["Loop"] == found["If"] == found["Scan"] == 0
    for node in exported.sequence_graph.graph.node:
        if node.op_type == "GRU":
            attributes = {a.name: a.i for a in node.attribute}
            assert attributes["linear_before_reset"] == 1


def test_both_graphs_state_opset_and_what_they_are(exported):
    for graph, role in ((exported.frame_graph, "frame"), (exported.sequence_graph, "sequence")):
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
        assert graph.ir_version == 8
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
        assert metadata["dfd_edge.graph"] == role
        assert metadata["dfd_edge.bundle"] == "tiny"
        onnx.checker.check_model(graph, full_check=True)


def sequence_model(*chain: layers.Layer, masked: bool = True) -> keras.Model:
    features = keras.Input((None, WIDTH), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = features
    for layer in chain:
        takes_mask = isinstance(layer, (layers.RNN, layers.BatchNormalization))
        x = layer(x, mask=mask) if takes_mask and masked else layer(x)
    x = keras.ops.squeeze(x, axis=-1)
    model = keras.Model({"features": features, "mask": mask}, x)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        low = 0.5 if "variance" in variable.path else -0.5
        variable.assign(rng.uniform(low, low + 1, variable.shape))
    return model


@pytest.mark.parametrize(
    "chain",
    [
        lambda: [layers.GRU(5, return_sequences=True), layers.Dense(1)],
        lambda: [layers.GRU(5, return_sequences=True, reset_after=False), layers.Dense(1)],
        lambda: [layers.GRU(5, return_sequences=True, use_bias=False), layers.Dense(1)],
        lambda: [
            layers.BatchNormalization(),
            layers.GRU(4, return_sequences=True),
            layers.BatchNormalization(scale=False),
            layers.BatchNormalization(center=False),
            layers.Dropout(0.5),
            layers.Dense(3, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dense(1, use_bias=False),
        ],
        lambda: [
            layers.Dense(4, activation="relu"),
            layers.GRU(3, return_sequences=True),
            layers.GRU(7, return_sequences=True),
            layers.Dense(1),
        ],
    ],
)
def test_chains_of_layers_give_what_keras_gives(chain):
    model = sequence_model(*chain())
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    graph = export_sequence_graph(model, FRAME, spec, metadata={})
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3, 9, WIDTH)).astype(np.float32)
    lengths = np.array([9, 1, 5], np.int32)
    mask = np.arange(9)[None] < lengths[:, None]
    wanted = np.asarray(model({"features": features, "mask": mask}, training=False))
    features[~mask] = 1e6
    state = np.zeros((3, spec.state_width), np.float32)
    inputs = {"features": features, "lengths": lengths, "state": state}
    found = session.run(["fake_logit"], inputs)[0]
    np.testing.assert_allclose(found[mask], wanted[mask], atol=1e-5)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (lambda: [layers.LSTM(3, return_sequences=True), layers.Dense(1)], r"\(LSTM\) cannot be"),
        (
            lambda: [layers.Bidirectional(layers.GRU(3, return_sequences=True)), layers.Dense(1)],
            r"\(Bidirectional\) cannot be converted",
        ),
        (
            lambda: [layers.GRU(3, return_sequences=True, go_backwards=True), layers.Dense(1)],
            "goes backwards, which a live stream cannot",
        ),
        (
            lambda: [layers.GRU(3, return_sequences=True, activation="relu"), layers.Dense(1)],
            "has activations relu, sigmoid",
        ),
        (
            lambda: [layers.GRU(3, return_sequences=True), layers.Dense(1, activation="sigmoid")],
            r"ends in sigmoid; it has to give a logit",
        ),
        (
            lambda: [
                layers.GRU(3, return_sequences=True),
                layers.Dense(4, activation="gelu"),
                layers.Dense(1),
            ],
            "has activation gelu",
        ),
        (
            lambda: [layers.GRU(1, return_sequences=True), layers.BatchNormalization()],
            r"its last layer is not Dense\(1\)",
        ),
        (lambda: [layers.Dense(1)], "it has no recurrent layer"),
    ],
)
def test_layers_that_cannot_be_exported_are_named(chain, message: str):
    model = sequence_model(*chain(), masked=False)
    with pytest.raises(UsageError, match=message):
        describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)


def test_a_sequence_model_of_other_features_is_refused():
    model = sequence_model(layers.GRU(3, return_sequences=True), layers.Dense(1))
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    wide = FrameSpec(64, 1.5, 1280, None, {"fp32": VariantSpec("frame.onnx")})
    with pytest.raises(UsageError, match="features of width 6, but the frame model gives 1280"):
        export_sequence_graph(model, wide, spec, metadata={})


def test_a_model_that_is_no_frame_model_is_refused():
    image = keras.Input((8, 8, 3))
    plain = keras.Model(image, layers.Flatten()(image))
    with pytest.raises(UsageError, match="no outputs features and fake_logit"):
        describe_frame_model(plain, crop_scale=1.5)
    text = keras.Input((8,))
    with pytest.raises(UsageError, match=r"not \[B, S, S, 3\]"):
        describe_frame_model(keras.Model(text, layers.Dense(1)(text)), crop_scale=1.5)


def small_graph(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 5, 5])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "c", "h", "w"])]
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        # A batch norm after a convolution without and with bias.
        ([("Conv", "x w", "a"), ("Mul", "a s", "b"), ("Add", "b o", "y")], ["Conv"]),
        ([("Conv", "x w c", "a"), ("Mul", "s a", "b"), ("Add", "o b", "y")], ["Conv"]),
        ([("Conv", "x w", "a"), ("Add", "a o", "b"), ("Mul", "b s", "y")], ["Conv"]),
        # Two convolutions that share a kernel, only one of them followed by a batch norm.
        (
            [
                ("Conv", "x w", "a"),
                ("Mul", "a s", "b"),
                ("Conv", "x w", "c2"),
                ("Add", "b c2", "y"),
            ],
            ["Conv", "Conv", "Add"],
        ),
        # The convolution's own result is needed elsewhere.
        (
            [("Conv", "x w", "a"), ("Mul", "a s", "b"), ("Add", "a b", "y")],
            ["Conv", "Mul", "Add"],
        ),
        # A number a place is no number a channel.
        ([("Conv", "x w", "a"), ("Mul", "a p", "y")], ["Conv", "Mul"]),
        # Nothing needs it.
        ([("Conv", "x w", "y"), ("Relu", "y", "z")], ["Conv"]),
    ],
)
def test_folding_changes_nodes_but_no_numbers(nodes, left):
    rng = np.random.default_rng(4)
    model = small_graph(
        [helper.make_node(op, inputs.split(), [output]) for op, inputs, output in nodes],
        w=rng.normal(size=(3, 2, 3, 3)),
        c=rng.normal(size=3),
        s=rng.uniform(0.5, 2, (1, 3, 1, 1)),
        o=rng.normal(size=(3, 1, 1)),
        p=rng.normal(size=(1, 1, 3, 3)),
    )
    x = rng.normal(size=(2, 2, 5, 5)).astype(np.float32)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})[0]
    simplify(model)
    onnx.checker.check_model(model)
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(before, after, atol=1e-5)
    assert [node.op_type for node in model.graph.node] == left
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
