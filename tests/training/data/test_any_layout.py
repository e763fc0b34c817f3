"""Any layout is read as a table, and DFDC's sample gives its published figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import dfdc_sample
from dfd_edge.errors import UsageError
from dfd_training.data.readers.any_layout import Layout, read_any
from dfd_training.data.table import COLUMNS, write_table
from sample_clips import write_clip


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 400 clips with its metadata.json."""
    folder = tmp_path_factory.mktemp("dfdc") / "train_sample_videos"
    dfdc_sample.write_dfdc_sample(folder)
    return folder


def write_media(folder: Path, *names: str) -> None:
    """Pictures and tiny clips, by the suffix of their names."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((32, 32, 3), 10 * number, np.uint8)
        if path.suffix == ".mp4":
            write_clip(path, [picture, picture])
        else:
            cv2.imwrite(str(path), picture)


@pytest.mark.parametrize("with_clips", [True, False])
def test_the_published_figures_of_the_dfdc_sample(
    sample: Path, tmp_path: Path, with_clips: bool
) -> None:
    """As notebooks print them, from the folder and from its metadata alone."""
    metadata = sample / "metadata.json"
    found = read_any(sample if with_clips else Path(shutil.copy(metadata, tmp_path)))
    assert found.layout is (Layout.DFDC if with_clips else Layout.DFDC_METADATA)
    assert len(found.rows) == len(found.raw) == 400
    raw = found.raw.replace("", None)
    assert list(raw) == ["path", "label", "split", "original"]
    assert raw.isna().sum().to_dict() == {"path": 0, "label": 0, "split": 0, "original": 77}
    assert 100 * raw["original"].isna().mean() == 19.25
    assert raw.nunique().to_dict() == {"path": 400, "label": 2, "split": 1, "original": 209}
    assert raw["label"].value_counts().to_dict() == {"FAKE": 323, "REAL": 77}
    assert 100 * (raw["label"] == "FAKE").mean() == 80.75
    assert raw["split"].value_counts(normalize=True).to_dict() == {"train": 1.0}
    fakes_of = raw["original"].value_counts()
    assert (fakes_of.index[0], fakes_of.iloc[0], fakes_of.sum()) == ("meawmsgiti.mp4", 6, 323)
    assert round(100 * fakes_of.iloc[0] / fakes_of.sum(), 3) == 1.858
    spelt = found.rows["original"][found.rows["original"] != ""].value_counts()
    assert spelt.equals(fakes_of), "the table counts as the metadata do"
    missing = found.raw["original"] == ""
    assert set(found.raw["label"][missing]) == {"REAL"}, "missing original = REAL"
    assert set(found.raw["label"][~missing]) == {"FAKE"}
    assert set(found.rows["split"]) == {"train"}
    here = found.rows["original_here"].value_counts().to_dict()
    named = found.rows["original"].isin(set(found.rows["path"])).sum()
    assert here == {"yes": named, "no": 323 - named, "": 77}
    assert 0 < named < 323 / 2, "most originals are in other parts"


def test_metadata_and_folder_may_differ(sample: Path, tmp_path: Path) -> None:
    part = tmp_path / "all" / "part"
    shutil.copytree(sample, part)
    entries = json.loads((part / "metadata.json").read_text())
    gone = sorted(entries)[0]
    (part / gone).rename(part / "stray.mp4")
    (tmp_path / "all" / "bundle").mkdir()
    (tmp_path / "all" / "bundle" / "metadata.json").write_text('{"format": 1}')
    found = read_any(tmp_path / "all")
    assert found.layout is Layout.DFDC
    assert f"part/{gone}" in set(found.rows["path"]), "a row without a file is kept"
    assert "part/stray.mp4" not in set(found.rows["path"])
    assert any("first 'stray.mp4'" in note for note in found.notes)
    assert found.raw["path"].tolist() == found.rows["path"].tolist()


@pytest.mark.parametrize(
    ("names", "layout", "labels"),
    [
        (["a.mp4", "b.jpg", "deep/c.png"], Layout.UNLABELLED, ["", "", ""]),
        (["Train/Real/a.jpg", "Test/Fake/b.mp4"], Layout.CLASS_FOLDERS, ["FAKE", "REAL"]),
        (
            ["Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4"],
            Layout.CELEB_DF,
            ["REAL", "FAKE"],
        ),
        (
            [
                "original_sequences/youtube/c23/videos/000.mp4",
                "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4",
            ],
            Layout.FACEFORENSICS,
            ["REAL", "FAKE"],
        ),
    ],
)
def test_a_folder_is_read_by_what_is_in_it(
    tmp_path: Path, names: list[str], layout: Layout, labels: list[str]
) -> None:
    write_media(tmp_path, *names)
    found = read_any(tmp_path)
    assert found.layout is layout
    assert found.rows["label"].tolist() == labels
    assert set(found.rows["path"]) == set(names)
    assert list(found.rows) == list(COLUMNS)
    assert found.root == tmp_path


def test_deepfake_faces_with_and_without_pictures(tmp_path: Path) -> None:
    text = "videoname,original_width,label,original\na.mp4,9,REAL,\nb.mp4,9,FAKE,a.mp4\n"
    (tmp_path / "metadata.csv").write_text(text)
    alone = read_any(tmp_path)
    assert alone.layout is Layout.TABLE
    assert alone.rows["path"].tolist() == ["a.mp4", "b.mp4"]
    assert list(alone.raw) == ["videoname", "original_width", "label", "original"]
    assert alone.rows["original_here"].tolist() == ["", "yes"]
    write_media(tmp_path, "faces_224/a.jpg", "faces_224/b.jpg")
    whole = read_any(tmp_path)
    assert whole.layout is Layout.DEEPFAKE_FACES
    assert whole.rows["path"].tolist() == ["faces_224/a.jpg", "faces_224/b.jpg"]
    assert set(whole.rows["cropped"]) == {"yes"}


def test_a_test_folder_keeps_the_order_of_its_submission(tmp_path: Path) -> None:
    folder = tmp_path / "test_videos"
    write_media(folder, "a.mp4", "b.mp4")
    (tmp_path / "sample_submission.csv").write_text("filename,label\nb.mp4,0.5\na.mp4,0.5\n")
    found = read_any(folder)
    assert found.layout is Layout.UNLABELLED
    assert set(found.rows["label"]) == {""}
    assert found.rows["path"].tolist() == ["b.mp4", "a.mp4"]
    names = read_any(tmp_path / "sample_submission.csv")
    assert names.rows["path"].tolist() == ["b.mp4", "a.mp4"]
    assert set(names.rows["label"]) == {""}


def test_tables_and_single_files(tmp_path: Path) -> None:
    write_media(tmp_path, "a.jpg", "b.jpg")
    picture = read_any(tmp_path / "a.jpg")
    assert picture.rows["path"].tolist() == ["a.jpg"]
    table = read_any(tmp_path).rows.assign(label=["REAL", ""], note="x")
    write_table(table, tmp_path / "labels.csv")
    found = read_any(tmp_path)
    assert found.layout is Layout.TABLE
    assert found.rows["label"].tolist() == ["REAL", ""], "a label may be missing"
    assert "note" in found.raw, "columns of one's own stay"
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "labels.csv", tmp_path / "elsewhere")
    rooted = read_any(tmp_path / "elsewhere" / "labels.csv", root=tmp_path)
    assert rooted.root == tmp_path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "no such file or folder"),
        ("t.csv", "clip,label\na,REAL\n", "no column names the files"),
        ("t.csv", "path,label\na,1\n", "unknown label '1' in row 2.*--real NAME --fake NAME"),
        ("t.json", '{"a.mp4": {"label": "Fake"}}', "has the label 'Fake'"),
        ("t.txt", "a b\nc\nd,e\n", "not a CSV table"),
        ("metadata.json", "{", "not readable as JSON"),
    ],
)
def test_what_is_no_data_set_is_refused(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_any(tmp_path if name == "metadata.json" else tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no labels\.csv, no metadata\.json, and no video"):
        read_any(tmp_path)
    with pytest.raises(UsageError, match="only a table has one"):
        read_any(tmp_path, root=tmp_path)
