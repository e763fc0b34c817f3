"""A feature extractor without a classifier says of one picture what its sequence model says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from dfd_edge.bundle import check_graph, frame_contract
from dfd_edge.bundle.manifest import FrameSpec, VariantSpec
from dfd_edge.errors import UsageError
from dfd_export.gate.parity import ValueMismatch, check_parity
from dfd_export.graphs.frame_graph import describe_frame_model, export_frame_graph
from dfd_export.graphs.sequence_graph import describe_sequence_model, export_sequence_graph
from dfd_export.graphs.single_step import attach_single_step_logit, single_step_model
from dfd_training.models import HEADS, build_sequence_model
from networks import CHAIN_SIZE, chain_model, settle
from tiny_bundle import make_crops


@dataclass(frozen=True)
class Extractor:
    """A Keras model from pictures to features, and the graph of these."""

    model: keras.Model
    crops: np.ndarray

    @property
    def width(self) -> int:
        return int(self.model.output["features"].shape[-1])


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    keras.utils.set_random_seed(2)
    whole, crops = chain_model("separable"), make_crops(16, CHAIN_SIZE)
    settle(whole, crops)
    features = {"features": whole.output["features"]}
    return Extractor(keras.Model(whole.inputs, features, name="extractor"), crops)


def sequence_of(head: str, width: int) -> tuple[keras.Model, onnx.ModelProto]:
    model = build_sequence_model(feature_width=width, head=head)
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    frame = FrameSpec(CHAIN_SIZE, 1.5, width, None, {"fp32": VariantSpec("frame.onnx")})
    return model, export_sequence_graph(model, frame, spec, metadata={})


def attached(
    extractor: Extractor, sequence_model: keras.Model, sequence_graph: onnx.ModelProto
) -> tuple[keras.Model, FrameSpec, onnx.ModelProto]:
    whole = single_step_model(extractor.model, sequence_model)
    spec = describe_frame_model(whole, crop_scale=1.5)
    metadata = {"dfd_edge.graph": "frame"}
    features = export_frame_graph(whole, spec, metadata=metadata, outputs=("features",))
    assert [value.name for value in features.graph.output] == ["features"]
    return whole, spec, attach_single_step_logit(features, sequence_graph)


@pytest.mark.usefixtures("quick_gate")
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(head, marks=pytest.mark.slow if head.startswith("gru_") else ())
        for head in HEADS
    ],
)
def test_the_frame_logit_is_the_verdict_after_one_step(extractor: Extractor, head: str):
    sequence_model, sequence_graph = sequence_of(head, extractor.width)
    whole, spec, graph = attached(extractor, sequence_model, sequence_graph)
    check_graph("frame.onnx", graph.SerializeToString(), *frame_contract(spec))
    sequence = describe_sequence_model(sequence_model, rate_hz=5.0, max_gap_s=1.0)
    check_parity(
        whole,
        sequence_model,
        graph,
        sequence_graph,
        frame=spec,
        sequence=sequence,
        crops=extractor.crops,
    )
    assert {entry.key: entry.value for entry in graph.metadata_props} == {"dfd_edge.graph": "frame"}


def test_a_recurrent_head_brings_its_native_operators_and_no_state(extractor: Extractor):
    sequence_model, sequence_graph = sequence_of("gru", extractor.width)
    _, _, graph = attached(extractor, sequence_model, sequence_graph)
    found = Counter(node.op_type for node in graph.graph.node)
    assert found["GRU"] == 3
    assert not found.keys() & {"Loop", "If", "Scan", "Shape", "ConstantOfShape", "Split"}
    onnx.checker.check_model(graph, full_check=True)


def test_the_gate_stops_a_wrong_single_step(extractor: Extractor):
    sequence_model, sequence_graph = sequence_of("gru_single", extractor.width)
    whole, spec, graph = attached(extractor, sequence_model, sequence_graph)
    step = next(
        t for t in graph.graph.initializer if t.name.startswith("step/") and len(t.dims) == 3
    )
    step.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(step) * np.float32(1.01), step.name)
    )
    with pytest.raises(ValueMismatch, match=r"frame, .*: fake_logit"):
        check_parity(
            whole,
            sequence_model,
            graph,
            sequence_graph,
            frame=spec,
            sequence=describe_sequence_model(sequence_model, rate_hz=5.0, max_gap_s=1.0),
            crops=extractor.crops,
        )


def test_the_state_is_that_of_a_clip_s_start(extractor: Extractor):
    sequence_model, sequence_graph = sequence_of("gru_single", extractor.width)
    _, _, graph = attached(extractor, sequence_model, sequence_graph)
    image = extractor.crops[:3]
    features, logit = onnxruntime.InferenceSession(graph.SerializeToString()).run(
        ["features", "fake_logit"], {"image": image}
    )
    session = onnxruntime.InferenceSession(sequence_graph.SerializeToString())
    width = session.get_inputs()[2].shape[1]
    inputs = {
        "features": features[:, None],
        "lengths": np.ones(3, np.int32),
        "state": np.zeros((3, width), np.float32),
    }
    np.testing.assert_allclose(logit, session.run(["fake_logit"], inputs)[0][:, 0], atol=1e-6)


def test_graphs_that_do_not_belong_together_are_refused(extractor: Extractor):
    sequence_model, _ = sequence_of("gru_single", extractor.width)
    _, other = sequence_of("gru_single", extractor.width + 1)
    with pytest.raises(
        UsageError, match="takes features of width 21, but the frame graph gives 20"
    ):
        attached(extractor, sequence_model, other)
