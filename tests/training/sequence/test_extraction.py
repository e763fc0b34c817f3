"""Sequences of clips: from frame models as files and as exported graphs, for every precision."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dfd_training
from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.faces.crop import crop_detail
from dfd_edge.faces.signals import NAMES
from dfd_edge.inference.session import Session
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.augment.synthesis import ForgeryKind
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore, shard_name
from dfd_training.models import build_frame_model, save_model
from dfd_training.models.scoring import FrameModel, shared_precisions
from dfd_training.sequence import extraction
from dfd_training.sequence.extraction import (
    cached_sequences,
    extract_photographs,
    extract_sequences,
)
from dfd_training.sequence.sequences import (
    FOOTAGE,
    ClipSequence,
    Treatment,
    list_generated,
    list_tracks,
    load_sequences,
    save_sequences,
)
from small_bundle import build_small_bundle

BOTH = ("fp32", "int8")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two precisions for all folds. Not to be written to."""
    return build_small_bundle(tmp_path_factory.mktemp("scorer") / "bundle", precisions=BOTH)


@pytest.fixture(scope="module")
def store(small_store: CropStore, tmp_path_factory: pytest.TempPathFactory) -> CropStore:
    """The small store with fakes that a generator made of two of its clips, every other crop."""
    folder = Path(shutil.copytree(small_store.path, tmp_path_factory.mktemp("made") / "store"))
    rows = small_store.index
    made = []
    for path in ("clip0_real.mp4", "clip3_real.mp4"):
        part = rows[rows["path"] == path].iloc[::2].copy()
        shard = part["shard"].iloc[0]
        part["original"], part["path"] = path, f"made/smoother/0/{path}"
        part["label"], part["generator"] = "FAKE", "smoother"
        part["shard"] = shard_name(part["path"].iloc[0])
        shutil.copy(folder / "crops" / shard, folder / "crops" / part["shard"].iloc[0])
        made.append(part)
    pd.concat(made).to_csv(folder / "made.csv", index=False)
    return CropStore(folder)


@pytest.fixture(scope="module")
def extracted(store: CropStore, bundle: Path) -> dict[str, list[ClipSequence]]:
    return extract_sequences(store, dict.fromkeys(range(len(FOLD_SHARES)), bundle), precisions=BOTH)


def test_every_precision_scores_the_same_crops(extracted: dict[str, list[ClipSequence]]) -> None:
    assert list(extracted) == list(BOTH)
    for fp32, int8 in zip(*extracted.values(), strict=True):
        facts = [(s.path, s.variant, s.copy, s.fold, s.fake) for s in (fp32, int8)]
        assert facts[0] == facts[1]
        assert (fp32.detail == int8.detail).all(), "measured on the crops themselves"
        assert (fp32.frame_logit != int8.frame_logit).any()


def test_graphs_say_of_stored_crops_what_the_runtime_says(
    extracted: dict[str, list[ClipSequence]], store: CropStore, bundle: Path
) -> None:
    plain = next(s for s in extracted["int8"] if s.variant is Treatment.PLAIN)
    track = next(t for t in list_tracks(store) if t.row["path"] == plain.path)
    session = Session.open(Bundle.load(bundle), provider="cpu", precision="int8")
    size = session.bundle.manifest.frame.input_size
    stored = [store.crop(track.shard, int(position)) for position in track.positions]
    crops = np.stack([to_input(work_crop(crop, NO_JITTER).image, size) for crop in stored])
    outputs = session.run_frame(crops)
    np.testing.assert_array_equal(plain.frame_logit, outputs.fake_logit)
    np.testing.assert_array_equal(plain.features, outputs.features)
    np.testing.assert_allclose(plain.detail, [crop_detail(crop) for crop in crops])
    assert (plain.face_px == track.face_px).all()


def test_each_clip_gives_its_variants(extracted: dict[str, list[ClipSequence]]) -> None:
    found = {
        path: Counter(s.variant.value for s in extracted["fp32"] if s.path == path)
        for path in ("clip0_real.mp4", "clip0_fake.mp4", "made/smoother/0/clip0_real.mp4")
    }
    assert found["clip0_real.mp4"] == {
        **{"plain": 1, "degraded": 2, "synthesised": 3, "matched": 1},
    }
    assert found["clip0_fake.mp4"] == {"plain": 1, "degraded": 2}
    assert found["made/smoother/0/clip0_real.mp4"] == {"made": 1}
    for sequence in extracted["fp32"]:
        assert sequence.true_fake == ("_fake" in sequence.path)
        assert sequence.fake == (sequence.generator != "")
    kinds = {s.generator for s in extracted["fp32"] if s.variant is Treatment.SYNTHESISED}
    assert {"self-blend", "face swap"} < kinds <= {kind.value for kind in ForgeryKind}
    assert {s.generator for s in extracted["fp32"] if s.variant is Treatment.MADE} == {"smoother"}
    assert {s.generator for s in extracted["fp32"] if s.true_fake} == {"landmark swap"}


def test_a_made_fake_lies_in_its_original_s_fold_beside_the_real_clip_at_its_times(
    extracted: dict[str, list[ClipSequence]], store: CropStore
) -> None:
    fold_of = training_rows(store).set_index("path")["fold"].to_dict()
    real_tracks = {str(track.row["path"]): track for track in list_tracks(store)}
    made = list_generated(store)
    assert len(made) == 2
    for fake in made:
        original = str(fake.row["original"])
        assert fake.fold == fold_of[original]
        parts = {
            variant: [s for s in extracted["fp32"] if s.variant is variant and original in s.path]
            for variant in (Treatment.MADE, Treatment.MATCHED, *FOOTAGE)
        }
        (forged,), (matched,) = parts[Treatment.MADE], parts[Treatment.MATCHED]
        assert len(forged.frame_logit) == len(matched.frame_logit) == len(fake.time_s)
        steps = np.isin(real_tracks[original].time_s, fake.time_s)
        whole = [s for variant in FOOTAGE for s in parts[variant] if not s.fake]
        assert any((s.features[steps] == matched.features).all() for s in whole)


def test_footage_as_it_is_has_the_store_s_signals_and_nothing_else_has_any(
    extracted: dict[str, list[ClipSequence]], store: CropStore
) -> None:
    tracks = {str(track.row["path"]): track for track in list_tracks(store)}
    for sequence in extracted["int8"]:
        steps = len(sequence.frame_logit)
        assert (sequence.signals.shape, sequence.measured.shape) == ((steps, len(NAMES)), (steps,))
        assert (sequence.signals[~sequence.measured] == 0.0).all()
        if sequence.variant is Treatment.PLAIN:
            track = tracks[sequence.path]
            stored = store.shard(track.shard).signals[track.positions]
            assert (sequence.measured == np.isfinite(stored).all(axis=1)).all()
            assert sequence.measured.sum() > steps / 2
            seen = sequence.measured
            np.testing.assert_array_equal(sequence.signals[seen], stored[seen])
        else:
            assert not sequence.measured.any()
        family = "landmark swap" if sequence.true_fake else ""
        assert sequence.family == family


def test_sequences_are_read_as_they_were_written(
    extracted: dict[str, list[ClipSequence]], tmp_path: Path
) -> None:
    save_sequences(extracted["int8"], tmp_path / "s.npz")
    for before, after in zip(extracted["int8"], load_sequences(tmp_path / "s.npz"), strict=True):
        for item in dataclasses.fields(ClipSequence):
            np.testing.assert_array_equal(getattr(before, item.name), getattr(after, item.name))


def test_photographs_are_scored_alone(store: CropStore, bundle: Path) -> None:
    photographs = extract_photographs(store, dict.fromkeys(range(len(FOLD_SHARES)), bundle))["fp32"]
    assert {s.source for s in photographs} == {"photographs"}
    assert {len(s.frame_logit) for s in photographs} == {1}
    assert {s.variant for s in photographs} == set(FOOTAGE)
    assert not any(s.fake for s in photographs)


@pytest.mark.slow
def test_sequences_are_computed_once_for_each_precision(
    store: CropStore, bundle: Path, tmp_path: Path
) -> None:
    models = dict.fromkeys(range(len(FOLD_SHARES)), bundle)
    calls: list[int] = []

    def load(*precisions: str) -> dict[str, list[ClipSequence]]:
        calls.clear()
        return cached_sequences(
            store, models, tmp_path, precisions=precisions, on_clip=lambda: calls.append(1)
        )

    first = load("fp32")["fp32"]
    assert calls
    assert (load("fp32")["fp32"][0].features == first[0].features).all()
    assert not calls
    assert list(load("fp32", "int8")) == ["fp32", "int8"]
    assert len(calls) == len(list_tracks(store)), "only int8 was missing"
    load(*BOTH)
    assert not calls


def test_cached_sequences_are_found_by_what_they_depend_on(
    store: CropStore, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is raised on purpose and the settings; never names of source files."""
    models = dict.fromkeys(range(len(FOLD_SHARES)), bundle)

    def key(store: CropStore = store, seed: int = 0, precision: str = "fp32") -> str:
        return extraction._digest(store, models, precision, seed)

    first = key()
    monkeypatch.setattr(dfd_training, "__file__", str(tmp_path / "moved" / "__init__.py"))
    assert key() == first, "where the source files lie is no matter"
    others = {key(seed=1), key(precision="int8")}
    folder = Path(shutil.copytree(store.path, tmp_path / "store"))
    assert key(CropStore(folder)) == first, "nor where the store lies"
    settings = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**settings, "max_frames": 50}))
    others.add(key(CropStore(folder)))
    (folder / "store.json").write_text(json.dumps(settings))
    (folder / "index.csv").write_text((folder / "index.csv").read_text() + "\n")
    others.add(key(CropStore(folder)))
    monkeypatch.setattr(extraction, "EXTRACTION_VERSION", extraction.EXTRACTION_VERSION + 1)
    others.add(key())
    assert len(others - {first}) == 5


def test_keras_files_and_bundles_are_told_apart(bundle: Path, tmp_path: Path) -> None:
    keras_file = tmp_path / "frame.keras"
    save_model(build_frame_model(input_size=32, weights="none"), keras_file)
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    features, logits = FrameModel.find(keras_file).open().score(crops)
    assert (features.shape[0], logits.shape) == (3, (3,))
    assert shared_precisions([bundle, bundle]) == BOTH
    assert shared_precisions([bundle, keras_file]) == ("fp32",)
    assert len({FrameModel.find(bundle, p).digest for p in BOTH}) == 2
    for path, precision, message in (
        (keras_file, "int8", "a Keras model has no int8: give the bundle that dfd-export"),
        (bundle, "fp16", "has no fp16, only fp32, int8: add it with dfd-export variant"),
        (tmp_path / "none.keras", "fp32", "no such frame model"),
    ):
        with pytest.raises(UsageError, match=message):
            FrameModel.find(path, precision)


def test_a_fold_without_a_model_is_refused(store: CropStore, bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"folds \[2, 3\] have no frame model"):
        extract_sequences(store, {0: bundle, 1: bundle})
