"""The stages of a fit: all layers from the start, or the head first and then the upper layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import keras

from dfd_training.fitting.options import FitFrameOptions
from dfd_training.models import backbone_of


class StageName(StrEnum):
    """What learns."""

    WHOLE = "whole"
    HEAD = "head"
    UPPER = "upper"


@dataclass(frozen=True, slots=True)
class FitStage:
    """Consecutive epochs in which the same layers learn, by a schedule of their own.

    Attributes:
        name: of the stage.
        first: its first epoch, counted from 0.
        epochs: how many.
        learning_rate: at the start of the cosine.
        share: of the backbone's layers, from the top, that learn.
        freeze_norms: whether the backbone's batch norms stay in inference mode.
    """

    name: StageName
    first: int
    epochs: int
    learning_rate: float
    share: float
    freeze_norms: bool


def stages_of(options: FitFrameOptions) -> tuple[FitStage, ...]:
    """The stages of a fit, in their order.

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


def let_learn(model: keras.Model, stage: FitStage) -> None:
    """Set which layers of a frame model learn; those of the head always do.

    A compiled model must be compiled again.
    """
    backbone = list(_leaves(backbone_of(model)))
    for layer in [model, *model.layers, *backbone]:  # a model does not always tell its layers
        layer.trainable = True
    weighted = [layer for layer in backbone if layer.weights]
    for layer in weighted[: len(weighted) - round(stage.share * len(weighted))]:
        layer.trainable = False
    if stage.freeze_norms:
        for layer in backbone:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer
