"""The crop scale on its way from the store to the models, and what is refused on each border."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from click.testing import CliRunner

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.faces import FaceDetector, crop_region, extract_crop
from dfd_training.augment.jitter import NO_JITTER, draw_jitter, to_input, work_crop
from dfd_training.cli import main
from dfd_training.data.folds import FOLD_SHARES
from dfd_training.data.prepare import PrepareOptions, prepare
from dfd_training.data.store import CropStore, shard_name
from dfd_training.data.table import read_table
from dfd_training.fitting.frame import fit_frame
from dfd_training.fitting.options import FitFrameOptions
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.models import (
    build_frame_model,
    build_sequence_model,
    crop_scale_of,
    load_frame_model,
    load_sequence_model,
    save_model,
    with_crop_scale,
)
from dfd_training.models.scoring import FrameModel
from dfd_training.sequence.extraction import cached_sequences, extract_sequences
from small_bundle import build_small_bundle

NARROW = 1.3
OPTIONS = FitFrameOptions(
    backbone="custom_cnn",
    weights="none",
    epochs=1,
    steps=1,
    batch_size=4,
    validation_pairs=8,
    threads=1,
)
PAIRS = PairOptions(input_size=32)


def _with_settings(store: CropStore, folder: Path, **changes: float | None) -> CropStore:
    """A copy of a store with other settings; None leaves a setting out."""
    shutil.copytree(store.path, folder)
    path = folder / "store.json"
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return CropStore(folder)


@pytest.fixture(scope="module")
def narrow_store(small_store: CropStore, tmp_path_factory: pytest.TempPathFactory) -> CropStore:
    """The small store, as if it had been prepared with --crop-scale 1.3."""
    folder = tmp_path_factory.mktemp("narrow") / "store"
    return _with_settings(small_store, folder, crop_scale=NARROW)


@pytest.fixture(scope="module")
def narrow_run(narrow_store: CropStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit on the narrow store."""
    out = tmp_path_factory.mktemp("narrow") / "run"
    fit_frame(narrow_store, out, options=OPTIONS, pairs=PAIRS)
    return out


def _frame_file(path: Path, crop_scale: float | None) -> Path:
    model = build_frame_model(backbone="custom_cnn", input_size=32, weights="none")
    save_model(model if crop_scale is None else with_crop_scale(model, crop_scale), path)
    return path


def test_prepare_records_the_scale_that_it_cuts_at(small_data: Path, tmp_path: Path) -> None:
    table = read_table(small_data / "labels.csv").head(1)
    table.to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["prepare", str(tmp_path / "labels.csv"), "--root", str(small_data)]
    arguments += ["--out", str(tmp_path / "store"), "--workers", "1", "--crop-scale", "1.8"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    store = CropStore(tmp_path / "store")
    assert store.crop_scale == store.settings["crop_scale"] == 1.8
    assert store.settings["region_scale"] == pytest.approx(2.64), "room to move the crop"
    image = cv2.imread(str(small_data / table["path"].iloc[0]))
    face = FaceDetector().detect(image)[0]
    wanted = extract_crop(image, crop_region(face.box, 1.8), 160)
    stored = store.crop(shard_name(table["path"].iloc[0]), 0)
    seen = to_input(work_crop(stored, NO_JITTER).image, 160)
    assert np.abs(seen.astype(int) - wanted.astype(int)).mean() < 2.0


def test_a_store_at_the_default_scale_is_cut_as_before(small_store: CropStore) -> None:
    assert (small_store.crop_scale, small_store.settings["region_scale"]) == (1.5, 2.2)


@pytest.mark.parametrize("scale", ["0.4", "2.1"])
def test_scales_without_room_are_refused(scale: str, tmp_path: Path) -> None:
    arguments = ["prepare", "table.csv", "--out", str(tmp_path), "--crop-scale", scale]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "0.5<=x<=2.0" in result.output
    with pytest.raises(UsageError, match=r"out of range; 0\.5 to 2"):
        PrepareOptions(crop_scale=float(scale))


def test_a_store_without_the_field_was_cut_at_one_and_a_half(
    small_data: Path, small_store: CropStore, tmp_path: Path
) -> None:
    old = _with_settings(small_store, tmp_path / "old", crop_scale=None)
    assert "crop_scale" not in json.loads((old.path / "store.json").read_text())
    assert old.crop_scale == old.settings["crop_scale"] == 1.5
    table = read_table(small_data / "labels.csv").head(1)
    with pytest.raises(UsageError, match=r"made with crop_scale 1\.5, not 1\.3: give another"):
        prepare(table, small_data, old.path, options=PrepareOptions(crop_scale=NARROW))
    assert prepare(table, small_data, old.path) == {"done": 1}, "an old store can be gone on with"


def test_pairs_are_cut_at_the_scale_of_their_store(
    small_store: CropStore, narrow_store: CropStore
) -> None:
    row = small_store.index.iloc[0]
    for store in (small_store, narrow_store):
        stored = store.crop(str(row["shard"]), int(row["position"]))
        jitter = dataclasses.replace(draw_jitter(np.random.default_rng(0)), scale=1.0, turn=0.0)
        face = float(max(stored.box[2:] - stored.box[:2]))
        assert work_crop(stored, jitter).image.shape[0] == round(face * store.crop_scale)
    sampler = PairSampler(narrow_store, narrow_store.index, PAIRS)
    assert (sampler.options.closest, sampler.options.widest) == (NARROW, NARROW)
    wide = PairSampler(narrow_store, narrow_store.index, PairOptions(widest=1.6))
    assert (wide.options.closest, wide.options.widest) == (NARROW, 1.6)


def test_a_fit_hands_the_scale_on(narrow_run: Path) -> None:
    for name in ("best.keras", "last.keras"):
        assert crop_scale_of(load_frame_model(narrow_run / name)) == NARROW
    assert (
        json.loads((narrow_run / "run.json").read_text())["data"]["store"]["crop_scale"] == NARROW
    )
    assert "closest = 1.3\nwidest = 1.3\n" in (narrow_run / "settings.toml").read_text()


def test_a_run_is_not_resumed_on_a_store_of_another_scale(
    small_store: CropStore, narrow_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(narrow_run, tmp_path / "run"))
    with pytest.raises(UsageError, match=r"begun with crop scale 1\.3, that of .* is 1\.5"):
        fit_frame(small_store, run, options=OPTIONS, pairs=PAIRS, resume=True)


def test_weights_of_another_scale_are_refused_unless_told(
    small_store: CropStore, narrow_store: CropStore, tmp_path: Path
) -> None:
    old = _frame_file(tmp_path / "old.keras", None)
    narrow = _frame_file(tmp_path / "narrow.keras", NARROW)
    bundle = build_small_bundle(tmp_path / "bundle")
    shipped = Bundle.load().manifest.frame.crop_scale
    for store, weights, before, now in (
        (small_store, narrow, "1.3", "1.5"),
        (narrow_store, old, "1.5", "1.3"),
        (narrow_store, bundle, "1.5", "1.3"),
        (narrow_store, "shipped", f"{shipped:g}", "1.3"),
    ):
        options = dataclasses.replace(OPTIONS, weights=str(weights))
        with pytest.raises(UsageError, match=rf"crops of {before} times .* is {now}: prepare"):
            fit_frame(store, tmp_path / "run", options=options, pairs=PAIRS)
    options = dataclasses.replace(OPTIONS, weights=str(narrow), other_crop_scale=True)
    best = fit_frame(small_store, tmp_path / "told", options=options, pairs=PAIRS)
    assert crop_scale_of(load_frame_model(best)) == 1.5


def test_widths_of_pairs_include_the_scale(narrow_store: CropStore, tmp_path: Path) -> None:
    pairs = dataclasses.replace(PAIRS, closest=1.4, widest=1.6)
    with pytest.raises(UsageError, match=r"crops of 1\.4 to 1\.6 faces .* leave out .*, 1\.3,"):
        fit_frame(narrow_store, tmp_path, options=OPTIONS, pairs=pairs)


def test_a_model_keeps_its_scale_when_it_is_saved_and_loaded(tmp_path: Path) -> None:
    frame = build_frame_model(backbone="custom_cnn", input_size=32, weights="none")
    sequence = build_sequence_model(feature_width=128, head="mean")
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    before = frame.predict(crops, verbose=0)
    for name, model, load in (
        ("frame.keras", frame, load_frame_model),
        ("sequence.keras", sequence, load_sequence_model),
    ):
        assert crop_scale_of(model) is None
        save_model(with_crop_scale(model, NARROW), tmp_path / name)
        loaded = load(tmp_path / name)
        assert crop_scale_of(loaded) == NARROW
        loaded.save(tmp_path / "again.keras")
        assert crop_scale_of(load(tmp_path / "again.keras")) == NARROW
        assert crop_scale_of(keras.saving.load_model(tmp_path / "again.keras")) == NARROW
    after = load_frame_model(tmp_path / "frame.keras").predict(crops, verbose=0)
    for output, values in before.items():
        np.testing.assert_array_equal(after[output], values)


def test_frame_models_say_what_they_take(
    small_store: CropStore, narrow_store: CropStore, tmp_path: Path
) -> None:
    old, narrow = _frame_file(tmp_path / "old.keras", None), _frame_file(tmp_path / "n.keras", 1.3)
    bundle = build_small_bundle(tmp_path / "bundle")
    assert [FrameModel.find(path).crop_scale for path in (old, narrow, bundle)] == [1.5, 1.3, 1.5]
    assert FrameModel.find(narrow, store=narrow_store).crop_scale == NARROW
    for path, store, message in (
        (narrow, small_store, r"n\.keras: takes crops of 1\.3 times the face, .* is 1\.5: prepare"),
        (old, narrow_store, r"old\.keras: takes crops of 1\.5 times the face, .* is 1\.3: prepare"),
        (bundle, narrow_store, r"takes crops of 1\.5 times the face, .* is 1\.3: prepare a store"),
    ):
        with pytest.raises(UsageError, match=message):
            FrameModel.find(path, store=store)


def test_sequences_are_not_taken_from_a_store_of_another_scale(
    small_store: CropStore, narrow_store: CropStore, tmp_path: Path
) -> None:
    models = dict.fromkeys(range(len(FOLD_SHARES)), build_small_bundle(tmp_path / "bundle"))
    with pytest.raises(UsageError, match=r"takes crops of 1\.5 times the face, .* is 1\.3"):
        extract_sequences(narrow_store, models)
    cached_sequences(small_store, models, tmp_path / "cache")
    with pytest.raises(UsageError, match=r"takes crops of 1\.5 times the face, .* is 1\.3"):
        cached_sequences(narrow_store, models, tmp_path / "cache")


@pytest.mark.parametrize("command", ["score", "doctor-data"])
def test_commands_refuse_to_judge_a_store_of_another_scale(
    narrow_store: CropStore, tmp_path: Path, command: str
) -> None:
    old = _frame_file(tmp_path / "old.keras", None)
    arguments = [command, str(narrow_store.path), "--frame", str(old)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "old.keras: takes crops of 1.5 times the face, the crop scale of" in result.output
    assert "is 1.3: prepare a store with --crop-scale 1.5" in result.output
