"""Adds variants to a bundle, fp16 and int8: converted, measured, and only then written.

Beside the portable graph of a variant a copy may be stored as onnxruntime optimises it, where that
loads faster.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from dfd_edge.bundle import OPTIMISER_OPERATORS, Bundle
from dfd_edge.bundle.manifest import (
    DecisionSpec,
    Manifest,
    OptimizedGraph,
    VariantChanges,
    VariantSpec,
)
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_edge.inference.session import Session
from dfd_export.bundles.bundle_writer import (
    copy_bundle,
    file_entries,
    finish_bundle,
    new_bundle_folder,
)
from dfd_export.bundles.metadata import set_precision
from dfd_export.bundles.probe import read_probe
from dfd_export.graphs.onnx_model import IR_VERSION
from dfd_export.variants.int8 import quantize
from dfd_export.variants.measure import check_changes, measure_changes
from dfd_export.variants.samples import Sample


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOptions:
    """The variants to make, and what they may cost.

    Attributes:
        int8: Make the int8 variant.
        fp16: Make the fp16 variant.
        max_auc_drop: How much lower a variant's frame AUC may be than that of fp32.
        calibration_crops: Number of crops that int8 is calibrated on.
        holdout: The training fold that the model was fitted without, whose crops do not calibrate
            it either; None for none.
        optimized: Store graphs that load faster where they do.
    """

    int8: bool = False
    fp16: bool = False
    max_auc_drop: float = 0.01
    calibration_crops: int = 128
    holdout: int | None = None
    optimized: bool = True

    @property
    def wanted(self) -> bool:
        """Whether any variant is wanted."""
        return self.int8 or self.fp16


def add_variants(
    bundle: Bundle,
    *,
    out: Path,
    options: VariantOptions,
    calibration: NDArray[np.uint8],
    sample: Sample,
    decisions: Mapping[str, DecisionSpec] | None = None,
) -> dict[str, VariantChanges]:
    """Writes a bundle with more variants of the frame graph; those it has already are made anew.

    Args:
        bundle: The bundle to start from.
        out: The new bundle's folder; may be the old one's.
        options: Which variants.
        calibration: uint8 [n, S, S, 3], RGB: crops to calibrate int8 on.
        sample: Labelled crops to compare on.
        decisions: By precision, what was decided on a variant's own logits; one without shares
            the bundle's decision.

    Returns:
        What each variant changes.

    Raises:
        UsageError: `out` is taken by something that is no bundle.
        VariantRefused: A variant changes too much. Nothing is written then.
    """
    makers: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {}
    if options.int8:
        makers["int8"] = lambda graph: quantize(graph, calibration)
    if options.fp16:
        makers["fp16"] = halve
    fp32_file = bundle.manifest.frame.variants["fp32"].file
    graph = onnx.load_model_from_string(bundle.read(fp32_file))
    measured = {}
    with new_bundle_folder(out) as folder:
        manifest = _without(copy_bundle(bundle, folder), folder, set(makers))
        fp32 = Session.open(Bundle(folder, manifest, sha256=""), provider="cpu", precision="fp32")
        for precision, make in makers.items():
            variant = _files(folder, precision, make(graph), options)
            variant = dataclasses.replace(variant, decision=(decisions or {}).get(precision))
            manifest = _with(manifest, folder, precision, variant)
            session = Session.open(
                Bundle(folder, manifest, sha256=""), provider="cpu", precision=precision
            )
            changes = measure_changes(fp32, session, sample)
            check_changes(precision, changes, max_auc_drop=options.max_auc_drop)
            measured[precision] = changes
            logits = session.run_frame(read_probe(bundle)).fake_logit
            variant = dataclasses.replace(
                variant,
                probe_logit=[float(logit) for logit in logits],
                changes=changes,
            )
            manifest = _with(manifest, folder, precision, variant)
        finish_bundle(folder, manifest)
    return measured


def _files(
    folder: Path, precision: str, graph: onnx.ModelProto, options: VariantOptions
) -> VariantSpec:
    """Writes a variant's files, not measured yet."""
    file = f"frame.{precision}.onnx"
    data = graph.SerializeToString()
    (folder / file).write_bytes(data)
    optimized: OptimizedGraph | None = None
    # Accelerators optimise for themselves, and fp16 is for them.
    if options.optimized and precision != "fp16":
        found = optimize(data, f"frame.{precision}.optimized.onnx")
        if found is not None:
            (folder / found[1].file).write_bytes(found[0])
            optimized = found[1]
    return VariantSpec(file, optimized=optimized)


def _with(manifest: Manifest, folder: Path, precision: str, variant: VariantSpec) -> Manifest:
    variants = {**manifest.frame.variants, precision: variant}
    frame = dataclasses.replace(manifest.frame, variants=variants)
    return dataclasses.replace(manifest, frame=frame, files=file_entries(folder))


def _without(manifest: Manifest, folder: Path, gone: set[str]) -> Manifest:
    """The bundle without these variants and their files."""
    kept = {name: v for name, v in manifest.frame.variants.items() if name not in gone}
    for file, precision in manifest.frame.graphs().items():
        if precision in gone:
            (folder / file).unlink()
    frame = dataclasses.replace(manifest.frame, variants=kept)
    return dataclasses.replace(manifest, frame=frame, files=file_entries(folder))
