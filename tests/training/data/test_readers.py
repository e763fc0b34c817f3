"""Public data sets, each in its own layout on a small generated tree, become the one table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from dfd_training.cli import main
from dfd_training.data.readers.media import FAKE_NAMES, REAL_NAMES
from dfd_training.data.table import COLUMNS, read_table


def touch(root: Path, *names: str) -> None:
    """Files that a layout only lists: nothing opens them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def imported(command: str, folder: Path, out: Path, *options: object) -> pd.DataFrame:
    """Runs a layout's command; returns the table as later commands read it, by path."""
    result = run(command, folder, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return read_table(out).set_index("path")


def refusal(*arguments: object) -> str:
    """The one line that a command refuses with."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return lines[0]


def write_metadata(part: Path, entries: object) -> None:
    part.mkdir(parents=True, exist_ok=True)
    (part / "metadata.json").write_text(json.dumps(entries))


@pytest.fixture
def dfdc(tmp_path: Path) -> Path:
    """Two parts: the second has a fake whose original is missing, and files on one side only."""
    root = tmp_path / "dfdc"
    first, second = root / "dfdc_train_part_0", root / "dfdc_train_part_1"
    touch(first, "a.mp4", "b.mp4", "c.mp4")
    touch(second, "d.mp4", "e.mp4", "f.mp4", "stray.mp4")
    write_metadata(
        first,
        {
            "a.mp4": {"label": "REAL", "split": "train", "original": None},
            "b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
            "c.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
        },
    )
    write_metadata(
        second,
        {
            "d.mp4": {"label": "REAL", "split": "train"},
            "e.mp4": {"label": "FAKE", "split": "train", "original": "gone.mp4"},
            "f.mp4": {"label": "FAKE", "split": "train", "original": "gone.mp4"},
            "away.mp4": {"label": "FAKE", "split": "train", "original": "d.mp4"},
        },
    )
    return root


def test_dfdc_pairs_fakes_with_originals_of_their_part(dfdc: Path) -> None:
    table = imported("dfdc", dfdc, dfdc / "table.csv")
    first = "dfdc_train_part_0"
    assert table.loc[f"{first}/b.mp4", "original"] == f"{first}/a.mp4"
    assert list(table["label"]).count("FAKE") == 4
    assert table.loc[f"{first}/b.mp4", "source"] == table.loc[f"{first}/a.mp4", "source"] == first
    groups = table["group"]
    assert groups[f"{first}/a.mp4"] == groups[f"{first}/b.mp4"] == groups[f"{first}/c.mp4"]
    second = "dfdc_train_part_1"
    assert table.loc[f"{second}/e.mp4", "original"] == f"{second}/gone.mp4"
    assert table["original_here"].value_counts().to_dict() == {"yes": 2, "no": 2, "": 2}
    assert set(table["split"]) == {"train"}, "as metadata.json says"
    assert groups[f"{second}/e.mp4"] == groups[f"{second}/f.mp4"], "one missing original"
    assert set(table["dataset"]) == {"DFDC"}


def test_dfdc_tells_what_is_missing_and_what_is_superfluous(dfdc: Path) -> None:
    result = run("dfdc", dfdc, "--out", dfdc / "table.csv")
    part = dfdc / "dfdc_train_part_1"
    assert f"{part}: in metadata.json, but not there: 1, first 'away.mp4'" in result.stderr
    assert f"{part}: there, but not in metadata.json: 1, first 'stray.mp4'" in result.stderr
    assert f"{part}: originals of fakes that are not there: 1, first 'gone.mp4'" in result.stderr


def test_dfdc_parts_given_one_by_one_or_kept_whole(dfdc: Path) -> None:
    parts = sorted(path for path in dfdc.iterdir() if path.is_dir())
    result = run("dfdc", *parts, "--by-part", "--out", dfdc / "table.csv")
    assert result.exit_code == 0, result.output
    table = read_table(dfdc / "table.csv")
    assert table.groupby("source")["group"].nunique().tolist() == [1, 1]


def test_a_test_folder_without_labels_serves_for_judging_only(tmp_path: Path) -> None:
    touch(tmp_path / "test_videos", "a.mp4", "b.mp4")
    out = tmp_path / "table.csv"
    assert "no metadata.json" in refusal("dfdc", tmp_path / "test_videos", "--out", out)
    result = run("dfdc", tmp_path / "test_videos", "--unlabelled", "--out", out)
    assert result.exit_code == 0, result.output
    assert "2 unlabelled" in result.output
    message = refusal("check", out)
    assert "row 2 has no label; only dfd-train submit takes rows without one" in message


def test_a_sample_submission_beside_a_test_folder_gives_the_order(tmp_path: Path) -> None:
    touch(tmp_path / "test_videos", "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "sample_submission.csv").write_text(
        "filename,label\nb.mp4,0.5\na.mp4,0.5\nx.mp4,0\n"
    )
    out = tmp_path / "table.csv"
    result = run("dfdc", tmp_path / "test_videos", "--unlabelled", "--out", out)
    rows = read_table(out, unlabelled=True)
    assert rows["path"].tolist() == ["test_videos/b.mp4", "test_videos/a.mp4"]
    assert set(rows["split"]) == {"test"}
    assert "first 'x.mp4'" in result.stderr
    assert "first 'c.mp4'" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not an object"),
        ('{"a.mp4": "FAKE"}', "the entry of 'a.mp4' is 'FAKE', not an object"),
        ('{"a.mp4": {"label": "Fake"}}', "has the label 'Fake'; allowed are ['REAL', 'FAKE']"),
        ('{"a.mp4": {"label": 1}}', "has the label 1; allowed"),
        ('{"a.mp4": {"split": "train"}}', "has the label None"),
        ('{"../a.mp4": {"label": "REAL"}}', "'../a.mp4' is no plain file name"),
        ('{"a.mp4": {"label": "FAKE", "original": 3}}', "3 is no plain file name"),
        ('{"a.mp4": {"label": "REAL", "original": "b.mp4"}}', "is REAL and has an original"),
        ('{"a.mp4": {"label": "REAL", "split": "public"}}', "has the split 'public'"),
    ],
)
def test_a_metadata_json_that_is_none_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "metadata.json").write_text(content)
    line = refusal("dfdc", tmp_path, "--out", tmp_path / "table.csv")
    assert message in line
    assert "metadata.json" in line
    assert not (tmp_path / "table.csv").exists()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    root = tmp_path / "deepfake-faces"
    touch(root, "faces_224/a.jpg", "faces_224/b.jpg", "faces_224/c.jpg", "faces_224/stray.jpg")
    (root / "metadata.csv").write_text(
        "videoname,original_width,original_height,label,original\n"
        "a.mp4,129,129,REAL,\n"
        "b.mp4,186,186,FAKE,a.mp4\n"
        "c.mp4,186,186,FAKE,gone.mp4\n"
        "d.mp4,186,186,FAKE,a.mp4\n"
    )
    return root


def test_deepfake_faces_are_crops_already(faces: Path) -> None:
    table = imported("deepfake-faces", faces, faces / "table.csv")
    assert set(table["cropped"]) == {"yes"}
    assert table.loc["faces_224/b.jpg", "original"] == "faces_224/a.jpg"
    assert table.loc["faces_224/c.jpg", "original"] == "faces_224/gone.mp4"
    assert table["original_here"].to_dict() == {
        "faces_224/a.jpg": "",
        "faces_224/b.jpg": "yes",
        "faces_224/c.jpg": "no",
    }
    assert table.loc["faces_224/c.jpg", "group"] == "gone"
    told = run("deepfake-faces", faces, "--out", faces / "table.csv").stderr
    assert "in metadata.csv, but without a picture: 1, first 'd.mp4'" in told
    assert "pictures without a row in metadata.csv: 1, first 'stray'" in told
    assert "originals of fakes without a picture: 1, first 'gone.mp4'" in told


def test_labels_that_were_made_numbers_are_never_taken_for_real(faces: Path) -> None:
    """`label == 'FAKE'` on a column of numbers is never true: all would be real."""
    path = faces / "metadata.csv"
    path.write_text(path.read_text().replace("REAL", "0").replace("FAKE", "1"))
    line = refusal("deepfake-faces", faces, "--out", faces / "table.csv")
    assert "row 2 (a.mp4): unknown label '0'; allowed are ['real', 'fake']" in line
    table = imported("deepfake-faces", faces, faces / "t.csv", "--real", "0", "--fake", "1")
    assert table["label"].to_dict() == {
        "faces_224/a.jpg": "REAL",
        "faces_224/b.jpg": "FAKE",
        "faces_224/c.jpg": "FAKE",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.mp4,REAL\n", r"columns ['videoname'] are missing"),
        ("videoname,label\na.mp4,real \n", "unknown label 'real '"),
        ("videoname,label\na.mp4,REAL\na.mp4,FAKE\n", "row 3 (a.mp4): named twice"),
        ("videoname,label,original\na.mp4,REAL,b.mp4\n", "is REAL and has an original"),
        ("", "not a CSV table"),
    ],
)
def test_a_metadata_csv_that_is_none_is_refused(faces: Path, text: str, message: str) -> None:
    (faces / "metadata.csv").write_text(text)
    assert message in refusal("deepfake-faces", faces, "--out", faces / "table.csv")


def test_folders_of_splits_and_classes(tmp_path: Path) -> None:
    for split in ("Train", "Validation", "Test"):
        for label in ("Real", "Fake"):
            touch(tmp_path, *(f"{split}/{label}/{label.lower()}_{n}.jpg" for n in range(3)))
    table = imported("folders", tmp_path, tmp_path / "table.csv", "--name", "pictures")
    assert table.groupby(["split", "label"]).size().to_dict() == {
        (split, label): 3 for split in ("train", "val", "test") for label in ("REAL", "FAKE")
    }
    assert set(table["dataset"]) == {"pictures"}
    assert table.loc["Train/Real/real_0.jpg", "label"] == "REAL"


@pytest.mark.parametrize("real", REAL_NAMES)
@pytest.mark.parametrize("fake", [FAKE_NAMES[0], FAKE_NAMES[-1]])
def test_names_of_classes_are_understood_in_any_case(tmp_path: Path, real: str, fake: str) -> None:
    touch(tmp_path, f"{real.upper()}/deep/a.jpg", f"x/{fake.title()}/b.png")
    table = imported("folders", tmp_path, tmp_path / "table.csv")
    assert table["label"].to_dict() == {
        f"{real.upper()}/deep/a.jpg": "REAL",
        f"x/{fake.title()}/b.png": "FAKE",
    }


def test_only_whole_names_of_folders_count(tmp_path: Path) -> None:
    """`unreal` is not real, and a file's own name says nothing."""
    touch(tmp_path, "unreal/a.jpg", "really/b.jpg", "real/fake_c.jpg", "fake/real.jpg")
    result = run("folders", tmp_path, "--out", tmp_path / "table.csv")
    assert "below no folder named for a class, left out: 2" in result.stderr
    table = read_table(tmp_path / "table.csv").set_index("path")
    assert table["label"].to_dict() == {"fake/real.jpg": "FAKE", "real/fake_c.jpg": "REAL"}


def test_other_names_and_frames_of_one_clip(tmp_path: Path) -> None:
    touch(tmp_path, "0/clip1/1.jpg", "0/clip1/2.jpg", "0/clip2/1.jpg", "1/clip1/1.jpg", "1/x.jpg")
    assert "give --real NAME --fake NAME" in refusal(
        "folders", tmp_path, "--out", tmp_path / "table.csv"
    )
    table = imported(
        "folders", tmp_path, tmp_path / "t.csv", "--real", "0", "--fake", "1", "--by-folder"
    )
    assert table.groupby("label").size().to_dict() == {"REAL": 3, "FAKE": 2}
    assert table["group"].to_dict() == {
        "0/clip1/1.jpg": "0/clip1",
        "0/clip1/2.jpg": "0/clip1",
        "0/clip2/1.jpg": "0/clip2",
        "1/clip1/1.jpg": "1/clip1",
        "1/x.jpg": "1/x.jpg",
    }


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (["real/fake/a.jpg"], [], "its folders name two classes, FAKE and REAL"),
        (["train/test/real/a.jpg", "fake/b.jpg"], [], "name two splits, test and train"),
        (["real/a.jpg"], [], "holds 1 REAL rows and no FAKE row; --one-class accepts that"),
        (["real/a.jpg"], ["--real", "x", "--fake", "X"], "'x' stands for both classes"),
        (["notes.txt"], [], "no video or picture below a folder named for a class"),
    ],
)
def test_trees_that_are_refused(
    tmp_path: Path, files: list[str], options: list[str], message: str
) -> None:
    touch(tmp_path, *files)
    assert message in refusal("folders", tmp_path, *options, "--out", tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_one_class_alone_is_accepted_when_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    table = imported("folders", tmp_path, tmp_path / "table.csv", "--one-class")
    assert list(table["label"]) == ["REAL"]


@pytest.fixture
def faceforensics(tmp_path: Path) -> Path:
    root = tmp_path / "ff"
    for compression in ("c23", "c40"):
        touch(
            root,
            *(f"original_sequences/youtube/{compression}/videos/{n:03d}.mp4" for n in range(6)),
            *(
                f"manipulated_sequences/{method}/{compression}/videos/{pair}.mp4"
                for method in ("Deepfakes", "NeuralTextures")
                for pair in ("000_001", "001_000", "002_003", "003_002", "004_003", "009_005")
            ),
        )
    touch(
        root,
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        "original_sequences/actors/c23/videos/02__walk.mp4",
        "original_sequences/actors/c23/videos/07__walk.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/odd.mp4",
        "manipulated_sequences/Deepfakes/masks/videos/000_001.mp4",
    )
    return root


def test_faceforensics_joins_both_people_of_a_fake(faceforensics: Path) -> None:
    table = imported("faceforensics", faceforensics, faceforensics / "table.csv")
    assert len(table) == 2 * (6 + 12) + 4
    fake = table.loc["manipulated_sequences/Deepfakes/c23/videos/004_003.mp4"]
    assert fake["original"] == "original_sequences/youtube/c23/videos/004.mp4"
    assert (fake["generator"], fake["model"]) == ("Deepfakes", "003")
    youtube = "original_sequences/youtube/c23/videos"
    group = {n: table.loc[f"{youtube}/{n:03d}.mp4", "group"] for n in range(6)}
    assert group[0] == group[1]
    assert group[2] == group[3] == group[4] == fake["group"], "003 lent the face to 004"
    assert len({group[0], group[2], group[5]}) == 3
    actors = "original_sequences/actors/c23/videos"
    made = table.loc[
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4"
    ]
    assert made["original"] == f"{actors}/01__exit_phone_room.mp4"
    assert made["group"] == table.loc[f"{actors}/02__walk.mp4", "group"]
    assert made["group"] != table.loc[f"{actors}/07__walk.mp4", "group"]
    lone = table.loc["manipulated_sequences/Deepfakes/c23/videos/009_005.mp4"]
    assert lone["original"] == ""
    told = run("faceforensics", faceforensics, "--out", faceforensics / "table.csv").stderr
    assert "named otherwise, left out: 1" in told
    assert "fakes whose original is not there: 4" in told


def test_faceforensics_takes_the_published_splits(faceforensics: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "train.json").write_text('[["004", "005"]]')
    (splits / "val.json").write_text('[["002", "003"]]')
    (splits / "test.json").write_text('[["000", "001"]]')
    table = imported(
        "faceforensics",
        faceforensics,
        faceforensics / "t.csv",
        "--splits",
        splits,
        "--compression",
        "c23",
    )
    youtube = table[table["source"].str.contains("youtube")]
    assert youtube.groupby("split").size().to_dict() == {"test": 6, "val": 6, "train": 4}
    assert not any("004_003" in path for path in table.index), "003 is a person of val"
    assert (table.groupby("group")["split"].nunique() == 1).all()
    for text, message in (
        ("{", "not readable as JSON"),
        ('[["000"]]', "is no pair such as"),
        ('[["000", "002"]]', "stands in val.json too"),
    ):
        (splits / "test.json").write_text(text)
        line = refusal(
            "faceforensics", faceforensics, "--splits", splits, "--out", faceforensics / "t.csv"
        )
        assert message in line


def test_a_folder_without_faceforensics_is_refused(tmp_path: Path) -> None:
    line = refusal("faceforensics", tmp_path, "--out", tmp_path / "t.csv")
    assert "no clip in original_sequences" in line


@pytest.fixture
def celeb_df(tmp_path: Path) -> Path:
    root = tmp_path / "celeb"
    touch(
        root,
        *(f"Celeb-real/{name}.mp4" for name in ("id0_0000", "id0_0001", "id1_0000", "id2_0000")),
        *(f"Celeb-real/{name}.mp4" for name in ("id5_0000", "id6_0000")),
        *(f"Celeb-synthesis/{name}.mp4" for name in ("id0_id1_0000", "id1_id0_0000")),
        *(f"Celeb-synthesis/{name}.mp4" for name in ("id5_id6_0000", "id2_id5_0009", "odd")),
        "YouTube-real/00001.mp4",
        "YouTube-real/00002.mp4",
    )
    (root / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00002.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n1 Celeb-real/id0_0000.mp4\n"
        "1 Celeb-real/id9_0000.mp4\n"
    )
    return root


def test_celeb_df_keeps_people_of_test_clips_out_of_training(celeb_df: Path) -> None:
    out = celeb_df / "table.csv"
    result = run("celeb-df", celeb_df, "--out", out)
    assert result.exit_code == 0, result.output
    table = read_table(out).set_index("path")
    assert set(table.index[table["split"] == "test"]) == {
        "YouTube-real/00002.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        "Celeb-real/id0_0000.mp4",
    }
    left = "left out, since they share people or footage with another split: 3"
    assert left in result.stderr, "id0_0001, id1_0000 and id1_id0_0000"
    assert "Celeb-real/id1_0000.mp4" not in table.index
    fake = table.loc["Celeb-synthesis/id5_id6_0000.mp4"]
    assert fake["original"] == "Celeb-real/id5_0000.mp4"
    assert fake["label"] == "FAKE"
    assert fake["model"] == "id6"
    assert table.loc["Celeb-real/id2_0000.mp4", "group"] == fake["group"], "id2 got id5's face"
    assert "fakes whose original is not there: 1" in result.stderr
    assert "in List_of_testing_videos.txt, but not there: 1" in result.stderr


def test_celeb_df_by_footage_or_without_its_list(celeb_df: Path) -> None:
    table = imported("celeb-df", celeb_df, celeb_df / "a.csv", "--by-footage")
    assert "Celeb-real/id1_0000.mp4" in table.index
    assert (table["split"] == "test").sum() == 3
    table = imported("celeb-df", celeb_df, celeb_df / "b.csv", "--no-list")
    assert len(table) == 12
    assert set(table["split"]) == {"train"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 Celeb-real/id0_0000.mp4", "is marked 0; in this list 1 is real and 0 is fake"),
        ("1 Celeb-synthesis/id0_id1_0000.mp4", "is marked 1; in this list 1 is real"),
        ("real Celeb-real/id0_0000.mp4", "line 1: 'real Celeb-real/id0_0000.mp4' is not"),
        ("1 Others/id0_0000.mp4", "the folder 'Others' is none of"),
        ("", "names no clip"),
        (
            "0 Celeb-synthesis/id0_id1_0000.mp4\n0 Celeb-synthesis/id2_id5_0009.mp4",
            "every FAKE clip beside it shares a person with a test clip: --by-footage",
        ),
    ],
)
def test_a_list_that_is_wrong_is_refused(celeb_df: Path, line: str, message: str) -> None:
    (celeb_df / "List_of_testing_videos.txt").write_text(line)
    assert message in refusal("celeb-df", celeb_df, "--out", celeb_df / "table.csv")


@pytest.mark.parametrize(
    "layout", ["dfdc", "deepfake-faces", "folders", "faceforensics", "celeb-df"]
)
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, layout: str) -> None:
    line = refusal(layout, tmp_path / "absent", "--out", tmp_path / "table.csv")
    assert str(tmp_path / "absent") in line


def test_tables_name_files_as_their_own_folder_asks(dfdc: Path, tmp_path: Path) -> None:
    """Relative where the file lies below the table's folder, absolute elsewhere."""
    table = imported("dfdc", dfdc, tmp_path / "elsewhere" / "table.csv")
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in table.index)
    table = imported("dfdc", dfdc, tmp_path / "table.csv")
    assert all((tmp_path / path).is_file() for path in table.index)
    assert not any(Path(path).is_absolute() for path in table.index)
    header = (tmp_path / "table.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS)
