"""`dfd-bench chart`: results as a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.results.chart import chart_rows
from dfd_benchmarks.results.machine import describe_machine
from dfd_benchmarks.results.schema import Figure, Result, write_result
from dfd_edge.errors import UsageError

FIGURES = (
    Figure("decode.cpu", "decode", "ms", "lower", (19.0, 20.0, 24.0)),
    Figure("detect.cpu", "detect", "ms", "lower", (8.0, 9.0, 9.5)),
    Figure("rate", "frames", "1/s", "higher", (40.0,), 45.0),
)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "one.json"
    write_result(path, describe_machine(), Result("stages", {}, None, FIGURES))
    return path


def test_figures_are_picked_by_name(result: Path):
    rows, names = chart_rows([result, result], ["*.cpu"])
    assert [(row.group, row.label) for row in rows] == [
        *((0, "decode"), (0, "detect")),
        *((1, "decode"), (1, "detect")),
    ]
    assert names == ["stages: one"] * 2


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["none"], "no figure is called none: there are decode.cpu, detect.cpu, rate"),
        (["*"], r"1/s, ms do not share an axis: .* --figure 'decode\.cpu'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(result: Path, patterns: list[str], said: str):
    with pytest.raises(UsageError, match=said):
        chart_rows([result], patterns)


def test_the_longer_bar_is_the_larger_figure(result: Path, tmp_path: Path):
    out = tmp_path / "chart.png"
    done = CliRunner().invoke(
        main, ["chart", str(result), "--figure", "*.cpu", "--out", str(out), "--title", "Stages"]
    )
    assert done.exit_code == 0, done.output
    picture = cv2.imread(str(out))
    assert picture is not None
    blue = np.abs(picture.astype(int) - (0xB0, 0x6D, 0x2F)).max(axis=2) < 8
    rows = np.flatnonzero(blue.any(axis=1))
    upper = blue[rows[0] : rows[0] + 8].sum(axis=1).max()
    lower = blue[rows[-1] - 8 : rows[-1]].sum(axis=1).max()
    assert upper / lower == pytest.approx(20 / 9, rel=0.1)
