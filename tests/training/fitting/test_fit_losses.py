"""The loss of logits: Keras' own figures, element by element."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dfd_training.fitting.optimization import LogitLoss, make_loss
from dfd_training.fitting.options import LossKind

LABELS = np.array([0, 1, 0, 1, 1, 0], np.float32)
LOGITS = np.array([-2.0, 3.0, 1.5, -0.5, 0.0, 8.0], np.float32)


def each(loss: LogitLoss, labels: np.ndarray = LABELS, logits: np.ndarray = LOGITS) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(loss.call(labels, logits)))


def test_cross_entropy_with_label_smoothing() -> None:
    wanted = keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=0.1, reduction="none"
    )(LABELS[:, None], LOGITS[:, None])
    np.testing.assert_allclose(each(LogitLoss(smoothing=0.1)), wanted, atol=1e-6)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, 0.5)])
def test_focal(gamma: float, alpha: float) -> None:
    wanted = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=alpha, gamma=gamma, from_logits=True, reduction="none"
    )(LABELS[:, None], LOGITS[:, None])
    loss = make_loss(LossKind.FOCAL, smoothing=0.0, gamma=gamma, alpha=alpha)
    np.testing.assert_allclose(each(loss), 2.0 * np.asarray(wanted), rtol=1e-4, atol=1e-6)


def test_plain_cross_entropy_is_not_focal() -> None:
    loss = make_loss(LossKind.BINARY_CROSSENTROPY, smoothing=0.0, gamma=2.0, alpha=0.9)
    np.testing.assert_array_equal(each(loss), each(LogitLoss()))


def test_what_is_told_for_certain_has_a_finite_loss_and_slope() -> None:
    logits = keras.Variable(np.array([-300.0, 300.0, 300.0, -300.0], np.float32))
    labels = np.array([0, 1, 0, 1], np.float32)
    loss = LogitLoss(gamma=0.5)
    optimizer = keras.optimizers.SGD(1.0)
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=optimizer, loss=loss)
    values = each(loss, labels, np.asarray(logits))
    assert values[:2].tolist() == [0.0, 0.0]
    assert values[2:].tolist() == pytest.approx([300.0, 300.0])
    model.fit(np.asarray(logits)[:, None], labels[:, None], epochs=1, verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()


def test_two_views_are_drawn_together() -> None:
    loss = LogitLoss(consistency=0.5)
    apart = (LOGITS[:3] - LOGITS[3:]) ** 2
    np.testing.assert_allclose(each(loss), each(LogitLoss()) + 0.5 * np.tile(apart, 2), rtol=1e-5)


def test_steps_are_weighed_one_by_one() -> None:
    labels, logits = LABELS.reshape(2, 3), LOGITS.reshape(2, 3)
    weights = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    total = float(LogitLoss()(labels, logits, sample_weight=weights))
    assert total == pytest.approx(float((each(LogitLoss(), labels, logits) * weights).mean()))
