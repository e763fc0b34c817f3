"""The page on quality is filled in from what the commands left, and from nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dfd_edge.bundle.manifest import CardInfo, Metric
from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.evaluation.crops.leaks import Check, Finding
from dfd_training.evaluation.evaluate import Evaluation, summarise
from dfd_training.evaluation.levels import reliability
from dfd_training.evaluation.quality_page import Measured, compare_scores, write_page
from dfd_training.evaluation.report import read_evaluation, read_figures, write_json, write_report
from dfd_training.evaluation.robustness import CorruptionFigures
from dfd_training.evaluation.robustness_report import draw_robustness
from dfd_training.evaluation.statistics import Estimate

PAGE = Path(__file__).resolve().parents[3] / "docs" / "quality.md"
SOME = Estimate(0.75, 0.5, 1.0, 8, 4)
NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)


def clip(name: str, p_fake: float, gru: float, *, original: str = "") -> dict[str, object]:
    return {
        "path": name,
        "label": "FAKE" if original else "REAL",
        "original": original,
        "generator": "tool" if original else "",
        "group": original or name,
        "split": "val",
        "source": "camera",
        "model": "",
        "kind": "clip",
        "verdict": "fake" if p_fake > 0.7 else "unsure" if p_fake > 0.3 else "real",
        "p_fake": p_fake,
        "cnn": p_fake,
        "gru": gru,
        "frames": 10,
        "coverage": 1.0,
        "error": "",
    }


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Four reals and three fakes; the sequence model takes one fake for real."""
    rows = [clip(name, p, p) for name, p in (("a", 0.1), ("b", 0.2), ("c", 0.45), ("d", 0.15))]
    rows += [
        clip("a2", 0.95, 0.9, original="a"),
        clip("b2", 0.8, 0.05, original="b"),
        clip("c2", 0.4, 0.5, original="c"),
    ]
    frames = [
        {"path": row["path"], "time_s": t / 5, "track": 1, "p_frame": row["p_fake"], "p_step": 0.5}
        for row in rows
        for t in range(4)
    ]
    return Evaluation(pd.DataFrame(rows), pd.DataFrame(frames))


def rung(name: str, area: float, called: int = 0) -> CorruptionFigures:
    estimate = Estimate(area, area - 0.1, min(1.0, area + 0.1), 7, 4)
    return CorruptionFigures(
        name, 3, 4, estimate, SOME, 2, 3, 4, called, 0.5, 1, 3, 2, SOME, SOME, float("nan")
    )


@pytest.fixture(scope="module")
def finished_runs(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the measuring commands leave it. Not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "runs"
    report = summarise(evaluation, draws=5)
    write_report(evaluation, report, folder / "evaluation", {})
    write_json(folder / "ladder" / "ladder.json", {"rungs": [rung("clean", 0.9), rung("x", 0.6)]})
    check = Check("border only", "the model", "own", SOME, NOTHING, Finding.CLEAN, "nothing there")
    write_json(folder / "doctor.json", {"checks": [check]})
    (folder / "crossfit").mkdir()
    (folder / "crossfit" / "families.md").write_text(
        "| family | AUC |\n|---|---|\n| swap | 0.9 |\n"
    )
    metrics = {
        "training folds, fp32, real clips: share called fake": Metric(0.01, None, 0.03, 90),
        "training folds, int8, real clips: share called fake": Metric(0.02, None, 0.04, 90),
        "val rows, int8, clip AUC": Metric(0.5),
    }
    card = CardInfo("data", "protocol", metrics, "licence", [])
    (folder / "card.json").write_text(card.to_json())
    return folder


@pytest.fixture
def runs(finished_runs: Path, tmp_path: Path) -> Path:
    """A copy of such a folder."""
    return Path(shutil.copytree(finished_runs, tmp_path / "runs"))


def test_figures_are_read_as_they_were_written(runs: Path) -> None:
    checks = read_figures(runs / "doctor.json", "checks", list[Check])
    assert checks[0].finding is Finding.CLEAN
    assert checks[0].auc == SOME
    assert np.isnan(checks[0].won.value)
    rungs = read_figures(runs / "ladder" / "ladder.json", "rungs", list[CorruptionFigures])
    assert rungs[1].auc.value == 0.6
    assert "NaN" not in (runs / "ladder" / "ladder.json").read_text()


@pytest.mark.parametrize("text", ["{}", "[]", "no", '{"checks": [{"name": 1}]}'])
def test_files_of_something_else_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "doctor.json").write_text(text)
    with pytest.raises(UsageError, match=r"doctor\.json: no checks of this version in it"):
        read_figures(tmp_path / "doctor.json", "checks", list[Check])


def test_an_evaluation_comes_back_from_its_files(evaluation: Evaluation, runs: Path) -> None:
    read = read_evaluation(runs / "evaluation")
    pd.testing.assert_frame_equal(read.files, evaluation.files, check_dtype=False)
    assert len(read.frames) == len(evaluation.frames)
    (runs / "evaluation" / "frames.csv").write_text("path\na\n")
    with pytest.raises(UsageError, match=r"columns .* are missing"):
        read_evaluation(runs / "evaluation")


def test_reliability_counts_what_happened(evaluation: Evaluation) -> None:
    levels = {item.level: item for item in reliability(evaluation, draws=20)}
    assert list(levels) == ["crop", "step", "clip"]
    bins = levels["clip"].bins
    assert [item.n for item in bins] == [0, 2, 1, 0, 2, 0, 0, 0, 1, 1]
    assert bins[4].fake_share == 0.5
    assert bins[4].mean_p == pytest.approx(0.425)
    assert levels["step"].error.value == pytest.approx(abs(0.5 - 3 / 7))


def test_the_gru_is_held_against_the_mean_on_the_same_clips(evaluation: Evaluation) -> None:
    everyone, own = compare_scores(evaluation, draws=50)
    assert everyone.base.value == pytest.approx(11 / 12)
    assert everyone.auc.value == pytest.approx(8 / 12)
    assert everyone.difference.value == pytest.approx(-3 / 12)
    assert (everyone.auc.n, own.auc.n) == (7, 6)


def test_the_page_of_this_repository_is_filled_in(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "quality.md"
    page.parent.mkdir()
    page.write_text(PAGE.read_text("utf-8"))
    arguments = ["quality", str(runs), "--page", str(page), "--draws", "5"]
    result = CliRunner().invoke(main, [*arguments, "--before", str(runs)])
    assert result.exit_code == 0, result.output
    assert "left as it was" not in result.stdout
    text = page.read_text("utf-8")
    called = "0 of 4 (upper bound 0.527)"
    for part in (
        f"| real clips called fake | {called} | {called} |",
        "now - before",
        "sequence model - CNN, mean",
        "| clean | 3, 4 | 0.900",
        "clean: nothing there",
        "| swap | 0.9 |",
        "| real clips: share called fake | 0.010, at most 0.030 (n = 90) | 0.020, at most 0.040",
    ):
        assert part in text
    picture = cv2.imread(str(page.parent / "images" / "quality_ladder.png"))
    assert picture is not None
    CliRunner().invoke(main, [*arguments, "--before", str(runs)])
    assert page.read_text("utf-8") == text, "filling in twice changes nothing"


def test_tables_without_figures_stay_as_they_were(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- table: doctor -->\nold\n<!-- end -->\n\n<!-- table: gru -->\n<!-- end -->\n"
    )
    (runs / "doctor.json").unlink()
    left = write_page(page, Measured.read(runs, draws=5), None, draws=5)
    assert list(left) == ["doctor"]
    assert "doctor.json is missing" in left["doctor"]
    assert "old" in page.read_text()
    assert "sequence model - CNN" in page.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no marks", "no mark such as"),
        ("<!-- table: colours -->\n<!-- end -->", "table 'colours' is unknown; known are overview"),
    ],
)
def test_pages_that_cannot_be_filled_in(
    text: str, message: str, runs: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UsageError, match=message):
        write_page(page, Measured.read(runs, draws=5), None, draws=5)


def test_the_chart_shows_both_bundles(tmp_path: Path) -> None:
    figures = [rung("clean", 0.9), rung("JPEG 30", 0.7, called=2)]
    pictures = []
    for before in ((), figures):
        draw_robustness(figures, tmp_path / "chart.png", before=before)
        pictures.append(cv2.imread(str(tmp_path / "chart.png")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
    assert (tmp_path / "chart.png").stat().st_size < 150_000
    red = (pictures[0][:, :, 2] > 180) & (pictures[0][:, :, 1] < 80)
    assert red.sum() > 500, "half of the real clips are called fake on the second rung"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["quality", str(tmp_path / "no"), "--page", "x.md"])
    assert result.exit_code == 2
    assert "no such folder: run the measuring commands first" in result.stderr
    assert json.dumps(result.stderr).count("\\n") == 1
