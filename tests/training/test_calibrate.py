"""Calibration: what logits become, and where the thresholds lie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dfd_edge.decision import calibrated
from dfd_edge.errors import UsageError
from dfd_edge.manifest import PersonScore
from dfd_training.calibrate import calibrate
from dfd_training.sequences import ClipSequence, Variant, load_sequences, save_sequences


def clip(rng: np.random.Generator, number: int, *, fake: bool, strength: float) -> ClipSequence:
    """A clip of ten steps whose frame logits say `strength` times the truth, plus noise."""
    truth = strength if fake else -strength
    return ClipSequence(
        path=f"{number}_{fake}",
        group=f"g{number}",
        source="s",
        fold=number % 3,
        variant=Variant.PLAIN,
        fake=fake,
        true_fake=fake,
        features=rng.normal(size=(10, 3)).astype(np.float32),
        frame_logit=(truth + rng.normal(0, 2.0) + rng.normal(0, 1, 10)).astype(np.float32),
    )


@pytest.fixture
def sequences() -> list[ClipSequence]:
    rng = np.random.default_rng(0)
    return [clip(rng, n, fake=fake, strength=1.5) for n in range(150) for fake in (False, True)]


def shifted(sequences: list[ClipSequence], gain: float) -> list[np.ndarray]:
    """Sequence logits that know more (gain above 0) or less than the frames' own."""
    return [s.frame_logit + gain * (1.0 if s.fake else -1.0) for s in sequences]


@pytest.mark.parametrize(
    ("gain", "chosen"), [(1.0, PersonScore.SEQUENCE), (-1.0, PersonScore.FRAME)]
)
def test_the_better_score_on_the_folds_is_chosen(
    sequences: list[ClipSequence], gain: float, chosen: PersonScore
) -> None:
    assert calibrate(sequences, shifted(sequences, gain), draws=20).decision.person_score is chosen


def test_probabilities_mean_what_they_say(sequences: list[ClipSequence]) -> None:
    decision = calibrate(sequences, shifted(sequences, -1.0), draws=20).decision
    means = np.array([s.frame_logit.mean() for s in sequences])
    p = np.array([calibrated(float(mean), decision.calibrators["person"]) for mean in means])
    fake = np.array([s.fake for s in sequences])
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        inside = (p >= low) & (p < high)
        assert fake[inside].mean() == pytest.approx(p[inside].mean(), abs=0.12)


def test_thresholds_keep_their_rates(sequences: list[ClipSequence]) -> None:
    decision = calibrate(sequences, shifted(sequences, -1.0), draws=20).decision
    means = np.array([s.frame_logit.mean() for s in sequences])
    p = np.array([calibrated(float(mean), decision.calibrators["person"]) for mean in means])
    fake = np.array([s.fake for s in sequences])
    real_at, fake_at = decision.thresholds["real"], decision.thresholds["fake"]
    assert real_at.probability <= 0.5 <= fake_at.probability
    assert (p[~fake] >= fake_at.probability).sum() == 3, "2 % of 150 real clips"
    assert (p[fake] <= real_at.probability).mean() <= real_at.target_rate
    assert fake_at.n == 150
    assert fake_at.rate == pytest.approx(3 / 150)
    assert fake_at.rate < fake_at.upper_bound < 0.06


def test_a_clip_counts_once_however_often_it_was_degraded(
    sequences: list[ClipSequence],
) -> None:
    """Degraded copies and a second person of a clip add nothing to n."""
    degraded = [dataclasses.replace(s, variant=Variant.DEGRADED) for s in sequences]
    second = [dataclasses.replace(s, frame_logit=s.frame_logit - 1.0) for s in sequences]
    more = [*sequences, *degraded, *second]
    decision = calibrate(more, shifted(more, -1.0), draws=20).decision
    assert decision.thresholds["fake"].n == 150
    assert decision.thresholds["real"].n == 150
    highest = [s.frame_logit.mean() for s in sequences if not s.fake]
    p = [calibrated(float(mean), decision.calibrators["person"]) for mean in highest]
    assert sum(value >= decision.thresholds["fake"].probability for value in p) == 3


def test_a_model_that_learnt_nothing_is_refused(sequences: list[ClipSequence]) -> None:
    backwards = [dataclasses.replace(s, frame_logit=-s.frame_logit) for s in sequences]
    with pytest.raises(UsageError, match="fakes score below reals"):
        calibrate(backwards, [s.frame_logit for s in backwards])


def test_calibration_needs_true_fakes(sequences: list[ClipSequence]) -> None:
    reals = [s for s in sequences if not s.fake]
    with pytest.raises(UsageError, match="true fakes"):
        calibrate(reals, [s.frame_logit for s in reals])


def test_sequences_survive_the_disk(sequences: list[ClipSequence], tmp_path: object) -> None:
    path = tmp_path / "sequences.npz"  # type: ignore[operator]
    save_sequences(sequences[:5], path)
    for before, after in zip(sequences[:5], load_sequences(path), strict=True):
        assert (before.features == after.features).all()
        assert (before.frame_logit == after.frame_logit).all()
        assert (before.path, before.fold, before.fake) == (after.path, after.fold, after.fake)
        assert after.variant is Variant.PLAIN
