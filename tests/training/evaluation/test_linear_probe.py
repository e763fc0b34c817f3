"""The linear probe: a frame model like any other, fitted on frozen features."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.data.folds import training_rows
from dfd_training.data.store import CropStore
from dfd_training.evaluation.crops.classifiers import Probe, ProbeOptions, fit_probe
from dfd_training.evaluation.statistics import auc
from dfd_training.fitting.pairs import PairOptions, PairSampler
from dfd_training.fitting.sources import draw_pairs
from dfd_training.models import build_frame_model, load_frame_model

SIZE = 64
OPTIONS = ProbeOptions(pairs=60, held_out_pairs=24)
PAIRS = PairOptions(input_size=SIZE)


@pytest.fixture(scope="module")
def probe(small_store: CropStore, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    out = tmp_path_factory.mktemp("runs") / "probe"
    return fit_probe(small_store, out, options=OPTIONS, pairs=PAIRS)


@pytest.mark.slow
def test_the_probe_has_the_features_of_imagenet(probe: Probe) -> None:
    model, frozen = load_frame_model(probe.path), build_frame_model(input_size=SIZE)
    crops = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.float32)
    ours, theirs = (network.predict(crops, verbose=0) for network in (model, frozen))
    np.testing.assert_allclose(ours["features"], theirs["features"], atol=1e-5)
    assert np.abs(ours["fake_logit"] - theirs["fake_logit"]).max() > 1e-2


@pytest.mark.slow
def test_the_probe_has_learnt_its_pairs(probe: Probe, small_store: CropStore) -> None:
    rows = training_rows(small_store)
    sampler = PairSampler(small_store, rows[rows["fold"] != OPTIONS.holdout], PAIRS)
    crops, labels = draw_pairs(sampler, 32, seed=(OPTIONS.seed, 0, 0))
    model = load_frame_model(probe.path)
    logits = keras.ops.convert_to_numpy(model(crops.astype(np.float32))["fake_logit"])
    assert auc(labels, logits.astype(np.float64)) > 0.7
    assert 0.0 <= probe.held_out_auc <= 1.0
    settings = json.loads((probe.path.parent / "run.json").read_text())
    assert settings["options"]["holdout"] == 0
    assert settings["pairs"]["input_size"] == SIZE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 4}, "fold 4 does not exist; there are 4, from 0"),
        ({"pairs": 1}, "pairs is 1; 2 or more"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProbeOptions(**options)


def test_the_probe_command(small_store: CropStore, tmp_path: Path) -> None:
    arguments = ["probe", str(small_store.path), "--out", str(tmp_path / "probe")]
    refused = CliRunner().invoke(main, [*arguments, "--holdout", "7"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: fold 7 does not exist")
    assert not (tmp_path / "probe").exists()
