"""A variant computes what its format says, is measured, and is refused when it changes too much."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import Metric, VariantChanges
from dfd_edge.errors import UsageError
from dfd_edge.faces import DETECTOR_NAME
from dfd_edge.inference.session import FrameOutputs, Session
from dfd_export.cli import main
from dfd_export.gate.crops import cut_crops
from dfd_export.variants import writer
from dfd_export.variants.int8 import quantize
from dfd_export.variants.measure import (
    VariantRefused,
    check_changes,
    clip_labels,
    measure_changes,
)
from dfd_export.variants.samples import Sample, read_samples
from dfd_export.variants.writer import VariantOptions, add_variants, optimize
from dfd_training.data.folds import assign_folds
from dfd_training.data.store import CropStore, Shard, no_signals
from tiny_bundle import make_crops, make_sample

SIZE = 64


@pytest.fixture(scope="module")
def int8_graph(variant_bundle: Path) -> onnx.ModelProto:
    return onnx.load(variant_bundle / "frame.int8.onnx")


def outputs_of(graph: bytes, crops: np.ndarray, *, level=None) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if level is not None:
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": crops}), strict=True))


def quantised_kernels(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """By the name of the node that uses it, each int8 kernel of a convolution."""
    constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    made = {n.output[0]: n.input[0] for n in graph.graph.node if n.op_type == "DequantizeLinear"}
    return {
        node.name: constants[made[node.input[1]]]
        for node in graph.graph.node
        if node.op_type == "Conv" and made.get(node.input[1]) in constants
    }


def test_no_product_of_int8_weights_can_saturate(int8_graph: onnx.ModelProto):
    groups = {
        node.name: next((a.i for a in node.attribute if a.name == "group"), 1)
        for node in int8_graph.graph.node
    }
    kernels = quantised_kernels(int8_graph)
    assert len(kernels) >= 48  # all but the first, which may stay in float, and the evidence
    for name, kernel in kernels.items():
        assert kernel.dtype == np.int8
        limit = 127 if groups[name] > 1 else 64
        assert np.abs(kernel.astype(int)).max() <= limit
        # A channel's largest weight uses the range: a scale each.
        assert np.median(np.abs(kernel.astype(int)).reshape(len(kernel), -1).max(axis=1)) >= (
            limit - 2
        )


def test_the_processor_computes_what_the_format_says(int8_graph: onnx.ModelProto):
    crops = make_crops(12, SIZE, seed=4)
    graph = int8_graph.SerializeToString()
    exact = outputs_of(graph, crops, level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    found = outputs_of(graph, crops)
    spread = exact["fake_logit"].std()
    assert np.abs(found["fake_logit"] - exact["fake_logit"]).mean() < 0.1 * spread


def test_scaling_pooling_and_the_last_layers_stay_in_float(int8_graph: onnx.ModelProto):
    nodes = int8_graph.graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    assert {"fake_logit/raw", "features/raw", "evidence/raw"} <= makers.keys()
    for node in nodes:
        if node.op_type in ("MatMul", "Gemm"):
            assert "DequantizeLinear" not in {makers.get(name) for name in node.input}
    first = next(node for node in nodes if node.op_type == "QuantizeLinear")
    assert makers[first.input[0]] in ("Transpose", "Clip")  # the scaled picture or what is next


def small_network(*, group: int, bias: bool, opset: int = 17, names: bool = True):
    """Two convolutions, the second in groups, then pooling and a logit; 16 px."""
    rng = np.random.default_rng(3)
    kernels = {
        "stem": rng.normal(size=(8, 3, 3, 3)) / 5,
        "grouped": rng.normal(size=(16, 8 // group, 3, 3)),
        "last": rng.normal(size=(16, 1)),
        "shift": rng.normal(size=16),
    }
    extra = ["shift"] if bias else []
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["turned", "stem"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "grouped", *extra], ["c"], group=group),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "last"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["fake_logit"]),
    ]
    for index, node in enumerate(nodes):
        node.name = f"node{index}" if names else ""
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in kernels.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "axis"))
    graph = helper.make_graph(
        nodes,
        "frame",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 16, 16, 3])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 16]),
            helper.make_tensor_value_info("fake_logit", TensorProto.FLOAT, ["batch"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"group": 2, "bias": True},
        {"group": 8, "bias": True},  # two outputs a channel: no depthwise kernel takes it
        {"group": 1, "bias": False},
        {"group": 2, "bias": True, "opset": 18},
        {"group": 1, "bias": True, "names": False},
    ],
)
def test_other_networks_are_quantised_without_saturating(options):
    model = small_network(**options)
    crops = make_crops(16, 16, seed=7)
    graph = quantize(model, crops)
    for name, kernel in quantised_kernels(graph).items():
        assert np.abs(kernel.astype(int)).max() <= 64, name
    assert len(quantised_kernels(graph)) >= 1
    fp32 = outputs_of(model.SerializeToString(), crops)["fake_logit"]
    int8 = outputs_of(graph.SerializeToString(), crops)["fake_logit"]
    assert np.abs(int8 - fp32).max() < 0.1 * fp32.std()


def test_a_network_without_convolutions_is_refused():
    model = small_network(group=1, bias=False)
    del model.graph.node[2:5]
    with pytest.raises(UsageError, match="no convolution"):
        quantize(model, make_crops(8, 16))


def test_logits_that_are_no_numbers_are_refused(variant_bundle: Path):
    @dataclasses.dataclass
    class Broken:
        provider: object

        def run_frame(self, crops: np.ndarray) -> FrameOutputs:
            logits = np.full(len(crops), np.nan, np.float32)
            return FrameOutputs(np.zeros((len(crops), 4), np.float32), logits, None)

    fp32 = Session.open(Bundle.load(variant_bundle), provider="cpu", precision="fp32")
    with pytest.raises(VariantRefused, match="not finite on some of the crops"):
        measure_changes(fp32, Broken(fp32.provider), make_sample())


def test_the_outputs_are_level_with_fp32(variant_bundle: Path):
    calibration = make_crops(24, SIZE, seed=8)
    fp32 = outputs_of((variant_bundle / "frame.onnx").read_bytes(), calibration)
    int8 = outputs_of((variant_bundle / "frame.int8.onnx").read_bytes(), calibration)
    change = (int8["features"] - fp32["features"]).mean(axis=0)
    assert np.abs(change).max() < 1e-3
    for name in ("fake_logit", "evidence"):
        assert abs((int8[name] - fp32[name]).mean()) < 1e-3
        assert np.abs(int8[name] - fp32[name]).max() > 1e-3


def test_half_precision_keeps_inputs_and_outputs(variant_bundle: Path):
    graph = onnx.load(variant_bundle / "frame.fp16.onnx")
    stored = {t.data_type for t in graph.graph.initializer if np.prod(t.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in stored
    assert onnx.TensorProto.FLOAT not in stored
    assert (variant_bundle / "frame.fp16.onnx").stat().st_size < 0.55 * (
        variant_bundle / "frame.onnx"
    ).stat().st_size
    crops = make_crops(5, SIZE, seed=6)
    fp32 = outputs_of((variant_bundle / "frame.onnx").read_bytes(), crops)
    fp16 = outputs_of(graph.SerializeToString(), crops)
    for name, wanted in fp32.items():
        assert fp16[name].dtype == np.float32
        assert np.abs(fp16[name] - wanted).max() < 0.2 * wanted.std()


def test_the_manifest_says_what_each_variant_changes(variant_bundle: Path):
    bundle = Bundle.load(variant_bundle)
    variants = bundle.manifest.frame.variants
    assert list(variants) == ["fp32", "int8", "fp16"]
    assert variants["fp32"].changes is None
    fp32 = Session.open(bundle, provider="cpu", precision="fp32")
    sample = make_sample()
    before = fp32.run_frame(sample.crops).fake_logit
    for name in ("int8", "fp16"):
        session = Session.open(bundle, provider="cpu", precision=name)
        change = np.abs(session.run_frame(sample.crops).fake_logit - before)
        written = variants[name].changes
        assert (written.crops, written.clips, written.data) == (24, 3, "crops of noise")
        assert written.mean_logit == pytest.approx(change.mean(), abs=1e-3)
        assert written.max_logit == pytest.approx(change.max(), abs=1e-3)
        assert written.provider == "cpu"
        assert written.latency_ms > 0
    card = (variant_bundle / "CARD.md").read_text()
    assert "## Variants, against fp32" in card
    assert f"| int8 | {variants['int8'].changes.mean_logit:.3g}, " in card


def with_fake_threshold(session: Session, probability: float) -> Session:
    manifest = session.bundle.manifest
    fake = dataclasses.replace(manifest.decision.thresholds["fake"], probability=probability)
    real = dataclasses.replace(manifest.decision.thresholds["real"], probability=probability)
    decision = dataclasses.replace(manifest.decision, thresholds={"fake": fake, "real": real})
    bundle = dataclasses.replace(
        session.bundle, manifest=dataclasses.replace(manifest, decision=decision)
    )
    return dataclasses.replace(session, bundle=bundle)


@pytest.mark.slow
def test_changes_are_measured_between_the_two_sessions(variant_bundle: Path):
    fp32 = Session.open(Bundle.load(variant_bundle), provider="cpu", precision="fp32")
    sample = make_sample()
    same = measure_changes(fp32, fp32, sample)
    assert (same.mean_logit, same.max_logit, same.labels_changed) == (0, 0, 0)
    assert (same.auc.value, same.auc.low, same.auc.high) == (0, 0, 0)
    assert same.speedup.low <= same.speedup.value <= same.speedup.high
    assert len(clip_labels(fp32, sample)) == 3  # photographs have no verdict over steps
    never, always = with_fake_threshold(fp32, 1.0), with_fake_threshold(fp32, 0.0)
    assert measure_changes(never, always, sample).labels_changed == 3


def changes_with(auc: float) -> VariantChanges:
    return VariantChanges(
        data="crops",
        crops=100,
        mean_logit=0.1,
        max_logit=1.0,
        auc=Metric(auc, auc - 0.01, auc + 0.01, 100),
        clips=4,
        labels_changed=1,
        speedup=Metric(1.5, 1.4, 1.6, 9),
        latency_ms=5.0,
        provider="cpu",
        processor="some processor",
        onnxruntime="1.32.0",
    )


@pytest.mark.parametrize("auc", [-0.011, -0.2, float("nan")])
def test_a_variant_that_drops_too_far_is_refused(auc: float):
    with pytest.raises(VariantRefused, match=r"int8 is refused: its frame AUC is .* 0\.01 is allo"):
        check_changes("int8", changes_with(auc), max_auc_drop=0.01)


@pytest.mark.parametrize("auc", [-0.0099, 0.0, 0.3])
def test_a_variant_that_drops_less_is_kept(auc: float):
    check_changes("int8", changes_with(auc), max_auc_drop=0.01)


def test_nothing_is_written_when_a_variant_is_refused(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "dfd_export.variants.writer.measure_changes", lambda *_: changes_with(-0.02)
    )
    sample = make_sample()
    with pytest.raises(VariantRefused, match="nothing was written"):
        add_variants(
            Bundle.load(tiny_bundle),
            out=tmp_path / "out",
            options=VariantOptions(fp16=True),
            calibration=sample.crops,
            sample=sample,
        )
    assert not list(tmp_path.iterdir())


def loading_in(portable: bytes, *, portable_s: float, optimized_s: float):
    return lambda data: portable_s if data == portable else optimized_s


def test_an_optimised_graph_says_the_same(variant_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    portable = (variant_bundle / "frame.int8.onnx").read_bytes()
    seconds = loading_in(portable, portable_s=0.04, optimized_s=0.02)
    monkeypatch.setattr(writer, "_load_seconds", seconds)
    data, spec = optimize(portable, "frame.int8.optimized.onnx")
    assert (spec.file, spec.load_ms, spec.portable_load_ms) == ("frame.int8.optimized.onnx", 20, 40)
    assert onnxruntime.__version__.startswith(spec.onnxruntime)
    crops = make_crops(4, SIZE)
    wanted = outputs_of(portable, crops)
    for name, values in outputs_of(data, crops).items():
        np.testing.assert_allclose(values, wanted[name], atol=1e-4)
    graph = onnx.load_model_from_string(data)
    assert len(graph.graph.node) < len(onnx.load_model_from_string(portable).graph.node)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata["dfd_edge.precision"] == "int8"


def test_an_optimised_graph_that_loads_hardly_faster_is_not_kept(
    variant_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    portable = (variant_bundle / "sequence.onnx").read_bytes()
    seconds = loading_in(portable, portable_s=0.04, optimized_s=0.03)
    monkeypatch.setattr(writer, "_load_seconds", seconds)
    assert optimize(portable, "sequence.optimized.onnx") is None


def test_an_optimised_graph_that_no_bundle_may_hold_is_not_kept(
    variant_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    portable = (variant_bundle / "frame.int8.onnx").read_bytes()
    seconds = loading_in(portable, portable_s=0.04, optimized_s=0.02)
    monkeypatch.setattr(writer, "_load_seconds", seconds)
    monkeypatch.setattr(writer, "OPTIMISER_OPERATORS", frozenset({"com.microsoft:FusedConv"}))
    assert optimize(portable, "frame.int8.optimized.onnx") is None


def make_store(
    folder: Path, rows: list[tuple[str, str, str, int]], *, detector: str = DETECTOR_NAME
) -> Path:
    """A crop store with these files: path, label, split, crops; each file one colour."""
    (folder / "crops").mkdir(parents=True)
    index = []
    for number, (path, label, split, count) in enumerate(rows):
        picture = make_crops(1, 110, seed=number)[0]
        done, png = cv2.imencode(".png", picture)
        assert done
        Shard(
            data=np.tile(png.ravel(), count),
            offsets=np.arange(count + 1) * png.size,
            boxes=np.tile(np.array([[30, 30, 80, 80]], np.float32), (count, 1)),
            landmarks=np.full((count, 468, 2), np.nan, np.float32),
            time_s=np.arange(count) / 5,
            track=np.zeros(count, np.int32),
            face_px=np.full(count, 50, np.float32),
            judged=np.ones(count, bool),
            reason=np.full(count, ""),
            signals=no_signals(count),
        ).save(folder / "crops" / f"{number}.npz")
        index += [
            {
                "path": path,
                "label": label,
                "group": path,
                "split": split,
                "source": "one" if number % 2 else "two",
                "shard": f"{number}.npz",
                "position": position,
                "track": 0,
                "time_s": position / 5,
                "judged": True,
                "reason": "",
            }
            for position in range(count)
        ]
    pd.DataFrame(index).to_csv(folder / "index.csv", index=False)
    settings = {"version": 1, "rate_hz": 5.0, "detector": detector, "detector_sha256": "ab" * 32}
    (folder / "store.json").write_text(json.dumps({**settings, "detector_options": {}}))
    return folder


def read(store: Path, crops: int = 6) -> tuple[np.ndarray, Sample]:
    return read_samples(store, size=SIZE, crop_scale=1.5, calibration_crops=crops)


def test_rows_marked_train_calibrate_and_rows_marked_val_are_compared(tmp_path: Path):
    rows = [("a", "REAL", "train", 20), ("b", "FAKE", "train", 3), ("d", "FAKE", "val", 5)]
    store = make_store(tmp_path / "store", [*rows, ("c", "REAL", "val", 4)])
    calibration, sample = read(store)
    assert calibration.shape == (6, SIZE, SIZE, 3)
    assert len(np.unique(calibration, axis=0)) == 2  # as many as can be from each source
    assert sample.paths.tolist() == ["c"] * 4 + ["d"] * 5
    assert sample.fake.tolist() == [False] * 4 + [True] * 5
    assert (np.diff(sample.times_s[:4]) > 0).all()
    assert (np.diff(sample.times_s[4:]) > 0).all()
    assert sample.description == "crops of the rows marked val"


@pytest.mark.parametrize("held", [0, 1, 2, 3])
def test_the_fold_that_a_model_has_not_seen_calibrates_none_of_its_variants(
    tmp_path: Path, held: int
):
    rows = [(f"t{n}", ("REAL", "FAKE")[n % 2], "train", 2) for n in range(12)]
    rows += [("v0", "REAL", "val", 2), ("v1", "FAKE", "val", 2)]
    store = CropStore(make_store(tmp_path / "store", rows))
    read = partial(read_samples, store.path, size=SIZE, crop_scale=1.5, calibration_crops=100)
    everything, _ = read()
    used, _ = read(holdout=held)
    folds = assign_folds(store.index[store.index["split"] == "train"])
    assert 0 < (folds == held).sum() == len(everything) - len(used)
    held_rows = store.index.loc[folds.index[folds == held]]
    unseen = cut_crops(store, held_rows, size=SIZE, crop_scale=1.5)
    assert not any((crop == other).all() for crop in unseen for other in used)
    with pytest.raises(UsageError, match="fold 4 does not exist; there are 4, from 0 on"):
        read(holdout=4)


def test_without_rows_marked_val_those_that_did_not_calibrate_are_compared(tmp_path: Path):
    rows = [("a", "REAL", "train", 8), ("b", "FAKE", "train", 8)]
    calibration, sample = read(make_store(tmp_path / "store", rows))
    assert (len(calibration), len(sample)) == (6, 10)
    assert sample.description == "crops that did not calibrate"


def test_files_are_compared_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dfd_export.variants.samples.MAX_COMPARED", 10)
    rows = [("t", "REAL", "train", 8), ("long", "REAL", "val", 11)]
    rows += [(f"{n}", ("REAL", "FAKE")[n % 2], "val", 2) for n in range(8)]
    _, sample = read(make_store(tmp_path / "store", rows))
    assert len(sample) == 10
    assert "long" not in sample.paths
    assert all(np.count_nonzero(sample.paths == path) == 2 for path in sample.paths)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "REAL", "train", 8), ("b", "REAL", "val", 3)], "are all real: give a crop store"),
        ([("a", "REAL", "train", 8), ("b", "FAKE", "val", 3)], "are all fake: give a crop store"),
        ([("a", "REAL", "val", 8), ("b", "FAKE", "val", 3)], "no judged crops marked train"),
    ],
)
def test_a_store_that_cannot_tell_is_refused(tmp_path: Path, rows, message: str):
    with pytest.raises(UsageError, match=message):
        read(make_store(tmp_path / "store", rows))


@pytest.mark.slow
def test_variants_by_command(tiny_bundle: Path, tmp_path: Path):
    rows = [(f"{n}", ("REAL", "FAKE")[n % 2], ("train", "val")[n // 4 % 2], 5) for n in range(8)]
    store = make_store(tmp_path / "store", rows)
    copied = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copied)
    command = ["variant", str(copied), "--fp16", "--crops", str(store)]
    result = CliRunner().invoke(main, [*command, "--max-auc-drop", "1"])
    assert result.exit_code == 0, result.output
    assert "fp16 against fp32 on 20 crops of the rows marked val: the frame logit" in result.output
    bundle = Bundle.load(copied)
    assert f"bundle {bundle.hash} written" in result.output
    assert list(bundle.manifest.frame.variants) == ["fp32", "fp16"]
    probe = bundle.manifest.frame.variants["fp16"].probe_logit
    np.testing.assert_allclose(probe, bundle.manifest.probe.fake_logit, atol=0.05)
    again = CliRunner().invoke(main, [*command, "--max-auc-drop", "1"])
    assert again.exit_code == 0
    assert list(Bundle.load(copied).manifest.frame.variants) == ["fp32", "fp16"]
    (tmp_path / "pictures").mkdir()
    other = make_store(tmp_path / "other", rows, detector="another_detector")
    for crops, message in (
        (tmp_path / "pictures", "is calibrated and compared on labelled crops"),
        (other, "its crops were cut by another_detector, the runtime cuts faces by"),
    ):
        refused = CliRunner().invoke(
            main, ["variant", str(copied), "--int8", "--crops", str(crops)]
        )
        assert refused.exit_code == 2
        assert message in refused.stderr
    nothing = CliRunner().invoke(main, ["variant", str(copied), "--crops", str(store)])
    assert nothing.exit_code == 2
    assert "no variant is asked for" in nothing.stderr
