"""The frame model as ONNX: uint8 crops in, features, logit and evidence out."""

from __future__ import annotations

from collections.abc import Collection

import keras
import onnx

from dfd_edge.bundle import Signatures, frame_contract
from dfd_edge.bundle.manifest import FrameSpec, VariantSpec
from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Resize
from dfd_export.graphs.graph_passes import simplify
from dfd_export.graphs.onnx_model import finish
from dfd_export.graphs.tf_conversion import convert_function

FRAME_FILE = "frame.onnx"

_EXACT = {"float32", "uint8", "int32"}


def describe_frame_model(
    model: keras.Model, *, crop_scale: float, resize: Resize = Resize.AREA
) -> FrameSpec:
    """Reads sizes and outputs off a frame model.

    Args:
        model: As `dfd_training.models.build_frame_model` builds it.
        crop_scale: Side of the square crop over the longer side of the face's box.
        resize: How a cut square comes to the size of the model's input.

    Raises:
        UsageError: The model has other inputs or outputs than a frame model, or it computes in
            half precision.
    """
    shape = tuple(model.inputs[0].shape)
    outputs = model.output
    if len(model.inputs) != 1 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise UsageError(f"frame model {model.name}: its input is {shape}, not [B, S, S, 3]")
    if not isinstance(outputs, dict) or not {"features", "fake_logit"} <= outputs.keys():
        raise UsageError(f"frame model {model.name}: it has no outputs features and fake_logit")
    for layer in model._flatten_layers(include_self=False):
        if layer.compute_dtype not in _EXACT:
            raise UsageError(
                f"frame model {model.name}: layer {layer.name} computes in {layer.compute_dtype}: "
                "build the model once more with the dtype policy float32, load its weights into "
                "that, and export it"
            )
    evidence = outputs.get("evidence")
    return FrameSpec(
        input_size=int(shape[1]),
        crop_scale=crop_scale,
        feature_width=int(outputs["features"].shape[-1]),
        evidence_size=None if evidence is None else (evidence.shape[1], evidence.shape[2]),
        variants={"fp32": VariantSpec(FRAME_FILE)},
        resize=resize,
    )


def export_frame_graph(
    model: keras.Model,
    spec: FrameSpec,
    *,
    metadata: dict[str, str],
    outputs: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Exports a frame model.

    Batch norms go into the layers beside them, constants are folded, and what no output needs is
    gone: see `dfd_export.graphs.graph_passes`.

    Args:
        model: The Keras model.
        spec: The model's description by `describe_frame_model`.
        metadata: Goes into the file's own metadata.
        outputs: The outputs wanted, where a graph needs fewer than the model has.

    Returns:
        A checked graph with the inputs, outputs and axes of `frame_contract`.

    Raises:
        UsageError: Keras runs on another backend than TensorFlow, which tf2onnx reads, or a layer
            does what a graph cannot do.
    """
    converted = convert_frame_model(model, spec, outputs=outputs)
    simplify(converted)
    return finish_frame_graph(converted, spec, metadata=metadata, outputs=outputs)


def convert_frame_model(
    model: keras.Model, spec: FrameSpec, *, outputs: Collection[str] | None = None
) -> onnx.ModelProto:
    """Converts a frame model through tf2onnx, without the rewrites of `simplify`.

    Args:
        model: The Keras model.
        spec: The model's description by `describe_frame_model`.
        outputs: As in `export_frame_graph`.

    Raises:
        UsageError: As in `export_frame_graph`.
    """
    if keras.config.backend() != "tensorflow":
        raise UsageError(
            f"export needs Keras on TensorFlow, but it runs on {keras.config.backend()}: "
            "set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf  # noqa: PLC0415 - slow, and only this function needs it

    size, names = spec.input_size, list(_outputs(spec, outputs))
    signature = [tf.TensorSpec([None, size, size, 3], tf.uint8, name="image")]

    def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        results = model(tf.cast(image, tf.float32), training=False)
        return {name: results[name] for name in names}

    return convert_function(infer, signature, name=model.name, loops=False)


def finish_frame_graph(
    graph: onnx.ModelProto,
    spec: FrameSpec,
    *,
    metadata: dict[str, str],
    outputs: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Declares the inputs and outputs of `frame_contract`, adds metadata, checks the graph."""
    inputs, _ = frame_contract(spec)
    return finish(graph, inputs, _outputs(spec, outputs), name="frame", metadata=metadata)


def _outputs(spec: FrameSpec, wanted: Collection[str] | None) -> Signatures:
    _, contract = frame_contract(spec)
    return {name: value for name, value in contract.items() if wanted is None or name in wanted}
