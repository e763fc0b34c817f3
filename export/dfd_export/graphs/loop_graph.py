"""The graph that tf2onnx makes of a Keras sequence model: recurrent layers become `Loop`.

No bundle holds it: it has no state to carry, and a step of a loop costs dozens of small nodes. It
is a second opinion on the native graph beside Keras', and what that graph is measured against.
"""

from __future__ import annotations

import keras
import onnx

from dfd_edge.errors import UsageError
from dfd_export.graphs.tf_conversion import convert_function


def export_loop_graph(model: keras.Model) -> onnx.ModelProto:
    """Converts a sequence model through tf2onnx, as it is.

    Args:
        model: From a dict of `features` [B, T, F] and `mask` [B, T] to logits [B, T], as
            `dfd_training.models.build_sequence_model` builds it.

    Returns:
        A graph from `features` float32 [B, T, F] and `mask` bool [B, T] (True = a real step) to
        `fake_logit` float32 [B, T], each sequence from its beginning.

    Raises:
        UsageError: Keras runs on another backend than TensorFlow, which tf2onnx reads.
    """
    if keras.config.backend() != "tensorflow":
        raise UsageError(
            f"tf2onnx needs Keras on TensorFlow, but it runs on {keras.config.backend()}: "
            "set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf  # noqa: PLC0415 - slow, and only this function needs it

    width = next(tensor.shape[-1] for tensor in model.inputs if tensor.name == "features")
    signature = [
        tf.TensorSpec([None, None, width], tf.float32, name="features"),
        tf.TensorSpec([None, None], tf.bool, name="mask"),
    ]

    def infer(features: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"fake_logit": model({"features": features, "mask": mask}, training=False)}

    return convert_function(infer, signature, name=model.name)
