"""What an evaluation leaves beside its figures: tables, pictures and a page that fit together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sample_runs import FACTS, HOSTILE, make_evaluation, make_fit
from sklearn.metrics import auc as area_under
from sklearn.metrics import classification_report

from dfd_edge.errors import UsageError
from dfd_edge.report.pictures import CropPicture
from dfd_training.evaluation.evaluate import Evaluation, Mistake, summarise, worst_files
from dfd_training.evaluation.levels import (
    classification_reports,
    curves_of,
    levels_of,
    plain_confusions,
    verdict_confusions,
)
from dfd_training.evaluation.page import write_results
from dfd_training.evaluation.runs import find_fit, history_panels, read_fit
from dfd_training.evaluation.statistics import auc


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return make_evaluation()


@pytest.fixture(scope="module")
def mistakes(evaluation: Evaluation) -> list[Mistake]:
    grey = np.full((176, 176, 3), 90, np.uint8)
    jpeg = bytes(cv2.imencode(".jpg", grey)[1])
    crop = CropPicture(0.4, 0.8, jpeg, jpeg)
    rows = worst_files(evaluation, 5).to_dict("records")
    keys = ("path", "label", "kind", "source", "verdict", "p_fake")
    found = [Mistake(*(row[key] for key in keys), crop) for row in rows]
    return [*found[:-1], dataclasses.replace(found[-1], crop=None)]


@pytest.fixture(scope="module")
def written(
    evaluation: Evaluation, mistakes: list[Mistake], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder as `evaluate` leaves it, with the curves of a fit. Not to be written to."""
    folder = tmp_path_factory.mktemp("results")
    report = summarise(evaluation, draws=20)
    fit = read_fit(make_fit(folder / "fit"))
    write_results(evaluation, report, folder, FACTS, mistakes=mistakes, fit=fit, draws=20)
    return folder


def test_unsure_and_no_face_are_told_and_the_plain_matrix_says_what_it_leaves_out(
    evaluation: Evaluation,
) -> None:
    by_title = {matrix.title: matrix for matrix in verdict_confusions(evaluation)}
    clips = by_title["clips: verdicts"]
    reals = dict(zip(clips.columns, clips.counts[0], strict=True))
    files = evaluation.files
    real_clips = files[(files["label"] == "REAL") & (files["kind"] == "clip")]
    assert reals == {
        name: int((real_clips["verdict"] == name).sum())
        for name in ("real", "unsure", "fake", "no_face", "error")
    }
    assert reals["no_face"] == 1
    assert reals["unsure"] > 0
    assert clips.counts.sum() == len(files) - 1
    assert clips.shares[1].sum() == pytest.approx(1.0)
    assert by_title["unreadable files: verdicts"].counts[0, -1] == 1
    plain = plain_confusions(evaluation)[0]
    assert plain.counts.sum() == 24
    assert "without 1 that have no P(fake)" in plain.note


def test_the_classification_report_is_that_of_scikit_learn(evaluation: Evaluation) -> None:
    report = classification_reports(evaluation, draws=10)[0]
    level = levels_of(evaluation)[0]
    wanted = classification_report(level.labels, level.scores >= 0.5, output_dict=True)
    for number, row in enumerate(report.rows):
        expected = wanted[str(number)]
        for name, key in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert getattr(row, name).value == pytest.approx(expected[key])
        assert row.support == expected["support"]
        assert row.precision.low <= row.precision.value <= row.precision.high
        assert row.precision.groups == 12


def test_curves_hold_the_area_and_every_row(evaluation: Evaluation) -> None:
    for level in levels_of(evaluation):
        curves = curves_of(level)
        roc = curves.roc
        area = area_under(roc["false_positive_rate"], roc["true_positive_rate"])
        assert area == pytest.approx(auc(level.labels, level.scores))
        assert curves.histogram["fake"].sum() == level.labels.sum()
        assert curves.histogram["real"].sum() == (level.labels == 0).sum()
        assert sum(b.n for b in curves.reliability) == len(level.labels)


def test_the_worst_come_first_and_fakes_after_reals(evaluation: Evaluation) -> None:
    worst = worst_files(evaluation, 3)
    scored = evaluation.files[evaluation.files["p_fake"].notna()]
    wrong = scored[scored["verdict"] != scored["label"].str.lower()]
    reals = wrong.loc[wrong["label"] == "REAL", "p_fake"].nlargest(3)
    fakes = wrong.loc[wrong["label"] == "FAKE", "p_fake"].nsmallest(3)
    assert len(reals) == 3
    assert list(worst["p_fake"]) == [*reals, *fakes]
    assert list(worst["label"]) == ["REAL"] * 3 + ["FAKE"] * len(fakes)


def test_what_is_called_right_is_no_mistake(evaluation: Evaluation, tmp_path: Path) -> None:
    files = evaluation.files.copy()
    reals = (files["label"] == "REAL") & files["p_fake"].notna()
    files.loc[reals, ["p_fake", "verdict"]] = [0.1, "real"]
    better = Evaluation(files, evaluation.frames)
    assert set(worst_files(better, 50)["label"]) == {"FAKE"}
    assert "real" not in set(worst_files(evaluation, 50).query("label == 'REAL'")["verdict"])
    write_results(better, summarise(better, draws=5), tmp_path, FACTS, draws=5)
    page = (tmp_path / "evaluation.html").read_text("utf-8")
    assert f"All {reals.sum()} real files with a score are called real." in page
    assert "fake files with a score are called fake" not in page


def test_mistakes_are_shown_under_what_they_were_called(written: Path) -> None:
    page = (written / "evaluation.html").read_text("utf-8")
    shown = pd.read_csv(written / "mistakes.csv")
    for label, verdict in shown[["label", "verdict"]].drop_duplicates().to_numpy():
        assert f"<h3>{label.title()}, called {verdict}</h3>" in page
    assert "Real, called real" not in page


def test_pictures_and_tables_lie_beside_the_page(written: Path) -> None:
    for name in ("confusion", "roc", "precision_recall", "reliability", "histograms",
                 "training_curves", "mistakes"):  # fmt: skip
        picture = cv2.imread(str(written / f"{name}.png"))
        assert picture is not None, name
        assert picture.std() > 5, f"{name} is not blank"
    confusion = pd.read_csv(written / "confusion.csv")
    assert {"unsure", "no_face"} <= set(confusion["called"])
    report = pd.read_csv(written / "classification_report.csv")
    assert list(report["level"]) == ["clips", "clips", "single faces", "single faces"]
    assert report["precision_low"].notna().all()
    roc = pd.read_csv(written / "roc.csv")
    assert set(roc["level"]) == {"clips", "single faces"}
    assert np.isfinite(roc["threshold"]).all()
    assert len(pd.read_csv(written / "training_history.csv")) == 3


def test_the_page_lists_what_was_not_judged_and_runs_no_name_as_script(written: Path) -> None:
    text = (written / "evaluation.html").read_text("utf-8")
    assert "1 of 26 files could not be judged" in text
    assert HOSTILE not in text
    assert "&lt;/script&gt;&lt;script&gt;" in text
    assert "meso4: 3 epochs in 3 minutes" in text
    assert "The file could not be read again." in text
    assert "https://" not in text.split("<main>")[1].split("</main>")[0]


def test_one_class_leaves_curves_out_and_removes_those_of_before(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    files = evaluation.files[evaluation.files["label"] == "REAL"]
    frames = evaluation.frames[evaluation.frames["path"].isin(set(files["path"]))]
    alone = Evaluation(files.reset_index(drop=True), frames.reset_index(drop=True))
    report = summarise(alone, draws=5)
    assert report.sections == []
    assert report.left_out[0].startswith("clips: 12 real and 0 fake ones have a score")
    (tmp_path / "roc.png").write_bytes(b"of an earlier evaluation")
    names = write_results(alone, report, tmp_path, FACTS, draws=5)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert "roc.png" not in names
    assert "histograms.png" in names
    text = (tmp_path / "evaluation.html").read_text("utf-8")
    assert "curves and figures that need both classes are left out" in text


def test_no_score_at_all_still_makes_a_page(evaluation: Evaluation, tmp_path: Path) -> None:
    files = evaluation.files[evaluation.files["kind"] == "unreadable"].reset_index(drop=True)
    nothing = Evaluation(files, evaluation.frames.iloc[:0])
    write_results(nothing, summarise(nothing, draws=5), tmp_path, FACTS, draws=5)
    assert "1 of 1 files could not be judged" in (tmp_path / "evaluation.html").read_text("utf-8")


def test_a_fit_is_found_beside_the_evaluation_or_the_bundle(tmp_path: Path) -> None:
    fit = make_fit(tmp_path / "fit")
    assert find_fit(tmp_path / "elsewhere", None) is None
    for out, bundle in ((fit, None), (fit / "evaluation", None), (tmp_path / "x", fit / "bundle")):
        found = find_fit(out, bundle)
        assert found is not None
        assert (found.name, found.epochs, found.seconds) == ("meso4", 3, 180.0)
        assert found.best_auc == pytest.approx(0.8)
        assert list(history_panels(found.history)) == ["loss", "accuracy", "AUC"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("history.csv", "a,b\n1,2\n", "not the history of a fit: no column epoch"),
        ("history.csv", "", "not the history of a fit"),
        ("run.json", "[1]", "not the record of a fit"),
        ("run.json", "{", "not the record of a fit"),
    ],
)
def test_a_damaged_fit_is_refused_in_one_line(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    fit = make_fit(tmp_path / "fit")
    (fit / name).write_text(text)
    with pytest.raises(UsageError, match=said) as raised:
        read_fit(fit)
    assert str(fit / name) in str(raised.value)
    assert "\n" not in str(raised.value)
