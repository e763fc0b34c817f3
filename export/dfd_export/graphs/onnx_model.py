"""Properties that all graphs of a bundle share: opset, names of axes, metadata, checks."""

from __future__ import annotations

import onnx
from onnx import TensorProto, checker, helper, shape_inference

from dfd_edge.bundle import Signatures
from dfd_edge.errors import DfdError

OPSET = 17
"""Since onnxruntime 1.12; all that the graphs need, and what TensorRT and OpenVINO read too."""

IR_VERSION = 8
"""The file format of ONNX 1.12, which had opset 17."""

_ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
}


class BrokenGraph(DfdError):
    """A graph cannot run. The message names the step that left it so."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; nothing was written: this is a fault of dfd-export, please report it with "
            "the model"
        )


def value_infos(signatures: Signatures) -> list[onnx.ValueInfoProto]:
    """Inputs or outputs as ONNX declares them, axes named."""
    return [
        helper.make_tensor_value_info(name, _ELEMENTS[signature.dtype], list(signature.axes))
        for name, signature in signatures.items()
    ]


def finish(
    model: onnx.ModelProto,
    inputs: Signatures,
    outputs: Signatures,
    *,
    name: str,
    metadata: dict[str, str],
) -> onnx.ModelProto:
    """Declares inputs and outputs with named axes, adds metadata, and checks the graph.

    Raises:
        BrokenGraph: The graph is not valid ONNX, or shapes inside contradict what is declared.
    """
    graph = model.graph
    del graph.input[:], graph.output[:]
    graph.input.extend(value_infos(inputs))
    graph.output.extend(value_infos(outputs))
    graph.name = name
    graph.doc_string = ""
    used = {node.domain for node in graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    model.ir_version = IR_VERSION
    model.producer_name = "dfd-export"
    model.producer_version = ""
    helper.set_model_props(model, metadata)
    try:
        checker.check_model(model)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BrokenGraph(f"the {name} graph is not valid ONNX ({reason})") from error
    return model


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes and initializers that no output depends on, in place."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
