"""Fitting in stages: what learns when, what is left of a run, and how it goes on after a break."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.data.store import CropStore
from dfd_training.fitting.frame import fit_frame
from dfd_training.fitting.optimization import set_trainable, stages_of
from dfd_training.fitting.options import FitFrameOptions, LossKind
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.record import FrameEpoch
from dfd_training.fitting.settings import read_settings
from dfd_training.models import backbone_of, build_frame_model, load_frame_model, save_model

PAIRS = PairOptions(input_size=32, turn=4.0)
OPTIONS = FitFrameOptions(
    backbone="meso4",
    epochs=4,
    warmup_epochs=2,
    unfreeze=0.4,
    steps=2,
    batch_size=8,
    validation_pairs=8,
    loss=LossKind.FOCAL,
    patience=4,
    threads=1,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame model to go on from."""
    path = tmp_path_factory.mktemp("start") / "start.keras"
    keras.utils.set_random_seed(5)
    save_model(build_frame_model(backbone="meso4", input_size=32, weights="none"), path)
    return path


@pytest.fixture(scope="module")
def run(small_store: CropStore, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two stages."""
    out = tmp_path_factory.mktemp("run")
    fit_frame(small_store, out, options=_from(start), pairs=PAIRS)
    return out


def _from(start: Path, **changes: object) -> FitFrameOptions:
    return dataclasses.replace(OPTIONS, weights=str(start), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, [("whole", 0, 30, 6e-4, 1.0, False)]),
        ({"freeze_batch_norm": True}, [("whole", 0, 30, 6e-4, 1.0, True)]),
        ({"freeze_batch_norm": True, "weights": "none"}, [("whole", 0, 30, 6e-4, 1.0, False)]),
        ({"unfreeze": 0.3}, [("upper", 0, 30, 6e-4, 0.3, True)]),
        ({"unfreeze": 0.0}, [("head", 0, 30, 3e-3, 0.0, True)]),
        (
            {"warmup_epochs": 5},
            [("head", 0, 5, 3e-3, 0.0, True), ("upper", 5, 25, 6e-4, 1.0, True)],
        ),
    ],
)
def test_the_plan(changes: dict[str, object], wanted: list[tuple[object, ...]]) -> None:
    plan = stages_of(FitFrameOptions(**changes))  # type: ignore[arg-type]
    assert [dataclasses.astuple(stage) for stage in plan] == wanted


@pytest.mark.parametrize(("share", "learning"), [(0.0, 0), (0.3, 3), (1.0, 9)])
def test_the_upper_share_of_the_layers_learns(share: float, learning: int) -> None:
    model = build_frame_model(backbone="meso4", input_size=32, weights="none")
    options = FitFrameOptions(weights="none", unfreeze=share)
    set_trainable(model, stages_of(options)[0])
    backbone = [layer for layer in backbone_of(model).layers if layer.weights]
    assert len(backbone) == 9
    flags = [bool(layer.trainable_weights) for layer in backbone]
    assert flags == [False] * (9 - learning) + [True] * learning
    assert len(model.get_layer("evidence_head").trainable_weights) == 2
    set_trainable(model, stages_of(FitFrameOptions())[0])
    assert all(layer.trainable for layer in backbone), "a stage does not inherit what was frozen"


@pytest.mark.slow
def test_the_lower_layers_stay_as_they_were(run: Path, start: Path) -> None:
    history = pd.read_csv(run / "history.csv")
    assert history["stage"].tolist() == ["head", "head", "upper", "upper"]
    for name in ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"):
        assert history[name].between(0.0, 5.0).all()
    before, after = load_frame_model(start), load_frame_model(run / "last.keras")
    changed = {
        layer.name: any(
            (a != b).any() for a, b in zip(layer.get_weights(), twin.get_weights(), strict=True)
        )
        for layer, twin in zip(backbone_of(before).layers, backbone_of(after).layers, strict=True)
        if layer.weights
    }
    moved = {name for name, different in changed.items() if different}
    names = list(changed)
    norms = {name for name in names if "bn" in name}
    assert len(norms) == 4
    assert moved == set(names[-4:]) - norms, "batch norms keep statistics and scales"
    head = [model.get_layer("evidence_head").get_weights()[0] for model in (before, after)]
    assert (head[0] != head[1]).any()


@pytest.mark.slow
def test_nothing_of_the_augmentation_is_in_the_model(run: Path) -> None:
    model = load_frame_model(run / "best.keras")
    kinds = {type(layer).__name__ for layer in [*model.layers, *backbone_of(model).layers]}
    assert kinds <= {
        *("InputLayer", "Functional", "Rescaling", "EvidenceHead", "Conv2D", "BatchNormalization"),
        *("MaxPooling2D", "Dropout", "LeakyReLU", "ReLU", "Activation"),
    }
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    once, twice = (model.predict(crops, verbose=0)["fake_logit"] for _ in range(2))
    assert (once == twice).all()


@pytest.mark.slow
def test_a_run_tells_how_it_was_made(run: Path, start: Path) -> None:
    kinds = {"fit": FitFrameOptions, "pairs": PairOptions}
    settings = read_settings(run / "settings.toml", kinds)
    assert FitFrameOptions(**settings["fit"]) == _from(start)
    assert PairOptions(**settings["pairs"]) == PAIRS.at_crop_scale(1.5)
    facts = json.loads((run / "run.json").read_text())
    assert facts["options"]["holdout"] == 0
    assert facts["versions"]["keras"] == keras.version()
    assert facts["backend"] == keras.backend.backend()
    assert facts["backend"] in facts["versions"]
    assert set(facts["data"]["sha256"]) == {"index.csv"}
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["processor"]
    assert sorted(path.name for path in run.iterdir()) == [
        *("best.keras", "curves.png", "history.csv", "last.keras", "progress.npz"),
        *("run.json", "settings.toml"),
    ]


class PowerCut(Exception):
    """What ends a run in mid-fit."""


@pytest.mark.slow
def test_a_broken_off_fit_goes_on_as_if_nothing_had_been(
    small_store: CropStore, start: Path, run: Path, tmp_path: Path
) -> None:
    """Broken off in each of the two stages."""
    options, told = _from(start), []

    def until(last: int, *, resume: bool) -> None:
        def cut(row: FrameEpoch) -> None:
            told.append(row.epoch)
            if row.epoch == last:
                raise PowerCut

        fit_frame(small_store, tmp_path, options=options, pairs=PAIRS, resume=resume, on_epoch=cut)

    with pytest.raises(PowerCut):
        until(0, resume=False)
    with pytest.raises(UsageError, match=r"begun with fit\.learning_rate = 0\.0006"):
        other = dataclasses.replace(options, learning_rate=0.1)
        fit_frame(small_store, tmp_path, options=other, pairs=PAIRS, resume=True)
    with pytest.raises(PowerCut):
        until(2, resume=True)
    until(9, resume=True)
    assert told == [0, 1, 2, 3], "what was done is not done again"
    histories = [pd.read_csv(folder / "history.csv") for folder in (run, tmp_path)]
    numbers = ["loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"]
    np.testing.assert_allclose(histories[0][numbers], histories[1][numbers], atol=1e-5)
    for name in ("best.keras", "last.keras"):
        both = [load_frame_model(folder / name).get_weights() for folder in (run, tmp_path)]
        for whole, cut_off in zip(*both, strict=True):
            np.testing.assert_allclose(whole, cut_off, atol=1e-6)
    until(0, resume=True)
    assert told == [0, 1, 2, 3], "nor is a fit that is finished"


@pytest.mark.slow
def test_the_command_line_goes_before_the_file(small_store: CropStore, tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "run"
    file.write_text(
        "[fit]\nbackbone = 'meso4'\nweights = 'none'\nepochs = 9\nsteps = 1\nbatch_size = 4\n"
        "validation_pairs = 3\nvalidate_on = 'clips'\nlearning_rate = 0.02\n[pairs]\n"
        "input_size = 64\nturn = 2\n"
    )
    command = ["fit", "frame", str(small_store.path), "--out", str(out), "--settings", str(file)]
    command += ["--epochs", "1", "--input-size", "32", "--fit", "learning_rate=0.01"]
    result = CliRunner().invoke(main, [*command, "--pairs", "codec_share=0"])
    assert result.exit_code == 0, result.output
    assert "epoch 1/1 (whole): loss" in result.output
    read = read_settings(out / "settings.toml", {"fit": FitFrameOptions, "pairs": PairOptions})
    fit, pairs = FitFrameOptions(**read["fit"]), PairOptions(**read["pairs"])
    assert (fit.epochs, fit.steps, fit.learning_rate) == (1, 1, 0.01)
    assert fit.validate_on == "clips"
    assert (pairs.input_size, pairs.turn, pairs.codec_share) == (32, 2.0, 0.0)
    resumed = CliRunner().invoke(
        main, ["fit", "frame", str(small_store.path), "--out", str(out), "--resume"]
    )
    assert resumed.exit_code == 0, resumed.output
    assert "epoch" not in resumed.stdout, "a run that is finished has its settings by itself"


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["fit", "frame", "store", "--out", str(tmp_path), "--unfreeze", "some"]
    )
    assert result.exit_code == 2
    assert "'some' is neither a share of 0 to 1 nor all nor none" in result.stderr
