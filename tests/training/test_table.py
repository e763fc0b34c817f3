"""The table of labelled files: what is accepted, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_edge.errors import UsageError
from dfd_training.folds import assign_folds
from dfd_training.table import read_table


def write(path: Path, text: str) -> Path:
    table = path / "labels.csv"
    table.write_text(text)
    return table


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
        ("path,label,split\na,REAL,test\n", "unknown split 'test'"),
        ("path,label\na,REAL\na,REAL\n", "listed twice, first 'a'"),
        ("path,label,original\na,FAKE,b\n", "original 'b' is not in the table"),
        ("path,label,group,split\na,REAL,g,train\nb,REAL,g,val\n", "group 'g' stands on both"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such table"):
        read_table(tmp_path / "absent.csv")


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
