"""The pages of results in a browser: nothing goes wrong, nothing is loaded, they fit a phone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sample_runs import FACTS, make_evaluation, make_fit

from dfd_edge.report.pictures import CropPicture
from dfd_training.evaluation.compare import Comparison, Latency, compare_quality, cost_of
from dfd_training.evaluation.compare_report import PAGE as COMPARISON
from dfd_training.evaluation.compare_report import write_comparison
from dfd_training.evaluation.evaluate import Mistake, summarise
from dfd_training.evaluation.page import PAGE as EVALUATION
from dfd_training.evaluation.page import write_results
from dfd_training.evaluation.report import write_report
from dfd_training.evaluation.runs import read_fit, read_runs
from headless import Browser

PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pages, with a file whose name would run a script."""
    folder = tmp_path_factory.mktemp("pages")
    evaluation = make_evaluation(count=5)
    report = summarise(evaluation, draws=5)
    jpeg = bytes(cv2.imencode(".jpg", np.full((176, 176, 3), 90, np.uint8))[1])
    name = "<img src=x onerror=document.title='run'>.mp4"
    crop = CropPicture(0.4, 0.8, jpeg, jpeg)
    mistake = Mistake(name, "REAL", "clip", "camera", "fake", 0.9, crop)
    fit = read_fit(make_fit(folder / "fit"))
    write_results(evaluation, report, folder, FACTS, mistakes=[mistake], fit=fit, draws=5)
    for run in ("first", "second with a rather long name"):
        write_report(evaluation, report, folder / run, FACTS)
    runs = read_runs([folder / "first", folder / "second with a rather long name", folder / "fit"])
    costs = [cost_of(run, Latency("fp32", 3.0, 2.0, 4.0, 1.0), "") for run in runs]
    levels = compare_quality(runs, draws=5)
    write_comparison(Comparison([run.name for run in runs], levels, costs, []), folder)
    return folder


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize(("page", "charts"), [(EVALUATION, 8), (COMPARISON, 2)])
def test_nothing_goes_wrong_and_nothing_is_loaded(
    browser: Browser, pages: Path, page: str, charts: int, width: int, dark: bool
) -> None:
    browser.open(pages / page, width=width, dark=dark)
    assert browser.draw_all() == charts
    assert browser.troubles() == []
    assert browser.evaluate("document.title") != "run"
    broken = "[...document.images].filter((image) => !image.naturalWidth).length"
    assert browser.evaluate(broken) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"""[...document.querySelectorAll("main *")].filter((element) =>
      element.getClientRects().length && element.getBoundingClientRect().right > {width}
      && !element.closest(".chart, .scroll")).map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []


def test_the_figures_can_be_read_in_the_page(browser: Browser, pages: Path) -> None:
    records = """JSON.parse(document.getElementById("records").textContent)"""
    browser.open(pages / EVALUATION, width=DESKTOP)
    assert browser.evaluate(f"{records}.bundle") == "small"
    browser.open(pages / COMPARISON, width=DESKTOP)
    assert browser.evaluate(f"{records}.names")[0] == "first"
