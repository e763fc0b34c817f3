"""Mixed precision: float16 while fitting on a GPU, float32 in what is saved."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dfd_training.data.store import CropStore
from dfd_training.fitting import precision
from dfd_training.fitting.frame import fit_frame
from dfd_training.fitting.options import FitFrameOptions, Switch
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.precision import full_precision, is_mixed, use_half_precision
from dfd_training.models import backbone_of, build_frame_model, load_frame_model, save_model

CROPS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)


def dtypes(model: keras.Model) -> set[str]:
    layers = [*model.layers, *backbone_of(model).layers]
    return {layer.compute_dtype for layer in layers} | {w.dtype for w in model.weights}


def test_auto_is_on_with_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, wanted in (((), False), (("a GPU",), True)):
        monkeypatch.setattr(precision, "accelerators", lambda gpus=gpus: gpus)
        assert is_mixed(Switch.AUTO) is wanted
        assert is_mixed(Switch.ON)
        assert not is_mixed(Switch.OFF)


def test_the_backbone_computes_in_half_and_is_saved_in_full(tmp_path: Path) -> None:
    model = build_frame_model(backbone="meso4", input_size=32, weights="none")
    wanted = model(CROPS)
    use_half_precision(model)
    scaled = keras.ops.convert_to_tensor(CROPS / 255.0)
    assert keras.backend.standardize_dtype(backbone_of(model)(scaled).dtype) == "float16"
    mixed = model(CROPS)
    for name, tensor in mixed.items():
        assert keras.backend.standardize_dtype(tensor.dtype) == "float32", name
        np.testing.assert_allclose(tensor, wanted[name], atol=0.02)
    assert (np.asarray(mixed["features"]) != np.asarray(wanted["features"])).any()
    with full_precision(model):
        save_model(model, tmp_path / "model.keras")
    assert "float16" in dtypes(model), "the fit goes on in half"
    saved = load_frame_model(tmp_path / "model.keras")
    assert dtypes(saved) == {"float32"}
    np.testing.assert_allclose(saved(CROPS)["fake_logit"], wanted["fake_logit"], atol=1e-6)


def test_a_fit_in_half_leaves_a_model_in_full(small_store: CropStore, tmp_path: Path) -> None:
    options = FitFrameOptions(
        backbone="meso4",
        weights="none",
        epochs=1,
        steps=2,
        batch_size=4,
        validation_pairs=3,
        mixed_precision=Switch.ON,
    )
    best = fit_frame(small_store, tmp_path, options=options, pairs=PairOptions(input_size=32))
    model = load_frame_model(best)
    assert dtypes(model) == {"float32"}
    logits = model.predict(CROPS, verbose=0)["fake_logit"]
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
