"""`dfd-train evaluate-archive` reads labelled rows of an archive and judges nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("fsspec", reason="fsspec is not installed")

from dfd_edge.archive.dataset import Dataset
from dfd_edge.archive.rows import Clip, ClipRow, Failure, Judgement
from dfd_edge.archive.storage import Store
from dfd_edge.errors import UsageError
from dfd_edge.judging.results import Label
from dfd_training.cli import main
from dfd_training.evaluation.archive import read_archive
from dfd_training.evaluation.evaluate import summarise


def row(number: int, score: float | None, expected: str | None, **more) -> ClipRow:
    """A judged clip with a row of one frame, or one that failed."""
    if score is None:
        judgement = Judgement.failed(f"{number}.mp4: no", Failure.TIME)
    else:
        judgement = Judgement(
            label=Label.FAKE if score > 0.8 else Label.REAL,
            p_fake=score,
            frames=1,
            kind="video",
            provider="cpu",
            precision="int8",
        )
    frame = {
        **{"time_s": 0.0, "track": 1, "box": [0.0, 0.0, 9.0, 9.0], "judged": True},
        **{"reason": None, "p_frame": score, "p_step": None, "p_fake": score, "label": "unsure"},
    }
    return ClipRow(
        clip=Clip(f"clips/{number}.mp4", expected=expected),
        sha256=f"{number:064x}",
        judgement=judgement,
        judged_s=time.time(),
        frames=() if score is None else (frame,),
        **more,
    )


@pytest.fixture
def results(tmp_path: Path) -> str:
    dataset = Dataset(Store(str(tmp_path / "results")), "part", bundle="ab" * 32, version="1")
    rows = [row(n, 0.1 + 0.02 * n, "real") for n in range(10)]
    rows += [row(10 + n, 0.25 + 0.07 * n, "fake") for n in range(10)]
    dataset.commit(rows)
    dataset.commit(
        [
            row(20, None, "fake"),
            row(21, 0.9, None),
            row(22, 0.9, "real", duplicate_of="clips/19.mp4"),
        ]
    )
    return str(tmp_path / "results")


def test_labelled_clips_are_evaluated_once_each(results: str):
    evaluation, facts = read_archive(results)
    files = evaluation.files
    assert list(files["path"]) == [f"clips/{number}.mp4" for number in range(21)]
    assert facts == {"provider": "cpu", "precision": "int8", "bundle_hash": "ab" * 6}
    assert len(evaluation.frames) == 20
    report = summarise(evaluation, draws=50)
    # Of 100 pairs of a fake and a real, those of the fake with 0.25 and the reals with 0.26 and
    # 0.28 are the wrong way round.
    (clips,) = (part for part in report.sections if "against all reals" in part.title)
    assert clips.rows["runtime"]["auc"].value == pytest.approx(0.98)
    assert report.errors == {"clips/20.mp4": "20.mp4: no"}


def test_the_command_writes_the_pages(results: str, tmp_path: Path):
    out = tmp_path / "evaluation"
    done = CliRunner().invoke(
        main, ["evaluate-archive", results, "--out", str(out), "--draws", "20"]
    )
    assert done.exit_code == 0, done.output
    assert "0.980 [" in done.output
    assert (out / "evaluation.html").is_file()


def test_results_without_labels_are_refused(tmp_path: Path):
    dataset = Dataset(Store(str(tmp_path)), "part", bundle="ab" * 32, version="1")
    dataset.commit([row(1, 0.5, None)])
    with pytest.raises(UsageError, match="no clip has an expected label"):
        read_archive(str(tmp_path))
