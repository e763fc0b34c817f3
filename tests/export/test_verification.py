"""`dfd-export verify` passes whole bundles and says of others what is wrong."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnx import checker, helper

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.errors import ProviderError
from dfd_edge.inference.session import Session
from dfd_export.bundles.card import render_card
from dfd_export.bundles.probe import check_probe
from dfd_export.cli import main
from small_bundle import (
    add_optimized,
    build_small_bundle,
    edit_graph,
    edit_manifest,
    edit_weight,
    fail_when_run,
    relist,
)

CHANGES = {
    **{"data": "d", "crops": 1, "mean_logit": 0.2, "max_logit": 0.9, "auc": {"value": 0.0}},
    **{"clips": 1, "labels_changed": 0, "speedup": {"value": 2.0}, "latency_ms": 1.0},
    **{"provider": "cpu", "processor": "p", "onnxruntime": "1"},
}


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
    runs = "frame.onnx on cpu (fp32): largest difference of fake_logit and step_logit"
    assert runs in lines[5]
    assert "frame.int8.onnx on cpu (int8): largest difference of fake_logit" in lines[6]
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


@pytest.mark.parametrize(
    ("off_by", "refused"),
    [
        ([0.0, 0.04, 0.01, 0.7], None),  # one crop by far more than the mean that is allowed
        ([0.15, 0.15, 0.15, 0.15], None),
        ([0.0, 0.0, 1.0, 0.0], "probe crop 2 gives fake_logit"),
        ([0.3, -0.3, 0.3, -0.3], "fake_logit of the probe crops is on average 0.3000 from"),
    ],
)
def test_a_variant_may_be_off_by_what_it_changes(
    bundle: Path, off_by: list[float], refused: str | None
):
    """Products of a variant are rounded otherwise on another processor."""

    def edit(manifest: dict) -> None:
        int8 = manifest["frame"]["variants"]["int8"]
        int8["changes"] = CHANGES
        int8["probe_logit"] = [a + b for a, b in zip(int8["probe_logit"], off_by, strict=True)]

    edit_manifest(bundle, edit)
    result = verify(bundle)
    if refused is None:
        assert result.exit_code == 0, result.output
        mean = sum(map(abs, off_by)) / 4
        assert f"fake_logit {max(off_by):.2g} (allowed: 0.9), mean {mean:.2g} (allowed: 0.2)" in (
            result.output
        )
    else:
        assert result.exit_code == 5
        assert f"frame.int8.onnx: {refused}" in result.stderr


def test_a_variant_that_changes_next_to_nothing_may_be_off_by_the_probe_s_tolerance(bundle: Path):
    def edit(manifest: dict) -> None:
        int8 = manifest["frame"]["variants"]["int8"]
        int8["changes"] = {**CHANGES, "mean_logit": 0.0, "max_logit": 0.001}
        int8["probe_logit"] = [logit + 0.009 for logit in int8["probe_logit"]]

    edit_manifest(bundle, edit)
    assert verify(bundle).exit_code == 0


def test_a_card_can_do_without_what_was_not_measured(bundle: Path):
    edit_manifest(bundle, lambda m: m["frame"]["variants"]["int8"].update(changes=CHANGES))
    card = render_card(Bundle.load(bundle).manifest)
    assert "| int8 | 0.2, 0.9 | +0.0000 | 0 of 1 |" in card
    known = {**CHANGES, "auc": {"value": -0.001, "low": -0.004, "high": 0.002}}
    edit_manifest(bundle, lambda m: m["frame"]["variants"]["int8"].update(changes=known))
    card = render_card(Bundle.load(bundle).manifest)
    assert "| int8 | 0.2, 0.9 | -0.0010 [-0.0040, +0.0020] | 0 of 1 |" in card
    assert "| clip AUC | 0.500 | 0.400 to 0.600 | 30 |" in card
    uncounted = {**CHANGES, "clips": 0}
    edit_manifest(bundle, lambda m: m["frame"]["variants"]["int8"].update(changes=uncounted))
    assert "| +0.0000 | not counted |" in render_card(Bundle.load(bundle).manifest)


def test_a_variant_without_logits_of_its_own_has_to_run(bundle: Path):
    def edit(manifest: dict) -> None:
        manifest["frame"]["variants"]["int8"]["probe_logit"] = []

    edit_manifest(bundle, edit)
    result = verify(bundle)
    assert result.exit_code == 0
    assert "frame.int8.onnx on cpu (int8): runs; the manifest stores no logits" in result.output
    session = Session.open(Bundle.load(bundle), provider="cpu", precision="int8")
    assert check_probe(session).compared == ()


def test_weights_that_are_no_numbers_are_found(bundle: Path):
    edit_graph(bundle, "frame.int8.onnx", edit_weight("kernel", lambda kernel: kernel * np.nan))
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

    shutil.copy(bundle / "frame.optimized.onnx", bundle / "frame.int8.onnx")
    relist(bundle, "frame.int8.onnx")
    result = verify(bundle)
    assert result.exit_code == 5
    assert "operators of ONNX itself only" in result.stderr


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_portable_and_the_optimised_graph_are_both_run(bundle: Path, precision: str):
    portable = Bundle.load(bundle).manifest.frame.variants[precision].file
    optimized = add_optimized(bundle, precision)
    result = verify(bundle)
    assert result.exit_code == 0, result.output
    assert f"ok    probe {precision}: {portable} on cpu" in result.output
    assert f"ok    probe {precision} optimized: {optimized} on cpu" in result.output
    whole = {name: (bundle / name).read_bytes() for name in (portable, optimized)}
    for wrong, check in ((portable, ""), (optimized, " optimized")):
        edit_graph(bundle, wrong, edit_weight("seen", lambda seen: seen * -50))
        result = verify(bundle)
        assert result.exit_code == 5
        assert [line for line in result.stdout.splitlines() if line.startswith("FAIL")] == [
            f"FAIL  probe {precision}{check}: {result.stderr.removeprefix('error: ').strip()}"
        ]
        assert f"{wrong}: probe crop" in result.stderr
        (bundle / wrong).write_bytes(whole[wrong])
        relist(bundle, wrong)


def test_a_graph_optimised_for_another_onnxruntime_is_not_run(bundle: Path):
    name = add_optimized(bundle, release="0.9")
    result = verify(bundle)
    assert result.exit_code == 0
    assert f"probe fp32 optimized: {name} is not read here: it is for onnxruntime 0.9 on cpu" in (
        result.output
    )


def test_the_checks_go_on_after_a_graph_that_fails_when_it_is_run(bundle: Path):
    edit_graph(bundle, "frame.onnx", fail_when_run)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "FAIL  probe fp32: " in result.stdout
    assert "ok    probe int8: " in result.stdout
    assert result.stderr.startswith("error: ")


def test_the_checks_go_on_whatever_onnx_s_checker_raises(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    class Odd(Exception):
        pass

    def refuse(*_arguments: object, **_options: object) -> None:
        raise Odd

    monkeypatch.setattr(checker, "check_model", refuse)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "FAIL  frame.onnx: " in result.stdout
    assert "ONNX's checker refuses it (Odd)" in result.stderr
    assert "ok    probe int8: " in result.stdout


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that declares a size and holds no picture."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, *[0] * 4
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no PNG, but the probe is 8 x 32 px"),
        (b"GIF89a" + bytes(40), "no PNG, but the probe is 8 x 32 px"),
        (png_header(100_000, 100_000), "a picture of 100000 x 100000 px, but the probe is 8 x 32"),
        (png_header(8, 32), "a PNG that cannot be decoded"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "diff"])
def test_a_damaged_probe_ends_with_code_5(
    bundle: Path, content: bytes, complaint: str, command: str
):
    (bundle / "probe.png").write_bytes(content)
    relist(bundle, "probe.png")
    arguments = [command, str(bundle), *([str(bundle)] if command == "diff" else [])]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 5
    assert f"probe.png: {complaint}" in result.stderr


def test_names_in_a_bundle_cannot_steer_the_terminal(bundle: Path):
    def edit(model) -> None:
        model.graph.node[4].op_type = "\x1b[31mRelu\x07"

    edit_graph(bundle, "frame.onnx", edit)
    result = verify(bundle)
    assert result.exit_code == 5
    for text in (result.stdout, result.stderr):
        assert r"\x1b[31mRelu\x07" in text
        assert not {"\x1b", "\x07"} & set(text)


def test_the_checks_go_on_after_a_graph_that_fails_on_an_accelerator(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    run_frame = Session.run_frame

    def fail(session: Session, crops: np.ndarray):
        if session.provider.precision == "fp32":
            raise ProviderError("provider cuda cannot run the graph (out of memory)")
        return run_frame(session, crops)

    monkeypatch.setattr(Session, "run_frame", fail)
    result = verify(bundle)
    assert result.exit_code == 5
    assert "FAIL  probe fp32: provider cuda cannot run the graph" in result.stdout
    assert "ok    probe int8: " in result.stdout


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
