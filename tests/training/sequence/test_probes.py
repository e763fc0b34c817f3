"""Probes on signals: one for each family of fakes, weighted by generators and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES
from dfd_training.sequence.probes import FamilyProbes, ProbeOptions

WIDTH = 5


def made_clips(
    clips: int, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.bool_]]:
    """Signals of real clips, and of two families that move one signal in opposite directions."""
    rng = np.random.default_rng(seed)
    families = np.repeat(["", "", "smooth", "rough"], clips)
    signals = rng.normal(3.0, 2.0, (len(families), WIDTH))
    signals[:, 4] = 7.0
    signals[families == "smooth", 0] -= 6.0
    signals[families == "rough", 0] += 6.0
    return signals, families, families != ""


def fitted(clips: int = 60) -> FamilyProbes:
    signals, families, fakes = made_clips(clips)
    groups = np.arange(len(families)).astype(str)
    return FamilyProbes.fit(signals, families, families, groups, fakes)


def test_opposite_traces_of_two_families_are_both_found() -> None:
    probes = fitted()
    assert probes.families == ("rough", "smooth")
    assert probes.kernel.shape == (WIDTH, 2)
    assert probes.kernel[0, 0] > 0 > probes.kernel[0, 1]
    signals, families, fakes = made_clips(60, seed=1)
    scores = probes.score(signals)
    assert roc_auc_score(fakes, scores) > 0.85
    for number, name in enumerate(probes.families):
        its = (families == name) | ~fakes
        assert roc_auc_score(fakes[its], probes.logits(signals[its])[:, number]) > 0.95


def test_a_score_is_the_log_mean_exp_of_the_probes() -> None:
    probes = fitted()
    signals = made_clips(3, seed=2)[0]
    wanted = 2.0 * np.log(np.exp(probes.logits(signals) / 2.0).mean(axis=-1))
    assert probes.score(signals) == pytest.approx(wanted)
    assert probes.score(signals.reshape(3, 4, WIDTH)) == pytest.approx(wanted.reshape(3, 4))


def test_far_signals_count_no_more_than_four_deviations() -> None:
    probes = fitted()
    far, farther = (np.array(probes.mean + k * probes.scale) for k in (4.0, 400.0))
    assert probes.score(far) == pytest.approx(float(probes.score(farther)), abs=1e-4)
    assert probes.scale[4] == 1.0, "a signal that never changes"


def test_a_generator_with_many_clips_weighs_no_more_than_one_with_few() -> None:
    """Copies of one generator's clips leave the probe as it is."""
    rng = np.random.default_rng(3)
    signals = rng.normal(0.0, 1.0, (60, WIDTH))
    signals[30:45, 0] += 3.0
    signals[45:, 1] += 3.0
    generators = np.repeat(["", "first", "second"], [30, 15, 15])
    families = np.where(generators == "", "", "both")
    more = np.r_[np.arange(60), np.tile(np.arange(45, 60), 9)]

    def kernel(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        probes = FamilyProbes.fit(
            signals[rows], families[rows], generators[rows], rows.astype(str), families[rows] != ""
        )
        return probes.kernel[:, 0] / probes.scale

    even, uneven = kernel(np.arange(60)), kernel(more)
    assert even[1] / even[0] == pytest.approx(uneven[1] / uneven[0], rel=0.25)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        (["one"] * 8, "0 real clips and of 8 fakes"),
        ([""] * 8, "8 real clips and of 0 fakes, at most 0 of one family"),
        (["", "", "one", "one", "one", "two"], "at most 3 of one family: no probe can be fitted"),
    ],
)
def test_too_few_clips_are_refused(families: list[str], message: str) -> None:
    signals = np.random.default_rng(0).normal(size=(len(families), WIDTH))
    with pytest.raises(UsageError, match=message):
        FamilyProbes.fit(signals, families, families, families, [bool(f) for f in families])


def test_options_of_the_probes() -> None:
    rng = np.random.default_rng(5)
    signals = rng.normal(0.0, 1.0, (80, len(NAMES)))
    families = np.repeat(["", "one", "two"], [40, 20, 20])
    signals[families == "one", 0] += 3.0
    signals[families == "two", 0] -= 3.0

    def probes(**options: Any) -> FamilyProbes:
        return FamilyProbes.fit(
            signals, families, families, np.arange(80).astype(str), families != "",
            options=ProbeOptions(**options),
        )  # fmt: skip

    def area(fitted: FamilyProbes) -> float:
        return float(roc_auc_score(families != "", fitted.score(signals)))

    alone = probes(families=False)
    assert alone.families == ("all fakes",)
    assert area(probes()) > area(alone) + 0.05, "opposite traces average away"
    (place,) = [i for i, kept in enumerate(ProbeOptions(without=(NAMES[0],)).kept()) if not kept]
    assert place == 0
    assert not probes(without=(NAMES[0],)).kernel[0].any()
    assert np.abs(probes(inverse_penalty=1e-4).kernel).max() < np.abs(probes().kernel).max() / 10
    low, high = (probes(temperature=t).score(signals) for t in (0.1, 100.0))
    assert np.allclose(low, probes().logits(signals).max(axis=1), atol=0.1)
    assert np.allclose(high, probes().logits(signals).mean(axis=1), atol=0.2)
    with pytest.raises(UsageError, match="temperature is 0"):
        ProbeOptions(temperature=0.0)
