"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dfd_training.evaluation.evaluate import statistics as metrics

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.8, 0.4, 0.6, 0.7, 0.9])


def test_each_metric_on_a_case_done_by_hand() -> None:
    assert metrics.auc(LABELS, SCORES) == pytest.approx(13 / 16)
    assert metrics.accuracy(LABELS, SCORES) == pytest.approx(6 / 8)
    assert metrics.true_positive_rate_at_5(LABELS, SCORES) == pytest.approx(1 / 4)
    assert metrics.equal_error_rate(LABELS, SCORES) == pytest.approx(0.25)
    assert metrics.average_precision(LABELS, SCORES) == pytest.approx(
        (1 / 1 + 2 / 3 + 3 / 4 + 4 / 5) / 4
    )


def test_calibration_error_of_a_liar_and_of_an_honest_one() -> None:
    labels = np.array([0, 1] * 50)
    assert metrics.calibration_error(labels, np.full(100, 0.5)) == pytest.approx(0.0)
    assert metrics.calibration_error(labels, np.full(100, 0.99)) == pytest.approx(0.49)


def test_an_interval_widens_when_rows_share_groups() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    scores = labels + np.repeat(rng.normal(0, 1.0, 40), 10)
    one, ten = (np.arange(400) // size for size in (1, 10))
    alone = metrics.estimate(metrics.auc, labels, scores, one.astype(str), draws=300)
    shared = metrics.estimate(metrics.auc, labels, scores, ten.astype(str), draws=300)
    assert alone.value == shared.value
    assert shared.groups == 40
    assert shared.high - shared.low > 1.5 * (alone.high - alone.low)
    assert shared.low <= shared.value <= shared.high


def test_one_class_alone_gives_no_figure() -> None:
    figure = metrics.estimate(metrics.auc, np.ones(4, np.int64), SCORES[:4], np.array(list("abcd")))
    assert np.isnan(figure.value)
    assert np.isnan(metrics.auc(np.zeros(8, np.int64), SCORES))


@pytest.mark.parametrize(
    ("hits", "n", "bound"), [(0, 30, 0.095), (0, 300, 0.00994), (3, 30, 0.239), (5, 5, 1.0)]
)
def test_the_upper_bound_of_a_rate(hits: int, n: int, bound: float) -> None:
    assert metrics.rate_upper_bound(hits, n) == pytest.approx(bound, abs=0.001)


def test_log_loss_on_a_case_done_by_hand() -> None:
    labels, scores = np.array([0, 1]), np.array([0.2, 0.5])
    assert metrics.log_loss(labels, scores) == pytest.approx(-(np.log(0.8) + np.log(0.5)) / 2)
    assert np.isfinite(metrics.log_loss(labels, np.array([1.0, 0.0]))), "certain and wrong"


def test_a_paired_difference_is_sharper_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 60)
    groups = (np.arange(120) // 2).astype(str)
    base = 1.0 / (1.0 + np.exp(-(labels + rng.normal(0, 1.5, 120))))
    better = np.clip(base + 0.1 * (2 * labels - 1), 0.0, 1.0)
    both = np.stack([base, better], axis=1)
    change = metrics.change_of(metrics.auc)
    told = metrics.estimate(change, labels, both, groups, draws=100)
    alone = metrics.estimate(metrics.auc, labels, base, groups, draws=100)
    assert told.value == pytest.approx(metrics.auc(labels, better) - metrics.auc(labels, base))
    assert told.tells
    assert told.high - told.low < 0.5 * (alone.high - alone.low)
    same = metrics.estimate(change, labels, np.stack([base, base], axis=1), groups, draws=50)
    assert (same.value, same.low, same.high, same.tells) == (0.0, 0.0, 0.0, False)
