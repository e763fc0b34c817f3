"""Batch norms computed by TensorFlow's fused kernel while a model is fitted.

Keras composes a batch norm of separate operations, each of which reads the whole feature map;
TensorFlow has one kernel for all of them, and another for their gradient. The numbers agree to
rounding. A step of EfficientNet-Lite0 on two processor cores takes about a fifth less time.
"""

from __future__ import annotations

from types import MethodType

import keras


def fuse_batch_norms(model: keras.Model) -> None:
    """Let every batch norm of a model over pictures use the fused kernel, in this process only.

    Weights and the saved model stay those of `keras.layers.BatchNormalization`. On backends
    other than TensorFlow nothing changes.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            fuse_batch_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization) and _fits(layer):
            layer.call = MethodType(_call, layer)


def _fits(layer: keras.layers.BatchNormalization) -> bool:
    over_pictures = layer.input_spec is not None and layer.input_spec.ndim == 4
    return bool(over_pictures and layer.axis in (-1, 3) and layer.scale and layer.center)


def _call(
    layer: keras.layers.BatchNormalization,
    inputs: keras.KerasTensor,
    training: bool | None = None,
    mask: None = None,  # pictures carry none
) -> keras.KerasTensor:
    import tensorflow as tf  # noqa: PLC0415 - other backends do without it

    learns = bool(training and layer.trainable)
    fused = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=tf.zeros([0]) if learns else tf.convert_to_tensor(layer.moving_mean),
        variance=tf.zeros([0]) if learns else tf.convert_to_tensor(layer.moving_variance),
        epsilon=layer.epsilon,
        is_training=learns,
    )
    if learns:
        # The kernel gives the variance of a sample, Keras keeps that of the batch.
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        variance = fused.batch_variance * (count - 1.0) / count
        for moving, value in (
            (layer.moving_mean, fused.batch_mean),
            (layer.moving_variance, variance),
        ):
            moving.assign(moving * layer.momentum + value * (1.0 - layer.momentum))
    return fused.y
