"""`dfd-train explore` on any data: a DFDC folder, its metadata alone, files without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from dfd_edge.bundle import DEFAULT_BUNDLE
from dfd_training.cli import main
from dfdc_sample import write_dfdc_sample

FEW = ("--frames", 1, "--workers", 1, "--max-clips", 2)


def explore(data: Path, out: Path, *arguments: object) -> Result:
    words = ["explore", data, "--out", out, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def test_metadata_alone_give_the_published_figures(tmp_path: Path) -> None:
    """Figures of DFDC's sample of 400 clips, of which somebody downloaded only metadata.json."""
    path = tmp_path / "alone" / "metadata.json"
    path.parent.mkdir()
    write_dfdc_sample(tmp_path / "sample").rename(path)
    out = tmp_path / "out"
    result = explore(path, out)
    assert result.exit_code == 0, result.output
    assert "none of its 400 files is in" in result.output
    assert "DFDC metadata: 400 files, 0 opened" in result.output
    columns = pd.read_csv(out / "columns.csv").set_index("column")
    original, label = columns.loc["original"], columns.loc["label"]
    assert (original["missing"], original["missing_percent"]) == (77, 19.25)
    assert (original["missing_real"], original["missing_real_percent"]) == (77, 100.0)
    assert (original["missing_fake"], original["unique"]) == (0, 209)
    assert original[["most_frequent", "times", "percent"]].tolist() == ["meawmsgiti.mp4", 6, 1.86]
    assert (label["most_frequent"], label["times"], label["percent"]) == ("FAKE", 323, 80.75)
    assert columns["type"].unique().tolist() == ["text"]
    labels = pd.read_csv(out / "figures" / "labels.csv").iloc[0]
    assert labels[["REAL", "REAL, %", "FAKE", "FAKE, %"]].tolist() == [77, 19.25, 323, 80.75]
    split = pd.read_csv(out / "figures" / "labels_by_split.csv").set_index("category")
    assert split.loc["train", ["REAL", "FAKE"]].tolist() == [77, 323]
    originals = pd.read_csv(out / "figures" / "originals.csv").set_index("category")
    assert originals.index[0] == "meawmsgiti.mp4"
    assert originals["fakes"].iloc[0] == 6
    page = (out / "index.html").read_text("utf-8")
    assert "Missing original = REAL: holds for every row. 77 of 77 REAL rows" in page
    assert "77 (19.25 %)" in page
    assert "Rows without a file: 400" in page
    assert page.count('<td class="text whole">train</td>') == 6, "the first rows are shown"
    assert not (out / "figures" / "extensions_of_the_folder.csv").exists()
    assert not list(out.glob("sheets/*"))


@pytest.fixture(scope="module")
def part(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of DFDC with a bundle in it: pairs, a fake of an absent original, a stray clip."""
    folder = tmp_path_factory.mktemp("dfdc_part")
    metadata: dict[str, dict[str, str | None]] = {}
    for number in range(3):
        real, fake = (f"clip{number}_{label}.mp4" for label in ("real", "fake"))
        for name in (real, fake):
            shutil.copy(small_data / name, folder / name)
        metadata[real] = {"label": "REAL", "split": "train", "original": None}
        metadata[fake] = {"label": "FAKE", "split": "train", "original": real}
    # Two fakes of one original that is not there.
    for number in range(3, 5):
        shutil.copy(small_data / f"clip{number}_fake.mp4", folder)
        entry = {"label": "FAKE", "split": "train", "original": "elsewhere.mp4"}
        metadata[f"clip{number}_fake.mp4"] = entry
    metadata["gone.mp4"] = {"label": "REAL", "split": "train", "original": None}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    shutil.copy(small_data / "clip5_fake.mp4", folder / "stray.mp4")
    shutil.copytree(DEFAULT_BUNDLE, folder / "bundle")
    return folder


def test_a_folder_of_dfdc_is_explored_as_it_is(part: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = explore(part, out, *FEW)
    assert result.exit_code == 0, result.output
    assert "DFDC folder: 9 files, 8 opened" in result.output
    assert "1 missing or unreadable, 1 without a row" in result.output
    files = pd.read_csv(out / "figures" / "extensions_of_the_folder.csv").set_index("category")
    assert files.loc[".mp4", ["with a row", "without a row"]].tolist() == [8, 1]
    assert files.loc[".json", "without a row"] == 1
    assert ".png" not in files.index, "the bundle's picture for its test is no data"
    assert pd.read_csv(out / "files_without_a_row.csv")["path"].tolist() == ["stray.mp4"]
    assert pd.read_csv(out / "unreadable.csv")["path"].tolist() == ["gone.mp4"]
    originals = pd.read_csv(out / "figures" / "originals.csv").set_index("category")
    assert originals["fakes"].iloc[0] == 2, "an original that is not there is counted"
    assert originals.index[0] == "elsewhere.mp4"
    sheets = {path.stem for path in out.glob("sheets/*.png")}
    assert {"pictures", "first_frames", "fakes_of_originals", "faces_real"} <= sheets
    page = (out / "index.html").read_text("utf-8")
    assert page.count('<div class="pictures tiles">') == 4, "a row for each original"


def test_files_without_labels_are_explored(small_data: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "test_videos", tmp_path / "out"
    folder.mkdir()
    for name in ("clip0_real.mp4", "clip1_fake.mp4", "hopper_0.png"):
        shutil.copy(small_data / name, folder)
    result = explore(folder, out, *FEW)
    assert result.exit_code == 0, result.output
    assert "files without labels: 3 files, 3 opened, 3 searched" in result.output
    labels = pd.read_csv(out / "figures" / "labels.csv")
    assert list(labels) == ["category", "no label", "no label, %"]
    assert labels["no label"].tolist() == [3]
    page = (out / "index.html").read_text("utf-8")
    assert "○</span> no label" in page
    assert "FAKE" not in page.split("<script")[0]
    detectors = pd.read_csv(out / "detectors.csv").set_index("name")
    assert detectors.loc["BlazeFace (this project)", "share_found_no_label"] == 1.0


def test_nothing_to_explore_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "empty", tmp_path / "absent"):
        result = explore(data, tmp_path / "out")
        assert result.exit_code == 2
        assert str(data) in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
