"""Every backbone of the registry keeps the same contract, from its first weights to its graph."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

import tiny_bundle
from dfd_edge.bundle import Bundle
from dfd_export.bundles.bundle_writer import write_bundle
from dfd_export.gate.comparison import ParityReport
from dfd_training.evaluation.graph_cost import measure as measure_graph
from dfd_training.models import (
    BACKBONES,
    backbone_of,
    build_frame_model,
    build_sequence_model,
    load_frame_model,
    measure,
    save_model,
)
from networks import settle

#: The small ones and the one that ships. The rest take minutes together.
QUICK = {"custom_cnn", "custom_cnn_flatten", "meso4", "meso_inception4", "efficientnet_lite0"}
SIDES = {
    **{"custom_cnn": 32, "custom_cnn_flatten": 32, "xception": 96},
    **{"inception_v3": 128, "inception_resnet_v2": 128},
}
"""Of the crops in pixels; those of the others have 64."""

LAYERS = {"Conv", "Gemm", "MatMul"}
NOT_FOR_GRAPHS = {"Identity", "Dropout", "Shape", "Pad", "Gather", "Loop", "If", "Scan"}


def entries() -> list:
    slow = (pytest.mark.slow, pytest.mark.exhaustive)
    return [pytest.param(name, marks=() if name in QUICK else slow) for name in BACKBONES]


def say(model: keras.Model, crops: np.ndarray) -> dict[str, np.ndarray]:
    outputs = model(crops, training=False)
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def check_outputs(model: keras.Model, crops: np.ndarray, name: str) -> None:
    """Features, logit, and a map of it unless the network sees its last map as a whole."""
    found, width = say(model, crops), BACKBONES[name].feature_width
    assert backbone_of(model).name == name
    assert found["features"].shape == (len(crops), width)
    assert found["fake_logit"].shape == (len(crops),)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    assert ("evidence" in found) == (name not in {"meso4", "meso_inception4", "custom_cnn_flatten"})
    if "evidence" in found:
        means = found["evidence"].mean(axis=(1, 2))
        np.testing.assert_allclose(means, found["fake_logit"], rtol=1e-4, atol=1e-5)
    from_floats = say(model, crops.astype(np.float32))
    np.testing.assert_array_equal(from_floats["fake_logit"], found["fake_logit"])


def check_learning(model: keras.Model, crops: np.ndarray) -> None:
    """A step of an optimiser: the loss is a number, and every kernel has a part in it."""
    trainer = keras.Model(model.input, model.output["fake_logit"])
    trainer.compile(
        keras.optimizers.Adam(1e-4),
        keras.losses.BinaryCrossentropy(from_logits=True),
        run_eagerly=True,  # for one step quicker than tracing
    )
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights}
    loss = trainer.train_on_batch(crops.astype(np.float32), np.arange(len(crops)) % 2)
    assert np.isfinite(loss)
    for weight in model.trainable_weights:
        assert np.isfinite(keras.ops.convert_to_numpy(weight)).all(), weight.path
        if "kernel" in weight.path:
            assert (before[weight.path] != keras.ops.convert_to_numpy(weight)).any(), weight.path


def check_saving(model: keras.Model, crops: np.ndarray, path: Path) -> None:
    save_model(model, path)
    loaded = say(load_frame_model(path), crops)
    for name, value in say(model, crops).items():
        np.testing.assert_array_equal(loaded[name], value)


def check_graph(name: str, model: keras.Model, out: Path) -> None:
    """What the runtime loads has the contract's inputs, outputs and axes, and nothing needless."""
    spec = Bundle.load(out).manifest.frame  # refuses a graph that breaks the contract
    side = model.input.shape[1]
    evidence = model.output.get("evidence")
    assert spec.input_size == side
    assert spec.evidence_size == (None if evidence is None else tuple(evidence.shape[1:]))
    graph = onnx.load(out / "frame.onnx")
    (image,) = graph.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert dims == ["batch", side, side, 3]
    found = {node.op_type for node in graph.graph.node}
    # These take BGR: one Gather turns the channels round, and folding it away gained nothing.
    assert not found & NOT_FOR_GRAPHS - ({"Gather"} if name in {"resnet50", "vgg16"} else set())
    makers = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        if node.op_type == "BatchNormalization":
            assert makers[node.input[0]].op_type not in LAYERS
    cost = measure_graph(graph)
    assert cost.unknown == ()
    assert cost.macs == measure(model).macs


def export(model: keras.Model, crops: np.ndarray, out: Path) -> ParityReport:
    sequence = build_sequence_model(feature_width=model.output["features"].shape[-1], head="mean")
    return write_bundle(model, sequence, out=out, info=tiny_bundle.make_info(), crops=crops)


@pytest.mark.usefixtures("quick_gate")
@pytest.mark.parametrize("name", entries())
def test_a_backbone_keeps_the_contract(name: str, tmp_path: Path):
    keras.utils.set_random_seed(1)
    side = SIDES.get(name, 64)
    crops = tiny_bundle.make_crops(16, side)
    model = build_frame_model(backbone=name, input_size=side, weights="none")
    check_learning(model, crops[:4])
    settle(model, crops)
    check_outputs(model, crops[:3], name)
    check_saving(model, crops[:3], tmp_path / "frame.keras")
    report = export(model, crops, tmp_path / "bundle")
    assert all(comparison.passed for comparison in report.comparisons)
    check_graph(name, model, tmp_path / "bundle")


APPLICATIONS = keras.applications
PREPROCESSING = {
    "inception_v3": APPLICATIONS.inception_v3,
    "inception_resnet_v2": APPLICATIONS.inception_resnet_v2,
    "xception": APPLICATIONS.xception,
    "mobilenet_v2": APPLICATIONS.mobilenet_v2,
    "resnet50": APPLICATIONS.resnet50,
    "vgg16": APPLICATIONS.vgg16,
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_pixels_are_scaled_as_in_the_network_s_own_training(name: str):
    crops = tiny_bundle.make_crops(2, 8)
    image = keras.Input((8, 8, 3))
    scaled = keras.Model(image, BACKBONES[name].scaling.apply(image))(crops)
    wanted = PREPROCESSING[name].preprocess_input(crops.astype(np.float32))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scaled), wanted, atol=1e-4)
