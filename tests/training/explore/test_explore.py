"""What `dfd-train explore` and `preview` show of a folder of labelled files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from dfd_training.cli import main
from dfd_training.data.croppers import dlib_is_there
from dfd_training.explore.detectors import DLIB_MISSING
from sample_clips import moving, write_clip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def explored(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an exploration of clips and photographs, and what the command printed.

    The table also names a missing file, a file with a hostile name, and one cut off.
    """
    folder = tmp_path_factory.mktemp("explored")
    table = pd.read_csv(small_data / "labels.csv", dtype=str, keep_default_na=False)
    table["path"] = [str(small_data / path) for path in table["path"]]
    originals = table["original"] != ""
    table.loc[originals, "original"] = [str(small_data / p) for p in table["original"][originals]]
    table["dataset"] = ["faces" if path.endswith(".png") else "" for path in table["path"]]
    hostile = folder / "<img src=x onerror=document.title='run'>.png"
    hostile.write_bytes((small_data / "astronaut_0.png").read_bytes())
    cut = folder / "cut.mp4"
    whole = (small_data / "clip0_real.mp4").read_bytes()
    cut.write_bytes(whole[: len(whole) // 3])
    more = pd.DataFrame(
        [
            {"path": str(hostile), "label": "REAL", "source": "<b>hostile</b>"},
            {"path": str(cut), "label": "REAL", "source": "clips"},
            {"path": "gone.mp4", "label": "REAL", "source": "clips"},
        ]
    )
    path = folder / "labels.csv"
    pd.concat([table, more]).fillna("").to_csv(path, index=False)
    result = run(
        *("explore", path, "--out", folder / "out", "--sample", 20, "--frames", 2),
        *("--workers", 2, "--max-clips", 4),
    )
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def page_of(folder: Path) -> str:
    return (folder / "index.html").read_text("utf-8")


def test_the_page_holds_everything_and_names_no_address(explored: tuple[Path, str]) -> None:
    page = page_of(explored[0])
    shown = re.sub(r"<script[ >].*?</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r"""(?:src|href|poster|data)=["']([^"']*)""", shown)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src &#39;none&#39;" in page
    assert page.count("<video") == 4
    assert "<img src=x" not in page, "a file's name cannot become markup"
    assert "<b>hostile" not in page


def test_unreadable_files_are_counted_and_listed(explored: tuple[Path, str]) -> None:
    folder, output = explored
    broken = pd.read_csv(folder / "unreadable.csv").set_index("path")["reason"]
    names = sorted(Path(path).name for path in broken.index)
    assert names == ["broken.mp4", "cut.mp4", "gone.mp4"]
    assert broken["gone.mp4"].endswith("no such file")
    assert "3 missing or unreadable" in output
    page = page_of(folder)
    assert "Rows without a file: 1" in page
    assert "Unreadable files: 2" in page


def test_every_figure_is_there_as_picture_and_as_table(explored: tuple[Path, str]) -> None:
    folder = explored[0]
    names = {
        *("extensions", "extensions_of_the_folder", "missing", "unique", "most_frequent"),
        *("labels", "labels_by_dataset", "labels_by_source", "originals"),
        *("resolution_photographs", "resolution_clips"),
        *("length", "rate", "faces_clips", "faces_photographs", "detection_rate"),
    }
    assert {path.stem for path in folder.glob("figures/*.csv")} == names
    for name in names:
        assert f'data-figure="figure-{name}"' in page_of(folder)
        picture = cv2.imread(str(folder / "figures" / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5, "something is drawn"


def test_figures_say_what_the_table_holds(explored: tuple[Path, str]) -> None:
    folder = explored[0]

    def figure(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / "figures" / f"{name}.csv").set_index("category")

    # 8 portraits, a leaf, the hostile name; 12 clips, a broken, a cut and a missing one.
    assert figure("extensions")["REAL"].to_dict() == {".png": 10, ".mp4": 9}
    assert figure("extensions")["FAKE"].to_dict() == {".png": 0, ".mp4": 6}
    shares = figure("labels")
    assert shares.loc["all files", "REAL"] == 19
    assert shares.loc["all files", "REAL, %"] == pytest.approx(100 * 19 / 25)
    assert shares.loc["all files", "FAKE"] == 6
    assert shares.loc["all files", "FAKE, %"] == pytest.approx(100 * 6 / 25)
    assert figure("labels_by_dataset").loc["faces", "REAL, %"] == 100.0
    assert figure("originals")["fakes"].to_dict() == {f"clip{n}_real.mp4": 1 for n in range(6)}
    assert figure("rate").index.tolist() == [25]
    assert figure("length")["FAKE"].sum() == 6
    sizes = figure("resolution_photographs")
    assert sizes["REAL"].to_dict() == {"300 x 300": 5, "400 x 420": 4, "200 x 200": 1}
    columns = pd.read_csv(folder / "columns.csv").set_index("column")
    assert columns.loc["original", "missing"] == 19
    assert columns.loc["generator", "most_frequent"] == "landmark swap"
    assert columns.loc["generator", "times"] == 6


def test_detectors_are_compared_on_the_same_frames(explored: tuple[Path, str]) -> None:
    folder, output = explored
    rows = pd.read_csv(folder / "detectors.csv").set_index("name")
    assert {"Haar cascades", "BlazeFace (this project)", "Haar eyes"} <= set(rows.index)
    assert "Haar smile" not in rows.index, "smiles are searched for only where they are asked for"
    assert rows["frames"].nunique() == 1
    assert (rows["median_cpu_ms"] > 0).all()
    # All sampled files but the leaf show a face from the front.
    assert rows.loc["BlazeFace (this project)", "share_found"] > 0.8
    assert rows.loc["Haar cascades", "share_found"] > 0.5
    assert ("dlib HOG" in rows.index) is dlib_is_there()
    words = DLIB_MISSING.replace("'", "&#39;")
    assert (words in page_of(folder)) is not dlib_is_there()
    files = pd.read_csv(folder / "files.csv")
    leaf = files[files["path"].str.endswith("leaf.png")].iloc[0]
    assert leaf["frames with a face, BlazeFace (this project)"] == 0
    assert "none by Haar cascades, BlazeFace" in page_of(folder)
    assert "BlazeFace" in output


def test_labels_are_told_without_colours(explored: tuple[Path, str]) -> None:
    page = page_of(explored[0])
    assert page.count("▲</span> FAKE") >= 6
    assert page.count("●</span> REAL") >= 6
    figures = re.findall(r'id="figure-labels">(.*?)</script>', page, flags=re.DOTALL)
    data = {trace["name"]: trace["marker"] for trace in json.loads(figures[0])["data"]}
    assert data["FAKE"]["pattern"]["shape"] == "/"
    assert "pattern" not in data["REAL"]


def test_excerpts_are_small_and_play(explored: tuple[Path, str], tmp_path: Path) -> None:
    import base64

    page = page_of(explored[0])
    for encoded in re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", page):
        clip = tmp_path / "clip.mp4"
        clip.write_bytes(base64.b64decode(encoded))
        assert clip.stat().st_size <= 250_000
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert len(list(container.decode(stream))) >= 8


def test_the_page_says_its_size_and_keeps_to_it(explored: tuple[Path, str]) -> None:
    folder = explored[0]
    size = (folder / "index.html").stat().st_size
    assert f"{size / 1e6:.1f} MB, of which" in page_of(folder)
    assert size < 8e6


@pytest.mark.slow
def test_a_second_run_removes_what_only_the_first_wrote(
    small_data: Path, tmp_path: Path, explored: tuple[Path, str]
) -> None:
    """A table of photographs only has no lengths; a file of somebody else's stays."""
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "mine.csv").write_text("mine")
    (out / "figures" / "length.csv").write_text("of an earlier run")
    (out / "explore.json").write_text(json.dumps({"files": ["figures/length.csv", "../x.csv"]}))
    (tmp_path / "x.csv").write_text("outside")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nhopper_0.png,REAL\nleaf.png,REAL\n")
    result = run("explore", table, "--root", small_data, "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert not (out / "figures" / "length.csv").exists()
    assert (out / "figures" / "mine.csv").exists()
    assert (tmp_path / "x.csv").exists()
    page = page_of(out)
    assert "No fake of this table names its original." in page
    assert "No clip of this table was taken." in page
    assert not list(out.rglob("*.partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "0"], "--sample 0: give a number from 1"),
        (["--max-clips", "25"], "--max-clips 25: give a number from 0 to 24"),
        (["--workers", "0"], "--workers 0: give a number from 1"),
        (["--root", "elsewhere"], "none of its 25 files is in elsewhere: give --root"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(
    small_data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text((small_data / "labels.csv").read_text())
    result = run("explore", table, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message.replace("25 files", f"{len(pd.read_csv(table))} files") in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_preview_moves_and_boxes_faces(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving(astronaut, 0, count=20))
    arguments = ("--rate", 5, "--frames", 6, "--size", 160)
    result = run("preview", clip, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "a face in 6 of 6 frames" in result.output
    with Image.open(tmp_path / "out" / "clip.gif") as gif:
        assert gif.is_animated
        assert gif.n_frames == 10
        assert max(gif.size) == 160
        assert gif.info["duration"] == 200
        assert gif.info["loop"] == 0
    sheet = cv2.imread(str(tmp_path / "out" / "clip_sheet.png"))
    assert sheet is not None
    green = (np.abs(sheet.astype(int) - (60, 190, 40)).max(axis=2) < 12).sum()
    assert green > 500, "boxes are drawn"


def test_a_preview_compares_all_detectors(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving(astronaut, 0, count=20))
    arguments = ("--detectors", "--frames", 2, "--seconds", 2, "--haar-scale", 1.3)
    result = run("preview", clip, "--out", tmp_path, *arguments)
    assert result.exit_code == 0, result.output
    assert "clip_detectors.png" in result.output
    assert re.search(r"BlazeFace \(this project\) +in 100\.0 % of 2 frames", result.output)
    assert re.search(r"Haar frontal +in 100\.0 % of 2 frames", result.output)
    sheet = cv2.imread(str(tmp_path / "clip_detectors.png"))
    assert sheet is not None
    columns = 3 if dlib_is_there() else 2
    assert sheet.shape[1] == columns * 368 + 8
    red = (np.abs(sheet.astype(int) - (40, 40, 230)).max(axis=2) < 12).sum()
    assert red > 50, "eyes are drawn"
    # No face is as large as the smallest one that is searched for here.
    result = run("preview", clip, "--out", tmp_path, *arguments, "--haar-size", 290)
    assert re.search(r"Haar frontal +in +0\.0 % of 2 frames", result.output)


def test_a_preview_compares_detectors_on_a_photograph(small_data: Path, tmp_path: Path) -> None:
    result = run("preview", small_data / "hopper_0.png", "--detectors", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["hopper_0_detectors.png"]


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("leaf.png", [], 2, "--detectors searches it"),
        ("broken.mp4", [], 1, "broken.mp4"),
        ("absent.mp4", [], 1, "no such file"),
        ("clip0_real.mp4", ["--detectors", "--haar-scale", "1"], 2, "--haar-scale 1: give a"),
        ("clip0_real.mp4", ["--detectors", "--haar-size", "5"], 2, "from 20 to 640"),
        ("clip0_real.mp4", ["--haar-neighbours", "0"], 2, "--haar-neighbours 0: give a number"),
        ("clip0_real.mp4", ["--rate", "0"], 2, "--rate 0: give a number from 0.5 to 25"),
    ],
)
def test_a_preview_that_cannot_be_made_leaves_nothing(
    small_data: Path, tmp_path: Path, name: str, arguments: list[str], code: int, message: str
) -> None:
    result = run("preview", small_data / name, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_neither_command_loads_tensorflow(small_data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from dfd_training.cli import main\n"
        "import dfd_training.explore.explore, dfd_training.explore.preview\n"
        "assert not {'tensorflow', 'keras', 'dlib'} & set(sys.modules), 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.data
@pytest.mark.slow
def test_the_development_data_can_be_explored(tmp_path: Path) -> None:
    data = os.environ.get("DFD_DATA")
    if not data:
        pytest.skip("DFD_DATA does not name the development data")
    arguments = ("--sample", 12, "--frames", 1, "--probe", 200, "--max-clips", 2)
    result = run("explore", Path(data, "labels.csv"), "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "index.html").stat().st_size < 8e6
