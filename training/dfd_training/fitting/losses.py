"""What a fit minimises, in Keras' own operations."""

from __future__ import annotations

import keras
from keras import ops

from dfd_training.fitting.options import LossKind


@keras.saving.register_keras_serializable("dfd_training")
class LogitLoss(keras.losses.Loss):  # type: ignore[misc] # Keras is untyped
    """Binary cross-entropy of logits, focal if asked for, and how far two views are apart.

    Labels and logits have one shape, [B] of crops or [B, T] of steps, and so has the loss, so that
    weights can be given to each.

    Args:
        smoothing: Label smoothing (Szegedy et al., CVPR 2016): a share of the label, half of which
            goes to the other class.
        gamma: Of the focal loss (Lin et al., ICCV 2017): each element is multiplied by
            (1 - p) ** gamma, p the probability given to its class; 0 for plain cross-entropy.
        alpha: Weight of fakes, times 2; reals have the rest. 0.5 weighs both 1.
        consistency: Weight of the squared difference of the logits of two views; the second half
            of the batch shows what the first half shows, degraded otherwise.
    """

    def __init__(
        self,
        *,
        smoothing: float = 0.0,
        gamma: float = 0.0,
        alpha: float = 0.5,
        consistency: float = 0.0,
    ) -> None:
        super().__init__(name="logit_loss")
        self._smoothing = smoothing
        self._gamma = gamma
        self._alpha = alpha
        self._consistency = consistency

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of every element of labels and logits."""
        smooth = y_true * (1.0 - self._smoothing) + 0.5 * self._smoothing
        loss = ops.softplus(y_pred) - smooth * y_pred
        if self._gamma:
            # 1 - p is the sigmoid of the logit for the other class; its logarithm has a gradient
            # everywhere, a power of it has none at 0.
            other = (1.0 - 2.0 * y_true) * y_pred
            loss = loss * ops.exp(-self._gamma * ops.softplus(-other))
        if self._alpha != 0.5:
            loss = loss * 2.0 * (self._alpha * y_true + (1.0 - self._alpha) * (1.0 - y_true))
        if self._consistency:
            first, second = ops.split(y_pred, 2)
            apart = ops.square(first - second)
            loss = loss + self._consistency * ops.concatenate([apart, apart])
        return loss


def make_loss(
    kind: LossKind,
    *,
    smoothing: float,
    gamma: float,
    alpha: float,
    consistency: float = 0.0,
) -> LogitLoss:
    """The loss of a name; plain cross-entropy takes neither gamma nor alpha."""
    if kind is LossKind.FOCAL:
        return LogitLoss(smoothing=smoothing, gamma=gamma, alpha=alpha, consistency=consistency)
    return LogitLoss(smoothing=smoothing, consistency=consistency)
