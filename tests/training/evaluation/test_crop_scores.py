"""Frame models judged on a store: the right files, the right figures, and what differs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.cli import main
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore, shard_name
from dfd_training.evaluation.crops.score_report import scores_to_text, summarise_scores
from dfd_training.evaluation.crops.scoring import model_names, score_files
from dfd_training.evaluation.crops.selection import JudgedFile, Swaps, evenly, select_files
from dfd_training.evaluation.degradations import Condition, apply_condition
from dfd_training.evaluation.statistics import GroupBootstrap
from dfd_training.models import build_frame_model, save_model


@dataclass(frozen=True)
class Brightness:
    """A frame model that takes bright crops for fake."""

    input_size: int = 48
    sign: float = 1.0

    def score(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits = self.sign * crops.mean(axis=(1, 2, 3), dtype=np.float32)
        return logits[:, None], logits


def file(path: str, *, fake: bool = False, original: str = "", group: str = "") -> JudgedFile:
    return JudgedFile(
        path=path,
        fake=fake,
        group=group or path,
        source="clips",
        original=original,
        generator="tool" if fake else "",
        generated=False,
        photograph=False,
        shard="",
        positions=(0, 1),
    )


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], 40)
    noise = rng.normal(0, 1, 80)
    groups = np.repeat(np.arange(40), 2).astype(str)
    draws = GroupBootstrap.of(groups, draws=300)
    same = draws.auc_difference(labels, labels + noise, labels + noise)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    better = draws.auc_difference(labels, labels + 0.8 * noise, labels + noise)
    apart = draws.auc(labels, labels + noise)
    assert 0.0 < better.low < better.value < better.high
    assert better.high - better.low < apart.high - apart.low, "the shared noise cancels out"


def test_a_clip_is_judged_on_evenly_spaced_crops() -> None:
    assert evenly(np.arange(100), 4).tolist() == [0, 33, 66, 99]
    assert evenly(np.arange(3), 12).tolist() == [0, 1, 2]


def test_a_fold_is_judged_without_the_others(small_store: CropStore) -> None:
    fold_of = training_rows(small_store).drop_duplicates("path").set_index("path")["fold"]
    parts = [select_files(small_store, fold=fold, max_crops=3) for fold in range(len(FOLD_SHARES))]
    for fold, files in enumerate(parts):
        assert {fold_of[item.path] for item in files} == {fold}
        assert all(1 <= len(item.positions) <= 3 for item in files)
        assert not any(item.photograph for item in files)
    everything = select_files(small_store)
    assert sum(len(files) for files in parts) == len(everything) == 12


def test_all_swaps_come_with_their_originals(small_store: CropStore) -> None:
    files = select_files(small_store, fold=0, swaps=Swaps.ALL)
    assert sum(item.fake for item in files) == 6
    assert {item.original for item in files if item.fake} <= {item.path for item in files}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"fold": 4}, "fold 4 does not exist; there are 4, from 0"),
        ({"split": "val"}, "no judged clip in split val"),
        ({"split": "val", "fold": 0}, "rows marked val have no folds"),
    ],
)
def test_rows_that_are_not_there(small_store: CropStore, request_: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_files(small_store, **request_)


@pytest.fixture
def made_store(small_store: CropStore, tmp_path: Path) -> CropStore:
    """The small store with fakes that a generator made of one clip and of one photograph."""
    path = tmp_path / "store"
    shutil.copytree(small_store.path, path)
    rows = small_store.index
    parts = []
    for original in ("clip1_real.mp4", "hopper_0.png"):
        made = rows[rows["path"] == original].copy()
        name = f"made/upscaler/{original}"
        shutil.copy(path / "crops" / made["shard"].iloc[0], path / "crops" / shard_name(name))
        parts.append(
            made.assign(
                path=name,
                shard=shard_name(name),
                label="FAKE",
                generator="upscaler",
                original=original,
            )
        )
    pd.concat(parts).to_csv(path / "made.csv", index=False)
    return CropStore(path)


def test_made_fakes_are_judged_beside_the_true_ones(made_store: CropStore) -> None:
    files = select_files(made_store)
    scores = score_files(made_store, files, {"bright": Brightness()}, conditions=[Condition.CLEAN])
    rows = {row.case: row for row in summarise_scores(files, scores, draws=20).rows}
    assert list(rows) == [
        "landmark swap against all real clips",
        "landmark swap against own originals",
        "upscaler (generated) against all real clips",
        "upscaler (generated) against own originals",
        "upscaler (generated photographs) against own originals",
    ]
    assert rows["upscaler (generated) against all real clips"].reals == 6
    copies = rows["upscaler (generated) against own originals"]
    assert (copies.fakes, copies.reals, copies.pairs_won, copies.pairs) == (1, 1, 0, 1)
    assert copies.auc.value == 0.5, "the fake is a copy of its original"


def test_a_clip_has_the_mean_of_its_crops(small_store: CropStore) -> None:
    files = select_files(small_store, max_crops=4)[:2]
    scores = score_files(small_store, files, {"bright": Brightness(48), "dark": Brightness(32, -1)})
    crops = np.stack(
        [
            to_input(work_crop(small_store.crop(files[1].shard, place), NO_JITTER).image, 48)
            for place in files[1].positions
        ]
    )
    table = scores.set_index(["path", "condition", "model"])
    row = table.loc[(files[1].path, "clean", "bright")]
    assert row["logit"] == pytest.approx(crops.mean(), abs=1e-3)
    assert row["crops"] == 4
    assert len(table) == 2 * 2 * len(Condition)
    assert table.loc[(files[1].path, "half size", "dark"), "logit"] == pytest.approx(
        -crops.mean(), abs=2.0
    )


def test_what_conditions_do(astronaut: NDArray[np.uint8]) -> None:
    changed = {condition: apply_condition(condition, [astronaut])[0] for condition in Condition}
    assert (changed[Condition.CLEAN] == astronaut).all()
    height, width = astronaut.shape[:2]
    assert changed[Condition.HALF_SIZE].shape == (height // 2, width // 2, 3)
    for condition in (Condition.JPEG, Condition.H264):
        assert changed[condition].shape == astronaut.shape
        loss = np.abs(changed[condition].astype(float) - astronaut).mean()
        assert 1.0 < loss < 15.0, condition


def test_the_figures_of_a_report() -> None:
    """Three fakes, four reals; one fake scores below its original, one real above zero."""
    files = [file(name, group=name) for name in "abcd"]
    files += [file(f"{name}2", fake=True, original=name, group=name) for name in "abc"]
    logits = {"a": -1.0, "b": -2.0, "c": 0.5, "d": -3.0, "a2": 2.0, "b2": 1.0, "c2": 0.2}
    scores = pd.DataFrame(
        [
            {"path": path, "condition": "clean", "model": model, "logit": sign * logit, "crops": 2}
            for model, sign in (("good", 1.0), ("bad", -1.0))
            for path, logit in logits.items()
        ]
    )
    report = summarise_scores(files, scores, draws=100)
    good = next(row for row in report.rows if row.model == "good" and "all real" in row.case)
    assert (good.fakes, good.reals, good.pairs_won, good.pairs) == (3, 4, 2, 3)
    assert good.auc.value == pytest.approx(11 / 12)
    assert good.reals_above_0 == 0.25
    assert good.reals_at_90 == 0.25, "0.2 finds every fake, and one real lies above it"
    difference = next(item for item in report.models if "all real" in item.case)
    assert difference.what == "bad - good"
    assert difference.auc.value == pytest.approx(1 / 12 - 11 / 12)
    text = scores_to_text(report)
    assert "tool against all real clips: 3 fakes, 4 reals, 4 groups" in text
    assert "bad - good: -0.833" in text


def test_models_are_told_apart_by_their_runs() -> None:
    paths = [Path("runs/a/best.keras"), Path("runs/b/best.keras"), Path("bundle")]
    assert list(model_names(paths)) == ["a", "b", "bundle"]
    with pytest.raises(UsageError, match="given twice"):
        model_names([Path("a/best.keras"), Path("a/best.keras")])


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two untrained frame models, saved; the second says which fold it was fitted without."""
    paths = []
    for name in ("one", "two"):
        path = tmp_path_factory.mktemp("runs") / name / "best.keras"
        save_model(build_frame_model(input_size=32, weights="none"), path)
        paths.append(path)
    settings = {"options": {"holdout": 1}}
    (paths[1].parent / "run.json").write_text(json.dumps(settings))
    return paths


@pytest.mark.slow
def test_the_score_command(
    two_models: list[Path], small_store: CropStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "deep" / "scores.json"
    arguments = ["score", str(small_store.path), "--swaps", "all", "--fold", "0", "--draws", "50"]
    arguments += [part for path in two_models for part in ("--frame", str(path))]
    arguments += ["--condition", "clean", "--condition", "jpeg 40", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "landmark swap against all real clips: 6 fakes, 6 reals" in result.stdout
    assert "two - one:" in result.stdout
    assert "jpeg 40 - clean:" in result.stdout
    assert "was fitted without fold 1 but judges fold 0" in caplog.text
    stored = json.loads(out.read_text())
    assert {row["condition"] for row in stored["report"]["rows"]} == {"clean", "jpeg 40"}
    assert len(stored["files"]) == 12 * 2 * 2


def test_a_store_or_model_that_is_not_there(two_models: list[Path], tmp_path: Path) -> None:
    for arguments in (
        ["score", str(tmp_path), "--frame", str(two_models[0])],
        ["score", str(tmp_path / "none"), "--frame", str(two_models[0])],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {arguments[1]}: no crop store here")
