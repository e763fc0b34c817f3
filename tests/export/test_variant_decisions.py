"""A decision for each precision, on its way from calibration into bundle, card and reports."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import DecisionSpec, Threshold
from dfd_export.cli import main
from dfd_training.calibration.decision_file import decisions_to_json
from small_bundle import DECISION, build_small_bundle


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def with_fake_at(probability: float) -> DecisionSpec:
    threshold = Threshold(probability, 0.02, 0.019, 103, 0.06)
    thresholds = {**DECISION.thresholds, "fake": threshold}
    return dataclasses.replace(DECISION, thresholds=thresholds, settle_steps=1.5)


FP32, INT8 = with_fake_at(0.875), with_fake_at(0.9375)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return build_small_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    """What `dfd-train calibrate` writes for both precisions."""
    path = tmp_path / "decision.json"
    path.write_text(decisions_to_json({"fp32": FP32, "int8": INT8}), "utf-8")
    return path


def test_revise_gives_each_variant_its_own(bundle: Path, decisions: Path):
    before = {name: (bundle / name).read_bytes() for name in Bundle.load(bundle).manifest.graphs()}
    result = run("revise", bundle, "--decision", decisions)
    assert result.exit_code == 0, result.output
    assert "shares the decision" not in result.output
    manifest = Bundle.load(bundle).manifest
    assert manifest.decision == manifest.decision_of("fp32") == FP32
    assert manifest.decision_of("int8") == INT8
    assert {name: (bundle / name).read_bytes() for name in before} == before


def test_card_and_inspect_show_both(bundle: Path, decisions: Path):
    plain = (bundle / "CARD.md").read_text("utf-8")
    assert "### int8" not in plain
    run("revise", bundle, "--decision", decisions)
    card = (bundle / "CARD.md").read_text("utf-8")
    fp32, int8 = card.split("### fp32")[1].split("### int8")
    assert "`fake` from 0.875 on: set so that at most 2.0% of real sources" in fp32
    assert "`fake` from 0.938 on" in int8.split("## Limits")[0]
    assert "103 groups of footage weighing alike, at most 6.0% with 95 % confidence" in int8
    assert "multiplied by n / (n + 1.5) before the sigmoid" in int8
    shown = run("inspect", bundle).output
    assert "decision.thresholds.fake.probability = 0.9375" in shown
    facts = json.loads(run("inspect", bundle, "--json").output)
    assert facts["manifest"]["frame"]["variants"]["int8"]["decision"]["settle_steps"] == 1.5


def test_diff_names_the_decision_that_changed(bundle: Path, decisions: Path, tmp_path: Path):
    for name, int8 in (("first", INT8), ("second", with_fake_at(0.9))):
        decisions.write_text(decisions_to_json({"fp32": FP32, "int8": int8}), "utf-8")
        run("revise", bundle, "--decision", decisions, "--out", tmp_path / name)
    result = run("diff", tmp_path / "first", tmp_path / "second")
    assert result.exit_code == 1
    wanted = "frame.variants.int8.decision.thresholds.fake.probability: 0.9375 -> 0.9\n"
    assert wanted in result.output
    assert "\n  decision.thresholds" not in result.output


def test_a_single_decision_is_for_all_variants_and_that_is_said(
    bundle: Path, decisions: Path, tmp_path: Path
):
    run("revise", bundle, "--decision", decisions)
    single = tmp_path / "single.json"
    single.write_text(FP32.to_json(), "utf-8")
    result = run("revise", bundle, "--decision", single)
    assert "int8 shares the decision of fp32: none was set on its own logits" in result.output
    assert Bundle.load(bundle).manifest.decision_of("int8") == FP32


def test_a_decision_for_a_variant_that_is_not_there_is_named(decisions: Path, tmp_path: Path):
    bundle = build_small_bundle(tmp_path / "fp32_only")
    result = run("revise", bundle, "--decision", decisions)
    assert "the decision of int8 is left out: the bundle has no int8" in result.output
    assert Bundle.load(bundle).manifest.decision == FP32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"int8": {}}', "has no decision for fp32"),
        ('{"fp32": {}, "int4": {}}', "'int4' is no precision; known are fp32, fp16, int8"),
        ('{"fp32": {}}', "fp32.person_score is missing"),
        ("[]", "not an object"),
    ],
)
def test_a_file_of_decisions_that_is_none_is_refused_in_a_line(
    bundle: Path, decisions: Path, content: str, message: str
):
    decisions.write_text(content)
    result = run("revise", bundle, "--decision", decisions)
    assert result.exit_code == 2
    assert "decision.json: " in result.stderr
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
