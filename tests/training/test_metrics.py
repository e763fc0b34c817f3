"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dfd_training import metrics

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
    alone = metrics.estimate(metrics.auc, labels, scores, np.arange(400).astype(str))
    shared = metrics.estimate(metrics.auc, labels, scores, (np.arange(400) // 10).astype(str))
    assert alone.value == shared.value
    assert shared.groups == 40
    assert shared.high - shared.low > 1.5 * (alone.high - alone.low)
    assert shared.low <= shared.value <= shared.high


def test_one_class_alone_gives_no_figure() -> None:
    figure = metrics.estimate(metrics.auc, np.ones(4, np.int64), SCORES[:4], np.array(list("abcd")))
    assert np.isnan(figure.value)


@pytest.mark.parametrize(
    ("hits", "n", "bound"), [(0, 30, 0.095), (0, 300, 0.00994), (3, 30, 0.239), (5, 5, 1.0)]
)
def test_the_upper_bound_of_a_rate(hits: int, n: int, bound: float) -> None:
    assert metrics.rate_upper_bound(hits, n) == pytest.approx(bound, abs=0.001)
