"""The signals head: fitted in closed form on clips, and scored out of fold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES
from dfd_edge.inference.session import Session
from dfd_training.calibration.calibrate import calibrate
from dfd_training.cli import main
from dfd_training.data.store import CropStore
from dfd_training.models import (
    build_frame_model,
    load_sequence_model,
    read_logit_layer,
    save_model,
    with_crop_scale,
)
from dfd_training.sequence import cli
from dfd_training.sequence.fit import fit_sequence
from dfd_training.sequence.out_of_fold import read_out_of_fold
from dfd_training.sequence.sequences import ClipSequence, Treatment
from dfd_training.sequence.signals_head import fit_signals_head, ships_another_frame_model
from dfd_training.sequence.windows import FitSequenceOptions
from small_bundle import FEATURES, SIZE, build_small_bundle

FOLDS = 3


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Frame models of the folds: small, random, and each another."""
    folder = tmp_path_factory.mktemp("frames")
    paths = []
    for fold in range(FOLDS + 1):
        keras.utils.set_random_seed(fold)
        model = build_frame_model(backbone="meso4", weights="none", input_size=32)
        paths.append(folder / f"frame{fold}.keras")
        save_model(with_crop_scale(model, 1.5), paths[-1])
    return paths


def clip(
    rng: np.random.Generator, number: int, family: str, frame: Path, **changes: object
) -> ClipSequence:
    """A clip of eight steps; each family lowers a signal of its own."""
    steps = 8
    kernel, bias = read_logit_layer(frame)
    features = rng.normal(size=(steps, len(kernel))).astype(np.float32)
    signals = rng.normal(2.0, 0.3, (steps, len(NAMES))).astype(np.float32)
    if family:
        signals[:, {"smooth": 0, "rough": 1}[family]] -= 6.0
    measured = np.arange(steps) % 4 > 0
    return dataclasses.replace(
        ClipSequence(
            path=f"{number}{family}",
            group=f"g{number}",
            source="s",
            fold=number % FOLDS,
            variant=Treatment.PLAIN,
            fake=bool(family),
            true_fake=bool(family),
            generator=family,
            family=family,
            features=features,
            frame_logit=(features @ kernel + bias)[:, 0],
            detail=np.full(steps, 100.0, np.float32),
            face_px=np.full(steps, 90.0, np.float32),
            signals=np.where(measured[:, None], signals, np.float32(0)),
            measured=measured,
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def clips(frames: list[Path]) -> list[ClipSequence]:
    rng = np.random.default_rng(0)
    return [
        clip(rng, number, family, frames[number % FOLDS])
        for number in range(30)
        for family in ("", "", "smooth", "rough")
    ]


@pytest.fixture(scope="module")
def run(clips: list[ClipSequence], frames: list[Path], tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    fit_signals_head(clips, out, frames=frames[:FOLDS], crop_scale=1.5)
    return out


def weights_of(path: Path) -> dict[str, NDArray[np.float32]]:
    return {v.path: np.asarray(v.numpy()) for v in load_sequence_model(path).weights}


def decayed_mean(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.tril(
        0.8 ** np.abs(np.subtract.outer(np.arange(len(logits)), np.arange(len(logits))))
    )
    return (powers @ logits) / powers.sum(axis=1)


def test_left_out_clips_are_told_apart_by_their_signals(
    run: Path, clips: list[ClipSequence]
) -> None:
    logits = read_out_of_fold(run, clips)
    fake = [sequence.fake for sequence in clips]
    pictures = [decayed_mean(sequence.frame_logit) for sequence in clips]
    votes = [part - picture for part, picture in zip(logits, pictures, strict=True)]
    areas = [
        roc_auc_score(fake, [part.mean() for part in parts]) for parts in (pictures, logits, votes)
    ]
    assert areas[0] < 0.6, "the pictures say nothing"
    assert areas[0] + 0.05 < areas[1] < areas[2]
    assert areas[2] > 0.95
    assert calibrate(clips, logits, draws=20).decision.person_score is PersonScore.SEQUENCE


def test_the_picture_s_part_is_the_frame_model_s_own_logit(
    run: Path, clips: list[ClipSequence]
) -> None:
    for fold in range(FOLDS):
        head = load_sequence_model(run / f"head{fold}.keras")
        value = weights_of(run / f"head{fold}.keras")
        sequence = next(sequence for sequence in clips if sequence.fold == fold)
        steps = len(sequence.features)
        logits = head(
            {
                "features": sequence.features[:, None],
                "signals": sequence.signals[:, None],
                "measured": np.zeros((steps, 1), np.float32),
                "mask": np.ones((steps, 1), bool),
            }
        )
        absent = value["vote/weight"][0] * value["probes/absent"][0]
        np.testing.assert_allclose(
            np.asarray(logits)[:, 0] - absent, sequence.frame_logit, atol=1e-5
        )


def test_weight_and_absent_are_those_of_the_clips(run: Path, clips: list[ClipSequence]) -> None:
    value = weights_of(run / "sequence.keras")
    means = np.array([sequence.signals[sequence.measured].mean(0) for sequence in clips])
    z = np.clip((means - value["probes/mean"]) / value["probes/scale"], -4, 4)
    scores = 2 * np.log(np.exp((z @ value["probes/kernel"] + value["probes/bias"]) / 2).mean(1))
    pictures = np.array([sequence.frame_logit.mean() for sequence in clips])
    fake = np.array([sequence.fake for sequence in clips])
    assert value["vote/weight"][0] == pytest.approx(0.5 * pictures.std() / scores.std(), rel=1e-4)
    middle = (scores[fake].mean() + scores[~fake].mean()) / 2
    np.testing.assert_allclose(value["probes/absent"], middle, rtol=1e-3)
    record = json.loads((run / "run.json").read_text())["data"]
    assert record["families"] == ["rough", "smooth"]
    assert (record["with_signals"], record["weight"]) == (120, pytest.approx(value["vote/weight"]))


def test_a_fold_has_no_say_in_its_own_probes_but_in_those_that_ship(
    run: Path, clips: list[ClipSequence], frames: list[Path], tmp_path: Path
) -> None:
    others = [
        dataclasses.replace(sequence, signals=-sequence.signals) if sequence.fold == 0 else sequence
        for sequence in clips
    ]
    fit_signals_head(others, tmp_path, frames=frames[:FOLDS], crop_scale=1.5)
    for name, same in (("head0", True), ("head1", False), ("sequence", False)):
        before, after = (
            weights_of(folder / f"{name}.keras")["probes/kernel"] for folder in (run, tmp_path)
        )
        assert np.array_equal(before, after) is same


def test_the_head_ships_with_the_frame_model_that_is_named(
    run: Path, clips: list[ClipSequence], frames: list[Path], tmp_path: Path
) -> None:
    fit_signals_head(clips, tmp_path, frames=frames[:FOLDS], shipped=frames[FOLDS], crop_scale=1.5)
    before, after = (weights_of(folder / "sequence.keras") for folder in (run, tmp_path))
    np.testing.assert_array_equal(before["logit/kernel"], read_logit_layer(frames[0])[0])
    np.testing.assert_array_equal(after["logit/kernel"], read_logit_layer(frames[FOLDS])[0])
    np.testing.assert_array_equal(before["probes/kernel"], after["probes/kernel"])
    assert not ships_another_frame_model(run)
    assert ships_another_frame_model(tmp_path)


def test_copies_without_signals_and_synthesised_fakes_are_scored_and_not_fitted_on(
    run: Path, clips: list[ClipSequence], frames: list[Path], tmp_path: Path
) -> None:
    first = clips[0]
    nothing = {
        "signals": np.zeros_like(first.signals),
        "measured": np.zeros_like(first.measured),
    }
    more = [
        *clips,
        dataclasses.replace(first, variant=Treatment.DEGRADED, **nothing),
        dataclasses.replace(
            first, variant=Treatment.SYNTHESISED, fake=True, generator="self blend"
        ),
    ]
    fit_signals_head(more, tmp_path, frames=frames[:FOLDS], crop_scale=1.5)
    before, after = (weights_of(folder / "sequence.keras") for folder in (run, tmp_path))
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    logits = read_out_of_fold(tmp_path, more)
    assert [len(part) for part in logits] == [8] * len(more)
    assert np.isfinite(np.concatenate(logits)).all()


def test_another_precision_is_scored_with_its_own_features(
    run: Path, clips: list[ClipSequence]
) -> None:
    rounded = [
        dataclasses.replace(
            sequence,
            features=sequence.features + np.float32(0.01),
            frame_logit=sequence.frame_logit + np.float32(0.01),
        )
        for sequence in clips
    ]
    before, after = read_out_of_fold(run, clips), read_out_of_fold(run, rounded)
    change = np.concatenate(after) - np.concatenate(before)
    assert 0 < np.abs(change).max() < 1.0


def test_what_cannot_be_fitted_is_refused(
    clips: list[ClipSequence], frames: list[Path], tmp_path: Path
) -> None:
    def fit(sequences: list[ClipSequence], order: list[Path]) -> None:
        fit_signals_head(sequences, tmp_path, frames=order, crop_scale=1.5)

    with pytest.raises(UsageError, match=r"its logits are up to .* away"):
        fit(clips, frames[1 : FOLDS + 1])
    bare = [dataclasses.replace(s, measured=np.zeros_like(s.measured)) for s in clips]
    with pytest.raises(UsageError, match="signals of 0 real clips and of 0 fakes"):
        fit(bare, frames[:FOLDS])
    with pytest.raises(UsageError, match="both kinds are needed in every fold"):
        fit([s for s in clips if not s.fake or s.fold], frames[:FOLDS])
    with pytest.raises(UsageError, match="call fit_signals_head"):
        fit_sequence(clips, tmp_path, crop_scale=1.5, options=FitSequenceOptions(head="signals"))
    with pytest.raises(UsageError, match=r"known are attention, .* signals"):
        FitSequenceOptions(head="transformer")


def test_the_command_fits_it(
    clips: list[ClipSequence],
    frames: list[Path],
    run: Path,
    small_store: CropStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "out_of_fold_sequences", lambda *_, **__: {"fp32": clips})
    order = [word for path in frames[:FOLDS] for word in ("--frame", str(path))]
    words = ["fit", "sequence", str(small_store.path), *order, "--out", str(tmp_path)]
    shipped = ["--shipped", str(frames[0])]
    done = CliRunner().invoke(main, [*words, "--head", "signals", *shipped])
    assert done.exit_code == 0, done.output
    assert "clip AUC by fold: 0: " in done.output
    before, after = (weights_of(folder / "sequence.keras") for folder in (run, tmp_path))
    np.testing.assert_array_equal(before["vote/weight"], after["vote/weight"])
    refused = CliRunner().invoke(main, [*words, "--head", "mean", *shipped])
    assert "--shipped is for --head signals" in str(refused.output) + str(refused.exception)


@pytest.mark.parametrize("exported", [True, False])
def test_the_logit_layer_of_a_bundle_s_graph_is_found(
    exported: bool, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tiny_bundle if exported else build_small_bundle(tmp_path / "bundle")
    size, width = (64, 1280) if exported else (SIZE, FEATURES)
    kernel, bias = read_logit_layer(folder)
    assert (kernel.shape, bias.shape) == ((width, 1), (1,))
    crops = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    outputs = Session.open(Bundle.load(folder), provider="cpu").run_frame(crops)
    logits = (outputs.features @ kernel + bias)[:, 0]
    np.testing.assert_allclose(logits, outputs.fake_logit, atol=1e-4)
