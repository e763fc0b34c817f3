"""Fitting: what batches hold, what is refused, and that a head learns from whole clips."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.data.folds import training_rows
from dfd_training.data.store import CropStore
from dfd_training.fitting.frame import fit_frame
from dfd_training.fitting.optimization import WeightAverage
from dfd_training.fitting.options import Balance, FitFrameOptions, Media
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.fitting.record import draw_curves
from dfd_training.fitting.settings import read_settings
from dfd_training.fitting.sources import FrameBatches, PairSource, only_media
from dfd_training.models import load_sequence_model
from dfd_training.sequence.fit import _FoldFit, fit_sequence
from dfd_training.sequence.out_of_fold import read_out_of_fold, score_sequences
from dfd_training.sequence.sequences import ClipSequence, Treatment, list_tracks
from dfd_training.sequence.windows import FitSequenceOptions, WindowBatches, pad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 7}, "must be even"),
        ({"epochs": 0}, "epochs is 0"),
        ({"validation_pairs": -1}, "validation_pairs is -1"),
        ({"epochs": 3, "warmup_epochs": 4}, "warmup_epochs is 4; 0 to 3"),
        ({"unfreeze": 1.5}, "unfreeze is 1.5; 0 to 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; more than 0"),
        ({"focal_gamma": -1.0}, "focal_gamma is -1.0; 0 or more"),
        ({"consistency": 0.1, "balance": Balance.CLASS_WEIGHTS}, "needs balance=pairs"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FitFrameOptions(**changes)


def test_a_finished_run_is_not_overwritten(small_store: CropStore, tmp_path: Path) -> None:
    (tmp_path / "last.keras").write_bytes(b"")
    with pytest.raises(UsageError, match="holds a run already: give --resume"):
        fit_frame(small_store, tmp_path)


def test_a_fold_that_does_not_exist_is_refused(small_store: CropStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fold 4 does not exist"):
        fit_frame(small_store, tmp_path, options=FitFrameOptions(holdout=4))


def test_a_batch_is_half_real_half_fake_and_always_the_same(small_store: CropStore) -> None:
    sampler = PairSampler(small_store, small_store.index, PairOptions(input_size=48))

    def batch(epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        source = PairSource(sampler)
        batches = FrameBatches(source, epoch=epoch, steps=2, batch_size=6, seed=1, threads=1)
        assert len(batches) == 2
        return batches[1]

    crops, labels, weights = batch(0)
    assert crops.shape == (6, 48, 48, 3)
    assert weights.tolist() == [1.0] * 6
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (batch(0)[0] == crops).all()
    assert (batch(1)[0] != crops).any()


def test_training_rows_leave_val_out_and_keep_groups_whole(small_store: CropStore) -> None:
    rows = training_rows(small_store)
    assert set(rows["split"]) == {"train"}
    assert (rows.groupby("group")["fold"].nunique() == 1).all()
    pairs = rows[rows["label"] == "FAKE"].merge(
        rows[["path", "fold"]], left_on="original", right_on="path"
    )
    assert (pairs["fold_x"] == pairs["fold_y"]).all(), "a fake lies in its original's fold"


def test_photographs_and_clips_are_told_apart(small_store: CropStore) -> None:
    rows = small_store.index
    assert set(only_media(rows, Media.PHOTOGRAPHS)["source"]) == {"photographs"}
    assert set(only_media(rows, Media.CLIPS)["source"]) == {"clips"}
    assert len(only_media(rows, Media.ALL)) == len(rows)


def test_averaged_weights_follow() -> None:
    class Model:
        value = 0.0

        def get_weights(self) -> list[np.ndarray]:
            return [np.full(3, self.value, np.float32)]

    model, average = Model(), WeightAverage(0.9)
    average.set_model(model)
    average.on_train_batch_end(0)
    model.value = 1.0
    average.on_train_batch_end(1)
    assert average.weights is not None
    assert average.weights[0].tolist() == [0.0] * 3, "only every tenth batch counts"
    average.on_train_batch_end(10)
    assert average.weights[0] == pytest.approx(0.1)


def test_tracks_of_clips_only(small_store: CropStore) -> None:
    tracks = list_tracks(small_store)
    assert len(tracks) == 12
    assert all(len(track.positions) >= 4 for track in tracks)


def sequence(number: int, *, fake: bool, length: int) -> ClipSequence:
    """Features of noise, with the label in how the third one changes over time."""
    rng = np.random.default_rng((number, fake))
    features = rng.normal(0, 0.3, (length, 6)).astype(np.float32)
    features[:, 2] += np.where(np.arange(length) % 2 == 0, 1.0, -1.0) if fake else 0.0
    return ClipSequence(
        path=f"{number}-{fake}",
        group=f"g{number}",
        source=f"s{number % 2}",
        fold=number % 3,
        variant=Treatment.PLAIN,
        fake=fake,
        true_fake=fake,
        features=features,
        frame_logit=rng.normal(size=length).astype(np.float32),
        detail=np.full(length, 100.0, np.float32),
        face_px=np.full(length, 90.0, np.float32),
    )


@pytest.fixture(scope="module")
def sequences() -> list[ClipSequence]:
    return [
        sequence(number, fake=fake, length=6 + number)
        for number in range(24)
        for fake in (False, True)
    ]


def test_windows_are_balanced_padded_and_masked(sequences: list[ClipSequence]) -> None:
    options = FitSequenceOptions(batch_size=16, max_steps=12)
    inputs, labels, weights = WindowBatches(sequences, options, epoch=0)[0]
    assert inputs["features"].shape == (16, 12, 6)
    assert labels[:, 0].tolist() == [0.0, 1.0] * 8
    assert (weights == inputs["mask"]).all()
    lengths = inputs["mask"].sum(axis=1)
    assert lengths.min() >= 4
    assert len(set(lengths.tolist())) > 3, "windows are of random length"
    assert (inputs["features"][~inputs["mask"]] == 0).all()
    assert (np.diff(inputs["mask"].astype(int), axis=1) <= 0).all(), "padding comes last"


def test_padding() -> None:
    stacked, mask = pad([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)], 5)
    assert stacked.sum(axis=(1, 2)).tolist() == [6.0, 12.0]
    assert mask.sum(axis=1).tolist() == [2, 4]


@pytest.mark.slow
def test_a_head_learns_what_only_time_shows(sequences: list[ClipSequence], tmp_path: Path) -> None:
    """Frame by frame the classes have the same mean; the head must find the flicker."""
    options = FitSequenceOptions(epochs=12, steps=15, batch_size=16, max_steps=16, patience=12)
    result = fit_sequence(sequences, tmp_path, crop_scale=1.5, options=options)
    assert sorted(result.fold_auc) == [0, 1, 2]
    assert np.mean(list(result.fold_auc.values())) > 0.85
    logits = read_out_of_fold(tmp_path, sequences)
    assert [len(part) for part in logits] == [len(s.frame_logit) for s in sequences]
    history = pd.read_csv(tmp_path / "history_fold0.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["auc"].iloc[-1] > history["auc"].iloc[0]
    assert history[["accuracy", "val_accuracy"]].to_numpy().min() > 0.0
    assert (tmp_path / "curves_fold0.png").stat().st_size > 1000
    settings = read_settings(tmp_path / "settings.toml", {"fit": FitSequenceOptions})
    assert FitSequenceOptions(**settings["fit"]) == options
    assert json.loads((tmp_path / "run.json").read_text())["data"]["sequences"] == len(sequences)
    with pytest.raises(UsageError, match="these scores are of other"):
        read_out_of_fold(tmp_path, sequences[:-1])


@pytest.mark.slow
def test_a_broken_off_fit_goes_on_and_its_heads_score_other_precisions(
    sequences: list[ClipSequence], tmp_path: Path
) -> None:
    options = FitSequenceOptions(
        head="gru_small", epochs=2, steps=2, batch_size=8, max_steps=10, patience=9
    )
    fit_sequence(sequences, tmp_path / "whole", crop_scale=1.5, options=options)
    whole = read_out_of_fold(tmp_path / "whole", sequences)

    class PowerCut(Exception):
        pass

    def cut(fold: int, row: dict[str, float]) -> None:
        if (fold, row["epoch"]) == (1, 0.0):
            raise PowerCut

    out = tmp_path / "cut"
    with pytest.raises(PowerCut):
        fit_sequence(sequences, out, crop_scale=1.5, options=options, on_epoch=cut)
    told: list[tuple[int, float]] = []
    fit_sequence(
        sequences,
        out,
        crop_scale=1.5,
        options=options,
        resume=True,
        on_epoch=lambda fold, row: told.append((fold, row["epoch"])),
    )
    assert told == [(1, 1.0), (2, 0.0), (2, 1.0)], "what was done is not done again"
    for before, after in zip(whole, read_out_of_fold(out, sequences), strict=True):
        assert (before == after).all()
    assert not list(out.glob("*progress*"))
    left = _FoldFit([{"val_auc": 1.0}], [[np.zeros(2)]], [np.zeros(3, np.float32)])
    left.save(tmp_path / "left.npz", "one fit")
    assert _FoldFit.load(tmp_path / "left.npz", "one fit").history == [{"val_auc": 1.0}]
    assert not _FoldFit.load(tmp_path / "left.npz", "another fit").history

    # Another precision: nearly the same features and frame logits. The heads score them anew.
    rounded = [
        dataclasses.replace(s, features=s.features + 0.25, frame_logit=s.frame_logit + 0.01)
        for s in sequences
    ]
    logits = read_out_of_fold(out, rounded)
    head = load_sequence_model(out / "head2.keras")
    row = next(i for i, s in enumerate(sequences) if s.fold == 2)
    (wanted,) = score_sequences(head, [rounded[row]])
    np.testing.assert_allclose(logits[row], wanted, atol=1e-5)
    assert np.abs(logits[row] - whole[row]).max() > 1e-3
    strange = [dataclasses.replace(s, frame_logit=-s.frame_logit) for s in sequences]
    with pytest.raises(UsageError, match="these scores are of other frame models"):
        read_out_of_fold(out, strange)


def test_a_made_fake_goes_with_a_real_clip_at_such_times() -> None:
    """Else the distance between two steps would tell the fakes of generators."""
    real, blended = (sequence(0, fake=fake, length=12) for fake in (False, True))
    made = dataclasses.replace(blended, variant=Treatment.MADE, true_fake=False)
    matched = dataclasses.replace(real, variant=Treatment.MATCHED, features=real.features[::3])
    marked = [
        dataclasses.replace(s, features=np.full_like(s.features, mark))
        for s, mark in ((real, 1.0), (matched, 2.0), (blended, 3.0), (made, 4.0))
    ]
    options = FitSequenceOptions(batch_size=16, max_steps=12)
    inputs, _, _ = WindowBatches(marked, options, epoch=0)[0]
    marks = inputs["features"][:, 0, 0].reshape(-1, 2).tolist()
    assert sorted(set(map(tuple, marks))) == [(1.0, 3.0), (2.0, 4.0)]


def test_folds_without_both_kinds_are_refused(
    sequences: list[ClipSequence], tmp_path: Path
) -> None:
    cases = [
        ([s for s in sequences if s.fold != 1 or s.fake], "fold 1 has 0 real and 8 fake clips"),
        ([s for s in sequences if s.fold != 0], r"folds \[1, 2\]: fold 0 and another are needed"),
        ([], r"folds \[\]"),
    ]
    for some, message in cases:
        with pytest.raises(UsageError, match=message):
            fit_sequence(some, tmp_path, crop_scale=1.5)


def test_settings_of_the_sequence_model_are_read_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.toml"
    command = ["fit", "sequence", "store", "--frame", "x", "--out", str(tmp_path / "run")]
    command += ["--settings", str(file)]
    for text, options, message in (
        ("[fit]\nheads = 'gru'", [], "fit.heads is unknown; known in [fit]: head, epochs"),
        ("[fit]\nhead = 'gruu'", [], "head 'gruu' is unknown; known are attention"),
        ("[fit]\nhead = 'gruu'", ["--head", "gru"], "store: no crop store here"),
        ("[fit]\nsteps = 3", ["--fit", "steps=0"], "steps is 0; 1 or more"),
    ):
        file.write_text(text)
        result = CliRunner().invoke(main, [*command, *options])
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("epochs", [1, 2, 3, 12])
def test_curves_have_whole_epochs_on_their_axis(epochs: int) -> None:
    columns = [f"{part}{name}" for part in ("", "val_") for name in ("loss", "accuracy", "auc")]
    history = pd.DataFrame({"epoch": range(epochs), **dict.fromkeys(columns, 0.5)})
    figure = draw_curves(history)
    FigureCanvasAgg(figure).draw()  # places the ticks
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "Accuracy", "AUC"]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        shown = [
            label.get_text()
            for label in axes.get_xticklabels()
            if low <= label.get_position()[0] <= high
        ]
        assert str(epochs) in shown or epochs > 10
        assert all(text.isdigit() for text in shown)
        assert len(shown) == len(set(shown))
        assert list(axes.get_lines()[0].get_xdata()) == list(range(1, epochs + 1))
