"""A whole bundle of a few kilobytes, its graphs written by hand: quick to make, copy and change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dfd_edge.bundle import Bundle, Signatures, frame_contract, sequence_contract
from dfd_edge.bundle.manifest import (
    MANIFEST_NAME,
    Calibrator,
    CardInfo,
    DecisionSpec,
    FaceSpec,
    FileEntry,
    FrameSpec,
    Manifest,
    Metric,
    PersonScore,
    ProbeSpec,
    SequenceSpec,
    SignalsSpec,
    Threshold,
    VariantSpec,
)
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION, UNITS
from dfd_edge.inference.session import Session
from dfd_export.bundles.card import CARD_FILE, render_card
from dfd_export.bundles.metadata import GraphFacts, graph_metadata
from dfd_export.bundles.probe import PROBE_FILE, make_probe_crops, run_probe, write_probe

SIZE = 8
FEATURES = 4
STATE = 3
CREATED = "2026-01-02T03:04:05+00:00"

DECISION = DecisionSpec(
    person_score=PersonScore.SEQUENCE,
    calibrators={name: Calibrator(1.5, 0.2) for name in ("frame", "step", "person")},
    thresholds={
        "real": Threshold(0.4, 0.05, 0.04, 100, 0.09),
        "fake": Threshold(0.6, 0.05, 0.03, 100, 0.08),
    },
)
FACE = FaceSpec("blazeface_full_range", "ab" * 32, {"min_score": 0.5})
CARD = CardInfo(
    training_data="None: the weights are random. For tests only.",
    protocol="None.",
    metrics={"clip AUC": Metric(0.5, 0.4, 0.6, 30)},
    licence="Apache-2.0",
    limits=["It knows nothing."],
)


def build_small_bundle(
    out: Path,
    *,
    name: str = "small",
    seed: int = 0,
    size: int = SIZE,
    precisions: tuple[str, ...] = ("fp32",),
    created: str = CREATED,
    face: FaceSpec = FACE,
    signals: bool = False,
) -> Path:
    """Writes a bundle that loads, runs and verifies.

    Args:
        out: A folder that is not there yet.
        name: The bundle's name.
        seed: Of the weights.
        size: Side of a crop in pixels.
        precisions: The variants; the frame graphs of all but fp32 are fp32 with a little noise.
        created: The time that it says it was written at.
        face: The face detector that it says it was made with; by default none that there is.
        signals: Its sequence model adds the mean of a measured step's signals to its logit.
    """
    files = {p: "frame.onnx" if p == "fp32" else f"frame.{p}.onnx" for p in precisions}
    frame = FrameSpec(
        size, 1.5, FEATURES, (size // 2, size // 2), {p: VariantSpec(f) for p, f in files.items()}
    )
    measured = SignalsSpec(SIGNALS_VERSION, list(NAMES), list(UNITS)) if signals else None
    sequence = SequenceSpec("sequence.onnx", 5.0, STATE, 1.0, signals=measured)
    facts = GraphFacts(
        name=name, created=created, frame=frame, sequence=sequence, face=face, licence=CARD.licence
    )
    out.mkdir()
    graphs = {file: frame_graph(frame, seed, noise=p != "fp32") for p, file in files.items()}
    graphs[sequence.file] = sequence_graph(frame, sequence, seed)
    for file, graph in graphs.items():
        helper.set_model_props(graph, graph_metadata(facts, file))
        onnx.save(graph, out / file)
    crops = make_probe_crops(size)
    write_probe(out / PROBE_FILE, crops)
    manifest = Manifest(
        schema_version=sequence.schema_version,
        name=name,
        created=created,
        files=_entries(out),
        frame=frame,
        sequence=sequence,
        face=face,
        decision=DECISION,
        probe=ProbeSpec(PROBE_FILE, [0.0], [0.0], 1e-2),
        card=CARD,
    )
    manifest = _with_probe(Bundle(out, manifest, sha256=""), crops)
    (out / CARD_FILE).write_text(render_card(manifest), "utf-8")
    manifest = dataclasses.replace(manifest, files=_entries(out))
    (out / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    return out


def frame_graph(spec: FrameSpec, seed: int, *, noise: bool = False) -> onnx.ModelProto:
    """A convolution, whose places make features and evidence."""
    weights = _random(seed, kernel=(FEATURES, 3, 3, 3), bias=(FEATURES,), seen=(1, FEATURES, 1, 1))
    if noise:
        weights = {key: value + np.float32(0.02) for key, value in weights.items()}
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Conv", ["planes", "kernel", "bias"], ["conv"], strides=[2, 2], pads=[0, 0, 1, 1]
        ),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Conv", ["relu", "seen"], ["map"]),
        helper.make_node("Squeeze", ["map", "one"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence"], ["fake_logit"], axes=[1, 2], keepdims=0),
    ]
    constants = {**weights, "scale": np.float32(1 / 128), "one": np.array([1])}
    return _model("frame", nodes, constants, frame_contract(spec))


def sequence_graph(frame: FrameSpec, spec: SequenceSpec, seed: int) -> onnx.ModelProto:
    """One GRU and a dense layer; the mean of a step's signals is added where it has them."""
    width = spec.state_width
    weights = _random(
        seed + 1, w=(1, 3 * width, FEATURES), r=(1, 3 * width, width), b=(1, 6 * width)
    )
    nodes = [
        helper.make_node("Transpose", ["features"], ["by_time"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["state", "zero"], ["start"]),
        helper.make_node(
            "GRU",
            ["by_time", "w", "r", "b", "lengths", "start"],
            ["steps", "end"],
            hidden_size=width,
            linear_before_reset=1,
        ),
        helper.make_node("Squeeze", ["end", "zero"], ["next_state"]),
        helper.make_node("Squeeze", ["steps", "one"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "dense"], ["logits"]),
        helper.make_node("Squeeze", ["logits", "two"], ["logit_by_time"]),
        helper.make_node("Transpose", ["logit_by_time"], ["fake_logit"], perm=[1, 0]),
    ]
    if spec.signals is not None:
        nodes[-1].output[0] = "without"
        nodes += [
            helper.make_node("ReduceMean", ["signals"], ["mean"], axes=[2], keepdims=0),
            helper.make_node("Mul", ["mean", "measured"], ["counted"]),
            helper.make_node("Add", ["without", "counted"], ["fake_logit"]),
        ]
    constants = {
        **weights,
        **_random(seed + 2, dense=(width, 1)),
        **{name: np.array([axis]) for axis, name in enumerate(("zero", "one", "two"))},
    }
    return _model("sequence", nodes, constants, sequence_contract(frame, spec))


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    contract: tuple[Signatures, Signatures],
) -> onnx.ModelProto:
    elements = {
        "float32": TensorProto.FLOAT,
        "uint8": TensorProto.UINT8,
        "int32": TensorProto.INT32,
    }
    inputs, outputs = (
        [
            helper.make_tensor_value_info(key, elements[value.dtype], list(value.axes))
            for key, value in side.items()
        ]
        for side in contract
    )
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _random(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.uniform(-1, 1, shape).astype(np.float32) for key, shape in shapes.items()}


def _with_probe(bundle: Bundle, crops: np.ndarray) -> Manifest:
    manifest = bundle.manifest
    logits = {}
    for precision in manifest.frame.variants:
        session = Session.open(bundle, provider="cpu", precision=precision)
        logits[precision] = [values.tolist() for values in run_probe(session, crops)]
    frame, step = logits.pop("fp32")
    variants = {
        precision: dataclasses.replace(variant, probe_logit=logits[precision][0])
        if precision in logits
        else variant
        for precision, variant in manifest.frame.variants.items()
    }
    return dataclasses.replace(
        manifest,
        frame=dataclasses.replace(manifest.frame, variants=variants),
        probe=dataclasses.replace(manifest.probe, fake_logit=frame, step_logit=step),
    )


def _entries(folder: Path) -> dict[str, FileEntry]:
    return {
        path.name: FileEntry(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in sorted(folder.iterdir())
    }


def edit_graph(folder: Path, name: str, edit) -> None:
    """Changes a graph and makes the manifest agree with it, as a forger would."""
    model = onnx.load(folder / name)
    edit(model)
    (folder / name).write_bytes(model.SerializeToString())
    relist(folder, name)


def edit_manifest(folder: Path, edit) -> None:
    """Changes the manifest's parsed JSON in place."""
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def edit_weight(name: str, change: Callable[[np.ndarray], np.ndarray]):
    """An edit of a graph that changes one of its weights."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))

    return edit


def fail_when_run(model: onnx.ModelProto) -> None:
    """An edit of a frame graph: it loads, and asks for 7 logits of as many crops as there are."""
    model.graph.node[-1].output[0] = "logits"
    model.graph.initializer.append(numpy_helper.from_array(np.array([7]), "seven"))
    model.graph.node.append(helper.make_node("Reshape", ["logits", "seven"], ["fake_logit"]))


def add_optimized(folder: Path, precision: str = "fp32", *, release: str | None = None) -> str:
    """Gives a variant an optimised graph, a copy of its portable one; returns the file's name."""
    name = f"frame.{precision}.optimized.onnx"

    def edit(manifest: dict) -> None:
        variant = manifest["frame"]["variants"][precision]
        shutil.copy(folder / variant["file"], folder / name)
        variant["optimized"] = {
            "file": name,
            "onnxruntime": release or onnxruntime.__version__,
            "load_ms": 1.0,
            "portable_load_ms": 2.0,
        }

    edit_manifest(folder, edit)
    relist(folder, name)
    return name


def relist(folder: Path, name: str) -> None:
    """Makes the manifest agree with a changed file."""
    data = (folder / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: entry}))
