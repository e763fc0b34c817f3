"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from dfd_training.evaluation import statistics as metrics

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
    assert told.excludes_zero
    assert told.high - told.low < 0.5 * (alone.high - alone.low)
    same = metrics.estimate(change, labels, np.stack([base, base], axis=1), groups, draws=50)
    assert (same.value, same.low, same.high, same.excludes_zero) == (0.0, 0.0, 0.0, False)


def test_every_bootstrap_sample_is_what_scikit_learn_gives_on_its_rows() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 60)
    noisy = np.round(rng.normal(0, 1.5, 60) + labels, 1)  # rounded: some are equal
    scores = 1.0 / (1.0 + np.exp(-noisy))
    drawn = metrics.GroupBootstrap.of(rng.integers(0, 15, 60).astype(str), draws=40)
    theirs = {
        "auc": sklearn_metrics.roc_auc_score,
        "average_precision": sklearn_metrics.average_precision_score,
        "log_loss": sklearn_metrics.log_loss,
        "accuracy": lambda truth, p: sklearn_metrics.accuracy_score(truth, p >= 0.5),
    }
    for name, function in theirs.items():
        samples = metrics.METRICS[name].of_samples(labels, scores, drawn.counts[:, drawn.member])
        for counts, sample in zip(drawn.counts, samples, strict=True):
            rows = np.repeat(np.arange(60), counts[drawn.member].astype(int))
            assert sample == pytest.approx(function(labels[rows], scores[rows])), name


def test_whole_groups_are_drawn_and_weigh_by_their_rows() -> None:
    groups = np.array(["a", "a", "a", "b"])
    drawn = metrics.GroupBootstrap.of(groups, draws=500)
    assert (drawn.counts.sum(axis=1) == 2).all()
    alike = drawn.mean(np.array([1.0, 1.0, 1.0, 0.0]))
    assert (alike.value, alike.low, alike.high, alike.n, alike.groups) == (0.75, 0.0, 1.0, 4, 2)
    by_group = drawn.mean(np.array([1.0, 1.0, 1.0, 0.0]), np.array([1 / 3, 1 / 3, 1 / 3, 1.0]))
    assert by_group.value == pytest.approx(0.5)


def test_many_rows_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, groups = np.tile(LABELS, 5), np.tile(SCORES, 5), np.arange(40).astype(str)
    whole = metrics.estimate(metrics.auc, labels, scores, groups, draws=50)
    monkeypatch.setattr(metrics, "_CHUNK", 100)
    assert metrics.estimate(metrics.auc, labels, scores, groups, draws=50) == whole
