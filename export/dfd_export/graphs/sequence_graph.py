"""The sequence model as ONNX: native operators, every state in one tensor, no loops.

`dfd_export.graphs.sequence_layers` writes the layers. `export_loop_graph` gives tf2onnx's own
graph of the same model, with a `Loop` for each recurrent layer. No bundle holds that one: it has
no state to carry, and a step of a loop costs dozens of small nodes. The native graph is compared
with it and measured against it.
"""

from __future__ import annotations

import keras
import onnx
from onnx import helper

from dfd_edge.bundle import sequence_contract
from dfd_edge.bundle.manifest import FrameSpec, SequenceSpec, SignalsSpec
from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION, UNITS
from dfd_export.graphs.onnx_model import OPSET, finish
from dfd_export.graphs.sequence_layers.conversion import UnsupportedLayer, convert_model
from dfd_export.graphs.tf_conversion import convert_function
from dfd_training.models import takes_signals
from dfd_training.models.sequence import SignalProbes

SEQUENCE_FILE = "sequence.onnx"


def describe_sequence_model(
    model: keras.Model, *, rate_hz: float, max_gap_s: float, first_frames: int | None = None
) -> SequenceSpec:
    """Reads the width of the state and the signals off a sequence model.

    Args:
        model: As `dfd_training.models.build_sequence_model` builds it.
        rate_hz: Steps per second that it was trained at.
        max_gap_s: After a longer gap between two steps the state starts anew.
        first_frames: Number of frames of a clip that are judged; None for no limit.

    Raises:
        UnsupportedLayer: The model is no chain of layers that `sequence_layers` can write.
        UsageError: It was fitted on other signals than this program measures.
    """
    _, graph = convert_model(model)
    if not graph.state_width:
        raise UnsupportedLayer(
            f"sequence model {model.name}: it has no recurrent layer, so that it knows nothing of "
            "the steps before: fit a head with one, or the mean head"
        )
    signals = _signals_of(model) if takes_signals(model) else None
    return SequenceSpec(SEQUENCE_FILE, rate_hz, graph.state_width, max_gap_s, first_frames, signals)


def _signals_of(model: keras.Model) -> SignalsSpec:
    """Describes the signals of a model that takes them.

    Raises:
        UsageError: They are of another version or number than this program measures.
    """
    width = next(tensor.shape[-1] for tensor in model.inputs if tensor.name == "signals")
    version = next(
        layer.version for layer in model._flatten_layers() if isinstance(layer, SignalProbes)
    )
    if (version, width) != (SIGNALS_VERSION, len(NAMES)):
        raise UsageError(
            f"sequence model {model.name} was fitted on {width} signals of version {version}, but "
            f"this program measures {len(NAMES)} of version {SIGNALS_VERSION}: fit it again"
        )
    return SignalsSpec(version, list(NAMES), list(UNITS))


def export_sequence_graph(
    model: keras.Model, frame: FrameSpec, spec: SequenceSpec, *, metadata: dict[str, str]
) -> onnx.ModelProto:
    """Builds the graph of a sequence model from its weights.

    Args:
        model: A chain of layers that `sequence_layers` knows, from features to one logit.
        frame: The frame model that it takes its features from.
        spec: The model's description by `describe_sequence_model`.
        metadata: Goes into the file's own metadata.

    Returns:
        A checked graph with the inputs, outputs and axes of `sequence_contract`.

    Raises:
        UsageError: A layer cannot be converted, or the model takes features of another width.
    """
    width, graph = convert_model(model)
    if width != frame.feature_width:
        raise UsageError(
            f"sequence model {model.name} takes features of width {width}, but the frame model "
            f"gives {frame.feature_width}: fit it on that model's features"
        )
    inputs, outputs = sequence_contract(frame, spec)
    made = helper.make_graph(graph.nodes, "sequence", [], [], graph.constants)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
    return finish(proto, inputs, outputs, name="sequence", metadata=metadata)


def export_loop_graph(model: keras.Model) -> onnx.ModelProto:
    """Converts a sequence model through tf2onnx, as it is.

    Args:
        model: As `dfd_training.models.build_sequence_model` builds it.

    Returns:
        A graph from the model's own inputs, `features` float32 [B, T, F] and `mask` bool [B, T]
        (True = a real step) among them, to `fake_logit` float32 [B, T], each sequence from its
        beginning.

    Raises:
        UsageError: Keras runs on another backend than TensorFlow, which tf2onnx reads.
    """
    if keras.config.backend() != "tensorflow":
        raise UsageError(
            f"tf2onnx needs Keras on TensorFlow, but it runs on {keras.config.backend()}: "
            "set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf  # noqa: PLC0415 - slow, and only this function needs it

    names = [tensor.name for tensor in model.inputs]
    signature = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]

    def infer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip(names, inputs, strict=True))
        return {"fake_logit": model(named, training=False)}

    return convert_function(infer, signature, name=model.name)
