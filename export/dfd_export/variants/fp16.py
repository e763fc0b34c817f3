"""The frame graph in half precision, for accelerators."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from dfd_export.bundles.metadata import set_precision


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Converts a frame graph to float16 inside; its inputs and outputs stay as they are.

    The first operation takes the bytes to float16 directly: every value from 0 to 255 is exact in
    it. Numbers beyond its range are clipped, which the measured changes would show.

    Args:
        model: A frame graph in fp32. Not changed.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - slow

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    halved: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    del halved.graph.value_info[:]
    set_precision(halved, "fp16")
    onnx.checker.check_model(halved, full_check=True)
    assert any(t.data_type == TensorProto.FLOAT16 for t in halved.graph.initializer)
    return halved
