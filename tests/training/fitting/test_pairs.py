"""Pairs of real and fake: one to one inside every source, and nothing but the forgery differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from dfd_edge.errors import UsageError
from dfd_training.augment.degrade import Degradation, degrade, draw_degradation
from dfd_training.augment.generators.writer import FakeWriter, real_clips
from dfd_training.augment.jitter import NO_JITTER
from dfd_training.data.store import CropStore, StoredCrop
from dfd_training.fitting import pairs
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.fitting.sources import draw_pairs


def preparation_traces(crop: NDArray[np.uint8]) -> list[float]:
    """What compression, blur, noise and colour leave in a picture, whatever it shows."""
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    steps = np.abs(np.diff(luma, axis=1)).mean(axis=0)
    grid = [float(steps[offset::8].mean()) for offset in range(8)]
    laplacian = cv2.Laplacian(luma, cv2.CV_32F)
    chroma = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)[:, :, 1:].astype(np.float32)
    return [
        max(grid) / (np.median(grid) + 1e-6),
        float(np.log(laplacian.var() + 1e-3)),
        float(np.log(np.median(np.abs(laplacian)) + 1e-3)),
        float(np.log(np.abs(np.diff(chroma, axis=0)).mean() + 1e-3)),
        *(float(value) for value in crop.reshape(-1, 3).mean(axis=0)),
    ]


def separability(crops: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """AUC of the best linear use of the traces, cross-validated pair by pair."""
    traces = np.array([preparation_traces(crop) for crop in crops])
    # Within a pair the picture is the same: its difference is what preparation did.
    centred = traces - np.repeat(traces.reshape(-1, 2, traces.shape[1]).mean(axis=1), 2, axis=0)
    centred /= centred.std(axis=0) + 1e-9
    scores = cross_val_predict(
        LogisticRegression(), centred, labels, cv=5, method="decision_function"
    )
    return float(roc_auc_score(labels, scores))


def without_forgery(
    sampler: PairSampler, real: StoredCrop, *_: object
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    del sampler
    return real.image, real.image


@pytest.fixture
def no_forgery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes that are not forged: whatever still tells the classes apart is a leak."""
    monkeypatch.setattr(PairSampler, "_synthesise", without_forgery)


@pytest.fixture
def store_with_made_fakes(small_store: CropStore, tmp_path: Path) -> CropStore:
    """A copy of the store with a generator that turns every third crop of a clip upside down."""
    folder = tmp_path / "store"
    shutil.copytree(small_store.path, folder)
    store = CropStore(folder)
    work = real_clips(store)[0]
    positions = work.positions[::3]
    pictures = [store.crop(work.shard, position).image[::-1] for position in positions]
    with FakeWriter(store, "turned") as writer:
        writer.add(work, 0, positions, pictures, model="")
    return CropStore(folder)


ONLY_SYNTHESISED = PairOptions(input_size=96, true_share=0.0)


@pytest.mark.usefixtures("no_forgery")
def test_preparation_does_not_give_the_label_away(small_store: CropStore) -> None:
    sampler = PairSampler(small_store, small_store.index, ONLY_SYNTHESISED)
    crops, labels = draw_pairs(sampler, 120, seed=(1,))
    assert separability(crops, labels) == pytest.approx(0.5, abs=0.12)


@pytest.mark.usefixtures("no_forgery")
def test_a_planted_artefact_would_be_seen(
    small_store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same measure, with a JPEG pass over the fakes alone: it must cry out."""
    planted = Degradation(jpeg=60)

    def with_artefact(
        sampler: PairSampler, real: StoredCrop, *_: object
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        del sampler
        return real.image, degrade(real.image, planted, np.random.default_rng(0))

    monkeypatch.setattr(PairSampler, "_synthesise", with_artefact)
    sampler = PairSampler(small_store, small_store.index, ONLY_SYNTHESISED)
    crops, labels = draw_pairs(sampler, 120, seed=(1,))
    assert separability(crops, labels) > 0.8


def test_a_degradation_of_fakes_alone_would_be_seen(
    small_store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measure also sees it when the two classes are degraded by different draws."""
    monkeypatch.setattr(PairSampler, "_synthesise", without_forgery)
    calls = {"count": 0}

    def unlike(
        image: NDArray[np.uint8], degradation: Degradation, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        calls["count"] += 1
        return degrade(image, degradation, rng) if calls["count"] % 2 == 0 else image

    monkeypatch.setattr(pairs, "degrade", unlike)
    sampler = PairSampler(small_store, small_store.index, ONLY_SYNTHESISED)
    crops, labels = draw_pairs(sampler, 120, seed=(1,))
    assert separability(crops, labels) > 0.65


def test_views_of_a_pair_differ_by_their_degradation_alone(
    small_store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = PairSampler(small_store, small_store.index, ONLY_SYNTHESISED)
    crops, labels = draw_pairs(sampler, 3, seed=(5,), views=2)
    assert labels.tolist() == [0, 1] * 6
    assert (crops[:6] != crops[6:]).any()
    monkeypatch.setattr(pairs, "degrade", lambda image, *_: image)
    plain, _ = draw_pairs(sampler, 3, seed=(5,), views=2)
    assert (plain[:6] == plain[6:]).all()


def test_a_cut_out_covers_both_crops_alike() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    before = first.copy()
    pairs.cut_out(first, second, rng)
    same = (first == second).all(axis=2)
    assert 64 <= same.sum() <= 21 * 21, "a rectangle of an eighth to a third of the side"
    assert (first[~same] == before[~same]).all()


def test_the_same_seed_draws_the_same_pairs(small_store: CropStore) -> None:
    sampler = PairSampler(small_store, small_store.index)
    first, _ = draw_pairs(sampler, 4, seed=(0, 1, 2))
    again, _ = draw_pairs(sampler, 4, seed=(0, 1, 2))
    other, _ = draw_pairs(sampler, 4, seed=(0, 1, 3))
    assert (first == again).all()
    assert (first != other).any()


def test_true_fakes_come_from_the_footage_of_their_real(
    small_store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With true fakes only, every drawn fake belongs to the real beside it."""
    rows = small_store.index[small_store.index["source"] == "clips"]
    path_of = dict(zip(rows["shard"], rows["path"], strict=True))
    drawn: list[str] = []
    crop = CropStore.crop

    def noting(store: CropStore, name: str, position: int) -> StoredCrop:
        drawn.append(path_of[name])
        return crop(store, name, position)

    monkeypatch.setattr(CropStore, "crop", noting)
    sampler = PairSampler(small_store, rows, PairOptions(input_size=64, true_share=1.0))
    draw_pairs(sampler, 12, seed=(4,))
    for real, fake in zip(drawn[0::2], drawn[1::2], strict=True):
        assert fake == real.replace("_real", "_fake")


def test_fakes_whose_original_is_elsewhere_are_not_drawn_and_named(
    small_store: CropStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A table may name originals that it does not have; a pair needs both."""
    rows = small_store.index.copy()
    fakes = sorted(set(rows["path"][(rows["label"] == "FAKE") & rows["judged"]]))
    rows.loc[rows["path"] == fakes[0], "original"] = "elsewhere.mp4"
    sampler = PairSampler(small_store, rows, PairOptions(input_size=64, true_share=1.0))
    shards = {str(shard) for shard in rows["shard"][rows["path"] == fakes[0]]}
    drawable = {file.shard for s in sampler._sources for own in s.fakes.values() for file in own}
    assert drawable
    assert not drawable & shards
    assert "1 fake files are not drawn" in caplog.text
    assert "(first: elsewhere.mp4); --pairs families=yes draws them" in caplog.text
    caplog.clear()
    PairSampler(small_store, rows, PairOptions(input_size=64, families=True))
    assert not caplog.text


def test_a_generators_fake_is_paired_with_the_crop_that_it_was_made_from(
    store_with_made_fakes: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made fakes are the real crops turned upside down: nothing else turns back into them."""
    monkeypatch.setattr(pairs, "degrade", lambda image, *_: image)
    monkeypatch.setattr(pairs, "draw_jitter", lambda *_, **__: NO_JITTER)
    monkeypatch.setattr(pairs, "work_crop", lambda stored, _: stored)
    store = store_with_made_fakes
    rows = store.index[store.index["path"].isin(set(store.made["original"]))]
    options = PairOptions(input_size=64, true_share=0.0, made_share=1.0)
    crops, _ = draw_pairs(PairSampler(store, rows, options), 10, seed=(1,))
    turned = np.abs(crops[0::2].astype(int) - crops[1::2, ::-1]).mean(axis=(1, 2, 3))
    assert turned.max() < 2.0


def test_rows_without_real_crops_are_refused(small_store: CropStore) -> None:
    fakes = small_store.index[small_store.index["label"] == "FAKE"]
    with pytest.raises(UsageError, match="no real crop"):
        PairSampler(small_store, fakes)


def test_photographs_and_clips_keep_their_shares(small_store: CropStore) -> None:
    options = PairOptions(photograph_share=0.35)
    weights = PairSampler(small_store, small_store.index, options)._source_weights()
    assert sorted(weights) == pytest.approx([0.35, 0.65])


def test_degradations_keep_shape_and_type() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (91, 77, 3), dtype=np.uint8)
    changed = 0
    for _ in range(60):
        result = degrade(image, draw_degradation(rng), rng)
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        changed += bool((result != image).any())
    assert 40 < changed <= 60


def test_a_clip_is_a_source_of_its_own_kind(small_store: CropStore) -> None:
    kinds = {s.name: s.photographs for s in PairSampler(small_store, small_store.index)._sources}
    assert kinds == {"photographs": True, "clips": False}
