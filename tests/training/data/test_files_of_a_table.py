"""The files of a table: looked up by name, and laid out in folders as Keras reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import dfdc_sample
from dfd_edge.errors import OutputError, UsageError
from dfd_training.cli import main
from dfd_training.data.class_folders import new_paths, write_class_folders
from dfd_training.data.readers.any_layout import read_any
from dfd_training.data.table import COLUMNS, mark_originals, read_rows, read_table, write_table


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    """The one line that a command refuses with."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def rows_of(*cells: dict[str, str]) -> pd.DataFrame:
    rows = pd.DataFrame(cells, dtype=str).reindex(columns=list(COLUMNS), fill_value="").fillna("")
    return mark_originals(rows)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of one name in two parts; fakes are brighter, and each has a value of its own."""
    root = tmp_path / "set"
    cells = []
    for part, split in (("part_0", "train"), ("part_1", "val")):
        for number, (name, label, original) in enumerate(
            [("a.png", "REAL", ""), ("b.png", "FAKE", "a.png"), ("c.png", "FAKE", "gone.png")]
        ):
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            value = 20 + 100 * (label == "FAKE") + 10 * number + (part == "part_1")
            cv2.imwrite(str(path), np.full((24, 24, 3), value, np.uint8))
            cells.append(
                {
                    "path": f"{part}/{name}",
                    "label": label,
                    "original": original and f"{part}/{original}",
                    "split": split,
                }
            )
    cv2.imwrite(str(root / "part_1" / "d.png"), np.full((24, 24, 3), 60, np.uint8))
    cells.append({"path": "part_1/d.png", "label": "REAL", "split": "val"})
    write_table(rows_of(*cells), root / "t.csv")
    return root


def values(file: Path) -> int:
    return int(cv2.imread(str(file))[0, 0, 0])


@pytest.mark.parametrize("way", ["--copy", "--link"])
def test_keras_reads_the_folders(pictures: Path, tmp_path: Path, way: str) -> None:
    """`image_dataset_from_directory` gives every picture with its label, and nothing else."""
    import keras

    out = tmp_path / "out"
    result = run("to-folders", pictures / "t.csv", "--out", out, way)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["Fake", "Real", "labels.csv"]
    dataset = keras.utils.image_dataset_from_directory(
        out, image_size=(24, 24), batch_size=None, shuffle=False, class_names=["Real", "Fake"]
    )
    seen = sorted((int(label), round(float(image[0, 0, 0]))) for image, label in dataset)
    table = read_rows(pictures / "t.csv")
    assert seen == sorted(
        (int(label == "FAKE"), values(pictures / path))
        for path, label in zip(table["path"], table["label"], strict=True)
    )
    files = list(out.rglob("*.png"))
    assert all(path.is_symlink() == (way == "--link") for path in files)


def test_the_table_beside_the_folders_names_the_same_pictures(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("to-folders", pictures / "t.csv", "--out", out).exit_code == 0
    old, new = read_table(pictures / "t.csv"), read_table(out / "labels.csv")
    assert new["path"].tolist() == [
        "Real/part_0__a.png",
        "Fake/part_0__b.png",
        "Fake/part_0__c.png",
        "Real/part_1__a.png",
        "Fake/part_1__b.png",
        "Fake/part_1__c.png",
        "Real/d.png",
    ]
    for before, after in zip(old.itertuples(), new.itertuples(), strict=True):
        assert values(pictures / before.path) == values(out / after.path)
    assert new["original"][1] == "Real/part_0__a.png"
    assert new["original"][2] == str(pictures / "part_0" / "gone.png"), (
        "an absent one keeps its place"
    )
    for column in ("label", "split", "original_here"):
        assert new[column].tolist() == old[column].tolist()
    again = read_any(out)
    assert len(again.rows) == 7


def test_folders_for_each_split(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("to-folders", pictures / "t.csv", "--out", out, "--by-split").exit_code == 0
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert {"Train/Real/a.png", "Train/Fake/b.png", "Validation/Real/d.png"} < found
    assert len(found) == 7
    result = run("folders", out, "--out", tmp_path / "back.csv")
    assert result.exit_code == 0, result.output
    assert read_table(tmp_path / "back.csv")["split"].value_counts().to_dict() == {
        "val": 4,
        "train": 3,
    }
    only = tmp_path / "only"
    assert run("to-folders", pictures / "t.csv", "--out", only, "--split", "val").exit_code == 0
    assert len(list(only.rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.png", "y/b.png"], ["a.png", "b.png"]),
        (["x/a.png", "y/A.png"], ["x__a.png", "y__A.png"]),
        (["p/x/a.png", "q/x/a.png", "r/a.png"], ["p__x__a.png", "q__x__a.png", "r__a.png"]),
        (["a.png", "x/a.png"], ["a.png", "x__a.png"]),
        (["x/a.png", "y/a.png", "x__a.png"], ["x__a.png", "y__a.png", "x__a_2.png"]),
        (["/top/a.png", "/a.png", "../a.png"], ["top__a.png", "a.png", "a_2.png"]),
    ],
)
def test_no_two_files_get_one_name(paths: list[str], names: list[str]) -> None:
    rows = rows_of(*({"path": path, "label": "REAL"} for path in paths))
    assert list(new_paths(rows).values()) == [f"Real/{name}" for name in names]


def test_names_are_free_again_in_another_class() -> None:
    rows = rows_of({"path": "x/a.png", "label": "REAL"}, {"path": "y/a.png", "label": "FAKE"})
    assert list(new_paths(rows).values()) == ["Real/a.png", "Fake/a.png"]


def test_nothing_is_overwritten(pictures: Path, tmp_path: Path) -> None:
    table, out = pictures / "t.csv", tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "is not empty, and nothing is overwritten" in refusal("to-folders", table, "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert "is not a folder" in refusal("to-folders", table, "--out", out / "mine.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("to-folders", table, "--out", empty).exit_code == 0
    assert "is not empty" in refusal("to-folders", table, "--out", empty)


def test_missing_files_are_refused_or_left_out(pictures: Path, tmp_path: Path) -> None:
    (pictures / "part_0" / "a.png").unlink()
    table, out = pictures / "t.csv", tmp_path / "out"
    line = refusal("to-folders", table, "--out", out)
    assert "1 of 7 files are missing, first 'part_0/a.png'; --skip-missing leaves them out" in line
    assert not out.exists()
    result = run("to-folders", table, "--out", out, "--skip-missing")
    assert result.exit_code == 0
    assert "left out, since their file is missing: 1" in result.stderr
    table = read_table(out / "labels.csv")
    assert len(table) == 6
    assert table["original_here"].tolist()[0] == "no", "its original was left out"


def test_rows_without_a_label_are_refused(pictures: Path, tmp_path: Path) -> None:
    line = refusal("to-folders", pictures / "part_0", "--out", tmp_path / "out")
    assert "3 rows have no label, first 'a.png'" in line
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_leaves_nothing(pictures: Path, tmp_path: Path) -> None:
    rows, out = read_rows(pictures / "t.csv"), tmp_path / "deep" / "out"
    done: list[int] = []

    def interrupt() -> None:
        done.append(len(list((tmp_path / "deep").rglob("*.png"))))
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_class_folders(rows, pictures, out, on_file=interrupt)
    assert done == [1, 2, 3], "files were there when it came"
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_full_disk_is_seen_before_anything_is_copied(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    rows = read_rows(pictures / "t.csv")
    with pytest.raises(OutputError, match=r"0\.0 GB free; --link copies nothing"):
        write_class_folders(rows, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_class_folders(rows, pictures, tmp_path / "out", link=True)
    assert not list(tmp_path.glob(".*"))


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "train_sample_videos"
    dfdc_sample.write_dfdc_sample(folder)
    result = run("to-folders", folder, "--out", tmp_path / "out", "--link")
    assert result.exit_code == 0, result.output
    assert "400 of 400 files are not .bmp" in result.stderr
    assert len(list((tmp_path / "out" / "Fake").iterdir())) == 323
    assert len(list((tmp_path / "out" / "Real").iterdir())) == 77


def test_a_row_is_looked_up_by_name_stem_or_path(pictures: Path) -> None:
    table = pictures / "t.csv"
    by_name = run("row", table, "d.png")
    assert by_name.exit_code == 0
    assert by_name.stdout == "part_1/d.png\n  label: REAL\n  split: val\n"
    for name in ("d", "part_1/d.png", str(pictures / "part_1" / "d.png")):
        assert run("row", table, name).stdout == by_name.stdout
    both = run("row", table, "b").stdout
    assert "part_0/b.png\n" in both
    assert "part_1/b.png\n" in both
    assert "  original:      part_1/a.png\n  original_here: yes\n" in both
    assert "  fakes of it: 1: part_0/b.png\n" in run("row", table, "part_0/a.png").stdout


def test_the_fakes_of_an_original_that_is_elsewhere(tmp_path: Path) -> None:
    metadata = dfdc_sample.write_dfdc_sample(tmp_path / "part")
    result = run("row", metadata, "meawmsgiti.mp4", "--show", 2)
    lines = result.stdout.splitlines()
    assert lines[:2] == ["meawmsgiti.mp4  (no such file)", "  not in the table"]
    assert lines[2].startswith("  fakes of it: 6: ")
    assert lines[2].endswith(", …")
    fakes = json.loads(run("row", metadata, "meawmsgiti", "--json").stdout)["fakes"]
    entries = json.loads(metadata.read_text())
    assert len(fakes) == 6
    assert {entries[fake]["original"] for fake in fakes} == {"meawmsgiti.mp4"}
    fake = json.loads(run("row", tmp_path / "part", fakes[0], "--json").stdout)
    assert fake["siblings"] == [name for name in fakes if name != fakes[0]]
    assert (fake["label"], fake["split"], fake["file"]) == ("FAKE", "train", True)


def test_columns_of_ones_own_are_shown(tmp_path: Path) -> None:
    text = "videoname,original_width,label,original\na.mp4,9,REAL,\nb.mp4,7,FAKE,a.mp4\n"
    (tmp_path / "metadata.csv").write_text(text)
    result = run("row", tmp_path / "metadata.csv", "b")
    assert "  original_width: 7\n" in result.stdout
    assert "videoname" not in result.stdout, "it is the path"


def test_an_unknown_name_is_refused_with_near_ones(pictures: Path) -> None:
    line = refusal("row", pictures / "t.csv", "d.pmg")
    assert "'d.pmg' is none of the 7 files, nor their original" in line
    assert "nearly the same:" in line
    assert "nearly" not in refusal("row", pictures / "t.csv", "zzzzzzz")
    with pytest.raises(UsageError, match="no such file"):
        read_any(pictures / "absent.csv")
