"""The whole way at a tiny scale, by the commands that people type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import onnx
import pytest
from click.testing import CliRunner

import dfd_edge.cli.command
import dfd_export.cli
import dfd_training.cli
from dfd_edge.bundle import Bundle
from dfd_training.calibration.decision_file import decisions_from_json
from dfd_training.data.folds import FOLD_SHARES

pytest_plugins = ["training.conftest"]


def run(command: click.Command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_from_photographs_to_a_verdict(small_data: Path, tmp_path: Path) -> None:
    train, export = dfd_training.cli.main, dfd_export.cli.main
    store, frame, sequence = tmp_path / "store", tmp_path / "frame", tmp_path / "sequence"
    made = ["--out", store, "--workers", 2, "--crop-scale", 1.4]
    run(train, "prepare", small_data / "labels.csv", *made)
    # Ranking fakes above reals takes more steps than a test has: these go on from the shipped one.
    fit = ["fit", "frame", store, "--out", frame, "--weights", "shipped", "--steps", 8]
    fit += ["--fit", "other_crop_scale=yes", "--batch-size", 8, "--learning-rate", 1e-5]
    run(train, *fit, "--epochs", 1)
    said = run(train, *fit, "--epochs", 2, "--resume")
    assert "epoch 2/2" in said
    assert "epoch 1/2" not in said, "a resumed run began anew"
    assert (frame / "curves.png").stat().st_size > 1000

    # One frame model serves all folds here; a real run fits one a fold, and says so beside it.
    alone = shutil.copy(frame / "best.keras", tmp_path / "frame.keras")
    graphs = tmp_path / "graphs"
    variants = ["--int8", "--max-auc-drop", 1, "--calibration-crops", 16]
    run(export, "bundle", alone, "--crops", store, "--out", graphs, *variants)
    models = ["--frame", graphs] * len(FOLD_SHARES)
    run(train, "fit", "sequence", store, *models, "--out", sequence, "--epochs", 1, "--steps", 100)
    calibrated = tmp_path / "calibrated"
    said = run(train, "calibrate", store, *models, "--sequence", sequence, "--out", calibrated)
    assert "fp32 fake: P(fake) " in said
    assert "int8 fake: P(fake) " in said

    bundle = tmp_path / "bundle"
    run(
        export,
        "bundle",
        frame / "best.keras",
        sequence / "sequence.keras",
        "--decision",
        calibrated / "decision.json",
        "--card",
        calibrated / "card.json",
        "--crops",
        store,
        "--out",
        bundle,
        *variants,
    )
    decisions = decisions_from_json((calibrated / "decision.json").read_text())
    manifest = Bundle.load(bundle).manifest
    assert manifest.frame.crop_scale == 1.4, "what the crops were cut at"
    assert {p: manifest.decision_of(p) for p in manifest.frame.variants} == decisions
    assert decisions["fp32"].calibrators != decisions["int8"].calibrators
    operators = {node.op_type for node in onnx.load(bundle / "sequence.onnx").graph.node}
    assert "GRU" in operators
    assert not operators & {"Loop", "If", "Scan"}

    # The bundle stands alone: what it was made from is gone.
    shutil.rmtree(store)
    shutil.rmtree(frame)
    lines = run(
        dfd_edge.cli.command.command, "--json", "--model", bundle, small_data / "clip0_fake.mp4"
    ).splitlines()
    records = [json.loads(line) for line in lines]
    assert [records[0]["record"], records[-1]["record"]] == ["run", "verdict"]
    assert 0.0 < records[-1]["p_fake"] < 1.0
    assert records[-1]["label"] in {"real", "fake", "unsure"}
    assert sum(record["record"] == "frame" for record in records) >= 7
