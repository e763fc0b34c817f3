"""`dfd-export verify` passes whole bundles and says of others what is wrong."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.onnx_file import read_onnx
from dfd_edge.session import Session
from dfd_export.bundles.probe import check_probe
from dfd_export.cli import main
from small_bundle import build_small_bundle, edit_graph, edit_manifest, relist


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *(str(argument) for argument in arguments)])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return build_small_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))


def test_a_whole_bundle_passes_with_a_line_a_check(bundle: Path):
    result = verify(bundle)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "ok    manifest.json",
        "ok    files",
        "ok    frame.onnx",
        "ok    frame.int8.onnx",
        "ok    sequence.onnx",
        "ok    probe fp32",
        "ok    probe int8",
        str(bundle),
    ]
    assert "opset 17, IR version 8" in lines[2]
    assert "8 of 8 facts in its metadata, all as in the manifest" in lines[2]
    assert "on cpu (fp32): largest difference of fake_logit and step_logit" in lines[5]
    assert "on cpu (int8): largest difference of fake_logit" in lines[6]
    assert lines[7].endswith(f"bundle {Bundle.load(bundle).hash} is whole")


def test_the_shipped_bundle_passes():
    result = verify(DEFAULT_BUNDLE)
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output


def test_a_bundle_that_does_not_load_is_refused(bundle: Path):
    (bundle / "frame.onnx").write_bytes(b"x")
    result = verify(bundle)
    assert result.exit_code == 5
    assert "frame.onnx: 1 bytes, but the manifest says" in result.stderr


@pytest.mark.parametrize(
    ("field", "name", "check"),
    [("fake_logit", "fake_logit", "probe fp32"), ("step_logit", "step_logit", "probe fp32")],
)
def test_a_probe_that_gives_something_else_is_reported(
    bundle: Path, field: str, name: str, check: str
):
    def edit(manifest: dict) -> None:
        manifest["probe"][field][2] += 0.5

    edit_manifest(bundle, edit)
    result = verify(bundle)
    assert result.exit_code == 5
    assert f"FAIL  {check}: " in result.stdout
    assert "ok    probe int8: " in result.stdout
    assert f"probe crop 2 gives {name} " in result.stderr
    assert "(allowed difference 0.01)" in result.stderr


def test_each_variant_is_held_against_its_own_logits(bundle: Path):
    fp32 = Bundle.load(bundle).manifest.probe.fake_logit
    int8 = Bundle.load(bundle).manifest.frame.variants["int8"].probe_logit
    assert max(abs(a - b) for a, b in zip(fp32, int8, strict=True)) > 0.01

    def edit(manifest: dict) -> None:
        manifest["frame"]["variants"]["int8"]["probe_logit"] = fp32

    edit_manifest(bundle, edit)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "ok    probe fp32: " in result.stdout
    assert "FAIL  probe int8: " in result.stdout


def test_a_variant_may_be_off_by_what_it_changes_on_average(bundle: Path):
    """Quantised products are rounded otherwise on another processor."""
    changes = {
        **{"data": "d", "crops": 1, "mean_logit": 0.2, "max_logit": 0.9, "auc": {"value": 0.0}},
        **{"clips": 1, "labels_changed": 0, "speedup": {"value": 2.0}, "latency_ms": 1.0},
        **{"provider": "cpu", "processor": "p", "onnxruntime": "1"},
    }

    def off_by(amount: float):
        def edit(manifest: dict) -> None:
            int8 = manifest["frame"]["variants"]["int8"]
            int8["changes"] = changes
            int8["probe_logit"][1] += amount

        return edit

    edit_manifest(bundle, off_by(0.15))
    result = verify(bundle)
    assert result.exit_code == 0, result.output
    assert "largest difference of fake_logit 0.15 (allowed: 0.2)" in result.output
    edit_manifest(bundle, off_by(0.1))
    assert verify(bundle).exit_code == 5


def test_a_variant_without_logits_of_its_own_has_to_run(bundle: Path):
    def edit(manifest: dict) -> None:
        manifest["frame"]["variants"]["int8"]["probe_logit"] = []

    edit_manifest(bundle, edit)
    result = verify(bundle)
    assert result.exit_code == 0
    assert "runs on cpu (int8); the manifest stores no logits of it" in result.output
    session = Session.open(Bundle.load(bundle), provider="cpu", precision="int8")
    assert check_probe(session).compared == ()


def test_weights_that_are_no_numbers_are_found(bundle: Path):
    def edit(model) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "kernel")
        kernel = numpy_helper.to_array(tensor).copy()
        kernel[0] = float("nan")
        tensor.CopyFrom(numpy_helper.from_array(kernel, "kernel"))

    edit_graph(bundle, "frame.int8.onnx", edit)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "FAIL  probe int8: " in result.stdout
    assert "not finite" in result.stderr


def test_a_file_that_is_not_listed_is_pointed_out(bundle: Path):
    (bundle / ".DS_Store").write_bytes(b"left by the system")
    assert verify(bundle).exit_code == 0
    (bundle / "frame.fp16.onnx").write_bytes(b"something")
    result = verify(bundle)
    assert result.exit_code == 5
    assert "'frame.fp16.onnx' is not listed in the manifest" in result.stderr
    assert "ok    probe fp32: " in result.stdout


def test_a_graph_that_onnx_refuses_is_reported(bundle: Path):
    def edit(model) -> None:
        model.graph.node[4].input[0] = "unheard_of"

    edit_graph(bundle, "frame.int8.onnx", edit)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "FAIL  frame.int8.onnx: " in result.stdout
    assert "ok    frame.onnx: " in result.stdout
    assert "ONNX's checker refuses it" in result.stderr


def test_a_graph_of_another_opset_is_reported(bundle: Path):
    def edit(model) -> None:
        model.opset_import[0].version = 16

    edit_graph(bundle, "sequence.onnx", edit)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "sequence.onnx: is written in opset 16; a bundle's graphs are in 17 or 18" in (
        result.stderr
    )


def test_graphs_that_onnxruntime_optimised_are_checked_too(bundle: Path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(bundle / "frame.optimized.onnx")
    onnxruntime.InferenceSession(bundle / "frame.onnx", options)
    relist(bundle, "frame.optimized.onnx")
    said = {"onnxruntime": "0.0", "load_ms": 1.0, "portable_load_ms": 2.0}

    def edit(manifest: dict) -> None:
        fp32 = manifest["frame"]["variants"]["fp32"]
        fp32["optimized"] = {"file": "frame.optimized.onnx", **said}

    edit_manifest(bundle, edit)
    result = verify(bundle)
    assert result.exit_code == 0, result.output
    assert "ok    frame.optimized.onnx: opset 17" in result.output
    operators = read_onnx((bundle / "frame.optimized.onnx").read_bytes()).operators
    assert any(name.startswith("com.microsoft") for name in operators)

    def take_for_portable(manifest: dict) -> None:
        manifest["frame"]["variants"]["int8"]["file"] = "frame.optimized.onnx"

    edit_manifest(bundle, take_for_portable)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "operators of ONNX itself only" in result.stderr


def test_a_graph_that_says_little_of_itself_passes(bundle: Path):
    edit_graph(bundle, "frame.onnx", lambda model: model.ClearField("metadata_props"))
    result = verify(bundle)
    assert result.exit_code == 0
    assert "0 of 8 facts in its metadata" in result.output


def test_a_graph_that_names_another_role_is_refused(bundle: Path):
    edit_graph(
        bundle,
        "frame.onnx",
        lambda model: helper.set_model_props(model, {"dfd_edge.graph": "sequence"}),
    )
    result = verify(bundle)
    assert result.exit_code == 5
    assert "says of itself dfd_edge.graph = 'sequence', but the manifest" in result.stderr


def test_a_provider_that_cannot_run_ends_with_code_4(bundle: Path):
    result = verify(bundle, "--provider", "coreml")
    assert result.exit_code == 4
    assert "provider coreml cannot run" in result.stderr
