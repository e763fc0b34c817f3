"""`dfd-export inspect` shows what is in a bundle, and what a stray file is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnx import helper

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.bundle.manifest import FrameSpec, Metric, VariantChanges
from dfd_edge.faces.onnx_model import FACE_MODELS_DIR
from dfd_export.bundles.metadata import GraphFacts, graph_metadata, set_precision
from dfd_export.cli import main
from dfd_training.evaluation.graph_cost import measure
from small_bundle import CREATED, build_small_bundle, edit_graph, edit_manifest


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two variants. Not to be written to."""
    out = tmp_path_factory.mktemp("inspection") / "bundle"
    return build_small_bundle(out, precisions=("fp32", "int8"))


def test_a_bundle_s_files_graphs_and_card_are_shown(small: Path):
    result = run("inspect", small)
    assert result.exit_code == 0, result.output
    bundle = Bundle.load(small)
    for name, entry in bundle.manifest.files.items():
        assert f"{name:<15}  {entry.size:>10,} bytes  sha256 {entry.sha256}" in result.output
    for wanted in (
        f"small  {bundle.hash}  written {CREATED}  {small}",
        "frame.onnx: opset 17, IR version 8, 10 nodes",
        f"the frame graph (int8) of small, written {CREATED}",
        f"the sequence graph of small, written {CREATED}",
        "stored: float32 117 (468 bytes), int64 1 (8 bytes)",
        "parameters  117",
        "MACs        1,792 (1.79 k) a crop",
        "MACs        66 (66) a step",  # 3 gates of 3 units over 4 features and 3 states, 1 logit
        "operators   Conv 2, Cast 1, Mul 1",
        "image: uint8 [batch, 8, 8, 3]",
        "features: float32 [batch, time, 4]",
        "next_state: float32 [batch, 3]",
        "dfd_edge.face_detector = blazeface_full_range",
        "It knows nothing.",
    ):
        assert wanted in result.output
    assert "MACs  parameters  operator" not in result.output


def test_the_shipped_bundle_can_be_inspected():
    result = run("inspect", DEFAULT_BUNDLE)
    assert result.exit_code == 0
    assert "Conv 50" in result.output
    assert "MACs        195,904,480 (0.196 G) a crop" in result.output
    step = measure(onnx.load(DEFAULT_BUNDLE / "sequence.onnx")).macs
    assert f"MACs        {step:,} " in result.output


def test_the_largest_layers_come_first(small: Path):
    text = run("inspect", small, "--layers", 1).output
    assert "largest 1 of 2 layers, by MACs" in text
    assert "        1,728         112  Conv          [1, 4, 4, 4]          kernel\n" in text
    assert "seen" not in text
    assert "           63          81  GRU           [1, 1, 1, 3]          w\n" in text


def test_what_a_variant_changes_is_shown(small: Path, tmp_path: Path):
    copied = Path(shutil.copytree(small, tmp_path / "bundle"))
    changes = VariantChanges(
        data="crops of nobody",
        crops=12,
        mean_logit=0.0123456,
        max_logit=0.5,
        auc=Metric(-0.001, -0.004, 0.002, 12),
        clips=3,
        labels_changed=1,
        speedup=Metric(2.2, 2.1, 2.3),
        latency_ms=4.5,
        provider="cpu",
        processor="a processor",
        onnxruntime="1.30",
    )
    plain = dataclasses.asdict(changes)
    edit_manifest(copied, lambda m: m["frame"]["variants"]["int8"].update(changes=plain))
    text = run("inspect", copied).output
    assert "variant int8: frame.int8.onnx\n" in text
    for wanted in (
        *("changes.data = crops of nobody", "changes.mean_logit = 0.01235"),
        *("changes.auc.low = -0.004", "changes.speedup.value = 2.2", "changes.clips = 3"),
    ):
        assert f"  {wanted}\n" in text
    assert "variant fp32" not in text


def test_everything_is_there_for_machines(small: Path):
    report = json.loads(run("inspect", small, "--json").output)
    bundle = Bundle.load(small)
    assert report["sha256"] == bundle.sha256
    assert report["manifest"] == json.loads(bundle.manifest.to_json())
    frame, int8, sequence = report["graphs"]
    assert [graph["file"] for graph in (frame, int8, sequence)] == [
        *("frame.onnx", "frame.int8.onnx", "sequence.onnx"),
    ]
    assert frame["sha256"] == bundle.manifest.files["frame.onnx"].sha256
    assert frame["opsets"] == {"ai.onnx": 17}
    assert frame["operators"]["Conv"] == 2
    assert frame["stored"]["float32"] == {"numbers": 117, "bytes": 468}
    assert [layer["macs"] for layer in frame["layers"]] == [1728, 64]
    assert frame["macs"] == 1792
    assert int8["metadata"]["dfd_edge.precision"] == "int8"
    assert sequence["inputs"]["state"] == "float32 [batch, 3]"


def test_a_stray_graph_says_what_it_is(small: Path, tmp_path: Path):
    stray = tmp_path / "from-a-colleague.onnx"
    shutil.copy(small / "frame.int8.onnx", stray)
    text = run("inspect", stray).output
    assert "from-a-colleague.onnx: opset 17" in text
    assert f"is          the frame graph (int8) of small, written {CREATED}" in text
    assert "RGB, 0 to 255" in text
    report = json.loads(run("inspect", stray, "--json").output)
    assert (report["file"], report["macs"]) == ("from-a-colleague.onnx", 1792)


def test_a_graph_of_others_is_shown_too():
    result = run("inspect", FACE_MODELS_DIR / "face_mesh_468.onnx", "--layers", 2)
    assert result.exit_code == 0
    assert "not written by dfd-export: its metadata names no bundle" in result.output
    assert "1 for every named axis" in result.output


def test_what_a_file_says_cannot_steer_the_terminal(small: Path, tmp_path: Path):
    copied = Path(shutil.copytree(small, tmp_path / "bundle"))
    edit_graph(
        copied, "frame.onnx", lambda model: helper.set_model_props(model, {"note": "\x1b[2Jgone"})
    )
    text = run("inspect", copied / "frame.onnx").output
    assert "\x1b" not in text
    assert r"note = \x1b[2Jgone" in text


def test_weights_in_another_file_are_pointed_out(small: Path, tmp_path: Path):
    model = onnx.load(small / "frame.onnx")
    stray = tmp_path / "stray.onnx"
    onnx.save(model, stray, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "weights in  'weights.bin', another file" in run("inspect", stray).output


def test_work_that_is_not_known_is_named(small: Path, tmp_path: Path):
    model = onnx.load(small / "frame.onnx")
    model.graph.node[4].domain, model.graph.node[4].name = "com.example", "mystery"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "stray.onnx")
    text = run("inspect", tmp_path / "stray.onnx", "--layers", 9).output
    assert "without 2 operators whose work is not known (mystery, map)" in text
    assert "unknown" in text


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x08\x08" * 50])
def test_a_file_that_is_no_graph_ends_with_code_5(tmp_path: Path, content: bytes):
    path = tmp_path / "page.onnx"
    path.write_bytes(content)
    result = run("inspect", path)
    assert result.exit_code == 5
    assert "page.onnx: not an ONNX graph" in result.stderr


def test_a_weight_of_no_type_that_onnx_has_ends_with_code_5(small: Path, tmp_path: Path):
    copied = Path(shutil.copytree(small, tmp_path / "bundle"))

    def edit(model: onnx.ModelProto) -> None:
        next(t for t in model.graph.initializer if t.name == "seen").data_type = 999

    edit_graph(copied, "frame.onnx", edit)
    file = copied / "frame.onnx"
    for arguments in (["inspect", copied], ["inspect", file], ["diff", small, copied]):
        result = run(*arguments)
        assert result.exit_code == 5
        assert "frame.onnx: a damaged graph ('seen' has the element type 999, which" in (
            result.stderr
        )


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_folder_that_is_no_bundle_ends_with_code_5(tmp_path: Path, command: str):
    result = run(command, tmp_path)
    assert result.exit_code == 5
    assert "this folder is no bundle" in result.stderr


def test_onnxruntime_reads_what_a_graph_says_of_itself(small: Path):
    for name, role in (("frame.onnx", "frame"), ("sequence.onnx", "sequence")):
        session = onnxruntime.InferenceSession(small / name)
        said = session.get_modelmeta().custom_metadata_map
        assert said["dfd_edge.bundle"] == "small"
        assert said["dfd_edge.graph"] == role
        assert said["dfd_edge.created"] == CREATED
        assert said["dfd_edge.crop_scale"] == "1.5"
        assert said["dfd_edge.rate_hz"] == "5"
        assert said["dfd_edge.feature_width"] == "4"
        assert said["dfd_edge.face_detector_sha256"] == "ab" * 32
        assert said["dfd_edge.licence"] == "Apache-2.0"
        assert said["dfd_edge.exporter"].startswith("dfd-export ")
        assert "higher = more fake, not calibrated" in said["dfd_edge.output"]
    assert said["dfd_edge.state_width"] == "3"
    assert "zeros at the start" in said["dfd_edge.input"]


def test_a_whole_frame_model_says_that_it_takes_whole_frames(small: Path):
    manifest = Bundle.load(small).manifest
    facts = GraphFacts(
        name="whole",
        created=CREATED,
        frame=dataclasses.replace(manifest.frame, evidence_size=None),
        sequence=manifest.sequence,
        face=dataclasses.replace(manifest.face, detector="none"),
        licence="Apache-2.0",
    )
    assert isinstance(facts.frame, FrameSpec)
    said = graph_metadata(facts, "frame.onnx")
    assert "the middle square of the whole frame, resized" in said["dfd_edge.input"]
    assert "evidence" not in said["dfd_edge.output"]


def test_a_variant_made_of_a_graph_says_so(small: Path):
    model = onnx.load(small / "frame.onnx")
    before = {entry.key: entry.value for entry in model.metadata_props}
    set_precision(model, "fp16")
    after = {entry.key: entry.value for entry in model.metadata_props}
    assert after == {**before, "dfd_edge.precision": "fp16"}
