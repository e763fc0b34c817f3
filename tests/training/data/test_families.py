"""Families of fakes: fits without some of them, even draws, and figures of what was left out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from dfd_edge.bundle import DEFAULT_BUNDLE
from dfd_edge.errors import UsageError
from dfd_training.data.families import FakeFamilies, crop_files, family_of, leave_out, with_families
from dfd_training.data.folds import FOLD_SHARES
from dfd_training.data.store import CropStore, StoredCrop
from dfd_training.fitting import pairs
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.models import build_frame_model
from dfd_training.models.bundle_weights import measure_norms


@pytest.mark.parametrize(
    ("kind", "generator", "family"),
    [
        ("swap", "DFDC train", "DFDC"),
        ("swap", "FF++ DeepFakeDetection (Google DFD)", "DFD"),
        ("reenactment", "FF++ NeuralTextures", "FF++ NeuralTextures"),
        ("swap", "faceswap-GAN", "other swaps"),
        ("talking head", "Sonic", "talking head"),
        ("", "some tool", "some tool"),
    ],
)
def test_family(kind: str, generator: str, family: str) -> None:
    assert family_of(kind, generator) == family


def index(files: list[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    """An index of one crop a file, from path, label, kind, generator and group."""
    rows = pd.DataFrame(files, columns=["path", "label", "kind", "generator", "group"])
    return rows.assign(
        shard=rows["path"],
        original="",
        position=0,
        track=1,
        time_s=0.0,
        face_px=100.0,
        judged=True,
        has_landmarks=True,
        source="s",
        fold=rows["group"].str[1:].astype(int) % len(FOLD_SHARES),
    )


def large_index() -> pd.DataFrame:
    files = [(f"r{n}", "REAL", "", "", f"g{n}") for n in range(60)]
    files += [(f"t{n}", "FAKE", "talking head", "Sonic", f"g{n}") for n in range(8)]
    files += [(f"l{n}", "FAKE", "live swap", "tool", f"g{n}") for n in range(6, 20)]
    files += [(f"f{n}", "FAKE", "swap", "FF++ Deepfakes", f"g{n}") for n in range(20, 22)]
    return index(files)


def test_what_is_left_out_is_fitted_on_in_no_form() -> None:
    fitted, judged = leave_out(large_index(), ("talking head", "FF++ *"), fold=1)
    assert not set(fitted["group"]) & set(judged["group"])
    assert set(fitted["family"]) == {"", "live swap"}
    left = judged["family"].isin(["talking head", "FF++ Deepfakes"])
    assert left.sum() == 10  # all of them are judged
    assert {"g0", "g7", "g20"} <= set(judged["group"])
    # The fold is judged too: its reals, and its fakes of families that were seen.
    assert not (fitted["fold"] == 1).any()
    others = judged[~judged["group"].isin(judged.loc[left, "group"])]
    assert set(others["fold"]) == {1}
    assert 3 <= (others["label"] == "REAL").sum() <= 20
    again = leave_out(large_index(), ("talking head", "FF++ *"), fold=1)
    assert again[1].equals(judged)


def test_large_families_are_judged_in_part_and_never_fitted_on() -> None:
    files = [(f"r{n}", "REAL", "", "", f"g{n % 40}") for n in range(1000)]
    files += [(f"d{n}", "FAKE", "swap", "DFDC", f"g{n % 40}") for n in range(1000)]
    fitted, judged = leave_out(index(files), ("DFDC",), fold=0)
    fakes = judged[judged["label"] == "FAKE"]
    assert len(fakes) >= 300
    assert (fakes["fold"] != 0).sum() <= 325
    assert (fakes["fold"] == 0).sum() == 250, "the fold is judged whole"
    assert set(fitted["label"]) == {"REAL"}


def test_unknown_families_are_named() -> None:
    with pytest.raises(UsageError, match="family 'lip sync' is not in the store; there are FF"):
        leave_out(large_index(), ("lip sync",), fold=0)


def test_draws_are_even_over_families() -> None:
    rows = large_index()
    families = FakeFamilies(rows, crop_files(rows))
    rng = np.random.default_rng(0)
    family_of_shard = dict(zip(rows["shard"], with_families(rows)["family"], strict=True))
    drawn = Counter(family_of_shard[families.draw(rng).file.shard] for _ in range(3000))
    # By the fourth root of 8, 14 and 2 files.
    expected = np.array([8, 14, 2]) ** 0.25
    expected /= expected.sum()
    found = np.array([drawn[name] for name in ("talking head", "live swap", "FF++ Deepfakes")])
    assert found / 3000 == pytest.approx(expected, abs=0.03)


def test_a_fake_without_original_stands_beside_a_real_of_like_size(
    small_store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = small_store.index.assign(original="", kind="talking head")
    shards: list[str] = []
    crop = CropStore.crop

    def noting(store: CropStore, name: str, position: int) -> StoredCrop:
        shards.append(name)
        return crop(store, name, position)

    codings: list[bool] = []
    draw = pairs.draw_degradation

    def coded(rng: np.random.Generator, **options: object) -> object:
        codings.append(bool(options.get("always")))
        return draw(rng, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(CropStore, "crop", noting)
    monkeypatch.setattr(pairs, "draw_degradation", coded)
    options = PairOptions(input_size=48, true_share=1.0, families=True, closest=1.0, widest=1.6)
    sampler = PairSampler(small_store, rows, options)
    real, fake = sampler.draw(np.random.default_rng(0))
    assert real.shape == fake.shape == (48, 48, 3)
    label_of = dict(zip(rows["shard"], rows["label"], strict=True))
    assert [label_of[shard] for shard in shards[-2:]] == ["REAL", "FAKE"]
    assert codings == [True]  # from different places, so both pass a codec


def test_a_width_tells_no_label(small_store: CropStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both crops of a pair are cut at one width, which varies from pair to pair."""
    cuts: list[float] = []
    cut = pairs.work_crop

    def noting(stored: StoredCrop, jitter: pairs.Jitter) -> StoredCrop:
        cuts.append(jitter.scale)
        return cut(stored, jitter)

    monkeypatch.setattr(pairs, "work_crop", noting)
    options = PairOptions(input_size=48, true_share=1.0, families=True, closest=1.0, widest=1.6)
    sampler = PairSampler(small_store, small_store.index, options)
    rng = np.random.default_rng(1)
    for _ in range(12):
        sampler.draw(rng)
    assert cuts[0::2] == cuts[1::2]
    assert max(cuts) / min(cuts) > 1.2


@pytest.mark.slow
def test_shipped_weights_come_back_exactly(small_store: CropStore) -> None:
    options = PairOptions(input_size=160)
    sampler = PairSampler(small_store, small_store.index, options)
    rng = np.random.default_rng(0)
    crops = np.stack([crop for _ in range(24) for crop in sampler.draw(rng)])
    graph = DEFAULT_BUNDLE / "frame.onnx"
    expected = onnxruntime.InferenceSession(graph).run(["fake_logit"], {"image": crops})[0]
    fitted = build_frame_model(input_size=160, weights="shipped")  # from Keras' own file
    logits = fitted.predict(crops.astype(np.float32), verbose=0)["fake_logit"]
    assert np.abs(logits - expected).max() < 1e-3
    model = build_frame_model(input_size=160, weights=graph.parent)
    for settled in (False, True):
        if settled:
            measure_norms(model, crops)
        logits = model.predict(crops.astype(np.float32), verbose=0)["fake_logit"]
        assert np.abs(logits - expected).max() < 1e-4
    # Normed by the batch itself, as in training, it computes nearly the same.
    trained = np.asarray(model(crops.astype(np.float32), training=True)["fake_logit"])
    assert np.corrcoef(trained, expected)[0, 1] > 0.8


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(UsageError, match="no batch norm follows"):
        build_frame_model(backbone="meso4", input_size=160, weights=DEFAULT_BUNDLE)
