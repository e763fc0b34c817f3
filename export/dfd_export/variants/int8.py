"""The frame graph in int8, for processors with instructions for it.

Static quantisation with onnxruntime's own tools, as QDQ, activations uint8 and weights int8 a
channel. What is done beyond their defaults, and why:

- Weights have 7 bits, but for depthwise convolutions: without VNNI, onnxruntime multiplies bytes
  with `vpmaddubsw`, whose sums of two products saturate at 16 bits. With full-range weights the
  shipped model's logits were off by 1.0 on an AVX2 processor where the arithmetic of the format
  says 0.25; with 7 bits no sum can saturate, so every processor gives the same. Depthwise kernels
  add in 32 bits.
- Rounding a kernel moves its output's mean; each convolution's bias takes that back, from the mean
  of its input over the calibrating crops (Nagel et al., ICCV 2019, section 4.2). What is left at
  the outputs after all layers goes into a last offset a feature.
- The scaling of the pixels, the global pooling and the last linear layers stay in float: they cost
  nothing. The first convolution does where that brings the logits closer to fp32, which is tried.
  Its input must then not be quantised either, or onnxruntime's optimiser quantises it all the same
  (it does so with any convolution between a dequantised input and a quantised output).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_export.bundles.metadata import set_precision
from dfd_export.graphs.onnx_model import drop_unused

QUANTIZED = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "MatMul", "MaxPool", "Mul", "Relu",
)  # fmt: skip
"""Operators that are quantised, those named in the module's text left out."""

_LINEAR = ("Conv", "Gemm", "MatMul")
_BATCH = 8

Crops = NDArray[np.uint8]
Array = NDArray[Any]


def quantize(model: onnx.ModelProto, crops: Crops) -> onnx.ModelProto:
    """Quantises a frame graph.

    Args:
        model: A frame graph in fp32. Not changed.
        crops: uint8 [n, S, S, 3], RGB: real crops to calibrate on.

    Returns:
        A checked graph with the same inputs and outputs.

    Raises:
        UsageError: The graph has no convolution.
    """
    model = with_names(model)
    first = next((node for node in model.graph.node if node.op_type == "Conv"), None)
    if first is None:
        raise UsageError("the frame graph has no convolution: int8 is for convolutional networks")
    plain = nodes_in_float(model, first)
    wanted = _run(model, crops)
    candidates = [
        _level_outputs(_quantize_corrected(model, crops, excluded), crops, wanted)
        for excluded in (plain, [*plain, first.name])
    ]
    best = min(candidates, key=lambda graph: _distance(_run(graph, crops), wanted))
    set_precision(best, "int8")
    onnx.checker.check_model(best, full_check=True)
    return best


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy whose nodes all have names: those to leave out are given by name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return copy


def nodes_in_float(model: onnx.ModelProto, first: onnx.NodeProto) -> list[str]:
    """Returns the names of the nodes that stay in float whatever the first convolution does."""
    makers = {name: node for node in model.graph.node for name in node.output}
    names = [node.name for node in _ancestors(first.input[0], makers)]
    names += [node.name for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    for output in ("fake_logit", "evidence"):
        node = makers.get(output)
        while node is not None:
            names.append(node.name)
            node = None if node.op_type in _LINEAR else makers.get(node.input[0])
    return names


def _ancestors(name: str, makers: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    if (node := makers.get(name)) is not None:
        yield node
        for source in node.input:
            yield from _ancestors(source, makers)


def _quantize_corrected(
    model: onnx.ModelProto, crops: Crops, excluded: list[str]
) -> onnx.ModelProto:
    """Quantises twice: the first time to see the rounding errors, which the biases then undo."""
    rounded = quantize_once(model, crops, excluded)
    return quantize_once(_correct_biases(model, rounded, crops), crops, excluded)


def quantize_once(model: onnx.ModelProto, crops: Crops, excluded: list[str]) -> onnx.ModelProto:
    """Quantises a graph as it is.

    Args:
        model: A graph whose nodes all have names.
        crops: uint8 [n, S, S, 3], RGB: crops to calibrate on.
        excluded: Names of the nodes that stay in float.
    """
    from onnxruntime.quantization import (  # noqa: PLC0415 - slow to import
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime is untyped
        def __init__(self) -> None:
            self.batches = (crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH))

        def get_next(self) -> dict[str, Crops] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    settings = {
        "quant_type": QuantType.QInt8,
        "axis": 0,
        "reduce_range": False,
        "symmetric": True,
    }
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    full_range = {
        node.input[1]: [settings]
        for node in model.graph.node
        if _is_depthwise(node, shapes) and node.name not in excluded
    }
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=excluded,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": full_range} if full_range else {},
        )
        return onnx.load(target)


def _correct_biases(
    model: onnx.ModelProto, rounded: onnx.ModelProto, crops: Crops
) -> onnx.ModelProto:
    """The fp32 graph with biases that make up for what rounding the kernels does to the means."""
    kernels = _rounded_kernels(rounded)
    corrected = onnx.ModelProto()
    corrected.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    convs = [
        node
        for node in corrected.graph.node
        if node.op_type == "Conv"
        and node.input[1] in kernels.keys() & constants.keys()
        and len(node.input) > 2
        and node.input[2] in constants
    ]
    if not convs:
        return model
    means = _channel_means(model, [node.input[0] for node in convs], crops)
    for node in convs:
        kernel = numpy_helper.to_array(constants[node.input[1]])
        error = (kernels[node.input[1]] - kernel).sum(axis=tuple(range(2, kernel.ndim)))
        groups = _attribute(node, "group", 1)
        by_group = means[node.input[0]].reshape(groups, -1)
        inputs = by_group.repeat(len(kernel) // groups, axis=0)
        shift = (error * inputs).sum(axis=1)
        bias = numpy_helper.to_array(constants[node.input[2]])
        name = f"{node.output[0]}/corrected_bias"
        corrected.graph.initializer.append(
            numpy_helper.from_array((bias - shift).astype(np.float32), name)
        )
        node.input[2] = name
    drop_unused(corrected.graph)
    return corrected


def _rounded_kernels(rounded: onnx.ModelProto) -> dict[str, Array]:
    """Returns the dequantised kernels of the int8 graph by their names in the fp32 graph."""
    constants = {t.name: numpy_helper.to_array(t) for t in rounded.graph.initializer}
    kernels = {}
    for node in rounded.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        values, scale = constants[node.input[0]], constants[node.input[1]]
        if values.dtype == np.int8 and values.ndim == 4:
            name = node.input[0].removesuffix("_quantized")
            kernels[name] = values.astype(np.float64) * scale.reshape(-1, 1, 1, 1)
    return kernels


def _channel_means(
    model: onnx.ModelProto, names: list[str], crops: Crops
) -> dict[str, NDArray[np.float64]]:
    """Mean of each channel of these tensors [batch, channels, h, w] over the crops: [channels]."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    wanted = list(dict.fromkeys(names))
    for index, name in enumerate(wanted):
        mean = f"channel_mean_{index}"
        probe.graph.node.append(helper.make_node("GlobalAveragePool", [name], [mean]))
        probe.graph.output.append(
            helper.make_tensor_value_info(
                mean, onnx.TensorProto.FLOAT, ["batch", "channels", "one", "one"]
            )
        )
    outputs = _run(probe, crops)
    return {
        name: outputs[f"channel_mean_{index}"].mean(axis=(0, 2, 3), dtype=np.float64)
        for index, name in enumerate(wanted)
    }


def _level_outputs(
    graph: onnx.ModelProto, crops: Crops, wanted: dict[str, Array]
) -> onnx.ModelProto:
    """Adds an offset to each output, a number a feature, so that its mean is that of fp32."""
    found = _run(graph, crops)
    for output in graph.graph.output:
        name = output.name
        shift = (wanted[name].astype(np.float64) - found[name]).mean(axis=0)
        offset = np.asarray(shift if name == "features" else shift.mean(), np.float32)
        constant = f"{name}/offset"
        graph.graph.initializer.append(numpy_helper.from_array(offset, constant))
        _rename(graph.graph, name, f"{name}/raw")
        graph.graph.node.append(
            helper.make_node("Add", [f"{name}/raw", constant], [name], name=f"{name}/level")
        )
    return graph


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _run(model: onnx.ModelProto, crops: Crops) -> dict[str, Array]:
    """All outputs of a graph for all crops."""
    session = open_session(
        model.SerializeToString(), Provider.CPU, threads=1, name=model.graph.name
    )
    names = [output.name for output in session.get_outputs()]
    parts = [
        session.run(names, {"image": crops[i : i + _BATCH]}) for i in range(0, len(crops), _BATCH)
    ]
    columns = zip(*parts, strict=True)
    return {name: np.concatenate(values) for name, values in zip(names, columns, strict=True)}


def _distance(found: dict[str, Array], wanted: dict[str, Array]) -> float:
    return float(np.sqrt(np.mean((found["fake_logit"] - wanted["fake_logit"]) ** 2)))


def _is_depthwise(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Returns whether each output channel has an input channel of its own, as MLAS needs."""
    if node.op_type != "Conv" or node.input[1] not in shapes:
        return False
    outputs, inputs_a_group = shapes[node.input[1]][:2]
    return outputs == _attribute(node, "group", 1) > 1 and inputs_a_group == 1


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps onnxruntime's advice on preprocessing off the terminal: the exporter has done it."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
