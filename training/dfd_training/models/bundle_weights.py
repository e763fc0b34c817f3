"""The weights of a bundle's frame graph, read back into Keras to go on from.

A bundle holds no Keras file: the exporter folds each batch norm, and the scaling of pixels, into
the convolution beside it. Read back, a convolution takes the folded kernel, and its batch norm is
set so that it changes nothing but the offset. Mean and variance of its input, by which it
normalises while it learns, are measured on training crops; scale and offset undo just that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.errors import UsageError
from dfd_training.models.backbone import PixelScaling, backbone_of
from dfd_training.models.registry import BACKBONES

if TYPE_CHECKING:
    import onnx

SHIPPED = "shipped"
"""The name that stands for the frame model of the bundle in the installed runtime."""
SHIPPED_KERAS = Path(__file__).resolve().parents[2] / "weights" / "frame.keras"
"""That model as Keras fitted it: in a checkout; wheels do without it and read the bundle back."""

_BATCH = 32
_LEAST_VARIANCE = 1e-4

Array = NDArray[np.float32]


def found_weights(weights: str | Path) -> str:
    """Returns the file or folder that "shipped" stands for, and any other name as it is."""
    if str(weights) != SHIPPED:
        return str(weights)
    return str(SHIPPED_KERAS if SHIPPED_KERAS.is_file() else DEFAULT_BUNDLE)


def bundle_folder(weights: str) -> Path | None:
    """Returns the bundle that a name of weights stands for, or None."""
    path = Path(weights)
    return path if (path / "manifest.json").is_file() else None


def read_frame_graph(model: keras.Model, folder: Path) -> None:
    """Puts the weights of a bundle's float32 frame graph into a frame model.

    The model then gives the graph's logits to rounding. Its batch norms do not know the statistics
    of their inputs: `measure_norms` measures them before the model learns.

    Args:
        model: From `build_frame_model`, with the backbone that the bundle was exported from.
        folder: The bundle.

    Raises:
        UsageError: The graph is of another network, or its backbone has layers between convolution
            and batch norm.
        BundleError: The bundle is damaged.
    """
    import onnx  # noqa: PLC0415 - other weights do without it

    manifest = Bundle.load(folder).manifest
    file = folder / manifest.frame.variants["fp32"].file
    kernels = list(_convolutions(onnx.load(file).graph))
    pairs = list(_normed_convolutions(model))
    head = model.get_layer("evidence_head")
    wanted = len(pairs) + 1
    if len(kernels) != wanted:
        raise UsageError(
            f"{file}: has {len(kernels)} convolutions, the model {wanted}: give the backbone that "
            "the bundle was exported from"
        )
    for number, (convolution, norm) in enumerate(pairs):
        kernel, bias = kernels[number]
        kernel = _in_keras_order(kernel, convolution)
        if number == 0:  # the graph scales pixels by its first kernel
            kernel = (kernel / np.asarray(_scaling(model).scale, np.float32)).astype(np.float32)
        _assign(file, convolution.kernel, kernel)
        width = len(bias)
        ones = np.ones(width, np.float32)
        norm.set_weights([ones, bias, 0 * ones, ones - norm.epsilon])
    kernel, bias = kernels[-1]
    _assign(file, head.kernel, kernel.reshape(1, -1).T)
    _assign(file, head.bias, bias)


def graph_logit_layer(folder: Path) -> tuple[Array, Array]:
    """Returns the layer that makes the logit of the features in a bundle's float32 frame graph.

    It is found as a product with `features`, or else as the convolution of the evidence map, whose
    mean is the logit.

    Returns:
        Kernel float32 [F, 1] and bias float32 [1].

    Raises:
        UsageError: The graph has no such layer.
        BundleError: The bundle is damaged.
    """
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    frame = Bundle.load(folder).manifest.frame
    file, width = folder / frame.variants["fp32"].file, frame.feature_width
    graph = onnx.load(file).graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[0] == "features" and node.input[1] in known:
            kernel, *bias = (
                numpy_helper.to_array(known[name]).astype(np.float32) for name in node.input[1:]
            )
            if kernel.size == width:
                return kernel.reshape(width, 1), bias[0].reshape(1) if bias else np.zeros(1, "f4")
    for kernel, shift in _convolutions(graph):
        if kernel.shape == (1, width, 1, 1):
            return kernel.reshape(width, 1), shift
    raise UsageError(f"{file}: has no layer that makes the logit of the {width} features alone")


def measure_norms(model: keras.Model, crops: NDArray[np.uint8]) -> None:
    """Gives each batch norm the statistics of its input, and undoes them in scale and offset.

    The outputs in inference mode stay as they are, to rounding; with the statistics of a
    batch, while it learns, it now computes about the same.

    Args:
        model: From `read_frame_graph`.
        crops: uint8 [n, S, S, 3], RGB; some hundreds, as the model will see them.
    """
    pairs = list(_normed_convolutions(model))
    backbone, scaling = backbone_of(model), _scaling(model)
    sees = keras.Model(backbone.input, [convolution.output for convolution, _ in pairs])
    sums = [np.zeros((2, norm.gamma.shape[0])) for _, norm in pairs]
    places = [0] * len(pairs)
    for start in range(0, len(crops), _BATCH):
        batch = crops[start : start + _BATCH] * scaling.scale + scaling.offset
        for number, output in enumerate(sees.predict_on_batch(batch.astype(np.float32))):
            flat = np.asarray(output, np.float64).reshape(-1, output.shape[-1])
            sums[number] += [flat.sum(0), (flat * flat).sum(0)]
            places[number] += len(flat)
    for (_, norm), (total, square), count in zip(pairs, sums, places, strict=True):
        mean = total / count
        variance = np.maximum(square / count - mean * mean, _LEAST_VARIANCE)
        gamma, beta, moved, spread = (np.asarray(w, np.float64) for w in norm.get_weights())
        factor = gamma / np.sqrt(spread + norm.epsilon)
        offset = beta - moved * factor
        new = (factor * np.sqrt(variance + norm.epsilon), offset + mean * factor, mean, variance)
        norm.set_weights([value.astype(np.float32) for value in new])


def _convolutions(graph: onnx.GraphProto) -> Iterator[tuple[Array, Array]]:
    """Yields kernel, in the order of ONNX, and bias of each convolution, in the graph's order."""
    from onnx import numpy_helper  # noqa: PLC0415

    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            kernel = numpy_helper.to_array(known[node.input[1]]).astype(np.float32)
            width = kernel.shape[0]
            bias = (
                numpy_helper.to_array(known[node.input[2]]).astype(np.float32)
                if len(node.input) > 2
                else np.zeros(width, np.float32)
            )
            yield kernel, bias


def _normed_convolutions(
    model: keras.Model,
) -> Iterator[tuple[keras.layers.Layer, keras.layers.BatchNormalization]]:
    """Yields each convolution of the backbone with the batch norm behind it.

    Raises:
        UsageError: One has none.
    """
    layers: Sequence[keras.layers.Layer] = backbone_of(model).layers
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    for place, layer in enumerate(layers):
        if isinstance(layer, convolutions):
            after = layers[place + 1] if place + 1 < len(layers) else None
            if not isinstance(after, keras.layers.BatchNormalization):
                raise UsageError(
                    f"{layer.name}: no batch norm follows; weights of a graph are read back for "
                    "efficientnet_lite0 and efficientnet_lite1"
                )
            yield layer, after


def _scaling(model: keras.Model) -> PixelScaling:
    return BACKBONES[backbone_of(model).name].scaling


def _in_keras_order(kernel: Array, layer: keras.layers.Layer) -> Array:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return kernel.transpose(2, 3, 0, 1)
    return kernel.transpose(2, 3, 1, 0)


def _assign(file: Path, variable: keras.Variable, value: Array) -> None:
    if tuple(variable.shape) != value.shape:
        raise UsageError(
            f"{file}: {variable.path} takes {tuple(variable.shape)}, the graph has {value.shape}: "
            "give the backbone that the bundle was exported from"
        )
    variable.assign(value)
