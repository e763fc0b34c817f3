"""Options of the fit of the frame model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dfd_edge.errors import UsageError

DEFAULT_BACKBONE = "efficientnet_lite0"


class Media(StrEnum):
    """Kinds of files."""

    PHOTOGRAPHS = "photographs"
    CLIPS = "clips"
    ALL = "all"


class Balance(StrEnum):
    """Ways to make the two classes weigh the same."""

    PAIRS = "pairs"
    CLASS_WEIGHTS = "class_weights"


class LossKind(StrEnum):
    """Losses."""

    BINARY_CROSSENTROPY = "binary_crossentropy"
    FOCAL = "focal"


class OptimizerKind(StrEnum):
    """Optimisers."""

    ADAMW = "adamw"
    ADAM = "adam"
    SGD = "sgd"


class Switch(StrEnum):
    """On, off, or on where it pays."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class FitFrameOptions:
    """Options of the fit of the frame model.

    Attributes:
        backbone: Name in the registry.
        weights: "imagenet", "none", "shipped", a file of weights, or a `.keras` frame model or a
            bundle to go on from.
        other_crop_scale: Whether such a model may have been fitted on crops of another scale than
            the store's.
        train_on: Rows to train on.
        validate_on: Rows of the held-out fold that choose the best weights.
        holdout: The fold that is not trained on; -1 trains on all rows marked train.
        with_validation: Whether rows marked val are trained on too: for a model that ships, once
            nothing is left to choose by them.
        balance: "pairs" draws real and fake one to one inside every source; "class_weights" draws
            the stored crops as the table has them, those of fakes without an original too, and
            weighs each class by its inverse share.
        epochs: Most epochs, those of the warm-up included.
        warmup_epochs: First epochs, in which only the head learns.
        warmup_rate: Learning rate of those, at the start of their cosine.
        unfreeze: Share of the backbone's layers, from the top, that learn after the warm-up: 0 to
            1. Below 1, or with a warm-up, the backbone's batch norms stay in inference mode.
        steps: Batches an epoch.
        batch_size: Crops a batch; of pairs half of them are real.
        optimizer: "adamw", "adam" or "sgd" (with Nesterov's momentum).
        learning_rate: At the start of the cosine.
        weight_decay: Weight decay of AdamW and SGD; biases, scales and offsets do not decay.
        momentum: Momentum of SGD.
        clip_norm: Gradients are clipped to this norm, each variable's by itself; 0 for no clipping.
        loss: "binary_crossentropy" or "focal" (Lin et al., ICCV 2017).
        focal_gamma: Strength with which the focal loss plays down well classified crops.
        focal_alpha: Weight of fakes in the focal loss; reals weigh 1 less that.
        label_smoothing: Label smoothing of the loss.
        average_decay: Decay of the moving average of weights, a step of 10 batches.
        consistency: Weight of the squared difference between the logits of two views of a crop,
            degraded by different draws; 0 draws one view.
        freeze_batch_norm: Keep the statistics and scales of batch norms that start trained: on
            processors a step takes half the time, but it learns much less.
        mixed_precision: Compute the backbone in float16; "auto" does so on a GPU only. Weights
            and head stay float32, and so does what is saved.
        keep_last: Keep the last epoch's averaged weights instead of those that separate the
            held-out fold best, which then had no say in them.
        without_sources: Sources that are left out of training and validation.
        without_families: Families of fakes that are left out of training, with all groups that
            they are judged on, which join the held-out fold. `FF++ *` stands for all whose names
            begin so.
        dropout: Share of the pooled features dropped in training.
        patience: Epochs after the warm-up without a better validation AUC before the fit ends.
        validation_pairs: Pairs drawn once from the held-out fold; twice as many crops.
        seed: Seed of everything drawn.
        threads: Threads that draw batches.

    Raises:
        UsageError: A number is out of its range.
    """

    backbone: str = DEFAULT_BACKBONE
    weights: str = "imagenet"
    other_crop_scale: bool = False
    train_on: Media = Media.ALL
    validate_on: Media = Media.ALL
    holdout: int = 0
    with_validation: bool = False
    balance: Balance = Balance.PAIRS
    epochs: int = 30
    warmup_epochs: int = 0
    warmup_rate: float = 3e-3
    unfreeze: float = 1.0
    steps: int = 100
    batch_size: int = 32
    optimizer: OptimizerKind = OptimizerKind.ADAMW
    learning_rate: float = 6e-4
    weight_decay: float = 0.01
    momentum: float = 0.9
    clip_norm: float = 1.0
    loss: LossKind = LossKind.BINARY_CROSSENTROPY
    focal_gamma: float = 2.0
    focal_alpha: float = 0.5
    label_smoothing: float = 0.05
    average_decay: float = 0.9
    consistency: float = 0.0
    freeze_batch_norm: bool = False
    mixed_precision: Switch = Switch.AUTO
    keep_last: bool = False
    without_sources: tuple[str, ...] = ()
    without_families: tuple[str, ...] = ()
    dropout: float = 0.2
    patience: int = 10
    validation_pairs: int = 300
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.batch_size % 2:
            raise UsageError(f"batch size {self.batch_size} must be even: half of it is real")
        if self.consistency and self.batch_size % 4:
            raise UsageError(f"batch size {self.batch_size} must be a multiple of 4: two views")
        if self.consistency and self.balance is not Balance.PAIRS:
            raise UsageError(
                f"consistency {self.consistency} needs balance=pairs: only pairs are drawn twice"
            )
        for name in ("epochs", "steps", "validation_pairs", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; 1 or more")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UsageError(
                f"warmup_epochs is {self.warmup_epochs}; 0 to {self.epochs}, the epochs in all"
            )
        for name in (
            "unfreeze",
            "focal_alpha",
            "average_decay",
            "momentum",
            "label_smoothing",
            "dropout",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; 0 to 1")
        for name in ("learning_rate", "warmup_rate"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}; more than 0")
        for name in ("weight_decay", "clip_norm", "focal_gamma", "consistency"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more")
