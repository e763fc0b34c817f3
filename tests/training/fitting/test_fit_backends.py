"""Other backends of Keras fit too, and what they leave loads under this one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from dfd_training.data.store import CropStore
from dfd_training.models import load_frame_model, load_sequence_model

CHILD = """
import sys


class WithoutTensorFlow:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, WithoutTensorFlow())
from pathlib import Path
import keras, numpy as np
from dfd_training.sequence.fit import fit_sequence
from dfd_training.sequence.sequences import ClipSequence, Treatment
from dfd_training.sequence.windows import FitSequenceOptions
from dfd_training.fitting.frame import fit_frame
from dfd_training.fitting.options import FitFrameOptions, LossKind
from dfd_training.models import load_frame_model, load_sequence_model
from dfd_training.fitting.pairs import PairOptions
from dfd_training.data.store import CropStore

out = Path(sys.argv[2])
assert keras.backend.backend() == sys.argv[3]
options = FitFrameOptions(
    backbone="meso4", weights="none", epochs=1, steps=2, batch_size=4, validation_pairs=3,
    loss=LossKind.FOCAL, threads=1,
)
best = fit_frame(
    CropStore(Path(sys.argv[1])), out / "frame", options=options, pairs=PairOptions(input_size=32)
)
crops = np.load(out / "crops.npy")
np.save(out / "frame.npy", load_frame_model(best).predict(crops, verbose=0)["fake_logit"])

rng = np.random.default_rng(0)
sequences = [
    ClipSequence(
        path=f"{n}-{fake}", group=f"g{n}", source="s", fold=n % 2, variant=Treatment.PLAIN,
        fake=fake, true_fake=fake, features=rng.normal(size=(8, 6)).astype(np.float32),
        frame_logit=np.zeros(8, np.float32), detail=np.ones(8, np.float32),
        face_px=np.ones(8, np.float32),
    )
    for n in range(4) for fake in (False, True)
]
options = FitSequenceOptions(
    head="gru_small", epochs=1, steps=2, batch_size=4, max_steps=8, loss=LossKind.FOCAL
)
fit = fit_sequence(sequences, out / "sequence", crop_scale=1.5, options=options)
features = np.load(out / "features.npy")
mask = np.ones(features.shape[:2], bool)
model = load_sequence_model(fit.path)
np.save(out / "sequence.npy", model.predict({"features": features, "mask": mask}, verbose=0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_fit_on_another_backend(backend: str, small_store: CropStore, tmp_path: Path) -> None:
    if keras.backend.backend() == backend or importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed, or is the backend of this process")
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    features = rng.normal(size=(2, 5, 6)).astype(np.float32)
    np.save(tmp_path / "crops.npy", crops)
    np.save(tmp_path / "features.npy", features)
    subprocess.run(
        [sys.executable, "-c", CHILD, str(small_store.path), str(tmp_path), backend],
        check=True,
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"},
        timeout=300,
    )
    here = load_frame_model(tmp_path / "frame" / "best.keras").predict(crops, verbose=0)
    np.testing.assert_allclose(here["fake_logit"], np.load(tmp_path / "frame.npy"), atol=1e-4)
    head = load_sequence_model(tmp_path / "sequence" / "sequence.keras")
    mask = np.ones((2, 5), bool)
    logits = head.predict({"features": features, "mask": mask}, verbose=0)
    np.testing.assert_allclose(logits, np.load(tmp_path / "sequence.npy"), atol=1e-4)
