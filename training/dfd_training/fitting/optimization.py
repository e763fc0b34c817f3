"""Optimisation of a fit: loss, optimiser, stages and the moving average of weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dfd_training.fitting.options import FitFrameOptions, LossKind, OptimizerKind
from dfd_training.models import backbone_of
from dfd_training.models.backbone import leaf_layers

AVERAGE_EVERY = 10

_MAX_RAMP = 200
_FLOOR = 0.01


@keras.saving.register_keras_serializable("dfd_training")
class LogitLoss(keras.losses.Loss):  # type: ignore[misc] # Keras is untyped
    """Binary cross-entropy of logits, optionally focal, and the distance between two views.

    Labels and logits have one shape, [B] of crops or [B, T] of steps, and so has the loss, so that
    weights can be given to each.

    Args:
        smoothing: Label smoothing (Szegedy et al., CVPR 2016): a share of the label, half of which
            goes to the other class.
        gamma: Exponent of the focal loss (Lin et al., ICCV 2017): each element is multiplied by
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
        """Returns the loss of every element of labels and logits."""
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
    """Builds the loss of a kind; plain cross-entropy takes neither gamma nor alpha."""
    if kind is LossKind.FOCAL:
        return LogitLoss(smoothing=smoothing, gamma=gamma, alpha=alpha, consistency=consistency)
    return LogitLoss(smoothing=smoothing, consistency=consistency)


class WeightAverage(keras.callbacks.Callback):  # type: ignore[misc] # Keras is untyped
    """Keeps a moving average of all weights, batch-norm statistics included.

    Averaged weights (Polyak and Juditsky, 1992) generalise better than the last ones and let
    the learning rate stay high for longer.

    Args:
        decay: Decay of the average, a step of `AVERAGE_EVERY` batches.

    Attributes:
        weights: The averages in the order of the model's weights; None before the first batch.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self.weights: list[NDArray[np.float32]] | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Folds the current weights in, every tenth batch."""
        del logs
        if batch % AVERAGE_EVERY:
            return
        current = self.model.get_weights()
        if self.weights is None:
            self.weights = current
            return
        for average, weight in zip(self.weights, current, strict=True):
            np.multiply(average, self._decay, out=average)
            np.add(average, (1.0 - self._decay) * weight, out=average)


class StageName(StrEnum):
    """Names of the stages, after the layers that learn."""

    WHOLE = "whole"
    HEAD = "head"
    UPPER = "upper"


@dataclass(frozen=True, slots=True)
class FitStage:
    """Consecutive epochs in which the same layers learn, by a schedule of their own.

    Attributes:
        name: Name of the stage.
        first: Its first epoch, counted from 0.
        epochs: Number of epochs.
        learning_rate: At the start of the cosine.
        share: Share of the backbone's layers, from the top, that learn.
        freeze_norms: Whether the backbone's batch norms stay in inference mode.
    """

    name: StageName
    first: int
    epochs: int
    learning_rate: float
    share: float
    freeze_norms: bool


def stages_of(options: FitFrameOptions) -> tuple[FitStage, ...]:
    """Returns the stages of a fit, in their order.

    Batch norms stay in inference mode wherever the head learns first: their statistics would
    move away from those that the frozen layers were trained with.
    """
    trained = options.weights != "none"
    if options.unfreeze == 0.0 or options.warmup_epochs == options.epochs:
        rate = options.warmup_rate
        return (FitStage(StageName.HEAD, 0, options.epochs, rate, 0.0, trained),)
    warmup = options.warmup_epochs
    in_part = warmup > 0 or options.unfreeze < 1.0
    main = FitStage(
        name=StageName.UPPER if in_part else StageName.WHOLE,
        first=warmup,
        epochs=options.epochs - warmup,
        learning_rate=options.learning_rate,
        share=options.unfreeze,
        freeze_norms=trained and (in_part or options.freeze_batch_norm),
    )
    if not warmup:
        return (main,)
    return (FitStage(StageName.HEAD, 0, warmup, options.warmup_rate, 0.0, trained), main)


def set_trainable(model: keras.Model, stage: FitStage) -> None:
    """Sets which layers of a frame model learn; those of the head always do.

    A compiled model must be compiled again.
    """
    backbone = list(leaf_layers(backbone_of(model)))
    for layer in [model, *model.layers, *backbone]:  # a model does not always hand it on
        layer.trainable = True
    weighted = [layer for layer in backbone if layer.weights]
    for layer in weighted[: len(weighted) - round(stage.share * len(weighted))]:
        layer.trainable = False
    if stage.freeze_norms:
        for layer in backbone:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def make_optimizer(
    options: FitFrameOptions, stage: FitStage, *, mixed: bool
) -> keras.optimizers.Optimizer:
    """Builds the optimiser, with a linear ramp and a cosine over the stage (SGDR: ICLR 2017).

    Args:
        options: Kind, weight decay, momentum, clipping.
        stage: Its epochs and learning rate.
        mixed: Scale the loss, so that gradients of float16 do not vanish.
    """
    total = stage.epochs * options.steps
    ramp = max(1, min(_MAX_RAMP, total // 10))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=stage.learning_rate / 20,
        decay_steps=max(1, total - ramp),
        warmup_target=stage.learning_rate,
        warmup_steps=ramp,
        alpha=_FLOOR,
    )
    clip = options.clip_norm or None
    if options.optimizer is OptimizerKind.SGD:
        optimizer = keras.optimizers.SGD(
            schedule,
            momentum=options.momentum,
            nesterov=options.momentum > 0.0,
            weight_decay=options.weight_decay or None,
            clipnorm=clip,
        )
    elif options.optimizer is OptimizerKind.ADAM:
        optimizer = keras.optimizers.Adam(schedule, clipnorm=clip)
    else:
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=options.weight_decay, clipnorm=clip
        )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if mixed else optimizer
