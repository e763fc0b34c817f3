"""Multiply-accumulates are those that papers give, and those that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_training.evaluation.graph_cost import infer_shapes, measure
from small_bundle import build_small_bundle

FLOAT = TensorProto.FLOAT


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    constants: dict[str, np.ndarray] | None = None,
    element: int = FLOAT,
) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, element, axes) for name, axes in inputs.items()]
    tensors = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    output = helper.make_tensor_value_info(nodes[-1].output[0], element, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", infos, [output], tensors), opset_imports=opsets, ir_version=8
    )


def node(operator: str, inputs: str, **attributes) -> onnx.NodeProto:
    domain, _, name = operator.rpartition(":")
    return helper.make_node(name, inputs.split(), ["y"], domain=domain, **attributes)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "macs"),
    [
        # 4 filters of 3 x 5 x 5 at 6 x 8 places
        ("Conv", {"x": ["batch", 3, 10, 12], "w": [4, 3, 5, 5]}, {}, 4 * 3 * 25 * 6 * 8),
        # the same at every other place, edges padded
        (
            "Conv",
            {"x": ["batch", 3, 10, 12], "w": [4, 3, 5, 5]},
            {"strides": [2, 2], "pads": [2, 2, 2, 2]},
            4 * 3 * 25 * 5 * 6,
        ),
        # depthwise: one filter of 3 x 3 a channel
        (
            "Conv",
            {"x": ["batch", 6, 8, 8], "w": [6, 1, 3, 3]},
            {"group": 6, "auto_pad": "SAME_UPPER"},
            6 * 9 * 64,
        ),
        # each of 2 x 4 x 4 numbers is spread over 5 channels of 3 x 3
        ("ConvTranspose", {"x": ["batch", 2, 4, 4], "w": [2, 5, 3, 3]}, {}, 32 * 5 * 9),
        ("MatMul", {"a": ["batch", 7, 3], "b": [3, 2]}, {}, 7 * 3 * 2),
        ("MatMul", {"a": ["batch", 4, 7, 3], "b": [1, 4, 3, 2]}, {}, 4 * 7 * 3 * 2),
        ("MatMul", {"a": [3], "b": [3]}, {}, 3),
        ("Gemm", {"a": ["batch", 3], "b": [3, 2]}, {}, 3 * 2),
        ("Gemm", {"a": [3, 5], "b": [2, 3]}, {"transA": 1, "transB": 1}, 5 * 3 * 2),
        ("Einsum", {"a": ["batch", 4, 3], "b": [3, 2]}, {"equation": "bij,jk->bik"}, 4 * 3 * 2),
        # 3 gates of 4 units, each over 5 inputs and 4 states, at each step
        (
            "GRU",
            {"x": ["time", "batch", 5], "w": [1, 12, 5], "r": [1, 12, 4]},
            {"hidden_size": 4},
            3 * 4 * (5 + 4),
        ),
        (
            "GRU",
            {"x": [7, "batch", 5], "w": [2, 12, 5], "r": [2, 12, 4]},
            {"hidden_size": 4, "direction": "bidirectional"},
            7 * 2 * 3 * 4 * (5 + 4),
        ),
        (
            "LSTM",
            {"x": ["time", "batch", 5], "w": [1, 16, 5], "r": [1, 16, 4]},
            {"hidden_size": 4},
            4 * 4 * (5 + 4),
        ),
        ("com.microsoft:FusedConv", {"x": [1, 3, 4, 4], "w": [2, 3, 1, 1]}, {}, 2 * 3 * 16),
    ],
)
def test_operators_cost_what_can_be_counted_by_hand(operator, inputs, attributes, macs):
    cost = measure(graph([node(operator, " ".join(inputs), **attributes)], inputs))
    assert cost.unknown == ()
    assert cost.macs == macs
    assert cost.layers[0].macs == macs


@pytest.mark.parametrize(
    ("operator", "inputs", "macs"),
    [
        (
            "QLinearConv",
            {"x": [1, 3, 4, 4], "xs": [], "xz": [], "w": [5, 3, 3, 3], "ws": [], "wz": []}
            | {"ys": [], "yz": []},
            5 * 3 * 9 * 2 * 2,
        ),
        (
            "QLinearMatMul",
            {"a": [2, 3], "as": [], "az": [], "b": [3, 4], "bs": [], "bz": [], "ys": [], "yz": []},
            2 * 3 * 4,
        ),
        ("ConvInteger", {"x": [1, 3, 4, 4], "w": [5, 3, 3, 3]}, 5 * 3 * 9 * 2 * 2),
        ("MatMulInteger", {"a": [2, 3], "b": [3, 4]}, 2 * 3 * 4),
    ],
)
def test_quantised_operators_cost_the_same(operator, inputs, macs):
    model = graph([node(operator, " ".join(inputs))], inputs, element=TensorProto.UINT8)
    assert measure(model).macs == macs


def test_the_named_axes_count_once_unless_a_length_is_given():
    model = graph([node("MatMul", "x w")], {"x": ["batch", "time", 3], "w": [3, 2]})
    assert measure(model).macs == 6
    assert measure(model, {"time": 10}).macs == 60
    assert infer_shapes(model, {"batch": 4, "time": 10})["y"] == (4, 10, 2)


def test_elementwise_work_is_not_counted():
    model = graph([node("Relu", "x")], {"x": ["batch", 1000]})
    assert (measure(model).macs, measure(model).layers) == (0, ())


def test_deformable_convolutions_cost_what_others_cost():
    inputs: dict[str, list[int | str]] = {"x": [1, 4, 9, 9], "w": [8, 4, 3, 3], "o": [1, 18, 7, 7]}
    model = graph([node("DeformConv", "x w o", kernel_shape=[3, 3])], inputs)
    model.opset_import[0].version = 19
    cost = measure(model)
    assert (cost.unknown, cost.macs) == ((), 8 * 7 * 7 * 4 * 9)


def test_an_operator_with_weights_that_is_not_known_is_named():
    weights = {"w": np.zeros((4, 3), np.float32)}
    unheard_of = helper.make_node("Convolve", ["x", "w"], ["y"], name="new")
    cost = measure(graph([unheard_of], {"x": [2, 3]}, weights))
    assert (cost.unknown, cost.layers[0].parameters) == (("new",), 12)
    for operator in ("Mul", "Add", "PRelu", "Where"):
        assert measure(graph([node(operator, "x w")], {"x": [2, 3]}, weights)).unknown == ()


@pytest.mark.parametrize("attributes", [{}, {"equation": "ab,bc->ac"}, {"equation": "abc->a"}])
def test_a_malformed_einsum_is_named(attributes: dict[str, str]):
    cost = measure(graph([node("Einsum", "a", **attributes)], {"a": [2, 2]}))
    assert (cost.unknown, cost.macs) == (("y",), 0)


def test_what_cannot_be_counted_is_named():
    branch = helper.make_graph([], "b", [], [])
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch)
    foreign = helper.make_node("Shell", ["x"], ["y"], name="shell", domain="x")
    unshaped = helper.make_node("MatMul", ["unheard_of", "x"], ["y"], name="unshaped")
    for odd in (choice, foreign, unshaped):
        cost = measure(graph([odd], {"x": [2, 3], "c": [1]}))
        assert cost.unknown == (odd.name,)
        assert cost.layers[0].macs is None


def test_parameters_are_weights_without_scales_zero_points_and_shapes():
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"]),
        helper.make_node("DequantizeLinear", ["b32", "bs"], ["b"]),
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(7, "f4"))),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    constants = {
        "w8": np.zeros((4, 3, 1, 1), np.int8),
        "ws": np.ones(4, np.float32),
        "wz": np.zeros(4, np.int8),
        "b32": np.zeros(4, np.int32),
        "bs": np.ones(4, np.float32),
        "shape": np.array([1, -1]),
    }
    cost = measure(graph(nodes, {"x": ["batch", 3, 2, 2]}, constants))
    assert cost.parameters == 4 * 3 + 4 + 7
    assert (cost.layers[0].name, cost.layers[0].parameters) == ("conv", 4 * 3 + 4)
    assert cost.layers[0].weight == "w8"
    assert cost.layers[0].shape == (1, 4, 2, 2)
    assert cost.macs == 4 * 3 * 4
    assert (cost.stored["int8"].numbers, cost.stored["int8"].bytes) == (16, 16)
    assert (cost.stored["float32"].numbers, cost.stored["float32"].bytes) == (15, 60)
    assert (cost.stored["int64"].numbers, cost.stored["int64"].bytes) == (2, 16)


class Network:
    """A chain of operators by their published sizes. Weights are inputs: none are stored."""

    def __init__(self, size: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, list[int | str]] = {"x": ["batch", 3, size, size]}
        self.last, self.channels = "x", 3

    def add(self, operator: str, *weights: list[int], **attributes) -> None:
        names = [f"w{len(self.nodes)}_{place}" for place in range(len(weights))]
        self.inputs |= dict(zip(names, weights, strict=True))
        out = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.last, *names], [out], **attributes))
        self.last = out

    def conv(self, channels: int, kernel: int, stride: int = 1, depthwise: bool = False) -> None:
        group = self.channels if depthwise else 1
        self.add(
            "Conv",
            [channels, self.channels // group, kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=group,
        )
        self.channels = channels

    def dense(self, inputs: int, outputs: int) -> None:
        self.add("Gemm", [inputs, outputs])

    def macs(self) -> int:
        cost = measure(graph(self.nodes, self.inputs))
        assert cost.unknown == ()
        return cost.macs


def test_vgg16_costs_what_is_published():
    """15.5 G (Simonyan and Zisserman, 2015, configuration D)."""
    network = Network(224)
    for channels, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            network.conv(channels, 3)
        network.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    network.add("Flatten")
    for inputs, outputs in ((25088, 4096), (4096, 4096), (4096, 1000)):
        network.dense(inputs, outputs)
    assert network.macs() == pytest.approx(15.5e9, rel=0.005)


def test_mobilenet_v2_costs_what_is_published():
    """300 M (Sandler et al., CVPR 2018, tables 2 and 4)."""
    network = Network(224)
    network.conv(32, 3, stride=2)
    for expansion, channels, repeats, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for repeat in range(repeats):
            wide = network.channels * expansion
            if expansion > 1:
                network.conv(wide, 1)
            network.conv(wide, 3, stride=1 if repeat else stride, depthwise=True)
            network.conv(channels, 1)
    network.conv(1280, 1)
    network.add("GlobalAveragePool")
    network.add("Flatten")
    network.dense(1280, 1000)
    assert network.macs() == pytest.approx(300e6, rel=0.005)


def test_the_shipped_backbone_costs_what_is_published_of_it():
    """EfficientNet-Lite0 at 224 px: 0.38 to 0.41 G, as its authors and its ports give it."""
    model = onnx.load(DEFAULT_BUNDLE / "frame.onnx")
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 224
    cost = measure(model)
    assert cost.unknown == ()
    assert 0.38e9 < cost.macs < 0.41e9


def test_a_step_of_the_shipped_head_costs_a_thousandth_of_a_crop():
    frame = measure(onnx.load(DEFAULT_BUNDLE / "frame.onnx"))
    sequence = measure(onnx.load(DEFAULT_BUNDLE / "sequence.onnx"))
    spec = Bundle.load().manifest.sequence
    if spec.signals is None:
        gates = 3 * (64 * (1280 + 64) + 32 * (64 + 32) + 16 * (32 + 16))
        dense = 16 * 32 + 32
        assert sequence.macs == gates + dense
    else:  # the state carries sums of the picture's logit and of each probe, and their weights'
        width = spec.state_width
        linear = 1280 + spec.signals.width * (width - 2)
        assert sequence.macs == linear + (width - 1) * width + width
    assert sequence.unknown == ()
    assert frame.macs / sequence.macs > 500


def test_quantised_and_optimised_forms_of_a_graph_cost_the_same(tmp_path: Path):
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Crops(CalibrationDataReader):
        left = 2

        def get_next(self) -> dict[str, np.ndarray] | None:
            self.left -= 1
            crop = np.full((1, 8, 8, 3), 40 * abs(self.left), np.uint8)
            return {"image": crop} if self.left >= 0 else None

    plain = build_small_bundle(tmp_path / "bundle") / "frame.onnx"
    quantised = tmp_path / "int8.onnx"
    quantize_static(
        *(plain, quantised, Crops()),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    forms = [plain, quantised]
    for level in ("EXTENDED", "ALL"):
        for form in (plain, quantised):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            optimised = tmp_path / f"{form.stem}-{level}.onnx"
            options.optimized_model_filepath = str(optimised)
            options.graph_optimization_level = getattr(
                onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
            )
            onnxruntime.InferenceSession(form, options)
            forms.append(optimised)
    wanted = measure(onnx.load(plain))
    for form in forms:
        cost = measure(onnx.load(form))
        assert cost.unknown == (), form
        # A blocked layout pads channels; all else is the same.
        assert cost.macs >= wanted.macs if "ALL" in form.name else cost.macs == wanted.macs, form
    assert measure(onnx.load(quantised)).parameters == wanted.parameters
    assert measure(onnx.load(quantised)).stored["int8"].numbers >= 4 * 27
