"""Evaluation goes through the runtime and counts what it should."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dfd_edge import Detector
from dfd_edge.bundle.manifest import CardInfo, Metric
from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore
from dfd_training.data.table import read_table
from dfd_training.evaluation.evaluate import (
    Evaluation,
    evaluate,
    pairs_won,
    rows_by_fold,
    summarise,
)
from dfd_training.evaluation.report import card_metrics, to_text, write_report


@pytest.fixture(scope="module")
def judged(tiny_bundle: Path, small_data: Path) -> Evaluation:
    """The small data set, judged by an untrained bundle."""
    table = read_table(small_data / "labels.csv")
    return evaluate(Detector.load(tiny_bundle), table, small_data)


def test_the_figures_are_those_of_the_runtime(
    judged: Evaluation, tiny_bundle: Path, small_data: Path
) -> None:
    row = judged.files.set_index("path").loc["clip2_fake.mp4"]
    verdict = Detector.load(tiny_bundle).analyze(small_data / "clip2_fake.mp4")
    assert row["p_fake"] == pytest.approx(verdict.p_fake)
    assert row["verdict"] == verdict.label.value
    assert row["kind"] == "clip"
    assert row["gru"] == pytest.approx(verdict.p_fake, abs=1e-4), "same calibrators in the bundle"


def test_unreadable_files_are_counted_and_named(judged: Evaluation) -> None:
    report = summarise(judged, draws=50)
    assert list(report.errors) == ["broken.mp4"]
    assert "Not judged: broken.mp4" in to_text(report)


def test_a_picture_without_a_face_is_not_called_real(judged: Evaluation) -> None:
    row = judged.files.set_index("path").loc["leaf.png"]
    assert row["verdict"] == "no_face"
    assert np.isnan(row["p_fake"])


def test_pairs_are_won_by_fakes_above_their_own_original() -> None:
    clips = pd.DataFrame(
        [
            ("a", "REAL", "", 0.2),
            ("a2", "FAKE", "a", 0.3),
            ("b", "REAL", "", 0.6),
            ("b2", "FAKE", "b", 0.5),
            ("c", "FAKE", "", 0.9),
        ],
        columns=["path", "label", "original", "p_fake"],
    )
    assert pairs_won(clips) == (1, 2)


def test_pairs_of_photographs_are_counted_and_none_are_not_mentioned(judged: Evaluation) -> None:
    """A set of face crops has photographs only; "0 of 0" says nothing."""
    files = judged.files[judged.files["kind"] == "photograph"].copy()
    alone = Evaluation(files, judged.frames[judged.frames["path"].isin(set(files["path"]))])
    assert "Pairs" not in to_text(summarise(alone, draws=5))
    fake = files.index[files["path"] == "hopper_1.png"]
    files.loc[fake, ["label", "original"]] = ["FAKE", "hopper_0.png"]
    report = summarise(Evaluation(files, alone.frames), draws=5)
    p_fake = files.set_index("path")["p_fake"]
    won = int(p_fake["hopper_1.png"] > p_fake["hopper_0.png"])
    text = f"Pairs of photographs won (a fake above its own original): {won} of 1"
    assert text in to_text(report)
    name = "val rows, photographs, pairs won (share of fakes above their own original)"
    assert card_metrics(report, "val rows")[name] == Metric(value=float(won), n=1)


def test_face_crops_of_the_table_are_judged_as_they_are(tiny_bundle: Path, tmp_path: Path) -> None:
    """No face is seen in this; a table that calls it a face crop has it judged all the same."""
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    for cropped, verdict in (("", "no_face"), ("yes", "real|unsure|fake")):
        table = pd.DataFrame({"path": ["noise.png"], "label": ["REAL"], "cropped": [cropped]})
        table.to_csv(tmp_path / "labels.csv", index=False)
        rows = read_table(tmp_path / "labels.csv")
        files = evaluate(Detector.load(tiny_bundle), rows, tmp_path).files
        assert re.fullmatch(verdict, files["verdict"].iloc[0])
        assert files["p_fake"].notna().iloc[0] == (cropped == "yes")


def test_real_face_crops_are_judged_and_won_in_pairs(tmp_path: Path) -> None:
    root = os.environ.get("DFD_DATA")
    if not root or not Path(root, "faces", "dfdc").is_dir():
        pytest.skip("DFD_DATA does not name development data with crops of DFDC")
    every = read_table(Path(root, "labels.csv"))
    fakes = every[every["path"].str.startswith("faces/dfdc") & (every["original"] != "")].head(8)
    rows = every[every["path"].isin([*fakes["path"], *fakes["original"]])]
    assert set(rows["cropped"]) == {"yes"}
    judged = evaluate(Detector.load(), rows, Path(root))
    assert not (judged.files["verdict"] == "no_face").any()
    assert judged.files["p_fake"].notna().all()
    (pairs,) = summarise(judged, draws=5).pairs
    assert (pairs.kind, pairs.n) == ("photograph", 8)


def test_the_report_is_written_as_table_and_json(judged: Evaluation, tmp_path: Path) -> None:
    report = summarise(judged, draws=50)
    write_report(judged, report, tmp_path, {"bundle": "tiny"})
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["bundle"] == "tiny"
    assert [(pairs["kind"], pairs["n"]) for pairs in stored["pairs"]] == [("clip", 6)]
    assert len(pd.read_csv(tmp_path / "files.csv")) == len(judged.files)
    text = (tmp_path / "evaluation.md").read_text()
    assert "### clips: fakes against their originals" in text
    assert "| CNN, mean | 12 | 6 |" in text
    metrics = card_metrics(report, "val rows")
    name = "val rows, clips: fakes against all reals, AUC (runtime)"
    assert 0.0 <= metrics[name].value <= 1.0
    card = CardInfo("data", "protocol", metrics, "licence", ["limit"])
    assert CardInfo.from_json(card.to_json()) == card


@pytest.mark.slow
def test_the_card_keeps_figures_of_each_precision(
    variant_bundle: Path, small_data: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(small_data / "labels.csv").set_index("path")
    rows.loc[["clip0_real.mp4", "clip0_fake.mp4"]].to_csv(tmp_path / "labels.csv")
    card = tmp_path / "card.json"
    trained = {"training folds, fp32, AUC": Metric(0.9)}
    card.write_text(CardInfo("data", "protocol", trained, "licence", ["limit"]).to_json())

    def figures(precision: str) -> dict[str, Metric]:
        arguments = [tmp_path / "labels.csv", "--root", small_data, "--bundle", variant_bundle]
        arguments += ["--split", "train", "--precision", precision, "--card", card]
        arguments += ["--draws", 20]
        result = CliRunner().invoke(
            main, ["evaluate", *map(str, arguments), "--out", str(tmp_path / precision)]
        )
        assert result.exit_code == 0, result.output
        return CardInfo.from_json(card.read_text()).metrics

    first = figures("fp32")
    assert {name.split(",")[1] for name in first} == {" fp32"}
    both = figures("int8")
    name = "train rows, {}, all clips, real: share called fake"
    assert {name.format(p) for p in ("fp32", "int8")} < both.keys()
    assert first.items() <= both.items()
    assert figures("int8") == both, "made anew in place of those of the same precision"
    said = {p: json.loads((tmp_path / p / "evaluation.json").read_text()) for p in ("fp32", "int8")}
    assert [facts["precision"] for facts in said.values()] == ["fp32", "int8"]
    assert said["fp32"]["graphs"]["frame"] != said["int8"]["graphs"]["frame"]
    page = (tmp_path / "fp32" / "evaluation.html").read_text("utf-8")
    mistakes = pd.read_csv(tmp_path / "fp32" / "mistakes.csv")
    files = pd.read_csv(tmp_path / "fp32" / "files.csv").set_index("path")
    wrong = files.index[files["verdict"] != files["label"].str.lower()]
    assert set(mistakes["path"]) == set(wrong)
    assert page.count('src="data:image/jpeg;base64,') == 2 * len(wrong), "each with its evidence"
    frames = pd.read_csv(tmp_path / "fp32" / "frames.csv")
    for row in mistakes.itertuples():
        scores = frames.loc[frames["path"] == row.path, "p_frame"]
        assert row.p_fake == files.loc[row.path, "p_fake"]
        # Pictures are kept a second apart, so that the extreme one is among them.
        worst = scores.min() if row.label == "FAKE" else scores.max()
        assert row.crop_p_frame == pytest.approx(worst, abs=1e-3)


def test_a_test_split_is_judged_and_an_empty_one_refused(
    tiny_bundle: Path, small_data: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(small_data / "labels.csv").set_index("path")
    rows = rows.loc[["astronaut_0.png", "hopper_0.png", "broken.mp4", "leaf.png"]]
    rows["split"] = ["test", "train", "test", "test"]
    rows.to_csv(tmp_path / "labels.csv")
    arguments = ["evaluate", tmp_path / "labels.csv", "--root", small_data]
    arguments += ["--bundle", tiny_bundle, "--out", tmp_path / "out"]

    def run(*more: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*map(str, arguments), *more])
        return result.exit_code, result.output

    code, output = run("--split", "test")
    assert code == 0, output
    judged = pd.read_csv(tmp_path / "out" / "files.csv")
    assert set(judged["path"]) == {"astronaut_0.png", "broken.mp4", "leaf.png"}
    assert "Left out: photographs: 1 real and 0 fake ones have a score" in output
    page = (tmp_path / "out" / "evaluation.html").read_text("utf-8")
    assert "1 of 3 files could not be judged" in page
    assert not (tmp_path / "out" / "roc.png").exists(), "one class has no curve"
    assert (tmp_path / "out" / "histograms.png").exists()
    code, output = run("--split", "val")
    assert code == 2
    assert "no row is marked val: there are 3 test, 1 train" in output
    code, output = run("--split", "test", "--run", str(tmp_path))
    assert code == 2
    assert f"{tmp_path}: no fit: neither history.csv nor run.json with best.keras" in output


def test_each_file_is_judged_by_the_bundle_that_did_not_see_its_fold(
    small_store: CropStore, small_data: Path
) -> None:
    table = read_table(small_data / "labels.csv")
    table = table[table["split"] == "train"]
    fold_of = training_rows(small_store).drop_duplicates("path").set_index("path")["fold"]
    parts = rows_by_fold(table, small_store, len(FOLD_SHARES))
    assert [set(part["path"].map(fold_of)) for part in parts] == [{0}, {1}, {2}, {3}]
    assert sum(map(len, parts)) == len(table[table["path"].isin(fold_of.index)])
    (alone,) = rows_by_fold(table, small_store, 1, photographs=1)
    still = alone["path"].str.endswith((".jpg", ".png"))
    assert still.sum() == 1
    assert (~still).sum() == sum((~p["path"].str.endswith((".jpg", ".png"))).sum() for p in parts)
    with pytest.raises(UsageError, match="2 bundles for 4 folds: give one for each"):
        rows_by_fold(table, small_store, 2)


def test_several_bundles_judge_a_fold_each(
    small_store: CropStore, small_data: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", str(small_data / "labels.csv"), "--out", str(tmp_path)]
    arguments += ["--precision", "fp32", "--draws", "10"]
    bundles = [word for _ in FOLD_SHARES for word in ("--bundle", str(tiny_bundle))]
    refused = CliRunner().invoke(main, [*arguments, *bundles, "--split", "train"])
    assert refused.exit_code == 2
    assert "4 bundles: give one --bundle, or --folds STORE too" in refused.output
    arguments += ["--folds", str(small_store.path)]
    done = CliRunner().invoke(main, [*arguments, *bundles], catch_exceptions=False)
    assert done.exit_code == 0
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    assert "4 bundles, each on the fold that it was fitted without" in json.dumps(facts)
