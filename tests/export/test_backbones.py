"""Any convolutional network of Keras goes through the exporter, lean and checked."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dfd_edge.bundle import frame_contract
from dfd_edge.bundle.manifest import FrameSpec
from dfd_edge.errors import UsageError
from dfd_export.gate.cases import FrameCases
from dfd_export.gate.comparison import ParityReport, ValueMismatch
from dfd_export.gate.parity import check_parity, open_graph
from dfd_export.graphs.frame_graph import describe_frame_model, export_frame_graph
from dfd_export.graphs.sequence_graph import describe_sequence_model, export_sequence_graph
from dfd_training.models import build_frame_model, build_sequence_model
from networks import CHAIN_SIZE, CHAINS, chain_model, settle
from tiny_bundle import make_crops

APPLICATIONS = {"inception_v3": 128, "resnet50": 64, "vgg16": 64, "mobilenet_v3_large": 64}
"""Networks of keras.applications in the registry, and the side of their crops in pixels here."""


@dataclass(frozen=True)
class Network:
    """A Keras network with the graph made of it."""

    name: str
    model: keras.Model
    spec: FrameSpec
    graph: onnx.ModelProto
    crops: np.ndarray
    cases: FrameCases

    def compare(self, graph: onnx.ModelProto) -> ParityReport:
        """Compares a graph with the Keras network."""
        session = open_graph(graph, "frame", *frame_contract(self.spec))
        return ParityReport(self.cases.compare(session))


def exported(name: str, model: keras.Model, size: int) -> Network:
    crops = make_crops(16, size)
    settle(model, crops)
    spec = describe_frame_model(model, crop_scale=1.5)
    graph = export_frame_graph(model, spec, metadata={})
    cases = FrameCases.make(model, spec, crops, (1, 3), np.random.default_rng(1))
    return Network(name, model, spec, graph, crops, cases)


@pytest.fixture(scope="module", params=APPLICATIONS)
def application(request: pytest.FixtureRequest) -> Network:
    """A network of keras.applications."""
    size = APPLICATIONS[request.param]
    keras.utils.set_random_seed(1)
    model = build_frame_model(backbone=request.param, input_size=size, weights="none")
    return exported(request.param, model, size)


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest) -> Network:
    """A network of somebody's own."""
    keras.utils.set_random_seed(1)
    return exported(request.param, chain_model(request.param), CHAIN_SIZE)


def operators(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def batch_norms_after_layers(graph: onnx.ModelProto) -> list[str]:
    """The batch norms that a convolution or dense layer before them could have taken over."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "BatchNormalization"
        and makers[node.input[0]].op_type in {"Conv", "Gemm", "MatMul"}
    ]


LEFT_OVER = {"Identity", "Dropout", "Shape", "Pad", "MatMul", "Mul", "Sub", "Div"}


@pytest.mark.slow
def test_an_application_passes_the_whole_gate(application: Network):
    sequence_model = build_sequence_model(feature_width=application.spec.feature_width)
    sequence = describe_sequence_model(sequence_model, rate_hz=5.0, max_gap_s=1.0)
    report = check_parity(
        application.model,
        sequence_model,
        application.graph,
        export_sequence_graph(sequence_model, application.spec, sequence, metadata={}),
        frame=application.spec,
        sequence=sequence,
        crops=application.crops,
    )
    assert {c.output for c in report.comparisons if c.graph == "frame"} == {
        *("features", "fake_logit", "evidence"),
    }
    for comparison in report.comparisons:
        if comparison.output == "fake_logit":
            assert comparison.tolerance < comparison.spread / 20


@pytest.mark.slow
def test_an_application_s_graph_is_lean(application: Network):
    found = operators(application.graph)
    assert not batch_norms_after_layers(application.graph)
    assert found["Transpose"] == 1
    assert found["Gather"] == int(application.name in {"resnet50", "vgg16"})  # RGB to BGR
    assert found["Reshape"] == found["BatchNormalization"] == 0
    assert found["Loop"] == found["If"] == found["Scan"] == 0
    if application.name == "mobilenet_v3_large":
        assert (found["HardSwish"], found["Mul"]) == (20, 8)  # all of them; the gates
        assert not (LEFT_OVER - {"Mul"}) & found.keys()
    else:
        assert not LEFT_OVER & found.keys()


def test_a_network_of_one_s_own_is_exported_right(chain: Network):
    chain.compare(chain.graph).check()


def test_the_graph_of_a_network_of_one_s_own_is_lean(chain: Network):
    found = operators(chain.graph)
    assert not batch_norms_after_layers(chain.graph)
    assert found["Loop"] == found["If"] == found["Scan"] == 0
    if chain.name == "modern":  # layer norms and dense layers on maps work in another layout
        assert found["Identity"] == found["Pad"] == 0
        return
    assert not (LEFT_OVER - {"Mul"}) & found.keys()
    assert found["Mul"] == found["Sigmoid"]  # swish
    flattened = chain.name in {"meso", "tutorial"}
    assert (found["Transpose"], found["Reshape"]) == (1 + int(flattened), int(flattened))
    assert found["Gather"] == 0
    # Those before an activation and before a convolution that pads stay.
    assert found["BatchNormalization"] == {"meso": 4, "preactivated": 2}.get(chain.name, 0)


Change = Callable[[onnx.GraphProto], None]


def convolutions(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]


def change_constant(graph: onnx.GraphProto, name: str, change: Callable) -> None:
    tensor = next(t for t in graph.initializer if t.name == name)
    array = np.ascontiguousarray(change(numpy_helper.to_array(tensor)), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def larger_kernel(part: float) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        found = convolutions(graph)
        node = found[round(part * (len(found) - 1))]
        change_constant(graph, node.input[1], lambda kernel: kernel * 1.01)

    return change


def swapped_colours(graph: onnx.GraphProto) -> None:
    change_constant(graph, convolutions(graph)[0].input[1], lambda kernel: kernel[:, ::-1])


def padding_on_the_wrong_side(graph: onnx.GraphProto) -> None:
    for node in convolutions(graph):
        pads = next((entry for entry in node.attribute if entry.name == "pads"), None)
        if pads is not None and any(pads.ints):
            top, left, bottom, right = pads.ints
            pads.ints[:] = [top + bottom, left + right, 0, 0] if top else [bottom, right, 0, 0]
            return
    raise AssertionError("no convolution pads")


def padding_counted(graph: onnx.GraphProto) -> None:
    """Mean over the window's part outside the picture, too, as PyTorch has it."""
    for node in graph.node:
        if node.op_type == "AveragePool":
            node.attribute.append(helper.make_attribute("count_include_pad", 1))
            return
    swapped_colours(graph)


def missing_bias(graph: onnx.GraphProto) -> None:
    found = [node for node in convolutions(graph) if len(node.input) > 2]
    change_constant(graph, found[len(found) // 2].input[2], np.zeros_like)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(larger_kernel(0.0), id="first kernel 1 % larger"),
        pytest.param(larger_kernel(0.5), id="middle kernel 1 % larger"),
        pytest.param(larger_kernel(0.95), id="late kernel 1 % larger"),
        pytest.param(swapped_colours, id="BGR for RGB"),
        pytest.param(padding_on_the_wrong_side, id="padding on the wrong side"),
        pytest.param(padding_counted, id="padding counted in means"),
        pytest.param(missing_bias, id="missing bias"),
    ],
)
def test_a_wrong_graph_of_an_application_is_stopped(application: Network, change: Change):
    wrong = copy.deepcopy(application.graph)
    change(wrong.graph)
    with pytest.raises(ValueMismatch, match=r"features .* differs by"):
        application.compare(wrong).check()


def brighten_until(x):
    """Doubles the picture until it is bright: how often depends on the picture."""
    return keras.ops.while_loop(lambda y: keras.ops.mean(y) < 100, lambda y: (y * 2 + 1,), (x,))[0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: keras.ops.erfinv(x / 256), r"ONNX has no .*odd_layer.* \(Erfinv\): build these"),
        (brighten_until, r"a bundle's graphs have no .*odd_layer.* \(Loop\): build these"),
    ],
    ids=["no such operator", "a loop"],
)
def test_what_a_graph_cannot_do_is_refused_by_layer(function, message: str):
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Lambda(function, output_shape=(32, 32, 3), name="odd_layer")(image)
    features = keras.layers.GlobalAveragePooling2D()(x)
    logit = keras.ops.squeeze(keras.layers.Dense(1)(features), -1)
    model = keras.Model(image, {"features": features, "fake_logit": logit}, name="odd")
    spec = describe_frame_model(model, crop_scale=1.5)
    with pytest.raises(UsageError, match=f"model odd: {message}"):
        export_frame_graph(model, spec, metadata={})


def test_a_model_in_half_precision_is_refused_by_layer():
    image = keras.Input((32, 32, 3), name="image")
    features = keras.layers.GlobalAveragePooling2D()(image)
    logit = keras.layers.Dense(1, name="verdict", dtype="mixed_float16")(features)
    logit = keras.ops.squeeze(logit, -1)
    model = keras.Model(image, {"features": features, "fake_logit": logit})
    with pytest.raises(UsageError, match=r"layer verdict computes in float16: build"):
        describe_frame_model(model, crop_scale=1.5)
