"""The CNN-RNN recipe from a table of clips to the runtime's verdict, on clips of a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from skimage import data

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import PersonScore
from dfd_edge.inference.names import Resize
from dfd_export.cli import main as export
from dfd_export.gate import parity
from dfd_training.cli import main as train
from dfd_training.data.table import read_table
from dfd_training.models import load_frame_model, load_sequence_model
from dfd_training.recipes.clip_reading import ReadClips, features_of, first_crops, read_clips
from dfd_training.recipes.cnn_rnn import clip_logits, fit_decision
from dfd_training.recipes.networks import build_frozen_cnn, hash_of_weights
from dfd_training.sequence.feature_cache import ClipFeatures, FeatureCache, hash_of
from sample_clips import moving, write_clip

pytestmark = pytest.mark.slow  # each needs a run of the recipe and its export


FRAMES = 6
SIZE = 64
GROUPS = 12


def command(table: Path, out: Path, *more: str) -> list[str]:
    sizes = ["--frames", str(FRAMES), "--size", str(SIZE), "--epochs", "3"]
    network = ["--backbone", "custom_cnn", "--weights", "none"]
    return ["recipe", "cnn-rnn-baseline", str(table), "--out", str(out), *sizes, *network, *more]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`labels.csv` with pairs of clips: fakes are tinted; one is shorter than the recipe asks."""
    root = tmp_path_factory.mktemp("clips")
    picture = np.ascontiguousarray(data.astronaut()[:120, 160:320, ::-1])
    rows = []
    for number in range(GROUPS):
        split = "val" if number == GROUPS - 1 else "train"
        count = FRAMES - 2 if number == 0 else FRAMES + 3
        light = np.clip(picture * (0.6 + 0.05 * number), 0, 255).astype(np.uint8)
        tinted = light.copy()
        tinted[..., 2] //= 2
        for label, image in (("REAL", light), ("FAKE", tinted)):
            name = f"clip{number:02}_{label.lower()}.mp4"
            write_clip(root / name, moving(image, number, count))
            original = "" if label == "REAL" else f"clip{number:02}_real.mp4"
            rows.append({"path": name, "label": label, "original": original, "split": split})
    (root / "broken.mp4").write_bytes(b"\x00" * 100)
    rows.append({"path": "broken.mp4", "label": "REAL", "split": "train"})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe with its bundle."""
    out = tmp_path_factory.mktemp("run")
    done = CliRunner().invoke(train, command(tree / "labels.csv", out))
    assert done.exit_code == 0, done.output
    assert f"features of {2 * (GROUPS - 1)} computed, of 0 found" in done.output
    assert "left out: broken.mp4" in done.output
    with pytest.MonkeyPatch.context() as patch:  # the gate's own tests go through all its cases
        patch.setattr(parity, "BATCHES", (1, 3))
        patch.setattr(parity, "TIMES", (1, 7))
        made = CliRunner().invoke(export, ["bundle", str(out), "--out", str(out / "bundle")])
    assert made.exit_code == 0, made.output
    return out


@pytest.fixture(scope="module")
def detector(run: Path) -> Detector:
    return Detector.load(run / "bundle", provider="cpu")


def features_in(run: Path, clip: Path) -> np.ndarray:
    """What the run's CNN says of a clip."""
    crops, _ = first_crops(clip, frames=FRAMES, size=SIZE)
    return features_of(load_frame_model(run / "frame.keras"), crops, batch_size=FRAMES)


def test_the_parts_share_no_group_and_val_is_not_opened(tree: Path, run: Path):
    parts = json.loads((run / "run.json").read_text())["parts"]
    dealt = [group for groups in parts.values() for group in groups]
    assert len(dealt) == len(set(dealt)) == GROUPS - 1
    assert all(parts[name] for name in ("fitted", "stopping", "decision"))
    last = hash_of(tree / f"clip{GROUPS - 1:02}_real.mp4")
    assert not list((run / "features").glob(f"{last[:20]}*"))


def test_features_are_computed_once_and_those_of_a_changed_clip_anew(
    tree: Path, run: Path, tmp_path: Path
):
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    table = read_table(copy / "labels.csv")
    table = table[(table["split"] == "train") & (table["path"] != "broken.mp4")].head(4)
    cnn = load_frame_model(run / "frame.keras")
    cache = FeatureCache(tmp_path / "features", "network")

    def read() -> ReadClips:
        return read_clips(table, copy, cnn, cache, frames=FRAMES, size=SIZE)

    first, second = read(), read()
    assert (first.computed, second.computed) == (4, 0)
    for old, new in zip(first.features, second.features, strict=True):
        np.testing.assert_array_equal(old.features, new.features)
    (copy / "clip00_real.mp4").rename(copy / "renamed.mp4")
    table["path"] = table["path"].replace("clip00_real.mp4", "renamed.mp4")
    write_clip(copy / "clip01_real.mp4", moving(np.full((96, 128, 3), 90, np.uint8), 1, FRAMES))
    assert read().computed == 1, "a clip under another name is the same"


def test_random_weights_are_the_same_for_a_seed():
    same, again, other = (
        hash_of_weights(
            build_frozen_cnn(backbone="custom_cnn", size=SIZE, weights="none", seed=seed)
        )
        for seed in (0, 0, 1)
    )
    assert same == again != other


@pytest.mark.parametrize(
    "name", ["clip00_real.mp4", "clip03_fake.mp4", f"clip{GROUPS - 1}_real.mp4"]
)
def test_the_runtime_says_what_keras_says(tree: Path, run: Path, detector: Detector, name: str):
    """Also of a clip that is shorter than the recipe asks, and so padded and masked in Keras."""
    features = features_in(run, tree / name)
    rnn = load_sequence_model(run / "sequence.keras")
    logit = float(clip_logits(rnn, [features], frames=FRAMES)[0])
    seen: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        session = type(detector._session)
        step = session.run_sequence

        def noted(self, features, **others):
            seen.append(features[0])  # one stream, a call takes one step or several
            return step(self, features=features, **others)

        patch.setattr(session, "run_sequence", noted)
        verdict = detector.analyze(tree / name)
    assert np.ptp(features) > 0.01, "else nothing would be compared"
    np.testing.assert_allclose(np.concatenate(seen), features, atol=1e-4)
    person = detector.decision.spec.calibrators["person"]
    p_fake = 1.0 / (1.0 + np.exp(-(person.slope * logit + person.intercept)))
    assert verdict.p_fake == pytest.approx(p_fake, abs=1e-4)
    assert verdict.frames == len(features) == (FRAMES - 2 if name.startswith("clip00") else FRAMES)
    assert verdict.complete and verdict.coverage == 1.0


def test_the_bundle_says_what_it_is(run: Path):
    manifest = Bundle.load(run / "bundle").manifest
    assert manifest.schema_version == 4
    assert manifest.frame.resize is Resize.BILINEAR
    assert manifest.sequence.first_frames == FRAMES
    assert manifest.sequence.rate_hz == 10.0, "of the clips"
    assert manifest.face.detector == "none"
    assert manifest.frame.evidence_size is None
    assert manifest.decision.person_score is PersonScore.LAST
    card = (run / "bundle" / "CARD.md").read_text()
    assert f"The first {FRAMES} frames of a clip, every one, and none after them" in card
    assert "the sequence logit after the last frame" in card


def test_the_curves_of_a_run_are_drawn_over_whole_epochs(run: Path):
    history = pd.read_csv(run / "history.csv")
    assert {"loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"} <= set(history)
    assert (run / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("head", "layers"),
    [
        ("live", "GRU(64), batch norm, GRU(32), batch norm, GRU(16), dropout 0.4, dense(32)"),
        ("attention", "causal self-attention over 20 steps"),
    ],
)
def test_other_heads_judge_in_the_runtime_as_in_keras(
    tree: Path, run: Path, tmp_path: Path, quick_gate, head: str, layers: str
):
    cache = ("--cache", str(run / "features"))
    done = CliRunner().invoke(train, command(tree / "labels.csv", tmp_path, "--head", head, *cache))
    assert done.exit_code == 0, done.output
    assert f"features of 0 computed, of {2 * (GROUPS - 1)} found" in done.output
    assert "accuracy" in done.output
    made = CliRunner().invoke(export, ["bundle", str(tmp_path), "--out", str(tmp_path / "bundle")])
    assert made.exit_code == 0, made.output
    assert layers in (tmp_path / "bundle" / "CARD.md").read_text("utf-8")
    clip = tree / "clip03_fake.mp4"
    rnn = load_sequence_model(tmp_path / "sequence.keras")
    logit = float(clip_logits(rnn, [features_in(tmp_path, clip)], frames=FRAMES)[0])
    detector = Detector.load(tmp_path / "bundle", provider="cpu")
    person = detector.decision.spec.calibrators["person"]
    p_fake = 1.0 / (1.0 + np.exp(-(person.slope * logit + person.intercept)))
    assert detector.analyze(clip).p_fake == pytest.approx(p_fake, abs=1e-4)


def test_an_unknown_head_is_refused_before_features_are_computed(tree: Path, tmp_path: Path):
    result = CliRunner().invoke(
        train, command(tree / "labels.csv", tmp_path / "out", "--head", "lstm")
    )
    assert result.exit_code == 2
    assert "head 'lstm' is unknown; known are small, live, attention" in result.output
    assert not (tmp_path / "out" / "features").exists()


def test_export_takes_no_option_that_the_run_answers(run: Path, tmp_path: Path):
    result = CliRunner().invoke(
        export, ["bundle", str(run), "--out", str(tmp_path / "b"), "--rate", "3"]
    )
    assert result.exit_code == 2
    assert "--rate" in result.output
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(
        export, ["bundle", str(tmp_path / "empty"), "--out", str(tmp_path / "b")]
    )
    assert result.exit_code == 2
    assert "no finished run of a recipe" in result.output


class TestTheCache:
    CLIP, OTHER = "ab" * 32, "cd" * 32

    @pytest.fixture
    def cache(self, tmp_path: Path) -> FeatureCache:
        cache = FeatureCache(tmp_path / "features", "network")
        rng = np.random.default_rng(0)
        cache.save(self.CLIP, ClipFeatures(rng.normal(size=(5, 9)).astype(np.float32), 25.0))
        return cache

    def test_gives_back_what_it_was_given(self, cache: FeatureCache):
        found = cache.load(self.CLIP)
        assert found is not None
        assert found.features.shape == (5, 9)
        assert found.rate_hz == 25.0
        assert cache.load(self.OTHER) is None
        assert FeatureCache(cache.folder, "another network").load(self.CLIP) is None

    @pytest.mark.parametrize("place", ["cut", "flipped", "emptied"])
    def test_notices_a_damaged_entry(self, cache: FeatureCache, place: str, caplog):
        (entry,) = cache.folder.iterdir()
        whole = entry.read_bytes()
        values = cache.load(self.CLIP)
        assert values is not None
        at = whole.index(values.features.tobytes())
        damaged = {
            "cut": whole[: len(whole) // 2],
            "flipped": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
            "emptied": b"",
        }
        entry.write_bytes(damaged[place])
        assert cache.load(self.CLIP) is None
        assert "computed anew" in caplog.text

    def test_notices_an_entry_of_another_clip(self, cache: FeatureCache, caplog):
        (entry,) = cache.folder.iterdir()
        entry.rename(entry.with_name(entry.name.replace(self.CLIP[:20], self.OTHER[:20])))
        assert cache.load(self.OTHER) is None
        assert "not the cache entry that its name says" in caplog.text


class TestTheDecision:
    @staticmethod
    def held(count: int, gap: float) -> tuple[pd.DataFrame, list[np.ndarray], np.ndarray]:
        """As many groups of a real and a fake clip, whose logits lie so far apart."""
        rng = np.random.default_rng(3)
        fake = np.tile([False, True], count)
        rows = pd.DataFrame(
            {
                "path": [f"{n}.mp4" for n in range(2 * count)],
                "label": np.where(fake, "FAKE", "REAL"),
                "group": np.repeat([f"g{n}" for n in range(count)], 2),
                "source": "s",
            }
        )
        last = (gap * (fake - 0.5) + rng.normal(0, 1, 2 * count)).astype(np.float32)
        return rows, [np.full(4, value, np.float32) for value in last], last

    def test_is_calibrated_where_groups_suffice(self):
        found = fit_decision(*self.held(40, 2.0), draws=20)
        assert found.unmeasured is None
        assert found.spec.person_score is PersonScore.LAST
        assert found.spec.calibrators["person"].slope > 0
        assert found.spec.thresholds["fake"].n == 40
        assert found.metrics["held-out groups of train, clip auc"].value > 0.8

    def test_is_the_published_one_where_they_do_not(self):
        few = fit_decision(*self.held(2, 2.0))
        assert few.unmeasured is not None and "3 of each are needed" in few.unmeasured
        assert few.spec.thresholds["fake"].probability == 0.5
        assert few.spec.thresholds["fake"].n == 0
        wrong_way = fit_decision(*self.held(40, -3.0), draws=20)
        assert wrong_way.unmeasured is not None and "slope" in wrong_way.unmeasured


def test_too_few_groups_are_refused(tree: Path, tmp_path: Path):
    rows = read_table(tree / "labels.csv")
    rows[rows["group"] == "clip01_real.mp4"].to_csv(tmp_path / "few.csv", index=False)
    result = CliRunner().invoke(
        train, command(tmp_path / "few.csv", tmp_path / "out", "--root", str(tree))
    )
    assert result.exit_code == 2
    assert "both kinds are needed" in result.output
