"""Autoencoders of whole heads, fitted against a patch critic: decoder texture over all of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.generators.fitting import (
    FitState,
    GeneratorFitOptions,
    OnRound,
    painting_loss,
    run_fit,
)
from dfd_training.augment.generators.writer import real_clips, real_photographs
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.data.store import CropStore, StoredCrop

PATCH_SIDE = 96
"""Side of the patches that the networks are trained on; they run at any multiple of `shrink`."""


class Upsampling(StrEnum):
    """The upsampling of a decoder; each kind leaves traces of its own."""

    TRANSPOSED = "transposed"
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """One autoencoder of whole crops.

    Attributes:
        upsampling: Upsampling of the decoder.
        shrink: Side of the picture over that of the code: 4 or 8.
        code: Channels of the code.
    """

    upsampling: Upsampling
    shrink: int
    code: int

    @property
    def name(self) -> str:
        """Name of the network's folder."""
        return f"{self.upsampling}{self.shrink}"


HEAD_PLANS = (
    HeadPlan(Upsampling.TRANSPOSED, shrink=8, code=16),
    HeadPlan(Upsampling.NEAREST, shrink=8, code=12),
)

_WIDTHS = (24, 40, 64)


def build_head_model(plan: HeadPlan) -> keras.Model:
    """Builds an autoencoder: float32 [b, h, w, 3], RGB in 0..1, in and out.

    It is fully convolutional: height and width are any multiple of `plan.shrink`.
    """
    depth = {4: 2, 8: 3}[plan.shrink]
    picture = keras.Input((None, None, 3), name="picture")
    values = picture
    for width in _WIDTHS[:depth]:
        values = layers.Conv2D(width, 4, strides=2, padding="same")(values)
        values = layers.LeakyReLU(0.1)(values)
    values = layers.Conv2D(plan.code, 1, name="code")(values)
    values = layers.Conv2D(_WIDTHS[depth - 1], 3, padding="same")(values)
    values = layers.LeakyReLU(0.1)(values)
    more = layers.Conv2D(_WIDTHS[depth - 1], 3, padding="same")(values)
    values = layers.Add()([values, layers.LeakyReLU(0.1)(more)])
    for width in (*reversed(_WIDTHS[: depth - 1]), 16):
        values = _enlarged(values, width, plan.upsampling)
        values = layers.LeakyReLU(0.1)(values)
    half = keras.initializers.Constant(0.5)
    painted = layers.Conv2D(3, 3, padding="same", bias_initializer=half, name="painted")(values)
    return keras.Model(picture, painted)


def _enlarged(values: Any, width: int, upsampling: Upsampling) -> Any:  # noqa: ANN401
    if upsampling is Upsampling.TRANSPOSED:
        return layers.Conv2DTranspose(width, 4, strides=2, padding="same")(values)
    return layers.Conv2D(width, 3, padding="same")(layers.UpSampling2D(2)(values))


def build_critic() -> keras.Model:
    """Builds a patch critic (Isola et al., 2017): a logit for each patch of about 30 pixels."""
    picture = keras.Input((PATCH_SIDE, PATCH_SIDE, 3))
    values = picture
    for width in (16, 32, 48):
        values = layers.Conv2D(width, 4, strides=2, padding="same")(values)
        values = layers.LeakyReLU(0.2)(values)
    return keras.Model(picture, layers.Conv2D(1, 3, padding="same")(values))


HEADS_FOLDER = "heads"
MAX_CROPS = 2500
CROPS_A_CLIP = 10
TILE_SIDE = 160
FACE_SIDES = (110.0, 240.0)


def collect_heads(store: CropStore, *, seed: int = 0) -> NDArray[np.uint8]:
    """Returns tiles of crops of clips and photographs marked train, uint8 [n, 160, 160, 3], RGB.

    The tiles show faces of `FACE_SIDES` pixels, as far as the footage has them, and their
    surroundings.

    Raises:
        UsageError: When there is no crop.
    """
    rng = np.random.default_rng(seed)
    clips = [
        (file.shard, position)
        for file in real_clips(store)
        for position in file.spread(CROPS_A_CLIP, rng)
    ]
    photographs = [(file.shard, file.positions[0]) for file in real_photographs(store)]
    room = max(0, MAX_CROPS - len(clips))
    drawn = rng.permutation(len(photographs))[:room]
    chosen = [*clips[:MAX_CROPS], *(photographs[number] for number in drawn)]
    if not chosen:
        raise UsageError(f"{store.path}: no judged real crop marked train")
    return np.stack([_tile(store.crop(s, p), rng)[:, :, ::-1] for s, p in chosen])


def _tile(crop: StoredCrop, rng: np.random.Generator) -> Picture:
    side = crop.image.shape[0]
    scale = min(1.0, float(rng.uniform(*FACE_SIDES)) / face_size(crop))
    scaled = max(TILE_SIDE, round(side * scale))
    image = np.asarray(resize_to(crop.image, scaled), np.uint8)
    # The middle half as often again as the rest: the face matters most.
    left, top = (round((scaled - TILE_SIDE) * float(share)) for share in rng.beta(1.5, 1.5, 2))
    return image[top : top + TILE_SIDE, left : left + TILE_SIDE]


def face_size(crop: StoredCrop) -> float:
    """Returns the larger side of the face's box in pixels."""
    return float(max(crop.box[2] - crop.box[0], crop.box[3] - crop.box[1]))


def resize_to(image: Picture, side: int) -> Picture:
    """Resizes a square picture, by areas where it shrinks."""
    if image.shape[0] == side:
        return image
    kernel = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side, side), interpolation=kernel), np.uint8)


class HeadBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras is untyped
    """Batches of one round: patches of the tiles, mirrored and recoloured a little."""

    def __init__(self, heads: NDArray[np.uint8], options: GeneratorFitOptions, number: int) -> None:
        super().__init__(workers=options.threads, use_multiprocessing=False, max_queue_size=4)
        self._heads = heads
        self._options = options
        self._number = number

    def __len__(self) -> int:
        return self._options.steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns the same pictures twice, float32 [b, 96, 96, 3] in 0..1."""
        rng = np.random.default_rng((self._options.seed, self._number, index))
        size = self._options.batch_size
        chosen = rng.integers(len(self._heads), size=size)
        left, top = rng.integers(TILE_SIDE - PATCH_SIDE + 1, size=(2, size))
        images = np.stack(
            [
                self._heads[number, y : y + PATCH_SIDE, x : x + PATCH_SIDE]
                for number, x, y in zip(chosen, left, top, strict=True)
            ]
        )
        mirrored = rng.random(size) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
        gain = rng.uniform(0.8, 1.2, (size, 1, 1, 1)) * rng.uniform(0.93, 1.07, (size, 1, 1, 3))
        pictures = np.clip(images / 255.0 * gain, 0.0, 1.0).astype(np.float32)
        return pictures, pictures


class HeadTrainer:
    """An autoencoder and its critic, trained in turn.

    The critic enters after `WARM_ROUNDS` rounds, once there is something to criticise.
    """

    WARM_ROUNDS = 4
    CRITIC_WEIGHT = 0.05

    def __init__(self, plan: HeadPlan, options: GeneratorFitOptions) -> None:
        keras.utils.set_random_seed(options.seed)
        self.model = build_head_model(plan)
        self._critic = build_critic()
        self._joined = self._join()
        # A model of its own, so that what is saved holds no state of the optimizer.
        self._alone = keras.Model(self.model.input, self.model.output)
        self._compile(self._alone, _reconstruction_loss, options.learning_rate)
        self._compile(self._critic, _hinge, options.learning_rate / 4)
        self._compile(
            self._joined,
            [_reconstruction_loss, _fooling_loss],
            options.learning_rate,
            loss_weights=[1.0, self.CRITIC_WEIGHT],
        )

    def _join(self) -> keras.Model:
        patch = keras.Input((PATCH_SIDE, PATCH_SIDE, 3))
        painted = self.model(patch)
        frozen = keras.models.clone_model(self._critic)
        frozen.trainable = False
        self._frozen = frozen
        return keras.Model(patch, [painted, frozen(painted)])

    @staticmethod
    def _compile(model: keras.Model, loss: Any, rate: float, **options: Any) -> None:  # noqa: ANN401
        optimizer = keras.optimizers.Adam(rate, beta_1=0.7, beta_2=0.99, clipnorm=1.0)
        model.compile(optimizer=optimizer, loss=loss, jit_compile=False, **options)

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the autoencoder, and a quarter of it for the critic."""
        self._alone.optimizer.learning_rate = rate
        self._joined.optimizer.learning_rate = rate
        self._critic.optimizer.learning_rate = rate / 4

    def train(self, batches: HeadBatches, number: int) -> float:
        """Trains on the batches of a round; returns the loss of reconstruction."""
        if number < self.WARM_ROUNDS:
            return float(self._alone.fit(batches, epochs=1, verbose=0).history["loss"][0])
        self._joined.reset_metrics()  # Keras averages losses from one call to the next
        loss = 0.0
        for index in range(len(batches)):
            pictures, _ = batches[index]
            half = len(pictures) // 2
            painted = ops.convert_to_numpy(self.model(pictures[:half], training=False))
            shown = np.concatenate([painted, pictures[half:]])
            signs = np.repeat(np.array([-1.0, 1.0], np.float32), [half, len(pictures) - half])
            grid = int(self._critic.output_shape[1])
            truth = np.broadcast_to(signs[:, None, None, None], (len(shown), grid, grid, 1))
            self._critic.train_on_batch(shown, truth)
            self._frozen.set_weights(self._critic.get_weights())
            result = self._joined.train_on_batch(pictures, [pictures, truth[: len(pictures)]])
            loss = float(np.ravel(result)[1])
        return loss


def _reconstruction_loss(truth: Any, painted: Any) -> Any:  # noqa: ANN401
    ones = ops.ones_like(truth[..., :1])
    return painting_loss(ops.concatenate([truth, ones], axis=-1), painted)


def _hinge(signs: Any, logits: Any) -> Any:  # noqa: ANN401
    return ops.mean(ops.relu(1.0 - signs * logits))


def _fooling_loss(_: Any, logits: Any) -> Any:  # noqa: ANN401
    return -ops.mean(logits)


def fit_heads(
    store: CropStore,
    out: Path,
    plan: HeadPlan,
    options: GeneratorFitOptions | None = None,
    *,
    on_round: OnRound = lambda share, loss: None,
) -> FitState:
    """Fits one autoencoder of whole heads; an interrupted fit is resumed.

    Writes `model.weights.h5` and `fit.json` into `out`/heads/PLAN.

    Raises:
        UsageError: When the store holds no real crop marked train.
    """
    options = options or GeneratorFitOptions()
    folder = out / HEADS_FOLDER / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    heads = collect_heads(store, seed=options.seed)
    trainer = HeadTrainer(plan, options)
    rounds = {"number": 0}

    def batches(number: int) -> HeadBatches:
        rounds["number"] = number
        return HeadBatches(heads, options, number)

    return run_fit(
        trainer.model,
        batches,
        lambda drawn: trainer.train(drawn, rounds["number"]),
        set_rate=trainer.set_rate,
        folder=folder,
        options=options,
        on_round=on_round,
    )


def load_head(folder: Path, plan: HeadPlan) -> keras.Model:
    """Loads a fitted autoencoder of whole heads.

    Raises:
        UsageError: When there is none in the folder.
    """
    weights = folder / HEADS_FOLDER / plan.name / "model.weights.h5"
    model = build_head_model(plan)
    try:
        model.load_weights(weights)
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise UsageError(f"{weights}: cannot be loaded: {cause}: fit again") from error
    return model
