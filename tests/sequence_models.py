"""Sequence models with random weights, and what they and their graphs say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers

from dfd_edge.bundle import check_graph, sequence_contract
from dfd_edge.bundle.manifest import FrameSpec, SequenceSpec, VariantSpec
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_export.graphs.sequence_graph import describe_sequence_model, export_sequence_graph
from dfd_training.models import build_sequence_model

WIDTH = 6
HUGE = 1e6
"""What stands in the padding: were any of it read, the result would be far off."""


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Random numbers for every weight, so that none of them goes unseen."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low = 0.5 if variable.path.endswith(("variance", "gamma")) else -0.5
        variable.assign(rng.uniform(low, low + 1, variable.shape))
    return model


def head_model(head: str, width: int = WIDTH) -> keras.Model:
    """A head of the registry."""
    return randomise(build_sequence_model(feature_width=width, head=head))


def chain_model(*chain: layers.Layer, masked: bool = True, squeeze: bool = True) -> keras.Model:
    """A model of its own: the layers one after the other."""
    features = keras.Input((None, WIDTH), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = features
    for layer in chain:
        takes_mask = isinstance(layer, (layers.RNN, layers.BatchNormalization))
        x = layer(x, mask=mask) if takes_mask and masked else layer(x)
    if squeeze:
        x = keras.ops.squeeze(x, axis=-1)
    return randomise(keras.Model({"features": features, "mask": mask}, x))


def frame_spec(width: int = WIDTH) -> FrameSpec:
    """A frame model that gives such features."""
    return FrameSpec(64, 1.5, width, None, {"fp32": VariantSpec("frame.onnx")})


@dataclass(frozen=True)
class SequencePair:
    """A Keras model beside its graph. Not to be changed."""

    model: keras.Model
    spec: SequenceSpec
    graph: onnx.ModelProto
    session: Any

    @classmethod
    def of(cls, model: keras.Model, width: int = WIDTH) -> SequencePair:
        """Exports a model and checks what its graph declares."""
        spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
        graph = export_sequence_graph(model, frame_spec(width), spec, metadata={})
        data = graph.SerializeToString()
        check_graph(Path("sequence.onnx"), data, *sequence_contract(frame_spec(width), spec))
        session = open_session(data, Provider.CPU, threads=1, name="sequence.onnx")
        return cls(model, spec, graph, session)

    def keras_logits(self, features: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """What Keras says, [B, T]."""
        mask = np.arange(features.shape[1]) < lengths[:, None]
        logits = self.model({"features": features, "mask": mask}, training=False)
        return np.asarray(keras.ops.convert_to_numpy(logits))

    def start(self, batch: int) -> np.ndarray:
        """The state before the first step."""
        return np.zeros((batch, self.spec.state_width), np.float32)

    def run(
        self, features: np.ndarray, lengths: np.ndarray, state: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits and next state that the graph gives, with `HUGE` in the padding."""
        padding = np.arange(features.shape[1]) >= lengths[:, None]
        inputs = {
            "features": np.where(padding[..., None], HUGE, features).astype(np.float32),
            "lengths": lengths.astype(np.int32),
            "state": self.start(len(features)) if state is None else state,
        }
        logits, next_state = self.session.run(["fake_logit", "next_state"], inputs)
        return logits, next_state

    def run_alone(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits [T] and state [S] of one sequence [T, F] in one call."""
        logits, state = self.run(features[None], np.array([len(features)]))
        return logits[0], state[0]


def gru(units: int = 3, **options) -> layers.GRU:
    """A GRU that gives every step."""
    return layers.GRU(units, return_sequences=True, **options)


def lstm(units: int = 3, **options) -> layers.LSTM:
    """An LSTM that gives every step."""
    return layers.LSTM(units, return_sequences=True, **options)


def features_of(batch: int, steps: int, width: int = WIDTH, seed: int = 1) -> np.ndarray:
    """Random features [B, T, F]."""
    return np.random.default_rng(seed).normal(size=(batch, steps, width)).astype(np.float32)


def operators(graph: onnx.ModelProto) -> list[str]:
    """Operators of a graph, in order."""
    return [node.op_type for node in graph.graph.node]
