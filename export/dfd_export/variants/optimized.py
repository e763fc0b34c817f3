"""A graph as onnxruntime's optimiser leaves it, where it loads faster than the portable one."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import onnx

from dfd_edge.bundle import OPTIMISER_OPERATORS
from dfd_edge.bundle.manifest import OptimizedGraph
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_export.graphs.onnx_model import IR_VERSION

WORTH = 0.7
"""Share of the portable graph's load time that an optimised one may take to be worth its bytes."""

_ROUNDS = 9


def optimize(data: bytes, file: str) -> tuple[bytes, OptimizedGraph] | None:
    """Optimises a graph for the CPU and measures how fast it loads.

    The optimiser stops before the layout of one kind of processor ("extended" of onnxruntime's
    levels), so that the graph runs on every processor; the rest is done at load.

    Args:
        data: The portable graph.
        file: Name that the optimised graph will have.

    Returns:
        Its bytes and what the manifest says of it; None where it does not pay, or where the
        optimiser wrote an operator that no bundle may hold.
    """
    optimized = _extended(data)
    foreign = {name for name in read_onnx(optimized).operators if ":" in name}
    if not foreign <= OPTIMISER_OPERATORS:
        return None
    portable_s, optimized_s = [], []
    for _ in range(_ROUNDS):
        portable_s.append(_load_seconds(data))
        optimized_s.append(_load_seconds(optimized))
    portable_ms, load_ms = (statistics.median(s) * 1e3 for s in (portable_s, optimized_s))
    if load_ms > WORTH * portable_ms:
        return None
    release = ".".join(load_onnxruntime().__version__.split(".")[:2])
    return optimized, OptimizedGraph(file, release, round(load_ms, 2), round(portable_ms, 2))


def _extended(data: bytes) -> bytes:
    ort = load_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        model = onnx.load(path)
    portable = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, {e.key: e.value for e in portable.metadata_props})
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    model.ir_version = IR_VERSION
    model.producer_name = portable.producer_name
    return bytes(model.SerializeToString())


def _load_seconds(data: bytes) -> float:
    started_s = time.perf_counter()
    open_session(data, Provider.CPU, threads=1, name="graph")
    return time.perf_counter() - started_s
