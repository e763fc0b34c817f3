"""Where thresholds lie: webcams and phones count for half, few clips stay unsure, stills differ."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from dfd_edge.bundle.manifest import PersonScore
from dfd_training.calibration.calibrate import FEWEST_STILLS, calibrate
from dfd_training.calibration.thresholds import (
    ClipScores,
    decision_thresholds,
    fake_threshold,
    rate_of,
    sure_threshold,
)
from dfd_training.sequence.sequences import ClipSequence, Treatment


def scores(
    p: NDArray[np.float64], *, fake: bool = False, camera: NDArray[np.bool_] | None = None
) -> ClipScores:
    """Clips of as many groups."""
    count = len(p)
    return ClipScores(
        p=np.asarray(p, np.float64),
        fake=np.full(count, fake),
        true_fake=np.full(count, fake),
        variant=np.full(count, "plain"),
        group=np.arange(count).astype(str),
        camera=np.zeros(count, bool) if camera is None else camera,
    )


REALS = np.concatenate([np.linspace(0.01, 0.4, 180), np.linspace(0.5, 0.9, 20)])
CAMERA = np.arange(200) >= 180


def test_cameras_weigh_as_much_as_all_else_together() -> None:
    even, halves = scores(REALS), scores(REALS, camera=CAMERA)
    assert halves.weights()[CAMERA].sum() == pytest.approx(0.5)
    assert halves.weights().sum() == pytest.approx(1.0)
    assert scores(REALS, camera=~np.zeros(200, bool)).weights() == pytest.approx(1 / 200)
    low, high = (fake_threshold(part, 0.05) for part in (even, halves))
    assert (low <= REALS).sum() == 10
    assert (REALS[CAMERA] >= high).sum() == 2, "a tenth of the cameras' half"
    assert low < high


def test_a_rate_over_few_cameras_has_a_bound_for_few() -> None:
    hits = REALS >= 0.85
    even, halves = rate_of(hits, scores(REALS)), rate_of(hits, scores(REALS, camera=CAMERA))
    assert halves.value == pytest.approx(0.5 * hits[CAMERA].mean())
    assert even.groups == halves.groups == 200
    assert halves.upper_bound - halves.value > even.upper_bound - even.value


def test_at_most_a_quarter_of_the_reals_is_unsure_at_the_cost_of_fakes() -> None:
    rng = np.random.default_rng(0)
    reals, fakes = (
        scores(rng.uniform(0.1, 0.45, 400)),
        scores(rng.uniform(0.15, 0.9, 400), fake=True),
    )
    decided = decision_thresholds(reals, fakes)
    real_at, fake_at = (decided[name].probability for name in ("real", "fake"))
    unsure = ((reals.p > real_at) & (reals.p < fake_at)).mean()
    assert 0.23 < unsure <= 0.25
    missed = (fakes.p <= real_at).mean()
    assert missed > 0.1
    assert decided["real"].rate == pytest.approx(missed)
    assert decided["real"].target_rate == pytest.approx(missed)
    assert sure_threshold(reals, 0.0, 0.5) == pytest.approx(reals.p.max(), abs=1e-4)


def test_nobody_is_called_real_above_one_half() -> None:
    reals, fakes = scores(np.linspace(0.6, 0.9, 100)), scores(np.linspace(0.6, 0.9, 100), fake=True)
    assert decision_thresholds(reals, fakes)["real"].probability == 0.5


def made(number: int, *, fake: bool, source: str, shift: float = 0.0) -> ClipSequence:
    rng = np.random.default_rng((number, int(fake)))
    logits = (1.5 if fake else -1.5) + shift + rng.normal(0, 1.5) + rng.normal(0, 0.5, 6)
    return ClipSequence(
        path=f"{number}{fake}{source}",
        group=f"g{number}",
        source=source,
        fold=number % 3,
        variant=Treatment.PLAIN,
        fake=fake,
        true_fake=fake,
        features=np.zeros((6, 2), np.float32),
        frame_logit=logits.astype(np.float32),
        detail=np.full(6, 100.0, np.float32),
        face_px=np.full(6, 90.0, np.float32),
    )


CLIPS = [
    *(made(n, fake=fake, source="stock") for n in range(90) for fake in (False, True)),
    *(made(n, fake=False, source="webcam", shift=1.0) for n in range(90, 110)),
]


def calibrated(**options: object):
    logits = [clip.frame_logit for clip in CLIPS]
    return calibrate(CLIPS, logits, person_score=PersonScore.FRAME, draws=20, **options)


def test_named_cameras_raise_the_threshold_of_fakes() -> None:
    before, after = calibrated(), calibrated(cameras=["webcam"])
    low, high = (result.decision.thresholds["fake"] for result in (before, after))
    assert low.probability < high.probability
    assert max(low.rate, high.rate) <= 0.02
    name = "training folds, fp32, real clips by webcams, phones and browsers: share called fake"
    assert name not in before.metrics
    assert after.metrics[name].n == 20


def test_cameras_that_a_table_does_not_have_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assert calibrated(cameras=["phone"]).decision == calibrated().decision
    assert "no real clips of phone" in caplog.text


def still(number: int, *, fake: bool) -> ClipSequence:
    clip = made(number, fake=fake, source="photographs", shift=4.0)
    return dataclasses.replace(
        clip,
        features=clip.features[:1],
        frame_logit=clip.frame_logit[:1],
        detail=clip.detail[:1],
        face_px=clip.face_px[:1],
        signals=clip.signals[:1],
        measured=clip.measured[:1],
    )


def test_stills_have_a_decision_of_their_own_where_there_are_enough() -> None:
    photographs = [still(n, fake=fake) for n in range(80) for fake in (False, True)]
    result = calibrated(photographs=photographs)
    decision = result.decision.still
    middle = -decision.calibrator.intercept / decision.calibrator.slope
    assert middle == pytest.approx(4.0, abs=0.6), "stills' logits all lie higher"
    assert decision.thresholds["fake"].n == 80
    assert decision.thresholds["fake"].rate <= 0.02
    called = result.metrics["training folds, fp32, real photographs: share called fake"]
    assert called.value == pytest.approx(decision.thresholds["fake"].rate, abs=1e-4)
    assert "training folds, fp32, fake photographs: share called fake" in result.metrics
    few = [p for p in photographs if not p.fake or int(p.group[1:]) < FEWEST_STILLS - 1]
    assert calibrated(photographs=few).decision.still is None
    clips = dataclasses.replace(result.decision, still=None)
    assert clips == calibrated().decision, "clips keep theirs"
