"""A submission file: every video asked for, in order, whatever happens to it."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from dfd_edge import Detector
from dfd_edge.errors import UsageError
from dfd_edge.faces import DetectorOptions
from dfd_edge.faces.detector import DETECTOR_FILE
from dfd_edge.faces.onnx_model import face_model_sha256
from dfd_training.cli import main
from dfd_training.evaluation import evaluate as evaluation
from dfd_training.evaluation.submission import submission_files, submit
from sample_clips import moving, write_clip
from small_bundle import build_small_bundle, edit_graph, edit_manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few kilobytes that knows the runtime's face detector."""
    folder = build_small_bundle(tmp_path_factory.mktemp("bundle") / "small")
    options = DetectorOptions().to_dict()
    face = {"sha256": face_model_sha256(DETECTOR_FILE), "options": options}
    edit_manifest(folder, lambda manifest: manifest["face"].update(face))
    for graph in ("frame.onnx", "sequence.onnx"):  # which name another detector
        edit_graph(folder, graph, lambda model: model.ClearField("metadata_props"))
    return folder


@pytest.fixture(scope="module")
def videos(
    tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray, hopper: np.ndarray
) -> Path:
    """Two clips of people, one without a face, one that is broken, and a picture."""
    folder = tmp_path_factory.mktemp("test_videos")
    write_clip(folder / "b.mp4", moving(astronaut, 1, count=12))
    write_clip(folder / "a.mp4", moving(hopper, 2, count=12))
    write_clip(folder / "leaf.mp4", [np.full((120, 160, 3), (40, 160, 60), np.uint8)] * 8)
    (folder / "broken.mp4").write_bytes(b"\x00" * 200)
    (folder / "notes.txt").write_text("no video")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["submit", *map(str, arguments)])


def test_every_video_gets_a_line(videos: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "submission.csv"
    result = run(videos, "--bundle", bundle, "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    assert list(table) == ["filename", "label"]
    assert list(table["filename"]) == ["a.mp4", "b.mp4", "broken.mp4", "leaf.mp4"]
    assert table["label"].between(0, 1).all()
    p_fake = table.set_index("filename")["label"]
    detector = Detector.load(bundle)
    for name in ("a.mp4", "b.mp4"):
        wanted = detector.analyze(videos / name).p_fake
        assert p_fake[name] == pytest.approx(wanted, abs=1e-6), "as the runtime says"
    assert p_fake["a.mp4"] != p_fake["b.mp4"]
    assert p_fake["broken.mp4"] == p_fake["leaf.mp4"] == 0.5
    assert "0.5 for broken.mp4: " in result.stderr
    assert "0.5 for leaf.mp4: " in result.stderr
    assert "(no_face, " in result.stderr
    assert f"4 videos in {out}, 2 of them not judged" in result.stdout
    assert [path.name for path in out.parent.iterdir()] == ["submission.csv"]


def test_a_sample_submission_gives_names_and_order(videos: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("filename,label\nleaf.mp4,0.5\nb.mp4,0.5\ngone.mp4,0.5\n")
    wanted = [("leaf.mp4", videos / "leaf.mp4"), ("b.mp4", videos / "b.mp4")]
    assert submission_files(videos, sample) == [*wanted, ("gone.mp4", videos / "gone.mp4")]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.mp4").symlink_to(videos / "b.mp4")
    (folder / "a.mp4").symlink_to(videos / "a.mp4")
    (folder / "sample_submission.csv").write_text("filename,label\nb.mp4,0.5\n")
    assert [name for name, _ in submission_files(folder)] == ["b.mp4"], "the one in the folder"


def test_a_file_of_the_sample_that_is_missing_gets_a_half(
    videos: Path, bundle: Path, tmp_path: Path
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text("filename,label\nleaf.mp4,0\ngone.mp4,0\n")
    out = tmp_path / "submission.csv"
    result = run(videos, "--sample", sample, "--bundle", bundle, "--out", out)
    assert result.exit_code == 0, result.output
    assert out.read_text() == "filename,label\nleaf.mp4,0.500000\ngone.mp4,0.500000\n"
    assert "0.5 for gone.mp4: " in result.stderr


def test_a_table_without_labels_can_be_submitted(videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "test.csv"
    arguments = ["data", "dfdc", str(videos), "--unlabelled", "--out", str(table)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert submission_files(table) == [
        (name, videos / name) for name in ("a.mp4", "b.mp4", "broken.mp4", "leaf.mp4")
    ]


def test_a_broken_off_run_goes_on(videos: Path, bundle: Path, tmp_path: Path) -> None:
    """Ctrl-C leaves no submission; what was judged is not judged again, by the same model."""
    files = submission_files(videos)
    out = tmp_path / "submission.csv"
    calls: list[str] = []

    class Stopped(Detector):
        def analyze(self, source, **options):
            if len(calls) == 2:
                raise KeyboardInterrupt
            calls.append(Path(source).name)
            return super().analyze(source, **options)

    with pytest.raises(KeyboardInterrupt):
        submit(Stopped.load(bundle), files, out)
    assert calls == ["a.mp4", "b.mp4"]
    assert not out.exists()
    with (tmp_path / ".submission.csv.progress").open("a") as progress:
        progress.write('["half a li')  # as a killed process may leave it
    calls.clear()

    class Counted(Detector):
        def analyze(self, source, **options):
            calls.append(Path(source).name)
            return super().analyze(source, **options)

    judged = submit(Counted.load(bundle), files, out)
    assert calls == ["broken.mp4", "leaf.mp4"]
    assert [line.filename for line in judged] == ["a.mp4", "b.mp4", "broken.mp4", "leaf.mp4"]
    fresh = submit(Detector.load(bundle), files, tmp_path / "fresh.csv")
    assert [line.p_fake for line in judged] == [line.p_fake for line in fresh]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh.csv", "submission.csv"]


def test_what_another_model_judged_is_judged_again(
    videos: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "submission.csv"
    progress = tmp_path / ".submission.csv.progress"
    stale = f'["{(videos / "a.mp4").resolve()}", "a.mp4", 0.123, ""]\n'
    progress.write_text('["another model", "fp32"]\n' + stale)
    judged = submit(Detector.load(bundle), submission_files(videos)[:1], out)
    assert judged[0].p_fake != 0.123


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("file,label\na.mp4,0.5\n", "the column 'filename' is missing"),
        ("filename,label\na.mp4,0\na.mp4,0\n", "'a.mp4' is named twice"),
        ("filename,label\n../a.mp4,0\n", "'../a.mp4' is no plain file name"),
        ("filename,label\nx.mp4,0\n", "names none of the 4 videos"),
        ("", "not a CSV table"),
    ],
)
def test_a_sample_that_is_none_is_refused(
    videos: Path, tmp_path: Path, sample: str, message: str
) -> None:
    path = tmp_path / "sample.csv"
    path.write_text(sample)
    result = run(videos, "--sample", path, "--out", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_what_cannot_be_submitted_is_refused(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "empty", "no video in this folder"),
        (tmp_path / "absent", "no such folder"),
    ):
        result = run(source, "--out", tmp_path / "out.csv")
        assert result.exit_code == 2
        assert message in result.stderr
    result = run(videos, "--out", videos / "a.mp4")
    assert "would replace a file that is read" in result.stderr
    table = tmp_path / "t.csv"
    table.write_text("path,label\nx/a.mp4,\ny/a.mp4,\n")
    with pytest.raises(UsageError, match=r"'a\.mp4' is the name of two files"):
        submission_files(table)


@pytest.mark.slow
def test_test_rows_are_evaluated_when_asked_for(
    videos: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = functools.partial(evaluation.summarise, draws=5)  # intervals are not what this is about
    monkeypatch.setattr(evaluation, "summarise", few)
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\na.mp4,REAL,test\nb.mp4,FAKE,test\nleaf.mp4,REAL,train\n")
    arguments = ["evaluate", table, "--root", videos, "--bundle", bundle, "--split", "test"]
    result = CliRunner().invoke(main, [*map(str, arguments), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    files = pd.read_csv(tmp_path / "out" / "files.csv")
    assert files["path"].tolist() == ["a.mp4", "b.mp4"]
    assert set(files["split"]) == {"test"}


def test_data_commands_and_submissions_need_no_training_framework() -> None:
    code = (
        "import sys, dfd_training.cli, dfd_training.data.checking\n"
        "import dfd_training.evaluation.submission, dfd_training.data.splitting\n"
        "import dfd_training.data.readers.faceforensics\n"
        "print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
