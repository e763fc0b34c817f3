"""Figures of a table and of the folder that it describes, and drawings of its files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_edge.bundle import DEFAULT_BUNDLE
from dfd_edge.bundle.manifest import MANIFEST_NAME
from dfd_training.data.checking import check_table
from dfd_training.data.table import read_rows
from dfd_training.explore.charts import chart_png, chart_table
from dfd_training.explore.columns import (
    frequent_values,
    missing_sentences,
    summarise_columns,
    type_of,
)
from dfd_training.explore.folder import read_folder
from dfd_training.explore.search import stratified
from dfd_training.explore.tables import UNLABELLED, count_labels, most_faked, table_charts


def table_of(*strata: tuple[str, str, int]) -> pd.DataFrame:
    """A table with so many files of each label and source."""
    rows = [
        {"path": f"{source}/{label}{number}.mp4", "label": label, "source": source}
        for label, source, count in strata
        for number in range(count)
    ]
    return pd.DataFrame(rows).assign(original="", split="train")


def test_rare_labels_and_sources_are_drawn() -> None:
    table = table_of(("REAL", "many", 5000), ("REAL", "few", 3), ("FAKE", "few", 4))
    drawn = table.set_index("path").loc[stratified(table, 20, seed=0)]
    counts = drawn.groupby(["label", "source"]).size()
    assert counts["FAKE", "few"] == 4
    assert counts["REAL", "few"] == 3
    assert counts["REAL", "many"] == 13


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["REAL", "FAKE"]), st.sampled_from("abc"), st.integers(1, 40)),
        min_size=1,
        unique_by=lambda stratum: stratum[:2],
    ),
    st.integers(0, 60),
    st.integers(0, 9),
)
def test_a_drawing_has_its_size_and_can_be_repeated(
    strata: list[tuple[str, str, int]], count: int, seed: int
) -> None:
    table = table_of(*strata)
    drawn = stratified(table, count, seed)
    assert len(set(drawn)) == len(drawn) == min(count, len(table))
    assert drawn == stratified(table, count, seed)
    assert drawn == [path for path in table["path"] if path in set(drawn)], "in the table's order"


def test_another_seed_draws_other_files() -> None:
    table = table_of(("REAL", "a", 500))
    assert stratified(table, 10, 0) != stratified(table, 10, 1)


def test_a_long_table_gives_charts_that_can_be_read() -> None:
    table = table_of(*(("REAL", f"source {n}", 100) for n in range(60)), ("FAKE", "fakes", 9))
    charts = table_charts(table, summarise_columns(table))
    sources = charts["labels_by_source"]
    assert len(sources.categories) == 21
    assert sources.categories[-1] == "41 others"
    assert sources.details[-1] == "4000 REAL, 9 FAKE"


def test_missing_and_frequent_values_are_counted_as_written() -> None:
    raw = pd.DataFrame({"path": ["a", "b", "c", "d"], "model": ["x", "", "x", "y"]})
    row = summarise_columns(raw).set_index("column").loc["model"]
    assert row["missing"] == 1
    assert row["missing_percent"] == 25.0
    assert row["unique"] == 2
    assert (row["most_frequent"], row["times"]) == ("x", 2)
    assert row["percent"] == pytest.approx(66.67)


def test_originals_are_ranked_by_their_fakes() -> None:
    table = table_of(("REAL", "s", 3), ("FAKE", "s", 6))
    made_of = ["s/REAL1.mp4"] * 3 + ["s/REAL0.mp4"] * 2 + [""]
    table.loc[table["label"] == "FAKE", "original"] = made_of
    assert most_faked(table).to_dict() == {"s/REAL1.mp4": 3, "s/REAL0.mp4": 2}
    chart = table_charts(table, summarise_columns(table))["originals"]
    assert chart.categories == ("REAL1.mp4", "REAL0.mp4")
    assert chart.series[0].values == (3.0, 2.0)


def test_missing_values_are_counted_for_each_label() -> None:
    raw = pd.DataFrame(
        {
            "path": [f"{n}.mp4" for n in range(5)],
            "label": ["REAL", "REAL", "FAKE", "FAKE", "FAKE"],
            "original": ["", "", "0.mp4", "0.mp4", ""],
            "model": ["", "", "x", "y", "z"],
        }
    )
    columns = summarise_columns(raw).set_index("column")
    assert columns.loc["original", "missing_percent"] == 60.0
    assert columns.loc["original", ["missing_real", "missing_fake"]].tolist() == [2, 1]
    assert columns.loc["original", "missing_fake_percent"] == pytest.approx(33.33)
    original, model = missing_sentences(raw)
    assert original.startswith("Missing original = REAL: does not hold for every row. 2 of 2 REAL")
    assert original.endswith("and 1 of 3 FAKE rows.")
    assert model.startswith("Missing model = REAL: holds for every row.")
    assert missing_sentences(raw.assign(label="REAL")) == []
    assert missing_sentences(raw.drop(columns="label")) == []


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (["a", "1"], "text"),
        (["1", "-20"], "whole number"),
        (["1", "2.5"], "number"),
        (["yes", "no"], "yes or no"),
        ([], "nothing"),
    ],
)
def test_columns_have_a_type(values: list[str], name: str) -> None:
    assert type_of(pd.Series(values, dtype=str)) == name


def test_frequent_values_of_every_column() -> None:
    raw = pd.DataFrame({"path": ["a", "b", "c"], "kind": ["x", "x", ""]})
    values = frequent_values(raw)
    assert values.to_dict("records") == [
        {"column": "kind", "value": "x", "times": 2, "percent": 100.0}
    ]


def test_counts_stand_beside_shares() -> None:
    table = table_of(("REAL", "a", 77), ("FAKE", "a", 323))
    chart = table_charts(table, summarise_columns(table))["labels"]
    assert not chart.stacked, "side by side"
    assert [series.labels() for series in chart.series] == [["77 (19.25 %)"], ["323 (80.75 %)"]]
    row = chart_table(chart).iloc[0]
    assert (row["REAL"], row["REAL, %"], row["FAKE"], row["FAKE, %"]) == (77, 19.25, 323, 80.75)
    assert chart.chart().table == (
        ["", "REAL", "REAL, %", "FAKE", "FAKE, %"],
        [["all files", "77", "19.25", "323", "80.75"]],
    )
    assert chart_png(chart).startswith(b"\x89PNG")


def test_files_without_a_label_are_counted_by_themselves() -> None:
    table = table_of(("REAL", "a", 2), (UNLABELLED, "a", 3))
    assert count_labels(table, table["source"]).loc["a"].to_dict() == {
        "REAL": 2,
        "FAKE": 0,
        UNLABELLED: 3,
    }
    only = table[table["label"] == UNLABELLED]
    assert list(count_labels(only, only["source"])) == [UNLABELLED]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with a row, one without, and what the project itself writes."""
    for name in ("a.png", "b.PNG", "more/c.png", ".hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels.csv").write_text("path,label\na.png,REAL\nb.PNG,FAKE\n")
    records = {
        "bundle": (MANIFEST_NAME, (DEFAULT_BUNDLE / MANIFEST_NAME).read_text("utf-8")),
        "evaluated": ("evaluation.json", json.dumps({"bundle": "b", "verdicts": {}})),
        "explored": ("explore.json", json.dumps({"table": "t", "options": {}, "files": []})),
    }
    for name, (record, content) in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / record).write_text(content)
        (tmp_path / name / "probe.png").write_bytes((tmp_path / "a.png").read_bytes())
    return tmp_path


def test_pictures_that_the_project_wrote_are_no_files_without_a_row(folder: Path) -> None:
    found = read_folder(["a.png", "b.PNG"], folder)
    assert found.without_row == ["more/c.png"]
    assert found.extensions["with a row"].to_dict() == {".png": 2, ".csv": 0}
    assert found.extensions["without a row"].to_dict() == {".png": 1, ".csv": 1}
    checked = check_table(read_rows(folder / "labels.csv"), folder)
    assert checked.superfluous == ["more/c.png"], "data check counts as explore does"
    (folder / "bundle" / MANIFEST_NAME).write_text("[]")
    found = read_folder(["a.png", "b.PNG"], folder)
    assert found.without_row == ["bundle/probe.png", "more/c.png"], "another's manifest"


def test_files_in_several_places_are_counted_where_they_are(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "elsewhere"
    table.mkdir()
    found = read_folder([str(folder / "a.png"), str(folder / "more" / "c.png")], table)
    assert found.without_row == [str(folder / "b.PNG")]
    assert found.extensions.loc[".png"].tolist() == [2, 1]
