"""The table of labelled files: what is accepted, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_edge.errors import UsageError
from dfd_training.data.folds import assign_folds
from dfd_training.data.table import check_classes, is_fake, read_table


def write(path: Path, text: str) -> Path:
    table = path / "labels.csv"
    table.write_text(text)
    return table


def test_an_original_that_is_not_in_the_table_is_kept_and_marked(tmp_path: Path) -> None:
    text = "path,label,original\na,REAL,\nb,FAKE,x/../a\nc,FAKE,away/o\nd,FAKE,away/o\ne,FAKE,\n"
    table = read_table(write(tmp_path, text)).set_index("path")
    assert table["original"].to_dict() == {"a": "", "b": "a", "c": "away/o", "d": "away/o", "e": ""}
    assert table["original_here"].to_dict() == {"a": "", "b": "yes", "c": "no", "d": "no", "e": ""}
    assert table["group"].to_dict() == {"a": "a", "b": "a", "c": "away/o", "d": "away/o", "e": "e"}
    lying = "path,label,original,original_here\na,FAKE,b,yes\n"
    assert read_table(write(tmp_path, lying))["original_here"].tolist() == ["no"]


def test_missing_columns_get_sensible_values(tmp_path: Path) -> None:
    table = read_table(
        write(
            tmp_path,
            "path,label,original\nreal/a.mp4,REAL,\nfake/b.mp4,FAKE,real/a.mp4\n",
        )
    )
    assert list(table["split"]) == ["train", "train"]
    assert list(table["source"]) == ["real", "real"], "a fake comes from its original's source"
    assert list(table["group"]) == ["real/a.mp4", "real/a.mp4"], "a fake belongs to its original"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV table"),
        ("path,label\n", "no rows"),
        ("file,label\na,REAL\n", r"columns \['path'\] are missing"),
        ("path,label\na,fake\n", "unknown label 'fake'"),
        ("path,label\na,0\nb,1\n", r"unknown label '0' in row 2; allowed are \['REAL', 'FAKE'\]"),
        ("path,label\na,REAL\nb,real \n", "unknown label 'real ' in row 3"),
        ("path,label\na,\n", "row 2 has no label; only dfd-train submit"),
        ("path,label\n,REAL\n", "row 2 names no file"),
        ("path,label,cropped\na,REAL,1\n", "unknown cropped '1' in row 2"),
        ("path,label,split\na,REAL,dev\n", "unknown split 'dev'"),
        ("path,label\nx/a,REAL\nx/../x/a,REAL\n", "listed twice, first 'x/../x/a', also written"),
        ("path,label,original,group,split\na,REAL,,g,val\nb,FAKE,a,h,train\n", "its original val"),
        ("path,label\na,REAL\na,REAL\n", "listed twice, first 'a'"),
        ("path,label,group,split\na,REAL,g,train\nb,REAL,g,val\n", "group 'g' stands on both"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_a_file_named_absolutely_and_relatively_is_listed_twice(tmp_path: Path) -> None:
    path = write(tmp_path, f"path,label\na.png,REAL\n{tmp_path}/a.png,FAKE\n")
    with pytest.raises(UsageError, match=r"1 files are listed twice.*also written 'a\.png'"):
        read_table(path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="listed twice"):
        read_table(write(tmp_path, "path,label\na.png,REAL\nlink/a.png,REAL\n"))


def test_an_original_may_be_written_another_way_than_its_row(tmp_path: Path) -> None:
    path = write(
        tmp_path, f"path,label,original,group\na,REAL,,person\nb,FAKE,{tmp_path}/a,\nc,REAL,,\n"
    )
    table = read_table(path).set_index("path")
    assert table.loc["b", "original"] == "a"
    assert table.loc["b", "group"] == "person", "a fake belongs to its original's group"


def test_labels_are_never_compared_with_what_they_are_not() -> None:
    """A column of numbers is refused, not taken for "no fakes at all"."""
    with pytest.raises(UsageError, match="unknown label 1"):
        is_fake(pd.DataFrame({"label": [1, 0]}))
    assert is_fake(pd.DataFrame({"label": ["REAL", "FAKE"]})).tolist() == [False, True]


def test_rows_without_a_label_are_read_when_they_may_be(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "path,label,split\na,,test\n"), unlabelled=True)
    assert table.loc[0, ["label", "split"]].tolist() == ["", "test"]


@pytest.mark.parametrize(
    ("text", "per_split", "message"),
    [
        ("path,label\na,REAL\n", False, "the table holds 1 REAL rows and no FAKE row"),
        ("path,label\na,FAKE\n", False, "the table holds 1 FAKE rows and no REAL row"),
        (
            "path,label,split\na,REAL,train\nb,FAKE,train\nc,REAL,test\n",
            True,
            "split test holds 1 REAL rows and no FAKE row",
        ),
    ],
)
def test_an_empty_class_is_told(tmp_path: Path, text: str, per_split: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_classes("t", read_table(write(tmp_path, text)), per_split=per_split)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such table"):
        read_table(tmp_path / "absent.csv")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=200),
    st.integers(0, 5),
)
def test_folds_never_split_a_group(pairs: list[tuple[int, int]], seed: int) -> None:
    rows = pd.DataFrame(
        {"group": [f"g{g}" for g, _ in pairs], "source": [f"s{g % 3}" for g, _ in pairs]}
    )
    folds = assign_folds(rows, shares=(0.2, 0.4, 0.4), seed=seed)
    assert (folds.groupby(rows["group"]).nunique() == 1).all()
    assert set(folds) <= {0, 1, 2}
    assert (folds == assign_folds(rows, shares=(0.2, 0.4, 0.4), seed=seed)).all()


def test_folds_keep_their_shares_in_large_sources() -> None:
    rows = pd.DataFrame({"group": [f"g{n}" for n in range(500)], "source": "s"})
    shares = assign_folds(rows, shares=(0.2, 0.4, 0.4)).value_counts(normalize=True)
    assert shares[0] == pytest.approx(0.2, abs=0.01)
    assert shares[1] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("per_source", [1, 2])
def test_small_sources_reach_every_fold(per_source: int) -> None:
    """A folder a person, as many data sets have it: each folder is a source of its own."""
    rows = pd.DataFrame(
        {
            "group": [f"g{n}" for n in range(60)],
            "source": [f"s{n // per_source}" for n in range(60)],
        }
    )
    counts = assign_folds(rows, shares=(0.2, 0.4, 0.4)).value_counts()
    assert counts.to_dict() == {0: 12, 1: 24, 2: 24}


def test_three_groups_are_enough_for_three_folds() -> None:
    rows = pd.DataFrame({"group": ["a", "b", "c"], "source": "s"})
    assert sorted(assign_folds(rows, shares=(0.2, 0.4, 0.4))) == [0, 1, 2]
