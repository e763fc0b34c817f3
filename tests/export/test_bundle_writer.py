"""Bundles are written whole or not at all, and can be checked, shown and revised."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import Metric, PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.faces import DETECTOR_NAME
from dfd_edge.inference.session import Session
from dfd_edge.schema import dump_json
from dfd_export.bundles import bundle_writer
from dfd_export.bundles.bundle_writer import revise_bundle, write_bundle
from dfd_export.bundles.probe import check_probe, make_probe_crops, read_probe
from dfd_export.cli import main
from dfd_export.gate.crops import MAX_CROPS, face_spec, read_crops
from dfd_export.gate.parity import ParityError
from dfd_training.data.store import Shard, no_signals
from dfd_training.models import save_model
from tiny_bundle import CARD, DECISION, make_crops, make_info

SIZE = 64


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(exported, out: Path) -> None:
    write_bundle(
        exported.frame_model,
        exported.sequence_model,
        out=out,
        info=make_info(),
        crops=exported.crops,
    )


@pytest.mark.usefixtures("quick_gate")
def test_a_bundle_that_fails_the_gate_is_not_written(exported, tmp_path: Path, monkeypatch):
    wrong = copy.deepcopy(exported.sequence_graph)
    tensor = next(t for t in wrong.graph.initializer if t.name == "logit_bias")
    tensor.CopyFrom(numpy_helper.from_array(np.full(1, 9, np.float32), "logit_bias"))
    monkeypatch.setattr(bundle_writer, "export_frame_graph", lambda *a, **k: exported.frame_graph)
    monkeypatch.setattr(bundle_writer, "export_sequence_graph", lambda *a, **k: wrong)
    with pytest.raises(ParityError, match="nothing was written"):
        write(exported, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_replaced(exported, tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(UsageError, match="is there and is no bundle"):
        write(exported, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_crops_of_another_size_are_refused(exported, tmp_path: Path):
    with pytest.raises(UsageError, match=r"crops are uint8 \[4, 32, 32, 3\]"):
        write_bundle(
            exported.frame_model,
            exported.sequence_model,
            out=tmp_path / "out",
            info=make_info(),
            crops=make_crops(4, 32),
        )


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_revised_bundle_has_the_same_graphs_and_the_new_decision(
    copied: Path, tmp_path: Path, in_place: bool
):
    before = Bundle.load(copied)
    graphs = {name: (copied / name).read_bytes() for name in before.manifest.graphs()}
    decision = dataclasses.replace(DECISION, person_score=PersonScore.FRAME)
    card = dataclasses.replace(CARD, metrics={"frame AUC": Metric(0.75)})
    out = copied if in_place else tmp_path / "new"
    revise_bundle(before, out=out, decisions={"fp32": decision}, card=card)
    after = Bundle.load(out)
    assert after.manifest.decision == decision
    assert after.sha256 != before.sha256
    assert {name: (out / name).read_bytes() for name in graphs} == graphs
    text = (out / "CARD.md").read_text("utf-8")
    assert "| frame AUC | 0.750 |" in text
    assert "mean of the frame logits" in text
    assert Bundle.load(copied).sha256 == (after if in_place else before).sha256


def test_another_decision_leaves_no_labels_counted_under_the_old_one(
    variant_bundle: Path, tmp_path: Path
):
    bundle = Bundle.load(variant_bundle)
    assert bundle.manifest.frame.variants["int8"].changes.clips == 3
    decision = dataclasses.replace(bundle.manifest.decision, min_steps=9)
    revise_bundle(bundle, out=tmp_path / "new", decisions={"fp32": decision}, card=None)
    changes = Bundle.load(tmp_path / "new").manifest.frame.variants["int8"].changes
    assert changes == dataclasses.replace(
        bundle.manifest.frame.variants["int8"].changes, clips=0, labels_changed=0
    )


def test_the_card_states_data_figures_decision_and_limits(tiny_bundle: Path):
    text = (tiny_bundle / "CARD.md").read_text("utf-8")
    for wanted in (
        CARD.training_data,
        "| clip AUC | 0.500 | 0.400 to 0.600 | 30 |",
        "`fake` from 0.600 on: set so that at most 5.0% of real sources are called fake",
        "- It knows nothing.",
        "Apache-2.0",
    ):
        assert wanted in text


def test_the_probe_passes_on_a_whole_bundle(tiny_bundle: Path):
    session = Session.open(Bundle.load(tiny_bundle), provider="cpu")
    np.testing.assert_array_equal(read_probe(session.bundle), make_probe_crops(SIZE))
    result = check_probe(session)
    assert result.compared == ("fake_logit", "step_logit")
    assert result.difference <= 1e-4
    assert np.ptp(session.bundle.manifest.probe.fake_logit) > 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("quick_gate")
def test_from_keras_files_to_a_bundle_by_command(exported, tmp_path: Path):
    save_model(exported.frame_model, tmp_path / "frame.keras")
    save_model(exported.sequence_model, tmp_path / "sequence.keras")
    (tmp_path / "decision.json").write_text(DECISION.to_json(), "utf-8")
    (tmp_path / "card.json").write_text(CARD.to_json(), "utf-8")
    np.save(tmp_path / "crops.npy", exported.crops)
    out = tmp_path / "made"
    result = run(
        *("bundle", tmp_path / "frame.keras", tmp_path / "sequence.keras"),
        *("--decision", tmp_path / "decision.json", "--card", tmp_path / "card.json"),
        *("--crops", tmp_path / "crops.npy", "--out", out, "--rate", 4),
    )
    assert result.exit_code == 0, result.output
    assert "next_state" in result.output
    bundle = Bundle.load(out)
    assert bundle.hash in result.output
    assert bundle.manifest.name == "made"
    assert bundle.manifest.sequence.rate_hz == 4
    assert bundle.manifest.decision == DECISION
    assert set(bundle.manifest.files) == {
        *("frame.onnx", "sequence.onnx", "CARD.md", "parity.json", "probe.png"),
    }
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    verified = run("verify", out)
    assert verified.exit_code == 0
    assert f"{out}: bundle {bundle.hash} is whole" in verified.output


def test_revise_by_command(copied: Path, tmp_path: Path):
    decision = dataclasses.replace(DECISION, min_steps=7)
    (tmp_path / "decision.json").write_text(decision.to_json(), "utf-8")
    result = run("revise", copied, "--decision", tmp_path / "decision.json")
    assert result.exit_code == 0
    assert Bundle.load(copied).manifest.decision.min_steps == 7
    assert run("revise", copied).exit_code == 2
    (tmp_path / "decision.json").write_text("{}", "utf-8")
    result = run("revise", copied, "--decision", tmp_path / "decision.json")
    assert result.exit_code == 2
    assert "decision.json: person_score is missing" in result.stderr
    result = run("revise", copied, "--card", tmp_path / "none.json")
    assert "none.json: cannot be read (No such file" in result.stderr


def test_crops_come_from_pictures_in_rgb(tmp_path: Path):
    red = np.zeros((90, 80, 3), np.uint8)
    red[:, :, 2] = 200
    for index in range(MAX_CROPS + 5):
        assert cv2.imwrite(str(tmp_path / f"{index:02}.png"), red)
    crops = read_crops(tmp_path, size=SIZE, crop_scale=1.5)
    assert crops.shape == (MAX_CROPS, SIZE, SIZE, 3)
    assert crops[0, 0, 0].tolist() == [200, 0, 0]


def test_crops_come_from_a_crop_store_with_its_detector(tmp_path: Path):
    picture = np.zeros((110, 110, 3), np.uint8)
    picture[:, :, 0] = 150  # blue, as OpenCV has it
    done, png = cv2.imencode(".png", picture)
    assert done
    (tmp_path / "crops").mkdir()
    Shard(
        data=png.ravel(),
        offsets=np.array([0, png.size]),
        boxes=np.array([[30, 30, 80, 80]], np.float32),
        landmarks=np.full((1, 468, 2), np.nan, np.float32),
        time_s=np.zeros(1),
        track=np.zeros(1, np.int32),
        face_px=np.full(1, 50, np.float32),
        judged=np.ones(1, bool),
        reason=np.array([""]),
        signals=no_signals(1),
    ).save(tmp_path / "crops" / "one.npz")
    (tmp_path / "index.csv").write_text("shard,position,reason\none.npz,0,\n")
    settings = {
        "version": 1,
        "rate_hz": 5.0,
        "detector": DETECTOR_NAME,
        "detector_sha256": "ab" * 32,
        "detector_options": {"min_score": 0.7},
    }
    (tmp_path / "store.json").write_text(json.dumps(settings))
    crops = read_crops(tmp_path, size=SIZE, crop_scale=1.5)
    assert crops.shape == (1, SIZE, SIZE, 3)
    assert crops[0, 0, 0].tolist() == [0, 0, 150]
    spec = face_spec(tmp_path)
    assert (spec.detector, spec.sha256) == (DETECTOR_NAME, "ab" * 32)
    assert spec.options == {"min_score": 0.7}
    (tmp_path / "store.json").write_text(json.dumps(settings | {"detector": "dlib_hog"}))
    with pytest.raises(UsageError, match="its crops were cut by dlib_hog, the runtime cuts faces"):
        face_spec(tmp_path)


def test_crops_that_are_none_are_refused(tmp_path: Path):
    np.save(tmp_path / "wrong.npy", np.zeros((2, 32, 32, 3), np.uint8))
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("wrong.npy", r"uint8 \[2, 32, 32, 3\], but the model takes"),
        ("pickled.npy", "not an array file"),
        ("empty", "holds no crops"),
        ("missing", "no such folder"),
    ):
        with pytest.raises(UsageError, match=message):
            read_crops(tmp_path / name, size=SIZE, crop_scale=1.5)


def test_revising_loads_each_bundle_once(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[Path] = []
    load = Bundle.load

    def counted(path: Path) -> Bundle:
        loaded.append(path)
        return load(path)

    monkeypatch.setattr(Bundle, "load", counted)
    card, out = tmp_path / "card.json", tmp_path / "new"
    card.write_text(dump_json(CARD), "utf-8")
    result = run("revise", tiny_bundle, "--card", card, "--out", out)
    assert result.exit_code == 0, result.output
    assert loaded[0] == tiny_bundle
    assert len(loaded) == 2  # the new one is checked before it is put in its place
    assert f"{out}: bundle {load(out).hash} written" in result.output
