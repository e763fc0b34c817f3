"""Tables are merged, split, sampled and checked before anything is trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.data.checking import check_table
from dfd_training.data.splitting import (
    class_weights,
    components,
    related_groups,
    sample_balanced,
    shares_with_later,
    split_table,
)
from dfd_training.data.table import (
    COLUMNS,
    LABELS,
    merge_tables,
    read_rows,
    read_table,
    with_defaults,
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def make_rows(rows: list[dict[str, str]]) -> pd.DataFrame:
    cells = [[row.get(column, "") for column in COLUMNS] for row in rows]
    return pd.DataFrame(cells, columns=list(COLUMNS), dtype=str)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_rows(rows).to_csv(path, index=False)
    return path


@st.composite
def related_tables(draw: st.DrawFn) -> pd.DataFrame:
    """Files of several sets, related at random: any fake of any real, any person in any file."""
    count = draw(st.integers(2, 60))
    people = draw(st.integers(1, 40))
    rows = []
    reals: list[str] = []
    for i in range(count):
        fake = draw(st.booleans())
        original = draw(st.sampled_from(["", *reals])) if fake else ""
        group = draw(st.sampled_from(["", f"p{draw(st.integers(0, people))}"]))
        rows.append(
            {
                "path": f"f{i}",
                "label": LABELS[fake],
                "original": original,
                "group": group,
                "model": draw(st.sampled_from(["", "m1", "m2", "m3"])),
                "dataset": draw(st.sampled_from(["A", "B"])),
            }
        )
        if not fake:
            reals.append(f"f{i}")
    return make_rows(rows)


@settings(deadline=None, max_examples=50)
@given(related_tables(), st.integers(0, 5), st.sampled_from([(0.1, 0.1), (0.3, 0.2), (0.2, 0.0)]))
def test_no_footage_and_no_person_is_on_two_sides(
    rows: pd.DataFrame, seed: int, shares: tuple[float, float]
) -> None:
    """Whatever is related to whatever: it is dealt so, or it is said why it cannot be."""
    val, test = shares
    try:
        table = split_table(rows, val=val, test=test, seed=seed).table
    except UsageError as error:
        assert "too few files are unrelated" in str(error) or "are all" in str(error)
        return
    split_of = dict(zip(table["path"], table["split"], strict=True))
    for row in rows.itertuples():
        assert not row.original or split_of[row.path] == split_of[row.original]
    named = rows["group"] != ""
    assert (table["split"][named].groupby(rows["group"][named]).nunique() == 1).all()
    assert (table.groupby("group")["split"].nunique() == 1).all()
    for split in {"train", *(["val"] if val else []), *(["test"] if test else [])}:
        assert set(table["label"][table["split"] == split]) == set(LABELS)
    again = split_table(rows, val=val, test=test, seed=seed).table
    pd.testing.assert_frame_equal(table, again)
    assert table.drop(columns=["group", "split"]).equals(rows.drop(columns=["group", "split"]))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 3)), min_size=60, max_size=120),
    st.integers(0, 3),
)
def test_each_split_gets_its_share_of_every_label_and_set(
    footage: list[tuple[str, int]], seed: int
) -> None:
    """A clip with up to three fakes of it: counts are within a few clips of the shares."""
    rows = []
    for i, (dataset, fakes) in enumerate(footage):
        rows.append({"path": f"r{i}", "label": "REAL", "dataset": dataset})
        rows += [
            {"path": f"f{i}.{n}", "label": "FAKE", "original": f"r{i}", "dataset": dataset}
            for n in range(fakes)
        ]
    if not any(fakes for _, fakes in footage):
        return
    try:
        table = split_table(make_rows(rows), val=0.2, test=0.2, seed=seed).table
    except UsageError:
        assert sum(fakes > 0 for _, fakes in footage) < 3
        return
    for (dataset, label), part in table.groupby(["dataset", "label"]):
        largest = 1 if label == "REAL" else max(n for d, n in footage if d == dataset)
        for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            got = int((part["split"] == split).sum())
            assert abs(got - share * len(part)) <= 3 * largest + 1, (dataset, label, split)


def test_files_without_relations_are_dealt_to_the_row() -> None:
    rows = make_rows(
        [
            {"path": f"{label}{dataset}{i}", "label": label, "dataset": dataset}
            for label in LABELS
            for dataset, count in (("A", 50), ("B", 200))
            for i in range(count)
        ]
    )
    counts = split_table(rows, val=0.1, test=0.1, seed=3).table.groupby(
        ["dataset", "label", "split"]
    )
    sizes = counts.size()
    for dataset, count in (("A", 50), ("B", 200)):
        for label in LABELS:
            assert sizes[dataset, label].to_dict() == {
                "train": count * 0.8,
                "val": count * 0.1,
                "test": count * 0.1,
            }
    other = split_table(rows, val=0.1, test=0.1, seed=4).table
    assert not other["split"].equals(split_table(rows, val=0.1, test=0.1, seed=3).table["split"])


def test_columns_that_must_not_be_divided() -> None:
    rows = make_rows(
        [
            {"path": f"f{i}", "label": LABELS[i % 2], "model": f"m{i // 4}" if i % 2 else ""}
            for i in range(80)
        ]
    )
    table = split_table(rows, val=0.2, test=0.2, seed=0, together=["model"]).table
    named = rows["model"] != ""
    assert (table["split"][named].groupby(rows["model"][named]).nunique() == 1).all()
    with pytest.raises(UsageError, match="--together face: no such column"):
        split_table(rows, val=0.2, test=0.2, seed=0, together=["face"])


def test_splits_that_are_there_can_be_kept() -> None:
    rows = make_rows(
        [
            *({"path": f"t{i}", "label": LABELS[i % 2], "split": "test"} for i in range(4)),
            *({"path": f"f{i}", "label": LABELS[i % 2]} for i in range(40)),
            {"path": "made", "label": "FAKE", "original": "t0"},
        ]
    )
    table = split_table(rows, val=0.1, test=0.0, seed=0, keep=True).table.set_index("path")
    assert (table.loc[[f"t{i}" for i in range(4)], "split"] == "test").all()
    assert table.loc["made", "split"] == "test", "it goes where its original is"
    assert table["split"].value_counts().to_dict() == {"train": 36, "test": 5, "val": 4}
    rows.loc[len(rows) - 1, "split"] = "train"
    with pytest.raises(UsageError, match="rows marked test and rows marked train"):
        split_table(rows, val=0.1, test=0.0, seed=0, keep=True)


def test_a_set_whose_people_are_all_related_is_told() -> None:
    rows = make_rows(
        [{"path": f"f{i}", "label": LABELS[i % 2], "group": "all"} for i in range(50)]
        + [{"path": f"g{i}", "label": LABELS[i % 2]} for i in range(8)]
    )
    dealt = split_table(rows, val=0.2, test=0.2, seed=0)
    assert any("largest group of related files has 50 of 58 rows" in n for n in dealt.notes)
    with pytest.raises(UsageError, match=r"would hold no .* row: too few files are unrelated"):
        split_table(rows.head(50), val=0.2, test=0.2, seed=0)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.5, 0.5), (1.2, 0.0)])
def test_shares_out_of_range_are_refused(val: float, test: float) -> None:
    with pytest.raises(UsageError, match="give shares of at least 0, below 1 in all"):
        split_table(make_rows([]), val=val, test=test, seed=0)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), max_size=12))
def test_groups_are_connected_components(keys: list[list[str]]) -> None:
    groups = related_groups(keys)
    # The plain way: what can be reached by shared keys.
    for start in range(len(keys)):
        reached, grown = {start}, True
        while grown:
            seen = {key for i in reached for key in keys[i]}
            more = {i for i in range(len(keys)) if seen & set(keys[i])}
            grown, reached = more != reached, more
        assert {i for i, group in enumerate(groups) if group == groups[start]} == reached


def test_training_files_with_people_of_a_test_split_are_found() -> None:
    keys = [["a", "b"], ["b", "c"], ["c"], ["d"], ["d", "e"], ["f"]]
    splits = ["test", "", "train", "val", "train", "train"]
    assert shares_with_later(keys, splits) == [False, True, False, False, True, False]


@settings(deadline=None, max_examples=50)
@given(related_tables(), st.integers(1, 40), st.integers(0, 3))
def test_a_sample_is_balanced_and_keeps_pairs(
    rows: pd.DataFrame, per_class: int, seed: int
) -> None:
    if rows["label"].nunique() < 2:
        with pytest.raises(UsageError, match="is empty"):
            sample_balanced(rows, per_class=per_class, seed=seed)
        return
    sampled = sample_balanced(rows, per_class=per_class, seed=seed)
    table = sampled.table
    counts = rows["label"].value_counts()
    count = min(per_class, counts.min())
    assert table["label"].value_counts().to_dict() == dict.fromkeys(LABELS, count)
    assert table["path"].is_unique
    assert set(table["original"]) - {""} <= set(table["path"]), "no fake names a lost original"
    before = rows.set_index("path")["original"]
    lost = [
        path for path in table["path"] if before[path] and before[path] not in set(table["path"])
    ]
    assert not lost, "every fake with an original stands beside it"
    possible = rows.loc[(rows["label"] == "FAKE") & (rows["original"] != ""), "original"].nunique()
    assert sampled.pairs >= min(count, possible)
    pd.testing.assert_frame_equal(
        table, sample_balanced(rows, per_class=per_class, seed=seed).table
    )
    assert table["group"].equals(with_defaults(rows).loc[table.index, "group"])


def test_a_sample_keeps_the_names_of_originals_that_are_elsewhere() -> None:
    rows = make_rows(
        [{"path": f"r{i}", "label": "REAL"} for i in range(3)]
        + [{"path": f"f{i}", "label": "FAKE", "original": "away"} for i in range(3)]
        + [{"path": "g", "label": "FAKE", "original": "r0"}]
    )
    sampled = sample_balanced(rows, per_class=3, seed=0)
    table = sampled.table.set_index("path")
    assert sampled.pairs == 1
    assert table.loc["g", ["original", "original_here"]].tolist() == ["r0", "yes"]
    away = table[table["original"] == "away"]
    assert len(away) == 2
    assert set(away["original_here"]) == {"no"}
    assert set(away["group"]) == {"away"}, "fakes of one original stay together"
    assert sampled.notes == ["2 fakes have no original among the rows: they stand alone"]


def test_keeping_every_split_deals_nothing_and_says_so() -> None:
    rows = make_rows([{"path": f"r{i}", "label": "REAL", "split": "train"} for i in range(3)])
    dealt = split_table(rows, val=0.1, test=0.1, seed=0, keep=True)
    assert set(dealt.table["split"]) == {"train"}
    assert dealt.notes == [
        "every row has a split: nothing was dealt; leave --keep out to deal anew"
    ]


def test_a_sample_says_what_it_could_not() -> None:
    rows = make_rows(
        [{"path": f"r{i}", "label": "REAL"} for i in range(9)]
        + [{"path": f"f{i}", "label": "FAKE", "original": "r0" if i < 2 else ""} for i in range(5)]
    )
    sampled = sample_balanced(rows, per_class=8000, seed=42)
    assert len(sampled.table) == 10
    assert sampled.pairs == 2
    assert sampled.notes == [
        "there are only 5 FAKE rows: 5 of each class, not 8000",
        "3 fakes have no original among the rows: they stand alone",
    ]
    with pytest.raises(UsageError, match="--per-class 0: give 1 or more"):
        sample_balanced(rows, per_class=0, seed=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 50))
def test_class_weights_make_both_classes_count_alike(reals: int, fakes: int) -> None:
    rows = make_rows(
        [{"path": f"{i}", "label": "REAL" if i < reals else "FAKE"} for i in range(reals + fakes)]
    )
    weights = class_weights(rows)
    assert weights["REAL"] * reals == pytest.approx(weights["FAKE"] * fakes)
    assert weights["REAL"] * reals + weights["FAKE"] * fakes == pytest.approx(reals + fakes)


def test_class_weights_are_printed_and_written(tmp_path: Path) -> None:
    table = write_rows(
        tmp_path / "t.csv",
        [{"path": f"{i}", "label": "FAKE" if i < 3 else "REAL"} for i in range(4)]
        + [{"path": "v", "label": "FAKE", "split": "val"}],
    )
    result = run("sample", table, "--class-weights", "--out", tmp_path / "weights.json")
    wanted = {"REAL": 2.0, "FAKE": pytest.approx(2 / 3)}
    assert json.loads(result.stdout) == wanted, "of the rows marked train"
    assert json.loads((tmp_path / "weights.json").read_text()) == wanted


def test_sampling_one_split_leaves_the_others(tmp_path: Path) -> None:
    table = write_rows(
        tmp_path / "t.csv",
        [
            {"path": f"{split}{i}", "label": LABELS[i % 4 == 0], "split": split}
            for split in ("train", "test")
            for i in range(20)
        ],
    )
    out = tmp_path / "sub" / "sample.csv"
    result = run("sample", table, "--per-class", 4, "--split", "train", "--out", out)
    assert result.exit_code == 0, result.output
    sides = read_table(out).groupby(["split", "label"]).size().to_dict()
    assert sides == {
        ("test", "FAKE"): 5,
        ("test", "REAL"): 15,
        ("train", "FAKE"): 4,
        ("train", "REAL"): 4,
    }


def test_merged_sets_keep_their_splits_and_stay_apart(tmp_path: Path) -> None:
    """Groups of one name in two sets are two groups; paths fit the new table."""
    first = write_rows(
        tmp_path / "a" / "labels.csv",
        [
            {"path": "x/1.mp4", "label": "REAL", "group": "000", "split": "test", "source": "web"},
            {"path": "x/2.mp4", "label": "FAKE", "original": "x/1.mp4", "split": "test"},
        ],
    )
    second = write_rows(
        tmp_path / "out" / "b" / "labels.csv",
        [
            {"path": "x/1.mp4", "label": "REAL", "group": "000", "source": "web"},
            {"path": f"{tmp_path}/far/3.mp4", "label": "FAKE", "group": "001", "dataset": "B"},
        ],
    )
    out = tmp_path / "out" / "all.csv"
    result = run("merge", first, second, "--out", out)
    assert result.exit_code == 0, result.output
    table = read_table(out).set_index("path")
    mine = f"{tmp_path}/a/x"
    assert list(table.index) == [
        f"{mine}/1.mp4",
        f"{mine}/2.mp4",
        "b/x/1.mp4",
        f"{tmp_path}/far/3.mp4",
    ]
    assert table.loc[f"{mine}/2.mp4", "original"] == f"{mine}/1.mp4"
    assert list(table["split"]) == ["test", "test", "train", "train"]
    assert table.loc[f"{mine}/1.mp4", "group"] == "a/labels: 000"
    assert table.loc[f"{mine}/2.mp4", "group"] == "a/labels: 000", "its original's"
    assert table.loc["b/x/1.mp4", "group"] == "b/labels: 000"
    assert table.loc["b/x/1.mp4", "source"] == "b/labels: web"
    assert table.loc[f"{tmp_path}/far/3.mp4", ["group", "dataset"]].tolist() == ["001", "B"]


def test_two_tables_of_one_set_share_its_groups(tmp_path: Path) -> None:
    tables = [
        write_rows(
            tmp_path / f"{name}.csv",
            [{"path": f"{name}.mp4", "label": "REAL", "group": "clip", "dataset": "DFDC"}],
        )
        for name in "ab"
    ]
    merged = merge_tables(tables, tmp_path / "all.csv")
    assert list(merged["group"]) == ["clip", "clip"]
    with pytest.raises(UsageError, match=r"'a\.mp4' stands in .*a\.csv too"):
        merge_tables([tables[0], tables[0]], tmp_path / "all.csv")


def test_a_table_of_ones_own_gets_its_labels_translated(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("path,label,note\na.mp4,0,x\nb.mp4,1,y\n")
    out = tmp_path / "sub" / "t.csv"
    refused = run("table", table, "--out", out)
    assert refused.exit_code == 2
    assert "unknown label '0' in row 2; allowed are ['REAL', 'FAKE']" in refused.stderr
    assert "--real NAME --fake NAME" in refused.stderr
    result = run("table", table, "--real", "0", "--fake", "1", "--out", out)
    assert result.exit_code == 0, result.output
    rows = read_rows(out)
    assert list(rows["label"]) == ["REAL", "FAKE"]
    assert list(rows["path"]) == [f"{tmp_path}/a.mp4", f"{tmp_path}/b.mp4"]
    assert set(rows["dataset"]) == {"mine"}


@pytest.mark.parametrize("command", ["split", "sample", "merge", "table"])
def test_a_table_is_never_replaced_by_what_is_made_of_it(tmp_path: Path, command: str) -> None:
    table = write_rows(
        tmp_path / "t.csv", [{"path": f"{i}", "label": LABELS[i % 2]} for i in range(40)]
    )
    before = table.read_text()
    result = run(command, table, "--out", table)
    assert result.exit_code == 2
    assert "would replace a file that is read" in result.stderr
    assert table.read_text() == before


def test_split_by_the_command_line(tmp_path: Path) -> None:
    table = write_rows(
        tmp_path / "t.csv", [{"path": f"{i}", "label": LABELS[i % 2]} for i in range(100)]
    )
    out = tmp_path / "split.csv"
    result = run("split", table, "--seed", 7, "--out", out)
    assert result.exit_code == 0, result.output
    assert "  test: 5 REAL, 5 FAKE, 10 groups" in result.stdout
    assert read_table(out)["split"].value_counts().to_dict() == {"train": 80, "val": 10, "test": 10}
    reals = write_rows(tmp_path / "r.csv", [{"path": f"{i}", "label": "REAL"} for i in range(9)])
    refused = run("split", reals, "--out", out)
    assert refused.exit_code == 2
    assert "the rows to be dealt are all REAL" in refused.stderr


@pytest.fixture
def checked_set(tmp_path: Path, hopper: np.ndarray) -> Path:
    """Pictures with every fault that a set can have, and the table of them."""
    for n, shade in enumerate((20, 60, 100, 140)):
        cv2.imwrite(str(tmp_path / f"p{n}.png"), np.full((40, 40, 3), shade, np.uint8))
    cv2.imwrite(str(tmp_path / "face.jpg"), hopper)
    whole = (tmp_path / "face.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture at all, although it is called one")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "twin.png").write_bytes((tmp_path / "p0.png").read_bytes())
    (tmp_path / "again.png").write_bytes((tmp_path / "p1.png").read_bytes())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "stray.png").write_bytes((tmp_path / "p3.png").read_bytes())
    rows = [
        *(("p0.png", "REAL", "train"), ("p1.png", "REAL", "train"), ("p2.png", "FAKE", "train")),
        *(("twin.png", "REAL", "val"), ("again.png", "REAL", "train"), ("face.jpg", "REAL", "val")),
        *(("cut.jpg", "REAL", "val"), ("text.png", "REAL", "val"), ("empty.mp4", "REAL", "val")),
        *(("gone.png", "FAKE", "train"), (f"{tmp_path}/p3.png", "FAKE", "train")),
    ]
    write_rows(
        tmp_path / "t.csv", [dict(zip(("path", "label", "split"), r, strict=True)) for r in rows]
    )
    return tmp_path


def test_a_check_finds_every_fault(checked_set: Path) -> None:
    found = check_table(read_rows(checked_set / "t.csv"), checked_set)
    assert found.missing == ["gone.png"]
    assert set(found.unreadable) == {"cut.jpg", "text.png", "empty.mp4"}
    assert "cut off" in found.unreadable["cut.jpg"]
    assert "0 bytes" in found.unreadable["empty.mp4"]
    assert found.duplicates == [["p0.png", "twin.png"]]
    assert found.repeated == [["p1.png", "again.png"]]
    assert found.superfluous == ["sub/stray.png"]
    assert found.classes == ["split val holds 5 REAL rows and no FAKE row"]
    assert found.faults == 1 + 3 + 1 + 1


def test_a_quick_check_looks_at_first_bytes_only(checked_set: Path) -> None:
    found = check_table(read_rows(checked_set / "t.csv"), checked_set, quick=True)
    assert set(found.unreadable) == {"text.png", "empty.mp4"}
    assert not found.duplicates


def test_the_check_command_tells_and_fails(checked_set: Path, tmp_path: Path) -> None:
    result = run("check", checked_set / "t.csv", "--out", tmp_path / "found.json")
    assert result.exit_code == 1
    assert "rows without a file: 1\n  gone.png" in result.stdout
    assert "one content in two splits or under two labels: 1\n  p0.png, twin.png" in result.stdout
    assert "originals without a row" not in result.stdout
    assert "val: 5 REAL, 0 FAKE, 5 groups" in result.stdout
    assert "11 rows, 6 to be mended" in result.stdout
    assert json.loads((tmp_path / "found.json").read_text())["check"]["missing"] == ["gone.png"]


def test_originals_that_are_elsewhere_are_listed_but_no_fault(tmp_path: Path) -> None:
    for name, value in (("a.png", 10), ("b.png", 90), ("c.png", 150)):
        cv2.imwrite(str(tmp_path / name), np.full((24, 24, 3), value, np.uint8))
    fakes = [{"path": f"{n}.png", "label": "FAKE", "original": "gone.png"} for n in "bc"]
    write_rows(tmp_path / "t.csv", [{"path": "a.png", "label": "REAL"}, *fakes])
    result = run("check", tmp_path / "t.csv")
    assert result.exit_code == 0, result.output
    assert "originals without a row: 1\n  gone.png\n" in result.stdout
    assert "3 rows, 0 to be mended" in result.stdout
    result = run("table", tmp_path / "t.csv", "--out", tmp_path / "out.csv")
    assert "2 fakes name originals that are not in the table (1 in all): no pairs" in result.stdout


def test_a_sound_set_passes_the_check(small_data: Path, tmp_path: Path) -> None:
    """Clips are opened by the runtime's readers; the one that is broken is found."""
    result = run("check", small_data / "labels.csv")
    assert result.exit_code == 1
    assert "unreadable files: 1\n" in result.stdout
    assert "broken.mp4" in result.stdout
    rows = read_rows(small_data / "labels.csv")
    sound = rows[rows["path"] != "broken.mp4"]
    sound.assign(path=[str(small_data / p) for p in sound["path"]], original="").to_csv(
        tmp_path / "sound.csv", index=False
    )
    result = run("check", tmp_path / "sound.csv")
    assert result.exit_code == 0, result.output
    assert f"files without a row: 1\n  {small_data}/broken.mp4" in result.stdout
    assert "20 rows" not in result.stdout
    assert "21 rows, 0 to be mended" in result.stdout


def test_components_are_named_after_a_group() -> None:
    rows = make_rows(
        [
            {"path": "a", "label": "REAL", "group": "p2"},
            {"path": "b", "label": "FAKE", "group": "p1", "original": "a"},
            {"path": "c", "label": "REAL"},
        ]
    )
    assert list(components(rows)) == ["p1", "p1", "c"]
