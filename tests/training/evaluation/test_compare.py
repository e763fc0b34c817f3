"""Runs side by side: differences are paired, told only where they are, and costs are measured."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sample_runs import FACTS, make_evaluation, make_fit

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.evaluation.compare import (
    Comparison,
    compare_quality,
    cost_of,
    measure_latency,
    model_cost,
    notes_on,
    onnx_bytes,
)
from dfd_training.evaluation.compare_report import comparison_to_text, write_comparison
from dfd_training.evaluation.evaluate import Evaluation, summarise
from dfd_training.evaluation.report import write_report
from dfd_training.evaluation.runs import Run, graph_hashes, read_run, read_runs
from small_bundle import build_small_bundle


def write_run(folder: Path, evaluation: Evaluation, **facts: object) -> Path:
    write_report(evaluation, summarise(evaluation, draws=5), folder, {**FACTS, **facts})
    return folder


def shifted(evaluation: Evaluation, by: float) -> Evaluation:
    """The same files by a model that tells fakes from reals better, or worse."""
    files, frames = evaluation.files.copy(), evaluation.frames.copy()
    sign = np.where(files["label"] == "FAKE", 1.0, -1.0)
    files["p_fake"] = (files["p_fake"] + by * sign).clip(0.001, 0.999)
    fake = set(files.loc[files["label"] == "FAKE", "path"])
    sign = np.where(frames["path"].isin(fake), 1.0, -1.0)
    frames["p_frame"] = (frames["p_frame"] + by * sign).clip(0.001, 0.999)
    return Evaluation(files, frames)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    return build_small_bundle(folder, precisions=("fp32", "int8"))


@pytest.fixture(scope="module")
def folders(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind: evaluated with a bundle, better, fitted only. Not to be written to."""
    root = tmp_path_factory.mktemp("runs")
    first = make_evaluation(count=12, shift=0.3)
    make_fit(root / "whole")
    write_run(root / "whole" / "evaluation", first, precision="int8")
    shutil.copytree(bundle, root / "whole" / "bundle")
    write_run(root / "better", shifted(first, 0.3), precision="fp32")
    write_run(root / "same", shifted(first, 0.0))
    make_fit(root / "fitted")
    return root


def found_in(folders: Path, *names: str) -> list[Run]:
    return read_runs([folders / name for name in names])


def test_a_run_is_a_fit_an_evaluation_or_both(folders: Path) -> None:
    whole, better, fitted = found_in(folders, "whole", "better", "fitted")
    assert (whole.fit is not None, whole.evaluation is not None) == (True, True)
    assert whole.bundle is not None
    assert (better.fit, better.bundle) == (None, None)
    assert better.no_bundle.endswith("is not where it was")
    assert (fitted.evaluation, fitted.bundle, fitted.no_bundle) == (None, None, "not exported")
    inside = read_run(folders / "whole" / "evaluation", "inside")
    assert inside.fit is not None, "the fit lies above"


def test_only_the_bundle_that_was_judged_is_taken_from_elsewhere(
    bundle: Path, tmp_path: Path
) -> None:
    judged = Bundle.load(bundle)
    place = shutil.copytree(bundle, tmp_path / "bundle")
    facts = {"precision": "int8", "bundle_place": "../bundle"}
    evaluation = make_evaluation(count=3)
    run = write_run(tmp_path / "run", evaluation, **facts, graphs=graph_hashes(judged, "int8"))
    manifest = place / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"It knows nothing."', '"A new card."'))
    found = read_run(run, "run").bundle
    assert found is not None, "the card changed, the graphs did not"
    assert found.path.resolve() == place
    other = graph_hashes(judged, "fp32")
    run = write_run(tmp_path / "run", evaluation, **facts, graphs=other)
    assert read_run(run, "run").bundle is None


def test_a_difference_is_told_only_where_its_interval_leaves_0(folders: Path) -> None:
    runs = found_in(folders, "whole", "better", "same", "fitted")
    levels = compare_quality(runs, draws=40)
    assert [table.name for table in levels] == ["clips", "single faces"]
    for table in levels:
        whole, better, same, fitted = table.rows
        assert whole.differences == {}
        change = better.differences["auc"]
        assert change.value == pytest.approx(
            better.figures["auc"].value - whole.figures["auc"].value
        )
        assert change.excludes_zero
        assert better.differences["log_loss"].high < 0.0, "a lower loss"
        assert not same.differences["auc"].excludes_zero
        assert same.differences["auc"].high == 0.0
        assert (fitted.figures, fitted.reason) == ({}, "not evaluated")
    costs = [cost_of(run, None, "not asked for") for run in runs]
    text = comparison_to_text(Comparison([run.name for run in runs], levels, costs, []))
    lines = [
        line
        for line in text.split("paired:")[1].split("###")[0].splitlines()
        if line.startswith("| ")
    ]
    by_run = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert by_run["same"].count("not significant") == 5
    assert "not significant" not in by_run["better"].split(" | ")[2]


def test_pairs_are_the_rows_that_both_judged(folders: Path, tmp_path: Path) -> None:
    all_files = make_evaluation(count=12, shift=0.3)
    kept = all_files.files["group"].isin([f"g{n}" for n in range(6)])
    some = Evaluation(all_files.files[kept], all_files.frames)
    write_run(tmp_path / "some", some)
    runs = read_runs([folders / "whole", tmp_path / "some"])
    levels = compare_quality(runs, draws=10)
    assert levels[0].rows[1].paired == 12
    said = "judged on other rows than whole (12 and 24); the difference is over the 12 that both"
    assert any(said in note for note in notes_on(runs, levels))
    # The other way round, the second run has more rows than the first.
    back = runs[::-1]
    levels = compare_quality(back, draws=10)
    assert levels[0].rows[1].paired == 12
    assert levels[0].rows[1].figures["auc"].n == 24
    said = "judged on other rows than some (24 and 12); the difference is over the 12 that both"
    assert any(said in note for note in notes_on(back, levels))


def test_another_label_for_the_same_file_is_refused(folders: Path, tmp_path: Path) -> None:
    turned = make_evaluation(count=12, shift=0.3)
    turned.files.loc[0, "label"] = "FAKE"
    write_run(tmp_path / "turned", turned)
    runs = read_runs([folders / "whole", tmp_path / "turned"])
    with pytest.raises(UsageError, match=r"g0_real\.mp4 has another label there"):
        compare_quality(runs, draws=5)


def test_one_class_gives_a_reason_and_no_figure(folders: Path, tmp_path: Path) -> None:
    part = make_evaluation(count=5)
    reals = Evaluation(part.files[part.files["label"] == "REAL"], part.frames.iloc[:0])
    write_run(tmp_path / "reals", reals)
    levels = compare_quality(read_runs([folders / "whole", tmp_path / "reals"]), draws=5)
    row = levels[0].rows[1]
    assert row.figures == {}
    assert row.reason.startswith("one class only (n = 5: 5 real, 0 fake)")


def test_latency_is_measured_for_every_run_and_in_turns(bundle: Path, tmp_path: Path) -> None:
    large = Bundle.load(build_small_bundle(tmp_path / "large", size=256))
    small = Bundle.load(bundle)
    rounds = []
    timed = measure_latency(
        {"small": (small, "int8"), "large": (large, "fp32")},
        rounds=15,
        on_round=lambda: rounds.append(1),
    )
    assert len(rounds) == 20, "with those to warm up"
    assert timed["small"].precision == "int8"
    assert timed["small"].ratio == 1.0
    assert timed["large"].ratio > 2.0, "a thousand times the pixels"
    for latency in timed.values():
        assert 0.0 < latency.low_ms <= latency.median_ms <= latency.high_ms
    assert onnx_bytes(small, "int8") == sum(
        (bundle / name).stat().st_size for name in ("frame.int8.onnx", "sequence.onnx")
    )


def test_the_command_writes_page_tables_and_chart(folders: Path, tmp_path: Path) -> None:
    arguments = [str(folders / name) for name in ("whole", "better", "fitted")]
    arguments += ["--names", "a,b,c", "--draws", "10", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert result.exit_code == 0, result.output
    assert "different variants: a int8, b fp32" in result.output
    assert "c, ONNX size and latency: not exported" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"comparison.{suffix}" for suffix in ("html", "md", "csv", "json", "png")}
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("run")
    assert table.loc["a", "latency_ms"] > 0.0
    assert table.loc["b", "clips_auc_change"] > 0.0
    assert np.isnan(table.loc["c", "clips_auc"])
    assert list(table["epochs"].fillna(0)) == [3, 0, 3]
    assert list(table["fit_s"].fillna(0)) == [180.0, 0.0, 180.0]
    picture = cv2.imread(str(tmp_path / "out" / "comparison.png"))
    assert picture is not None
    assert picture.std() > 5
    plain = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert plain["names"] == ["a", "b", "c"]


def test_latency_can_be_left_out_and_says_so(folders: Path) -> None:
    result = CliRunner().invoke(
        main, ["compare", str(folders / "whole"), "--no-latency", "--draws", "5"]
    )
    assert result.exit_code == 0, result.output
    assert "latency: left out by --no-latency" in result.output


def test_a_bundle_without_its_model_is_counted(bundle: Path, tmp_path: Path) -> None:
    """By the frame graph, in any precision."""
    run = write_run(tmp_path / "run", make_evaluation(count=3), precision="int8")
    shutil.copytree(bundle, run / "bundle")
    cost = cost_of(read_run(run, "run"), None, "")
    # 3x3x3x4 at 4², and 4 to one there for the map.
    assert cost.macs == 16 * (108 + 4)
    assert cost.parameters == 108 + 4 + 4 + 1, "kernels, a bias for each channel, the pixels' scale"
    assert not {"parameters", "macs"} & cost.missing.keys()


def test_a_fitted_model_is_counted(tmp_path: Path) -> None:
    from dfd_training.models import build_frame_model, save_model

    model = build_frame_model(backbone="meso4", input_size=32, weights="none")
    save_model(model, tmp_path / "best.keras")
    parameters, macs = model_cost(tmp_path / "best.keras")
    assert parameters == model.count_params()
    # 3x3x3x8 at 32², 5x5x8x8 at 16², 5x5x8x16 at 8², 5x5x16x16 at 4², 16x16 hidden, 16 to one.
    convolutions = 216 * 32**2 + 1600 * 16**2 + 3200 * 8**2 + 6400 * 4**2
    assert macs == pytest.approx(convolutions, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such folder"),
        (["empty"], "no run: neither a fit"),
        (["whole", "whole"], "a run is given twice"),
        (["whole", "same", "--names", "a"], "--names gives 1 names for 2 runs"),
        (["whole", "same", "--names", "a,a"], "two runs are called 'a'"),
        (["whole", "--draws", "0"], "Invalid value for '--draws'"),
        (["broken"], "not of dfd-train evaluate"),
    ],
)
def test_bad_input_gets_one_line(arguments: list[str], said: str, folders: Path) -> None:
    (folders / "empty").mkdir(exist_ok=True)
    if not (folders / "broken").exists():
        shutil.copytree(folders / "same", folders / "broken")
        (folders / "broken" / "evaluation.json").write_text("{")
    paths = [
        a if a.startswith("-") or a in ("a", "a,a", "0") else str(folders / a) for a in arguments
    ]
    result = CliRunner().invoke(main, ["compare", *paths])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_comparison_without_any_evaluation_is_written_too(folders: Path, tmp_path: Path) -> None:
    runs = found_in(folders, "fitted")
    costs = [cost_of(run, None, "not asked for") for run in runs]
    write_comparison(Comparison(["fitted"], compare_quality(runs), costs, []), tmp_path)
    text = (tmp_path / "comparison.html").read_text("utf-8")
    assert "AUC, held-out fold" in text
    assert "plotly.js v" not in text, "nothing to draw, nothing to carry"


def test_no_line_break_divides_an_interval(folders: Path, tmp_path: Path) -> None:
    """And a name that is markup stays text."""
    runs = read_runs([folders / "whole", folders / "better"], ["a", "<b>[1, 2]</b>"])
    levels = compare_quality(runs, draws=5)
    costs = [cost_of(run, None, "") for run in runs]
    write_comparison(Comparison([run.name for run in runs], levels, costs, []), tmp_path)
    page = (tmp_path / "comparison.html").read_text("utf-8").split("<main>")[1]
    assert re.search(
        r"<td[^>]*>0\.\d{3} <span class=\"number\">\[0\.\d{3}, [01]\.\d{3}\]</span>", page
    )
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
