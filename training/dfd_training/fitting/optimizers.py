"""The optimiser of a stage of a fit."""

from __future__ import annotations

import keras

from dfd_training.fitting.options import FitFrameOptions, OptimizerKind
from dfd_training.fitting.stages import FitStage

_MAX_RAMP = 200
_FLOOR = 0.01


def make_optimizer(
    options: FitFrameOptions, stage: FitStage, *, mixed: bool
) -> keras.optimizers.Optimizer:
    """Build the optimiser, with a linear ramp and a cosine over the stage (SGDR: ICLR 2017).

    Args:
        options: kind, weight decay, momentum, clipping.
        stage: its epochs and learning rate.
        mixed: scale the loss, so that gradients of float16 do not vanish.
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
