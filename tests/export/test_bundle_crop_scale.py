"""The crop scale on its way from model files into the manifest, and into the runtime's crops."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.judging.results import FrameResult
from dfd_export.bundles.bundle_writer import write_bundle
from dfd_export.cli import main
from dfd_training.models import (
    build_frame_model,
    build_sequence_model,
    load_frame_model,
    save_model,
    with_crop_scale,
)
from tiny_bundle import CARD, DECISION, make_crops, make_info

SIZE = 32
SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"

pytestmark = pytest.mark.usefixtures("quick_gate")


def _models() -> tuple[keras.Model, keras.Model]:
    keras.utils.set_random_seed(3)
    frame = build_frame_model(backbone="custom_cnn", input_size=SIZE, weights="none")
    return frame, build_sequence_model(feature_width=128, head="mean")


def _export(folder: Path, scales: tuple[float | None, float | None], *options: str) -> Result:
    """Runs `dfd-export bundle` on a frame and a sequence model that carry these crop scales."""
    for name, model, scale in zip(("frame", "sequence"), _models(), scales, strict=True):
        saved = model if scale is None else with_crop_scale(model, scale)
        save_model(saved, folder / f"{name}.keras")
    np.save(folder / "crops.npy", make_crops(4, SIZE))
    (folder / "decision.json").write_text(DECISION.to_json(), "utf-8")
    (folder / "card.json").write_text(CARD.to_json(), "utf-8")
    arguments = ["bundle", "frame.keras", "sequence.keras", "--crops", "crops.npy"]
    arguments += ["--decision", "decision.json", "--card", "card.json", "--out", "out"]
    paths = [str(folder / a) if "." in a or a == "out" else a for a in arguments]
    return CliRunner().invoke(main, [*paths, *options])


def test_a_bundle_cuts_as_its_models_were_fitted(tmp_path: Path) -> None:
    result = _export(tmp_path, (1.3, 1.3))
    assert result.exit_code == 0, result.output
    assert "carries no crop scale" not in result.output
    bundle = tmp_path / "out"
    assert Bundle.load(bundle).manifest.frame.crop_scale == 1.3
    results: list[FrameResult] = []
    Detector.load(bundle, provider="cpu").analyze(SAMPLE, on_frame=results.append)
    people = [person for result in results for person in result.people]
    assert people
    for person in people:
        box = person.box
        face = max(box[2] - box[0], box[3] - box[1])
        assert person.crop[2] == pytest.approx(1.3 * face, abs=1.0)


def test_a_model_without_a_crop_scale_is_said_to_have_none(tmp_path: Path) -> None:
    result = _export(tmp_path, (None, None))
    assert result.exit_code == 0, result.output
    said = "frame.keras carries no crop scale: 1.5 times the face is taken; --crop-scale gives"
    assert said in result.output
    assert Bundle.load(tmp_path / "out").manifest.frame.crop_scale == 1.5


def test_the_crop_scale_of_a_model_without_one_can_be_given(tmp_path: Path) -> None:
    result = _export(tmp_path, (None, None), "--crop-scale", "1.4")
    assert result.exit_code == 0, result.output
    assert "carries no crop scale" not in result.output
    assert Bundle.load(tmp_path / "out").manifest.frame.crop_scale == 1.4


@pytest.mark.parametrize(
    ("scales", "options", "message"),
    [
        ((1.3, 1.5), (), "sequence_mean was fitted on crops of 1.5 times the face, the bundle wou"),
        ((None, 1.3), ("--crop-scale", "1.5"), "sequence_mean was fitted on crops of 1.3 times"),
        ((1.3, 1.3), ("--crop-scale", "1.5"), "which fixes --crop-scale: leave it out"),
    ],
)
def test_models_that_were_cut_differently_make_no_bundle(
    tmp_path: Path, scales: tuple[float | None, float], options: tuple[str, ...], message: str
) -> None:
    result = _export(tmp_path, scales, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_not_written_with_another_scale_than_its_models(tmp_path: Path) -> None:
    frame, sequence = _models()
    with pytest.raises(UsageError, match=r"frame_custom_cnn .* crops of 1\.3 .* them at 1\.5: exp"):
        write_bundle(
            with_crop_scale(frame, 1.3),
            sequence,
            out=tmp_path / "out",
            info=dataclasses.replace(make_info(), crop_scale=1.5),
            crops=make_crops(2, SIZE),
        )


def test_a_scale_that_only_the_sequence_model_carries_is_taken(tmp_path: Path) -> None:
    result = _export(tmp_path, (None, 1.3))
    assert result.exit_code == 0, result.output
    assert Bundle.load(tmp_path / "out").manifest.frame.crop_scale == 1.3


def test_a_model_of_crops_that_the_runtime_cannot_cut_makes_no_bundle(tmp_path: Path) -> None:
    frame, sequence = _models()
    save_model(with_crop_scale(frame, 1.3, detector="dlib_hog"), tmp_path / "frame.keras")
    carried = load_frame_model(tmp_path / "frame.keras")
    with pytest.raises(UsageError, match=r"its crops were cut by dlib_hog, the runtime cuts faces"):
        write_bundle(
            carried,
            sequence,
            out=tmp_path / "out",
            info=dataclasses.replace(make_info(), crop_scale=1.3),
            crops=make_crops(2, SIZE),
        )
    assert not (tmp_path / "out").exists()
